"""From findings to marks, tables and pages, with hostile text everywhere."""

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hand_ins import CHAPTER, NAMES, RIGHT, handed_in, notebook

from precode_lib.grading import assembly, marks, report, room, store, tables
from precode_lib.grading.endings import OF_THE_MACHINE
from precode_lib.grading.limits import Limits
from precode_lib.grading.running import Run
from precode_lib.marking import HANDED_IN

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\x1b[31m\u202e\x00"


LATE = "Timeout of 100 seconds exceeded executing cell"


def cell(error="", how="", seconds=100.2):
    how = how or ("raised" if error else "well")
    return {"error": error, "seconds": seconds, "how": how}


@pytest.fixture(scope="module")
def clean():
    return assembly.clean_notebooks(room.book_exercises())[CHAPTER]


@pytest.fixture
def one():
    return handed_in()


def finding(name, state, message="m", asked=1, text="", code="judged"):
    full = f"{CHAPTER}.{name}"
    found = {"state": state, "message": message, "asked": asked, "text": text}
    found["code"] = code
    return {full: {"name": full, **found}}


def states(hand_in, run):
    return {row.exercise: row.state for row in marks.mark(hand_in, run).rows}


def row_of(hand_in, run, name):
    (row,) = [r for r in marks.mark(hand_in, run).rows if r.exercise == name]
    return row


def cell_of(hand_in, name):
    """The number of the answer's cell."""
    return hand_in.assembled.exercise_of.index(name)


def test_only_the_examiner_makes_a_mark_right(one):
    said = {i: cell(seconds=1.0) for i in range(20)}
    run = Run(findings=finding("label", "right"), cells=said)
    assert states(one, run) == dict.fromkeys(NAMES, "raised") | {"label": "right"}


def test_an_answer_cell_that_was_not_handed_in_is_missing(one, clean):
    found = notebook()
    found["cells"] = [
        c for c in found["cells"] if "# Answer: label" not in "".join(c["source"])
    ]
    less = replace(one, assembled=assembly.assemble(found, clean))
    run = Run(findings=finding("label", "unanswered"))
    assert states(less, run)["label"] == "missing"
    assert states(less, Run(stopped="why"))["label"] == "missing"
    assert states(one, run)["label"] == "unanswered"


@pytest.mark.parametrize(
    ("ended", "stopped", "state", "words"),
    [
        (cell("SyntaxError: invalid"), "", "raised", "stopped with SyntaxError"),
        (cell(LATE, "late"), "", "stopped", "Timeout of 100"),
        (cell("gone", "died"), "", "stopped", "process ended"),
        (cell("it printed more than 50 MB", "flood"), "", "stopped", "printed more"),
        (cell(), "it took more", "stopped", "it took more"),
    ],
)
def test_why_nobody_was_asked_is_said(one, ended, stopped, state, words):
    cells = {cell_of(one, "label"): ended}
    row = row_of(one, Run(cells=cells, stopped=stopped), "label")
    assert (row.state, words in row.message) == (state, True)


def test_a_given_cell_that_was_stopped_is_not_the_students_error(one):
    imports = [*one.assembled.exercise_of].index("")
    assert imports < cell_of(one, "label")
    unknown = cell("NameError: name 'check' is not defined")
    cells = {cell_of(one, "label") + 1: unknown}
    assert row_of(one, Run(cells=cells), "label").state == "raised"
    cells[imports] = cell(LATE, "late")
    row = row_of(one, Run(cells=cells), "label")
    assert row.state == "stopped"
    assert row.message.startswith("a given cell before it did not end: its cell was")


def test_what_ended_the_process_is_said_of_all_that_come_after(one):
    first, later = cell_of(one, "by_hand"), cell_of(one, "label")
    dead = cell("RuntimeError: it is dead", "died")
    cells = {first: cell(LATE, "late"), later: dead}
    row = row_of(one, Run(cells=cells), "label")
    assert (row.state, LATE in row.message) == ("stopped", True)
    assert row.message.startswith("the notebook's process ended here or before: T")


def test_a_function_that_never_returns_was_stopped_and_raised_nothing(one):
    gone = finding("label", "raised", "nothing.", code="nothing_came")
    check = cell_of(one, "label") + 1
    slow = {check: cell(LATE, "late")}
    row = row_of(one, Run(findings=gone, cells=slow), "label")
    assert (row.state, row.seconds) == ("stopped", 100)
    assert row.message == f"its cell was stopped: {LATE}"
    assert states(one, Run(findings=gone))["label"] == "raised"
    # An error of its own stays one, whatever else was slow.
    raised = finding("label", "raised", "your function stopped with KeyError: 1.")
    assert states(one, Run(findings=raised, cells=slow))["label"] == "raised"


def test_words_outside_the_answer_cell_reach_the_lecturer(one, clean):
    found = notebook({**RIGHT, "two_photographs": 'text = """TODO"""'})
    words = "A row is a mean of the two. <b>Or not.</b>"
    found["cells"].append({"cell_type": "markdown", "metadata": {}, "source": words})
    beside = replace(one, assembled=assembly.assemble(found, clean))
    run = Run(findings=finding("two_photographs", "unanswered", text="TODO"))
    marked = marks.mark(beside, run)
    assert marked.rows[-1].state == "unanswered"
    assert marked.texts == {"two_photographs": words}
    (remark,) = report.remarks([marked])
    assert remark == "Text outside its answer cell: anna/x.ipynb"
    assert "&lt;b&gt;Or not." in report.page([marked], how="x")
    # Nothing of that where the cell is answered, or nothing was added.
    run = Run(findings=finding("two_photographs", "right", text="why"))
    assert marks.mark(beside, run).texts == {"two_photographs": "why"}
    assert one.assembled.words == []


def test_a_judgement_cut_short_by_a_stop_is_stopped(one):
    run = Run(findings=finding("label", "raised", code="cut_short"), stopped="long")
    assert states(one, run)["label"] == "stopped"


def test_what_cannot_be_read_has_a_row_for_each_exercise_that_is_known(one):
    broken = replace(one, assembled=None, problem="no JSON")
    assert states(broken, None) == dict.fromkeys(NAMES, "stopped")
    assert states(replace(broken, clean=None), None) == {"": "stopped"}


def test_of_two_files_of_a_student_the_later_counts(one):
    old = marks.mark(one, Run(findings=finding("label", "right")))
    later = replace(one, file="anna/y.ipynb", path="anna/y.ipynb", changed=2.0)
    new = marks.mark(later, Run())
    assert marks.counted([new, old]) == [new]
    assert '"anna","0 of 5","0","5","0"' in tables.summary_csv([old, new])
    rows = [*csv.DictReader(io.StringIO(tables.marks_csv([old, new])))]
    assert [row["counts"] for row in rows] == ["no"] * 5 + ["yes"] * 5
    (remark,) = report.remarks([old, new])
    assert remark.startswith("Does not count: anna/x.ipynb;")
    assert "; does not count" in report.page([old, new], how="x")


def evil(one, clean):
    """A hand-in with hostile text in every place there is."""
    hand_in = replace(one, student=f"=cmd()|{EVIL}", file=f"+{EVIL}.ipynb")
    findings = {
        **finding("label", "wrong", f"=HYPERLINK(1)\n{EVIL}", asked=7),
        **finding("two_photographs", "right", "correct.", text=f"-2+3 {EVIL}"),
    }
    cells = {cell_of(one, "by_hand"): cell(EVIL, seconds=0.5)}
    return marks.mark(hand_in, Run(findings=findings, cells=cells, stopped=EVIL))


def test_no_cell_of_a_table_is_a_formula(one, clean):
    marked = [evil(one, clean)]
    for text in (tables.marks_csv(marked), tables.summary_csv(marked)):
        rows = [*csv.reader(io.StringIO(text))]
        assert len(rows) > 1
        for cell in (cell for row in rows[1:] for cell in row):
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "|", "%"))
            assert not re.search(r"[\x00-\x1f\u202e]", cell)
    assert "'=cmd()|" in tables.marks_csv(marked)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "  =", "\n=", "\r@"])
def test_every_beginning_of_a_formula_is_quoted(start):
    assert not re.match(r"\s*[=+\-@]", str(tables.harmless(f"{start}1+1")))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_hostile_text_is_text_on_the_page(one, clean):
    page = report.page([evil(one, clean)], how="x", others=[EVIL])
    tags = Tags()
    tags.feed(page)
    assert not {"script", "img", "a:", "iframe"} & {tag for tag, _ in tags.seen}
    assert "<script>alert(1)</script>" in tags.text  # as text, for the lecturer to see
    for _, attributes in tags.seen:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith("#")
    assert not re.search("[\x00\x1b\u202e]", page)
    assert "default-src 'none'" in page
    assert "Asked 7 times" in tags.text


def test_feedback_is_in_a_file_of_its_own_whatever_a_student_is_called(one):
    names = [
        "anna",
        "../../anna",
        "anna ",
        "Anna Müller",
        "",
        ".",
        "\n",
        "a" * 500,
        "/",
    ]
    files = [*report.file_names(names).values()]
    assert len({*map(str.lower, files)}) == len(files) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.txt", file) for file in files)
    assert max(map(len, files)) < 100
    texts = report.feedback([marks.mark(one, Run(findings=finding("label", "right")))])
    assert "1 of 5 solved." in texts["anna.txt"]


def test_feedback_never_calls_an_answer_right_that_nobody_has_read(one):
    said = f"{HANDED_IN} A good answer mentions x.\nOften misunderstood: y."
    findings = finding("two_photographs", "right", said) | finding("label", "right")
    text = report.feedback([marks.mark(one, Run(findings=findings))])["anna.txt"]
    assert text.startswith("For anna\n")
    assert "2 of 5 solved or handed in." in text
    last = text[text.index("5. ") :]
    assert "handed in, for a person to read\n   A good answer mentions x." in last
    assert "Often misunderstood: y." in last
    assert "correct" not in last


def test_only_the_exercises_that_were_asked_for_count(one):
    run = Run(findings=finding("label", "right") | finding("by_hand", "wrong"))
    only = {f"{CHAPTER}.label", f"{CHAPTER}.by_hand", "labels.by_hand"}
    marked = marks.mark(one, run, only)
    assert [row.exercise for row in marked.rows] == ["by_hand", "label"]
    assert '"anna","1 of 2","1","2","0"' in tables.summary_csv([marked])
    text = report.feedback([marked])["anna.txt"]
    assert "1 of 2 solved." in text
    assert "3. The label: solved" in text


def test_students_are_in_the_order_of_the_alphabet(one):
    names = ["Zoë", "anna", "Ömer", "Ben", "Åsa", "olga"]
    named = [replace(one, student=name, owner=name, path=name) for name in names]
    marked = [marks.mark(hand_in, Run()) for hand_in in named]
    rows = [*csv.reader(io.StringIO(tables.summary_csv(marked)))][1:]
    assert [row[0] for row in rows] == ["anna", "Åsa", "Ben", "olga", "Ömer", "Zoë"]


def test_feedback_holds_nothing_that_a_terminal_obeys(one, clean):
    for text in report.feedback([evil(one, clean)]).values():
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


def test_a_run_is_found_again_until_something_changes(one, tmp_path):
    kept = store.Store(tmp_path, "bwrap", Limits())
    cells = {3: cell(seconds=0.5)}
    run = Run(findings=finding("label", "right"), cells=cells, seconds=2.0)
    assert kept.load(one) is None
    kept.save(one, run)
    assert kept.load(one) == run
    assert kept.load(replace(one, digest="1")) is None
    assert store.Store(tmp_path, "none", Limits()).load(one) is None
    assert store.Store(tmp_path, "bwrap", Limits(seconds=1)).load(one) is None


@pytest.mark.parametrize(
    "error",
    [
        "NameError: name 'timeout' is not defined",
        "TimeoutError",
        "TimeoutError: Timeout of 100 seconds exceeded executing cell",
        "ValueError: it printed more than 50 MB",
        "RuntimeError: the kernel died",
        "Timeout of my own",
        LATE,
        "the kernel died",
        "it printed more than 50 MB",
    ],
)
def test_an_error_of_the_students_is_raised_whatever_words_are_in_it(one, error):
    cells = {cell_of(one, "label"): cell(error)}
    row = row_of(one, Run(cells=cells), "label")
    assert (row.state, row.message) == ("raised", f"its cell stopped with {error}")


@pytest.mark.parametrize("cause", OF_THE_MACHINE)
def test_an_error_where_the_machine_failed_is_not_the_students(one, cause):
    cells = {cell_of(one, "label") + 1: cell("ConnectionRefusedError")}
    run = Run(
        cells=cells, stopped="words", cause=cause, findings=finding("by_hand", "right")
    )
    expected = dict.fromkeys(NAMES, "stopped") | {"by_hand": "right"}
    assert states(one, run) == expected


def test_states_follow_the_examiners_codes_and_not_its_words(one):
    check = cell_of(one, "label") + 1
    slow = {check: cell(LATE, "late")}
    for words in ("your function returned nothing that can be used", "gone", ""):
        gone = finding("label", "raised", words, code="nothing_came")
        assert states(one, Run(findings=gone, cells=slow))["label"] == "stopped"
        own = finding("label", "raised", words, code="raised")
        assert states(one, Run(findings=own, cells=slow))["label"] == "raised"


def without_label(one, clean):
    found = notebook()
    found["cells"] = [
        c for c in found["cells"] if "# Answer: label" not in "".join(c["source"])
    ]
    return replace(one, assembled=assembly.assemble(found, clean))


def test_a_missing_answer_is_to_be_looked_at_with_its_likely_cause(one, clean):
    marked = marks.mark(without_label(one, clean), Run())
    (remark,) = [r for r in report.remarks([marked]) if r.startswith("Missing")]
    cause = "no cell looks like it; it may have been deleted."
    assert remark == f"Missing: anna/x.ipynb: label: {cause}"
    (row,) = [row for row in marked.rows if row.state == "missing"]
    assert row.message == f"there is no answer cell for this exercise here: {cause}"


def test_of_very_many_remarks_on_one_student_the_rest_is_counted(one):
    many = [
        marks.unmarked(replace(one, path=f"{n}", file=f"{n}", clean=None), "broken")
        for n in range(50)
    ]
    other = replace(one, owner="ben", student="ben", path="b", file="b", clean=None)
    said = report.remarks([*many, marks.unmarked(other, "broken")])
    assert len([s for s in said if s.startswith("Stopped or unreadable: ")]) == 5
    assert "Stopped or unreadable: 47 more of anna" in said
    assert "Stopped or unreadable: b: broken" in said


def test_a_module_that_does_not_come_along_is_said(one):
    refused = replace(one.assembled, refused=["torch.py: a name that is known"])
    marked = marks.mark(replace(one, assembled=refused), Run())
    assert (
        "Not taken, though imported: anna/x.ipynb: torch.py: a name that is known"
        in report.remarks([marked])
    )


@pytest.mark.parametrize(
    ("students", "plain"),
    [
        (["Lena", "lena"], []),
        (["Zoë", "Zoe"], ["Zoe"]),
        (["LENA", "Lena", "lena", "Léna", "anna"], ["anna"]),
        (["con", "NUL", "com1", "anna"], ["anna"]),
        (["eve\x01", "eve\x02", "eve"], ["eve"]),
        (["a/b", "a_b"], ["a_b"]),
    ],
)
def test_feedback_is_never_anothers_where_capitals_are_small(students, plain):
    files = report.file_names(students)
    assert len({file.casefold() for file in files.values()}) == len(students)
    assert [name for name in students if files[name] == f"{name}.txt"] == plain
    # Not even where somebody is called as another's file is.
    forged = [file.removesuffix(".txt") for file in files.values()]
    both = report.file_names([*students, *forged])
    assert len({file.casefold() for file in both.values()}) == len({*students, *forged})


def test_numbers_in_a_table_are_bounded(one):
    cells = {i: cell(seconds=1e14) for i in range(30)}
    found = finding("label", "right", asked=10**14)
    row = row_of(one, Run(findings=found, cells=cells), "label")
    assert (row.seconds, row.asked) == (marks.MOST_SECONDS, marks.MOST_ASKED)
