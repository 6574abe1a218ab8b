"""What is read of a folder, how much of it, and what is said of the rest."""

import json
import os
import resource
import sys

import pytest
from hand_ins import CHAPTER, RIGHT, code, hand_in, notebook

from precode_lib.grading import assembly, collecting, helpers, room, walking

FILE = f"{CHAPTER}.ipynb"


@pytest.fixture(scope="module")
def clean():
    return assembly.clean_notebooks(room.book_exercises())


def put(folder, path, content=None):
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(notebook()).encode() if content is None else content
    place.write_bytes(data)
    return place


def by_path(folder, clean):
    return {one.path: one for one in collecting.collect(folder, clean).hand_ins}


def test_folders_called_like_notebooks_keep_no_descriptor(tmp_path, clean):
    for number in range(150):
        (tmp_path / "eve" / f"labels_{number}.ipynb").mkdir(parents=True)
    put(tmp_path, f"zoe/{FILE}")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self") else 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 40, hard))
    try:
        found = by_path(tmp_path, clean)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found[f"zoe/{FILE}"].problem == ""
    assert len(found) == 151
    assert {one.problem for one in found.values()} == {
        *("", "it is no file but something else.")
    }


def test_what_is_no_regular_file_is_never_opened(tmp_path, clean, monkeypatch):
    os.mkfifo(put(tmp_path, "a/x.txt", b"").with_name(FILE))
    (tmp_path / "b" / FILE).mkdir(parents=True)
    put(tmp_path, "c/x.txt", b"").with_name(FILE).symlink_to("/etc/passwd")
    opened = []
    monkeypatch.setattr(os, "open", lambda *given: opened.append(given))
    found = by_path(tmp_path, clean)
    assert opened == []
    assert [one.problem for one in found.values()] == [
        "it is no file but something else.",
        "it is no file but something else.",
        "it is a link, which is not followed.",
    ]


def test_a_file_that_becomes_another_between_two_looks_is_not_read(
    tmp_path, clean, monkeypatch
):
    path = put(tmp_path, f"eve/{FILE}")
    (tmp_path / "folder").mkdir()
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda given, flags: real(tmp_path / "folder", os.O_RDONLY)
    )
    monkeypatch.setattr(os, "close", closed := Closed(os.close))
    (one,) = by_path(path.parents[1], clean).values()
    assert one.problem == "it is no file but something else."
    assert len(closed.numbers) == 1


class Closed:
    def __init__(self, close):
        self.close, self.numbers = close, []

    def __call__(self, number):
        self.numbers.append(number)
        self.close(number)


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), MemoryError(), ValueError("x"), OSError("y")]
)
def test_whatever_one_file_is_the_others_are_read(tmp_path, clean, monkeypatch, error):
    for student in ("anna", "eve", "zoe"):
        put(tmp_path, f"{student}/{FILE}")
    real = assembly.assemble

    def assemble(found, *given):
        if "eve" in reading:
            raise error
        return real(found, *given)

    reading = []
    content = collecting.content

    def noted(path, *given, **more):
        reading[:] = [path.parent.name]
        return content(path, *given, **more)

    monkeypatch.setattr(collecting, "content", noted)
    monkeypatch.setattr(assembly, "assemble", assemble)
    found = by_path(tmp_path, clean)
    assert [one.problem != "" for one in found.values()] == [False, True, False]
    assert type(error).__name__ in found[f"eve/{FILE}"].problem


def test_of_thousands_of_files_of_one_student_the_latest_are_read(
    tmp_path, clean, monkeypatch
):
    for number in range(900):
        os.utime(put(tmp_path, f"eve/labels{number}.ipynb", b"{"), (number, number))
    put(tmp_path, f"anna/{FILE}")
    collected = collecting.collect(tmp_path, clean)
    of_eve = [one.path for one in collected.hand_ins if one.owner == "eve"]
    assert len(of_eve) == collecting.MOST_FILES == 200
    assert {*of_eve} == {f"eve/labels{n}.ipynb" for n in range(700, 900)}
    assert collected.remarks == [
        "Not all of eve was read: of 900 notebooks only the 200 latest were"
    ]
    monkeypatch.setattr(collecting, "MOST_BYTES", 100)
    remarks = collecting.collect(tmp_path, clean).remarks
    assert remarks == [
        "Not all of eve was read: of 900 notebooks only the 101 latest were"
    ]


def test_several_versions_of_a_notebook_are_run_and_hundreds_are_not(tmp_path, clean):
    for number in range(12):
        path = put(tmp_path, f"eve/{CHAPTER} v{number}.ipynb")
        os.utime(path, (number, number))
    put(tmp_path, "eve/other.ipynb", b"{")
    put(tmp_path, f"anna/{FILE}")
    found = by_path(tmp_path, clean)
    run = {path for path, one in found.items() if one.assembled is not None}
    assert run == {f"anna/{FILE}"} | {f"eve/{CHAPTER} v{n}.ipynb" for n in range(7, 12)}
    assert found[f"eve/{CHAPTER} v0.ipynb"].problem == (
        "it was not run, as there are 5 later ones for it."
    )


def test_nothing_is_looked_at_without_end(tmp_path, clean, monkeypatch):
    monkeypatch.setattr(walking, "MOST_ENTRIES", 50)
    for number in range(80):
        put(tmp_path, f"eve/{number}.txt", b"")
    put(tmp_path, f"eve/{'x/' * 25}{FILE}")
    put(tmp_path, f"zoe/{'x/' * 25}{FILE}")
    put(tmp_path, f"anna/{FILE}")
    collected = collecting.collect(tmp_path, clean)
    assert [one.owner for one in collected.hand_ins] == ["anna"]
    said = "\n".join(collected.remarks)
    assert "Not looked at: eve: it holds more than 50 files, so not all were" in said
    assert f"Not looked at: zoe/{'x/' * 20}".rstrip("/") + ": more than 20 fol" in said


def test_a_path_that_is_too_long_is_said(tmp_path, clean):
    put(tmp_path, f"anna/{FILE}")
    os.makedirs(tmp_path / "eve")
    place = os.open(tmp_path / "eve", os.O_RDONLY)
    for _ in range(19):
        os.mkdir("d" * 250, dir_fd=place)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open(FILE, os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    said = collecting.collect(tmp_path, clean).remarks
    assert said[0] == "No notebook: eve"
    assert "name too long" in said[1]


def test_a_folder_that_cannot_be_read_is_not_called_empty(tmp_path, clean, monkeypatch):
    put(tmp_path, f"anna/{FILE}")
    (tmp_path / "eve").mkdir()
    real = os.listdir

    def listdir(place):  # root reads all
        if str(place).endswith("eve"):
            raise PermissionError(13, "Permission denied")
        return real(place)

    monkeypatch.setattr(os, "listdir", listdir)
    assert collecting.collect(tmp_path, clean).remarks == [
        "Not looked at: eve: cannot be looked into: Permission denied"
    ]


def test_what_is_hidden_or_called_otherwise_is_mentioned(tmp_path, clean):
    put(tmp_path, f"anna/{FILE}")
    for path in (
        *(f".eve/{FILE}", f"anna/.new/{FILE}", "anna/.labels.ipynb"),
        *("anna/training.ipynb.txt", "anna/more.zip", "ben/training.ipynb.txt"),
        # Nobody's work, so not worth a word.
        *("anna/.ipynb_checkpoints/labels.ipynb", "anna/._labels.ipynb", ".DS_Store"),
        *("__MACOSX/anna/labels.ipynb", ".git/config", "anna/.git/x.ipynb"),
    ):
        put(tmp_path, path, b"{")
    collected = collecting.collect(tmp_path, clean)
    assert [one.path for one in collected.hand_ins] == [f"anna/{FILE}"]
    assert collected.remarks == [
        "Not looked at: .eve: its name begins with a dot",
        "Not looked at: anna/.labels.ipynb: its name begins with a dot",
        "Not looked at: anna/.new: its name begins with a dot",
        "Not looked at: anna/more.zip: an archive is not opened",
        "Not looked at: anna/training.ipynb.txt: its name does not end in .ipynb",
        "No notebook: ben (with training.ipynb.txt, its name does not end in .ipynb)",
    ]


def test_very_many_remarks_on_one_student_are_counted(tmp_path, clean):
    put(tmp_path, f"anna/{FILE}")
    for number in range(100):
        put(tmp_path, f"anna/.hidden{number}/x", b"")
    remarks = collecting.collect(tmp_path, clean).remarks
    assert len(remarks) == 6
    assert remarks[-1] == "Not looked at: 95 more of anna"
    for number in range(50):
        for end in ("\x01", "\x02"):
            put(tmp_path, f"ben/{number}{end}.ipynb", b"{")
    remarks = collecting.collect(tmp_path, clean).remarks
    assert remarks[0].startswith("Look alike, and are 2 files: ben/0\ufffd.ipynb [ben/")
    assert remarks[5] == "Look alike: 45 more of ben"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("training.ipynb", "training (1).ipynb"),
        ("training (2).ipynb", "training (10).ipynb"),
        ("training.ipynb", "training(1).ipynb"),
        ("training.ipynb", "training-Copy1.ipynb"),
        ("training-Copy2.ipynb", "training-Copy10.ipynb"),
        ("training.ipynb", "training - Copy.ipynb"),
        ("training - Copy.ipynb", "training - Copy (2).ipynb"),
        ("training.ipynb", "training copy.ipynb"),
        ("training v2.ipynb", "training v10.ipynb"),
        ("a/training (1).ipynb", "b/training (1).ipynb"),
    ],
)
def test_of_two_files_with_the_same_time_the_copy_is_later(
    tmp_path, clean, earlier, later
):
    for name in (earlier, later):
        path = put(tmp_path, f"eve/{name}", b"{")
        os.utime(path, (1e9, 1e9))
    ages = {path: one.age for path, one in by_path(tmp_path, clean).items()}
    assert ages[f"eve/{earlier}"] < ages[f"eve/{later}"]
    os.utime(tmp_path / "eve" / earlier, (1e9 + 2, 1e9 + 2))
    ages = {path: one.age for path, one in by_path(tmp_path, clean).items()}
    assert ages[f"eve/{earlier}"] > ages[f"eve/{later}"]  # time comes first


def test_two_students_who_look_alike_are_two(tmp_path, clean):
    for student in ("eve\x01", "eve\x02", "Zoë", "Zoe\u0308", "علی\u200cرضا"):
        put(tmp_path, f"{student}/{FILE}")
    collected = collecting.collect(tmp_path, clean)
    shown = {one.owner: one.student for one in collected.hand_ins}
    assert len({*shown.values()}) == len({one.file for one in collected.hand_ins}) == 5
    assert shown["eve\x01"] == "eve\ufffd [eve\\x01]"
    assert shown["علی\u200cرضا"] == "علی\u200cرضا"
    assert collected.remarks == [
        "Look alike, and are 2 students: eve\ufffd [eve\\x01], eve\ufffd [eve\\x02]",
        "Look alike, and are 2 students: Zoe\u0308 [Zoe\\u0308], Zoë [Zo\\xeb]",
    ]


# Modules beside a notebook

USES = notebook({**RIGHT, "label": "from helpers import label"})
HELPERS = b"import more\ndef label(db):\n    return more.lowest(db)\n"
MORE = b"def lowest(db):\n    return int(db.argmin())\n"


def taken(folder, clean, path=f"eve/{FILE}"):
    one = by_path(folder, clean)[path]
    first = json.loads(one.assembled.text)["cells"][0]["source"]
    return one, first if "handed_in" in first else ""


def test_a_module_beside_the_notebook_comes_along_with_what_it_imports(tmp_path, clean):
    put(tmp_path, f"eve/{FILE}", json.dumps(USES).encode())
    put(tmp_path, "eve/helpers.py", HELPERS)
    put(tmp_path, "eve/more.py", MORE)
    put(tmp_path, "eve/unused.py", b"1 / 0")
    put(tmp_path, "eve/deep/other.py", b"")
    put(tmp_path, "zoe/helpers.py", b"raise SystemExit")
    one, cell = taken(tmp_path, clean)
    assert "helpers.py" in cell
    assert "more.py" in cell
    assert "unused" not in cell
    assert one.assembled.exercise_of[0] == ""
    assert not one.assembled.refused
    digest = one.digest
    put(tmp_path, "eve/more.py", MORE + b"#")
    assert taken(tmp_path, clean)[0].digest != digest


def test_the_first_cell_puts_modules_last_on_the_path(tmp_path, monkeypatch):
    modules = helpers.Modules({"helpers.py": HELPERS, "more.py": MORE})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", ["first"])
    scope = {"text": "of the student's"}
    exec(modules.cell, scope)
    assert sys.path == ["first", str(tmp_path / "handed_in")]
    assert (tmp_path / "handed_in" / "helpers.py").read_bytes() == HELPERS
    assert {*scope} == {"text", "__builtins__"}


@pytest.mark.parametrize(
    "name",
    [
        *("precode_lib", "conftest", "sitecustomize", "usercustomize", "torch"),
        *("json", "socket", "pytest", "nbval", "IPython", "zmq", "numpy", "builtins"),
    ],
)
def test_no_module_has_a_name_that_python_knows(tmp_path, clean, name):
    found = notebook({**RIGHT, "label": f"import {name}"})
    put(tmp_path, f"eve/{FILE}", json.dumps(found).encode())
    put(tmp_path, f"eve/{name}.py", b"1 / 0")
    one, cell = taken(tmp_path, clean)
    assert cell == ""
    assert one.assembled.refused == [
        f"{name}.py: Python has a module of this name already"
    ]


def test_modules_are_few_and_small_and_regular_files(tmp_path, clean):
    every = [f"m{n}" for n in range(14)]
    found = notebook({**RIGHT, "label": f"import {', '.join(every)}, linked, large"})
    put(tmp_path, f"eve/{FILE}", json.dumps(found).encode())
    for name in every:
        put(tmp_path, f"eve/{name}.py", b"#" * 40_000)
    put(tmp_path, "eve/large.py", b"#" * 200_001)
    (tmp_path / "eve" / "linked.py").symlink_to("/etc/passwd")
    one, cell = taken(tmp_path, clean)
    assert cell.count(".py'") == helpers.MOST == 10
    assert len(cell) < 1.4 * helpers.MOST_BYTES
    said = "\n".join(one.assembled.refused)
    assert "m9.py: more than 10 modules" in said
    assert "large.py: it has 200 kB; at most 200 kB are read." in said


def test_modules_are_small_together(tmp_path, clean):
    every = [f"m{n}" for n in range(9)]
    found = notebook({**RIGHT, "label": f"import {', '.join(every)}"})
    put(tmp_path, f"eve/{FILE}", json.dumps(found).encode())
    for name in every:
        put(tmp_path, f"eve/{name}.py", b"#" * 60_000)
    one, cell = taken(tmp_path, clean)
    assert cell.count(".py'") == 8
    assert one.assembled.refused == ["m8.py: together more than 0.5 MB"]


def test_a_link_is_no_module(tmp_path, clean):
    put(tmp_path, f"eve/{FILE}", json.dumps(USES).encode())
    (tmp_path / "eve" / "helpers.py").symlink_to(put(tmp_path, "secret.py", b"1"))
    assert taken(tmp_path, clean)[1] == ""


def test_in_a_folder_of_all_students_files_a_module_is_nobodys(tmp_path, clean):
    put(tmp_path, f"eve_{FILE}", json.dumps(USES).encode())
    put(tmp_path, "helpers.py", HELPERS)
    assert taken(tmp_path, clean, f"eve_{FILE}")[1] == ""
    assert collecting.collect(tmp_path, clean).remarks == ["No notebook: helpers.py"]


def test_a_notebook_of_absurd_size_is_not_kept(tmp_path, clean):
    long = notebook({**RIGHT, "label": "#" * 2_000_001})
    put(tmp_path, f"eve/{FILE}", json.dumps(long).encode())
    wordy = notebook()
    wordy["cells"] += [{"cell_type": "markdown", "source": "word " * 9000}] * 50
    put(tmp_path, f"zoe/{FILE}", json.dumps(wordy).encode())
    found = by_path(tmp_path, clean)
    assert (
        found[f"eve/{FILE}"].problem == "its code has more than 2,000,000 characters."
    )
    words = found[f"zoe/{FILE}"].assembled.words
    assert sum(map(len, words)) <= 2 * assembly.MOST_WORDS


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_a_hand_in_has_one_code_cell_more_for_its_modules(tmp_path, clean, names):
    found = notebook({**RIGHT, "label": f"import {', '.join(names)}"})
    found["cells"].append(code("last = 1"))
    hand_in(tmp_path, "eve", found)
    plain = taken(tmp_path, clean)[0].assembled
    for name in names:
        put(tmp_path, f"eve/{name}.py", b"")
    more = taken(tmp_path, clean)[0].assembled
    assert more.exercise_of == ["", *plain.exercise_of]
