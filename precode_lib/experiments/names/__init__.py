"""What the names in a cell stand for: a registry each, open to names of one's own.

Importing these files loads no torch: what needs it is imported where it is made.
"""
