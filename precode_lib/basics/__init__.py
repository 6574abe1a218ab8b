"""What every room stands on: arguments are checked, files are written whole.

Take names from the files themselves. This page loads none of them, so that who writes
a file need not wait for torch.
"""
