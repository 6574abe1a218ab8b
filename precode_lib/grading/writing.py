"""The files of marks: tables, a page, and a text for each student."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from precode_lib.basics.files import atomic_file

from . import report
from .marks import Marked
from .tables import as_json, marks_csv, spreadsheet, summary_csv

OFTEN = 5  # seconds between two times that they are written


class Files:
    """The files of a class, written as long as something comes.

    Args:
        out: the folder.
        how: sentences on how the hand-ins were run.
        remarks: sentences on what the folder of hand-ins holds besides.
    """

    def __init__(self, out: Path, how: str, remarks: Sequence[str]):
        self.out, self.how, self.remarks = out, how, remarks
        self.after = time.monotonic() + OFTEN

    def now_and_then(self, marked: Mapping[int, Marked]) -> None:
        """Write what is known, unless it was done a moment ago."""
        began = time.monotonic()
        if began > self.after:
            self.write(marked, is_whole=False)
            ended = time.monotonic()
            # A large class takes long to write: never more than a tenth of the time.
            self.after = ended + max(OFTEN, 10 * (ended - began))

    def write(self, marked: Mapping[int, Marked], *, is_whole: bool) -> None:
        """Write what is known, each file whole; the students' texts at the end."""
        known = [marked[number] for number in sorted(marked)]
        if not known:
            return  # what an earlier call has written is more
        how = self.how if is_whole else f"Not all are marked yet. {self.how}"
        page = report.page(known, how=how, others=self.remarks)
        # A byte order mark, without which spreadsheets take UTF-8 for something else.
        files = {
            "marks.csv": marks_csv(known).encode("utf-8-sig"),
            "summary.csv": summary_csv(known).encode("utf-8-sig"),
            "marks.xlsx": spreadsheet(known),
            "report.html": page.encode(),
        }
        if is_whole:
            for name, text in report.feedback(known).items():
                files[f"feedback/{name}"] = text.encode()
        for name, data in files.items():
            with atomic_file(self.out / name) as partial:
                partial.write_bytes(data)
        if is_whole:
            _sweep(self.out)


def _sweep(out: Path) -> None:
    """Remove what a call that was killed left half written, an hour later."""
    for path in out.rglob(".partial-*"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - 3600:
                path.unlink()


def rehearse(marked: Marked) -> None:
    """Write all that there will be of a hand-in, to nowhere; raises as it would."""
    texts = [marks_csv([marked]), summary_csv([marked]), as_json([marked])]
    texts += [report.page([marked], how=""), *report.feedback([marked]).values()]
    for text in texts:
        text.encode()
