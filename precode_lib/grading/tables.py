"""Tables of marks: CSV for programs, a spreadsheet for people, JSON.

Texts of strangers are texts in all of them. No cell is a formula, however a program
divides the CSV; in the spreadsheet each text is stored as one.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, fields

from .marks import Marked, Row, by_student, counted, passed_over, solved
from .names import alphabetical, printable

LONGEST = 15_000  # characters of a cell; spreadsheets take 32,767 of 16 bits
# What begins a formula, in some spreadsheet or locale; also full-width and raised.
_SIGNS = "=+\\-@|%" + "＝＋－＠｜％﹦﹢﹣﹫﹪⁼⁺⁻₌₊₋−"
# At the beginning, or where a program divides at semicolons, tabs or bars; blanks and
# quotation marks in between may be taken away.
_FORMULA = re.compile(
    rf"(^|[;\t|])([\s\"'\u200b-\u200d\ufe00-\ufe0f\ufffd]*)(?=[{_SIGNS}])"
)


def marks_rows(marked: Sequence[Marked]) -> tuple[list[str], list[list]]:
    """The heads, and one line per hand-in and exercise."""
    heads = [*(field.name for field in fields(Row)), "counts"]
    return heads, [[*record.values()] for record in _records(marked)]


def _records(marked: Sequence[Marked]) -> list[dict]:
    """All rows; `counts` is "no" where the student has a later file."""
    not_counted = passed_over(marked)
    return [
        {**asdict(row), "counts": "no" if one.hand_in.path in not_counted else "yes"}
        for one in marked
        for row in one.rows
    ]


def summary_rows(marked: Sequence[Marked]) -> tuple[list[str], list[list]]:
    """The heads, and one line per student: of each notebook how many are right.

    `stopped` counts those of which nothing is known, and which a person should look at.
    """
    stems = sorted({one.hand_in.clean.stem for one in marked if one.hand_in.clean})
    lines = []
    for theirs in by_student(counted(marked)).values():
        pairs = {
            one.hand_in.clean.stem: solved(one) for one in theirs if one.hand_in.clean
        }
        cells = [f"{pairs[s][0]} of {pairs[s][1]}" if s in pairs else "" for s in stems]
        total = [sum(part) for part in zip((0, 0), *pairs.values(), strict=True)]
        rows = [row for one in theirs for row in one.rows]
        stopped = sum(row.state == "stopped" for row in rows)
        lines.append([theirs[0].hand_in.student, *cells, *total, stopped])
    lines.sort(key=lambda line: alphabetical(line[0]))
    return ["student", *stems, "solved", "total", "stopped"], lines


def marks_csv(marked: Sequence[Marked]) -> str:
    """One line per hand-in and exercise."""
    return _csv(*marks_rows(marked))


def summary_csv(marked: Sequence[Marked]) -> str:
    """One line per student."""
    return _csv(*summary_rows(marked))


def _csv(heads: Sequence[str], lines: Sequence[Sequence]) -> str:
    file = io.StringIO()
    # \r\n is CSV's own; quoting everything leaves a spreadsheet least to guess.
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(heads)
    writer.writerows([[harmless(value) for value in line] for line in lines])
    return file.getvalue()


def harmless(value: object) -> object:
    """A value that no spreadsheet takes for a formula, in one line."""
    if not isinstance(value, str):
        return value
    return _FORMULA.sub(r"\1\2'", _in_one_line(value))


def _in_one_line(text: str) -> str:
    return printable(" / ".join(text.split("\n")))


def spreadsheet(marked: Sequence[Marked]) -> bytes:
    """The same two tables as the sheets `marks` and `summary` of an xlsx file."""
    file = io.BytesIO()
    # Never by what a text looks like: each cell is written as what it is.
    with _xlsxwriter().Workbook(file, {"in_memory": True}) as book:
        bold = book.add_format({"bold": True})
        for name, rows in (("marks", marks_rows), ("summary", summary_rows)):
            sheet = book.add_worksheet(name)
            sheet.freeze_panes(1, 1)
            heads, lines = rows(marked)
            for column, head in enumerate(heads):
                sheet.write_string(0, column, head, bold)
            for number, line in enumerate(lines, 1):
                for column, value in enumerate(line):
                    if isinstance(value, str):
                        sheet.write_string(number, column, _cell(value))
                    else:
                        sheet.write_number(number, column, value)
            sheet.set_column(0, 0, 24)
    return file.getvalue()


def _cell(text: str) -> str:
    text = "\n".join(map(printable, text.split("\n")))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _xlsxwriter():
    try:
        import xlsxwriter
    except ModuleNotFoundError as problem:
        raise ValueError(
            "the table for spreadsheets needs XlsxWriter: "
            "pip install 'precode-lib[classroom]'."
        ) from problem
    return xlsxwriter


def as_json(marked: Sequence[Marked]) -> str:
    """All rows as JSON."""
    return json.dumps(_records(marked), indent=1)
