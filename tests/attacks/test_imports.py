"""Attacks need torch and nothing else: they run wherever a model runs."""

import re
import subprocess
import sys


def imported_by(statement):
    """Top-level packages that Python's own import timer saw."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        capture_output=True,
        text=True,
        check=True,
    )
    names = re.findall(r"^import time:.*\|\s*(\S+)$", done.stderr, re.MULTILINE)
    return {name.split(".")[0] for name in names}


def test_attacks_import_torch_only():
    attacks = "from precode_lib.attacks import closed_form, labels, recipes"
    mine = imported_by(attacks) - imported_by("import torch, torch.func")
    assert "precode_lib" in mine
    assert mine <= {"precode_lib"} | set(sys.stdlib_module_names)
