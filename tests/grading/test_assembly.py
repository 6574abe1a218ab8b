"""What of a hand-in goes into the notebook that is run, and which files are read."""

import json
import os

import hand_ins
import pytest
from hand_ins import CHAPTER, NAMES, RIGHT, code, hand_in, notebook

from precode_lib.grading import assembly, collecting, room


@pytest.fixture(scope="module")
def clean():
    return assembly.clean_notebooks(room.book_exercises())


def sources(found, clean):
    assembled = assembly.assemble(found, clean[CHAPTER])
    cells = json.loads(assembled.text)["cells"]
    return [cell["source"] for cell in cells], assembled


def test_only_answers_and_added_cells_come_from_the_hand_in(clean):
    texts, assembled = sources(notebook(added=["import math"]), clean)
    assert set(assembled.answers) == {*NAMES}
    assert texts[-1] == "# Check: two_photographs\ncheck.two_photographs(text)"
    strange = [text for text in texts if text not in clean[CHAPTER].cells]
    answers = [f"# Answer: {name}\n{text}" for name, text in RIGHT.items()]
    assert strange == ["import math", *answers]
    assert assembled.exercise_of[texts.index("import math")] == "by_hand"


def test_checks_outputs_tags_and_ids_do_not_come_along(clean):
    found = notebook()
    for cell in found["cells"]:
        text = "".join(cell["source"])
        if text.startswith("# Check"):
            cell["source"] = text.replace("check.", "print; check.")
        cell["metadata"] = {"tags": ["nbval-skip", "raises-exception", "solution"]}
        cell["id"] = "same"
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [{"forged": 1}], 3
    texts, assembled = sources(found, clean)
    assert not [text for text in texts if "print; check" in text]
    for word in ("nbval-skip", "raises-exception", "forged", "same"):
        assert f'"{word}"' not in assembled.text


def test_deleted_checks_come_back(clean):
    found = notebook()
    found["cells"] = [c for c in found["cells"] if "# Check" not in str(c["source"])]
    texts, _ = sources(found, clean)
    assert texts == sources(notebook(), clean)[0]


def test_an_added_cell_stays_on_its_side_of_the_answer(clean):
    found = notebook(added=["before = 1"])
    at = next(i for i, c in enumerate(found["cells"]) if "Check" in str(c["source"]))
    found["cells"].insert(at, code("after = 2"))
    found["cells"].append(code("last = 3"))
    texts, _ = sources(found, clean)
    order = [text.partition("\n")[0] for text in texts]
    first = order.index("before = 1")
    assert order[first : first + 4] == [
        "before = 1",
        "# Answer: by_hand",
        "after = 2",
        "# Check: by_hand",
    ]
    assert "last = 3" not in order


def test_of_two_answers_the_later_counts_and_the_earlier_still_runs(clean):
    found = notebook()
    found["cells"].append(code("# Answer: label\nlabel = 2"))
    texts, assembled = sources(found, clean)
    assert assembled.answers["label"].endswith("label = 2")
    first, second = [i for i, t in enumerate(texts) if t.startswith("# Answer: label")]
    assert first < second


def test_windows_ends_of_lines_and_a_byte_order_mark_do_not_matter(clean):
    found = notebook()
    for cell in found["cells"]:
        cell["source"] = "".join(cell["source"]).replace("\n", "\r\n")
    data = b"\xef\xbb\xbf" + json.dumps({**found, "nbformat_minor": 0}).encode()
    texts, _ = sources(assembly.parse(data), clean)
    assert texts == sources(notebook(), clean)[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JSON"),
        (b"\x80\x81", "no JSON"),
        (b"[" * 1_000_000, "no JSON"),
        (b"[]", "no nbformat"),
        (b'{"nbformat": 3}', "not version 4"),
        (b'{"nbformat": "4"}', "not version 4"),
        (b'{"nbformat": 4}', "no list of cells"),
        (b'{"nbformat": 4, "cells": [1]}', "no list of cells"),
    ],
    ids=["empty", "binary", "deep", "list", "old", "text", "bare", "number"],
)
def test_what_is_no_notebook_is_said(data, words):
    with pytest.raises(assembly.NotANotebookError, match=words):
        assembly.parse(data)


@pytest.mark.parametrize("source", [1, None, [1], {"a": 1}, [["a"]]])
def test_a_cell_without_text_is_no_notebook(source):
    found = {"cells": [{"cell_type": "code", "source": source}]}
    with pytest.raises(assembly.NotANotebookError, match="holds no text"):
        assembly.code_cells(found)


def test_half_a_character_is_replaced(clean):
    _, assembled = sources(notebook({**RIGHT, "label": "x = '\ud800'"}), clean)
    assembled.text.encode("ascii")
    assert "\\ud800" not in assembled.text


def test_a_notebook_is_known_by_metadata_then_name_then_answers(clean):
    found = notebook()
    assert assembly.which(found, "labels.ipynb", clean).stem == CHAPTER
    for metadata in ({}, [], {"precode": 1}, {"precode": {"chapter": ["x"]}}):
        found["metadata"] = metadata
        assert assembly.which(found, f"a_{CHAPTER} (1).ipynb", clean).stem == CHAPTER
        assert assembly.which(found, "untitled.ipynb", clean).stem == CHAPTER
    assert assembly.which({"cells": []}, "untitled.ipynb", clean) is None


def test_all_kinds_of_files_are_read_and_none_stops_the_others(tmp_path, clean):
    folder = tmp_path / "hand-ins"
    hand_in(folder, "anna", notebook())
    broken = hand_ins.break_files(folder)
    (folder / "anna" / ".ipynb_checkpoints").mkdir()
    (folder / "anna" / ".ipynb_checkpoints" / "x.ipynb").write_text("{}")
    (folder / "anna" / "report.pdf").write_text("no notebook")
    (folder / "folder.ipynb").mkdir()
    found = {one.student: one for one in collecting.collect(folder, clean).hand_ins}
    assert set(found) == {"anna", "folder", *broken}
    assert found["anna"].problem == ""
    words = {
        "binary": "no JSON",
        "truncated": "no JSON",
        "version_3": "not version 4",
        "nothing": "none of the answer cells",
        "enormous": "1,000 MB",
        "linked": "a link",
        "waiting": "something else",
    }
    for student, problem in words.items():
        assert problem in found[student].problem, student
        assert found[student].assembled is None
        assert found[student].clean.stem == CHAPTER


@pytest.mark.parametrize(
    ("path", "student"),
    [
        ("lena/labels.ipynb", "lena"),
        ("lena/week 3/labels.ipynb", "lena"),
        ("lena_labels.ipynb", "lena"),
        ("Müller Lena_123_file_labels (1).ipynb", "Müller Lena_123_file"),
        ("labels.ipynb", "labels"),
        ("someone.ipynb", "someone"),
        ("=cmd|x_labels.ipynb", "=cmd|x"),
        ("a\nb\x1b[31m\u202e_labels.ipynb", "a\ufffdb\ufffd[31m\ufffd"),
    ],
)
def test_a_student_is_a_folder_or_the_beginning_of_a_name(
    tmp_path, clean, path, student
):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    (found,) = collecting.collect(tmp_path, clean).hand_ins
    assert found.student == student
    found.student.encode("utf-8")


def test_a_name_that_is_no_unicode_is_read_too(tmp_path, clean):
    with open(os.fsencode(tmp_path) + b"/\xff_labels.ipynb", "wb"):
        pass
    (found,) = collecting.collect(tmp_path, clean).hand_ins
    found.file.encode("utf-8")


def test_a_folder_without_notebooks_is_said(tmp_path, clean):
    with pytest.raises(FileNotFoundError, match=r"no \.ipynb file"):
        collecting.collect(tmp_path, clean)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        collecting.collect(tmp_path / "x", clean)


def test_what_holds_no_notebook_is_not_forgotten(tmp_path):
    hand_in(tmp_path, "anna", notebook())
    for file in ("otto/late/work.zip", "ulla/labels.py", "sheet.pdf", ".DS_Store"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    (tmp_path / "Nele").mkdir()
    (tmp_path / "anna" / "data.csv").write_text("")
    clean = assembly.clean_notebooks(room.book_exercises())
    assert collecting.collect(tmp_path, clean).remarks == [
        "No notebook: Nele (empty)",
        "No notebook: otto (with late/work.zip, an archive is not opened)",
        "No notebook: sheet.pdf",
        "No notebook: ulla (with labels.py)",
    ]


def marked_by(first, clean, name="label"):
    """The role of an answer cell that begins so."""
    return assembly.role(f"{first}\n{RIGHT[name]}", clean[CHAPTER].names)


@pytest.mark.parametrize(
    "first",
    [
        *("# Answer: label", "#Answer: label", "# answer:label", "## Answer : label  "),
        *("# Answer: label (final)", "# Answer: label - at last", "# Answer: label, 2"),
        *("%%time\n# Answer: label", "# mine\n\n# Answer: label", " # Answer: label"),
        "%matplotlib inline\nimport math\nfrom torch import nn\n# Answer: label",
        "!pip install x\n# Answer: label: my second try",
    ],
)
def test_an_answer_is_known_by_its_mark_among_the_first_lines(clean, first):
    assert marked_by(first, clean) == ("Answer", "label")
    found = notebook()
    at = next(i for i, c in enumerate(found["cells"]) if ": label" in str(c["source"]))
    found["cells"][at] = code(f"{first}\nlabel = min")
    texts, assembled = sources(found, clean)
    assert assembled.answers["label"] == f"{first}\nlabel = min".lstrip("\n")
    assert assembled.missing == {}
    assert f"{first}\nlabel = min" in texts


@pytest.mark.parametrize(
    "first",
    [
        *(
            "# Answer: Label",
            "# Answer: label_2",
            "# Answer: label-2",
            "# Answer label",
        ),
        *("x = 1\n# Answer: label", "text = '''\n# Answer: label", "print(1)  # x"),
        "#\n" * 20 + "# Answer: label",
    ],
)
def test_another_name_or_a_mark_far_below_is_no_answer(clean, first):
    assert marked_by(first, clean) == ("", "")


def test_a_check_is_known_by_its_first_line_alone(clean):
    names = clean[CHAPTER].names
    assert assembly.role("# Check: label\nx", names) == ("Check", "label")
    assert assembly.role("%%time\n# Check: label\nx", names) == ("", "")
    assert assembly.role("# Check: label with my own data\nx", names) == ("", "")


@pytest.mark.parametrize(
    ("cells", "cause"),
    [
        ([], "no cell looks like it; it may have been deleted."),
        (
            [{"cell_type": "markdown", "source": "# Answer: label\nthe lowest"}],
            "its mark is in a cell of text, which is not run.",
        ),
        (
            [code("x = 1\ny = 2\n# Answer: label\ndef label(db): pass")],
            "its mark is only in line 3 of a cell, below other code.",
        ),
        ([code("# Answer: Label\nx")], "a cell is marked `# Answer: Label`."),
        ([code("# Answer: labels\nx")], "a cell is marked `# Answer: labels`."),
        (
            [code("def label(db):\n    return 1")],
            "a cell without the mark `# Answer: label` defines label.",
        ),
    ],
)
def test_of_a_missing_answer_the_likely_cause_is_known(clean, cells, cause):
    found = notebook()
    kept = [
        c for c in found["cells"] if "# Answer: label\n" not in "".join(c["source"])
    ]
    assembled = sources({**found, "cells": [*kept, *cells]}, clean)[1]
    assert assembled.missing == {"label": cause}


def test_an_answer_that_follows_a_magic_counts_and_is_run_once(clean):
    found = notebook()
    for cell in found["cells"]:
        if "# Answer" in "".join(cell["source"]):
            cell["source"] = "%%time\n" + "".join(cell["source"])
    texts, assembled = sources(found, clean)
    assert {*assembled.answers} == {*NAMES}
    assert len(texts) == len(sources(notebook(), clean)[0])
