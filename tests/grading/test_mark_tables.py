"""Tables in which a stranger's text is never a formula, whatever opens them."""

import csv
import io
import re
import sys
import zipfile
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hand_ins import CHAPTER, handed_in
from hypothesis import given
from hypothesis import strategies as st

from precode_lib import cli
from precode_lib.grading import collecting, marks, tables
from precode_lib.grading.running import Run

SIGNS = ("=", "+", "-", "@", "|", "%", "＝", "＋", "－", "＠", "−")
FORMULAS = [
    *(f"{sign}1+1" for sign in SIGNS),
    *("\t=1", "  =1", "\n=1", "\r@1", '"=1"', "\u200d=1", "'=1"),
    *("x;=cmd|' /C calc'!A0;y", "x; =1+1;y", 'x;"=1+1";y', 'x;""=1', "x\t=1", "x\n;=1"),
    *(";=1", "x;;=1", "x;\n=1", "a;＝1+1", "a|=1", "x;'=1"),
]


@pytest.fixture(scope="module")
def hand_in():
    return handed_in()


def marked_as(hand_in, text):
    """A hand-in with the text wherever a stranger can write it."""
    named = replace(hand_in, student=text, owner=text, file=f"{text}.ipynb")
    return marks.unmarked(named, text)


def cells_of(text: str, separator: str) -> list[str]:
    """All cells but the heads, as a program that divides there would see them."""
    lines = [*csv.reader(io.StringIO(text), delimiter=separator)]
    return [cell for line in lines[1:] for cell in line]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_no_cell_is_a_formula_whatever_divides_the_lines(hand_in, text, separator):
    marked = [marked_as(hand_in, text)]
    begins = re.compile(rf"[\s\"'\u200b-\u200d]*[{re.escape(''.join(SIGNS))}]")
    for table in (tables.marks_csv(marked), tables.summary_csv(marked)):
        found = cells_of(table, separator)
        assert found
        for cell in found:
            # A single quotation mark before the sign makes it text.
            assert not begins.match(cell) or re.match(r"[\s\"'\ufffd\u200d]*'", cell)


@given(st.text("=+-@;\t\n\"' x,|\u200d＝", max_size=12))
def test_no_text_becomes_a_formula_in_any_cell(text):
    table = tables._csv(["a", "b"], [["1", text], [text, "2"]])
    for separator in (",", ";", "\t"):
        for cell in cells_of(table, separator):
            assert not re.match(r"[\s\"\u200d]*[=+\-@＝]", cell), (text, cell)


def test_honest_text_is_not_touched():
    for text in ("anna", "a - b", "got [0.5, -0.25]; 3 of 5", "x = 1", "50%", "a|b"):
        assert tables.harmless(text) == text
    assert tables.harmless(-3) == -3


def test_persian_names_and_emoji_are_whole_in_every_table(hand_in):
    for name in ("علی\u200cرضا", "👩\u200d👩\u200d👧"):
        marked = [marked_as(hand_in, name)]
        assert name in tables.marks_csv(marked)
        assert name in tables.summary_csv(marked)
        assert name in strings_of(tables.spreadsheet(marked))


NAME = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def strings_of(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        root = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
    return ["".join(t.text or "" for t in i.iter(f"{NAME}t")) for i in root]


def sheets_of(data: bytes) -> dict[str, list[list]]:
    """The sheets of a spreadsheet, read without the library that wrote it."""
    shared = strings_of(data)
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        names = [
            sheet.get("name")
            for sheet in ElementTree.fromstring(book.read("xl/workbook.xml")).iter(
                f"{NAME}sheet"
            )
        ]
        sheets = {}
        for number, name in enumerate(names, 1):
            root = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml"))
            assert [*root.iter(f"{NAME}f"), *root.iter(f"{NAME}hyperlink")] == []
            sheets[name] = [
                [
                    shared[int(cell[0].text)]
                    if cell.get("t") == "s"
                    else float(cell[0].text)
                    for cell in row
                ]
                for row in root.iter(f"{NAME}row")
            ]
    return sheets


@pytest.mark.parametrize(
    "text", [*FORMULAS, "http://x.y", "{=1}", "007", "_x0041_", "x" * 60_000], ids=ascii
)
def test_in_the_spreadsheet_text_stays_text(hand_in, text):
    data = tables.spreadsheet([marked_as(hand_in, text)])
    sheets = sheets_of(data)
    assert [*sheets] == ["marks", "summary"]
    assert [row[0] for row in sheets["marks"]] == ["student", *[shown(text)] * 5]
    heads = ["student", CHAPTER, "solved", "total", "stopped"]
    assert sheets["summary"] == [heads, [shown(text), "0 of 5", 0, 5, 5]]


@given(st.text(st.characters(), max_size=8))
def test_any_text_at_all_can_be_written(text):
    one = unread(text)
    assert len(sheets_of(tables.spreadsheet([one]))["marks"]) == 2


def unread(text):
    hand_in = collecting.HandIn(text, text, None, None, text, 1.0, "0", "a", "a")
    return marks.unmarked(hand_in, text)


def shown(text):
    text = re.sub(r"[\t\r]", "\ufffd", text)
    # So the format writes what would otherwise be the sign with that number.
    text = text.replace("_x0041_", "_x005F_x0041_")
    return text if len(text) < 20_000 else f"{text[:15_000]}…"


def test_both_kinds_of_tables_say_the_same(hand_in):
    marked = [marks.mark(hand_in, Run()), marked_as(hand_in, "ben")]
    sheets = sheets_of(tables.spreadsheet(marked))
    for name, text in (
        ("marks", tables.marks_csv(marked)),
        ("summary", tables.summary_csv(marked)),
    ):
        lines = [*csv.reader(io.StringIO(text))]
        as_text = [
            [f"{c:g}" if type(c) is float else c for c in r] for r in sheets[name]
        ]
        assert as_text == lines


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    (tmp_path / "a_labels.ipynb").write_text("{}")
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    monkeypatch.setattr("precode_lib.grading.sandbox.bwrap_problem", lambda: "")
    assert cli.main(["grade", str(tmp_path), "--quiet"]) == cli.MISUSED
    assert "pip install 'precode-lib[classroom]'" in capsys.readouterr().err
