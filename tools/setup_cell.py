"""Give every notebook of the book the same first code cell, which sets it up.

    python tools/setup_cell.py            # insert it, or bring it up to date
    python tools/setup_cell.py --check    # change nothing; fail if one differs

On Colab the cell fetches the repository and installs the library. Where the library is
there already (a laptop, Binder) it does nothing. Everything else in a notebook is left
byte for byte as it is.
"""

import argparse
import json
from pathlib import Path

from address import ROOT, read

CELL_ID = "set-up"
CODE = """\
# Only where the library is missing, as on Colab: fetch and install it.
import importlib.util
import sys

if importlib.util.find_spec("precode_lib") is None:
    address = "{address}"
    !git clone --quiet --depth 1 {{address}} book-source
    %pip install --quiet --editable book-source
    sys.path.insert(0, "book-source")"""


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook under book/."""
    paths = sorted((root / "book").rglob("*.ipynb"))
    return [path for path in paths if ".ipynb_checkpoints" not in path.parts]


def set_up_cell(address: str) -> dict:
    """The cell, in the order of keys that Jupyter writes."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": CELL_ID,
        "metadata": {"tags": ["hide-cell", "set-up"]},
        "outputs": [],
        "source": CODE.format(address=address).splitlines(keepends=True),
    }


def with_set_up(text: str, address: str) -> str:
    """The notebook's text with the set-up cell before its first other code cell."""
    notebook = json.loads(text)
    style = _style(notebook, text)
    cells = [cell for cell in notebook["cells"] if cell.get("id") != CELL_ID]
    codes = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
    if not codes:
        return text  # nothing to run, nothing to set up
    cells.insert(codes[0], set_up_cell(address))
    return _write({**notebook, "cells": cells}, *style)


def _style(notebook: dict, text: str) -> tuple[bool, str]:
    for ascii_only in (False, True):
        for end in ("\n", ""):
            if _write(notebook, ascii_only, end) == text:
                return ascii_only, end
    raise ValueError("not as Jupyter writes notebooks; open and save it there first.")


def _write(notebook: dict, ascii_only: bool, end: str) -> str:
    return json.dumps(notebook, indent=1, ensure_ascii=ascii_only) + end


def drifted(root: Path = ROOT) -> dict[Path, str]:
    """The notebooks whose set-up cell is missing or old, with the text they need."""
    address, wanted = read(root), {}
    for path in notebooks(root):
        # bytes and not read_text: leave the ends of lines alone
        text = path.read_bytes().decode("utf-8")
        try:
            needed = with_set_up(text, address)
        except ValueError as error:
            raise ValueError(f"{path.relative_to(root)}: {error}") from error
        if needed != text:
            wanted[path] = needed
    return wanted


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Insert the cell, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(arguments).check
    wanted = drifted(root)
    for path, text in wanted.items():
        if not check:
            path.write_bytes(text.encode("utf-8"))
        print(f"{'differs' if check else 'written'}: {path.relative_to(root)}")
    print(f"{len(wanted)} of {len(notebooks(root))} notebooks")
    return int(check and bool(wanted))


if __name__ == "__main__":
    raise SystemExit(main())
