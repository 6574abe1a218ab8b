"""What every room stands on: arguments checked, files whole, runs that resume.

Take names from the files themselves. This page loads none of them, so that who writes
a file need not wait for torch.
"""
