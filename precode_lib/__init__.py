"""Gradient leakage: pictures, models, PRECODE, attacks, and how to score them.

Importing the package loads nothing heavy. Take names from the room they live in, for
example `from precode_lib.bottleneck import with_precode`.
"""

__version__ = "0.1.0"
