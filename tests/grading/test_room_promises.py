"""The numbers of the page's sections `How to` and `What counts` are the code's."""

from pathlib import Path

from precode_lib.grading import collecting, helpers, limits, marks, pace, room, sandbox
from precode_lib.marking import texts

ROOT = Path(sandbox.__file__).parents[2]
PAGE = (ROOT / "book" / "teaching_grading.md").read_text(encoding="utf-8")


def test_the_page_says_how_much_of_one_student_is_read_and_run():
    text = " ".join(PAGE.split())
    million, thousand = 1_000_000, 1000
    default = limits.Limits()
    for sentence in (
        f"the {collecting.MOST_FILES} notebooks that were changed last are read, up to "
        f"{collecting.MOST_BYTES // million} MB",
        f"of each notebook the {collecting.MOST_RUN} latest versions are run",
        f"at most {helpers.MOST} files of {helpers.LARGEST // thousand} kB, together "
        f"{helpers.MOST_BYTES // thousand} kB",
        f"`--timeout` (seconds for a notebook, {default.seconds};",
        f"`--memory` (MB, {default.memory // million})",
        f"10 to {pace.USUAL} seconds of an idle core",
    ):
        assert sentence in text


def test_the_page_says_how_long_an_answer_in_words_is():
    text = " ".join(PAGE.split())
    letters = {
        script: round(texts.FEWEST * texts._LETTERS[script])
        for script in ("CJK", "HIRAGANA", "THAI", "KHMER", "LAO", "MYANMAR")
    }
    assert {*letters.values()} == {40, 75}
    assert f"wants some {texts.FEWEST} words; in Chinese and Japanese about 40" in text
    assert "in Thai, Khmer, Lao and Burmese about 75 letters" in text


def test_the_page_names_all_states_and_files(tmp_path):
    for state in marks.STATES:
        assert f"*{state}*" in PAGE
    for file in ("report.html", "marks.xlsx", "marks.csv", "summary.csv"):
        assert f"| `{file}` |" in PAGE
    assert room.default_out(tmp_path / "FOLDER").name == "FOLDER-marks"
