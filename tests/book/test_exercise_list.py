"""The lists of exercises say what the notebooks say, and lead to the right place."""

import re
import subprocess
import sys

import nbformat
import pytest
from book_site import ROOT, documents

PARTS = ("leak", "blur", "precode", "beyond")
CONF = """
import sys
sys.path.insert(0, {extensions!r})
extensions = ["myst_nb", "exercise_list"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
"""
INDEX = """# Book
```{toctree}
:numbered:
book/leak/two
book/leak/one
```
```{toctree}
book/exercises/index
```
"""
ALL = """# All
```{exercise-table}
```
```{toctree}
two
one
```
"""


def exercise_notebook(stem: str, *titles: str, minutes: int = 10):
    """A student's notebook with one easy exercise for each title."""
    cells = [nbformat.v4.new_markdown_cell(f"# Exercises: {stem}")]
    for number, title in enumerate(titles, start=1):
        head = f"## {number}. {title}\n\n*By hand · easy · {minutes} minutes*\n\nDo."
        cells += [
            nbformat.v4.new_markdown_cell(head),
            nbformat.v4.new_code_cell(f"# Answer: {stem}{number}\nx = TODO"),
            nbformat.v4.new_code_cell(f"# Check: {stem}{number}\nx"),
        ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
        "precode": {"chapter": f"book/leak/{stem}"},
    }
    return notebook


@pytest.fixture
def book(tmp_path):
    """The sources of a tiny book of two chapters with exercises."""
    book = tmp_path / "sources"
    for folder in ("leak", "exercises"):
        (book / "book" / folder).mkdir(parents=True)
    conf = CONF.format(extensions=str(ROOT / "book" / "_ext"))
    (book / "conf.py").write_text(conf)
    (book / "index.md").write_text(INDEX)
    (book / "book/exercises/index.md").write_text(ALL)
    for stem in ("one", "two"):
        text = f"# Chapter {stem}\n```{{exercise-list}} {stem}\n```\n"
        (book / f"book/leak/{stem}.md").write_text(text)
        path = book / f"book/exercises/{stem}.ipynb"
        nbformat.write(exercise_notebook(stem, "A sum", "A $w$"), path)
    return book


def build(book) -> str:
    """Build it, and return what Sphinx complained about."""
    command = [sys.executable, "-m", "sphinx", "-q", book, book.parent / "html"]
    return subprocess.run(command, capture_output=True, text=True).stderr


def html(book, page: str) -> str:
    return (book.parent / "html" / "book" / f"{page}.html").read_text(encoding="utf-8")


def words(markup: str) -> str:
    return re.sub(r"<[^>]+>", "", markup).strip().rstrip("#\uf0c1¶")


def rows(page: str) -> list[list[str]]:
    """The texts of all tables' cells, row by row, without the heads."""
    found = re.findall(r"<tr.*?</tr>", page, flags=re.DOTALL)
    cells = [re.findall(r"<td.*?</td>", row, flags=re.DOTALL) for row in found]
    return [list(map(words, row)) for row in cells if row]


@pytest.mark.slow
def test_a_chapter_lists_its_exercises_and_links_each(book):
    assert build(book) == ""
    page = html(book, "leak/one")
    assert rows(page) == [
        ["1. A sum", "By hand", "easy", "10"],
        ["2. A \\(w\\)", "By hand", "easy", "10"],
    ]
    notebook = html(book, "exercises/one")
    headings = re.findall(r'<section id="([\w-]+)">\s*<h2', notebook)
    links = re.findall(r'<td><p><a [^>]*href="../exercises/one.html#([\w-]+)"', page)
    assert len(headings) == 2
    assert links == headings


@pytest.mark.slow
def test_the_index_has_all_in_the_order_of_the_contents_with_totals(book):
    assert build(book) == ""
    page = html(book, "exercises/index")
    assert "4 exercises in 2 notebooks, about 1 hours of work." in page
    captions = re.findall(r"<caption>.*?</caption>", page)
    assert list(map(words, captions)) == [
        "1. Chapter two: about 20 minutes",
        "2. Chapter one: about 20 minutes",
    ]
    assert len(rows(page)) == 4


@pytest.mark.slow
def test_pages_follow_a_notebook_that_changes(book):
    assert build(book) == ""
    changed = exercise_notebook("one", "Another", minutes=25)
    nbformat.write(changed, book / "book/exercises/one.ipynb")
    assert build(book) == ""
    assert rows(html(book, "leak/one")) == [["1. Another", "By hand", "easy", "25"]]
    assert "Chapter one</a>: about 25 minutes" in html(book, "exercises/index")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        (None, "[Errno 2]"),
        ([nbformat.v4.new_markdown_cell("## A")], "'## A': expected"),
    ],
)
def test_a_missing_or_malformed_notebook_is_an_error_of_its_chapter(
    book, cells, complaint
):
    path = book / "book/exercises/one.ipynb"
    notebook = exercise_notebook("one")
    notebook.cells = cells
    path.unlink() if cells is None else nbformat.write(notebook, path)
    said = build(book)
    assert f"exercises of 'one': {complaint}" in said
    assert "leak/one.md" in said


@pytest.mark.slow
def test_exercises_that_are_no_page_of_the_book_are_reported(book):
    index = book / "book/exercises/index.md"
    index.write_text(index.read_text().replace("one\n", ""))
    with (book / "conf.py").open("a") as conf:
        conf.write("exclude_patterns = ['book/exercises/one.ipynb']\n")
    said = build(book)
    assert "book/exercises/one has exercises but is not in _toc.yml" in said


def test_the_contents_list_every_exercise_notebook_in_the_order_of_the_chapters():
    there = {path.stem for path in (ROOT / "book" / "exercises").glob("*.ipynb")}
    pages = [document.split("/") for document in documents()]
    chapters = [page[2] for page in pages if page[1] in PARTS]
    listed = [page[2] for page in pages if page[1] == "exercises"]
    assert there <= set(chapters)
    assert listed == ["index", *(stem for stem in chapters if stem in there)]


def test_solutions_are_no_pages():
    assert [document for document in documents() if "solutions" in document] == []
