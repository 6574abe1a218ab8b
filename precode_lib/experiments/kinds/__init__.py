"""The kinds of cell: a file each, which holds all there is to know about it.

Every file here is imported and its `KIND` made known. What a kind does when it is run
lies in `runs`, because it needs torch; reading results does not.
"""

from importlib import import_module
from pkgutil import iter_modules

from precode_lib.experiments.cells import add_kind

for _file in iter_modules(__path__):
    add_kind(import_module(f"{__name__}.{_file.name}").KIND)
