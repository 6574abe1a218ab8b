"""Where the built book is, and which pages it has."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Somebody else may have built it, in another way: see tools/plain_sphinx.py.
BUILT = os.environ.get("PRECODE_SITE")
SITE = Path(BUILT) if BUILT else ROOT / "_build" / "html"


def documents() -> list[str]:
    """Every page of the table of contents, such as book/welcome."""
    text = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    found = re.findall(r"^\W*(?:root|file): (\S+)", text, flags=re.MULTILINE)
    assert len(found) > 1
    return found
