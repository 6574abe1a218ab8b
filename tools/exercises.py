"""Write the students' notebooks from the solved ones.

    python tools/exercises.py            # write book/exercises from book/solutions
    python tools/exercises.py --check    # change nothing; fail if one differs

A notebook in book/solutions is the only source of its exercises; see
precode_lib/marking/notebooks.py for how it is written.
"""

import argparse
import json
from pathlib import Path

from address import ROOT

from precode_lib.marking.notebooks import source, student

SOLVED, STUDENTS = Path("book", "solutions"), Path("book", "exercises")


def copies(root: Path = ROOT) -> dict[Path, str]:
    """Every student's notebook, by path, as it should be."""
    wanted = {}
    for path in sorted((root / SOLVED).glob("*.ipynb")):
        try:
            notebook = student(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path.relative_to(root)}: {error}") from error
        wanted[root / STUDENTS / path.name] = written(notebook)
    return wanted


def written(notebook: dict) -> str:
    """The text of a notebook's file, as Jupyter writes it."""
    for cell in notebook["cells"]:
        cell["source"] = source(cell).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def drifted(root: Path = ROOT) -> dict[Path, str | None]:
    """What has to be written, and (None) which notebook has no source any more."""
    wanted = copies(root)
    there = set((root / STUDENTS).glob("*.ipynb"))
    changes: dict[Path, str | None] = dict.fromkeys(sorted(there - set(wanted)))
    for path, text in wanted.items():
        # bytes: the ends of lines count, too
        if path not in there or path.read_bytes() != text.encode("utf-8"):
            changes[path] = text
    return changes


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write the students' notebooks, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(arguments).check
    changes = drifted(root)
    for path, text in changes.items():
        name = path.relative_to(root)
        if check:
            print(f"differs: {name}")
        elif text is None:
            path.unlink()
            print(f"removed: {name}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("utf-8"))
            print(f"written: {name}")
    print(f"{len(copies(root))} notebooks")
    return int(check and bool(changes))


if __name__ == "__main__":
    raise SystemExit(main())
