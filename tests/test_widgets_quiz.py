"""A quiz asks, and says why, without giving the answer away before it is chosen."""

import re
import subprocess
import sys

import pytest
from elements import Elements

from precode_lib.widgets import quiz, right, wrong

YES = wrong("Yes: `w * x` is *hidden*.", "It is <not>.")
NO = right("No.", "One division undoes 2*b*c.")
PERHAPS = wrong("Perhaps.", "It is certain.")


@pytest.fixture
def page() -> str:
    return quiz("Is it safe?", YES, NO, PERHAPS)._repr_html_()


def test_the_options_are_one_group_of_radio_buttons_under_the_question(page):
    elements = Elements(page)
    inputs = elements.of("input")
    assert [one["type"] for one in inputs] == ["radio"] * 3
    assert len({one["name"] for one in inputs}) == 1
    assert not any("checked" in one for one in inputs)
    assert "<fieldset><legend>Is it safe?</legend>" in page


def test_every_radio_button_has_its_label(page):
    elements = Elements(page)
    ids = [one["id"] for one in elements.of("input")]
    assert len(set(ids)) == 3
    assert [one["for"] for one in elements.of("label")] == ids


def test_jupyterlab_leaves_the_arrow_keys_to_the_radio_buttons(page):
    marked = [
        one.get("data-lm-suppress-shortcuts") for one in Elements(page).of("input")
    ]
    assert marked == ["true"] * 3


def test_the_verdict_is_a_word_and_a_sign_not_a_colour_alone(page):
    feedback = re.findall(r'<p class="precode-feedback.*?</p>', page)
    words = [re.sub(r"<[^>]+>", "", one) for one in feedback]
    assert words == [
        "✗Not quite. It is &lt;not&gt;.",
        "✓Right. One division undoes 2*b*c.",
        "✗Not quite. It is certain.",
    ]


def test_texts_are_escaped_and_code_and_emphasis_marked(page):
    assert "Yes: <code>w * x</code> is <em>hidden</em>.</label>" in page
    assert "It is &lt;not&gt;." in page
    assert "2*b*c" in page


@pytest.mark.parametrize("text", ["a * b * c", "2 * 3", "2*b* c", "a *b*c", "a*", "*a"])
def test_signs_that_mark_nothing_stay_as_they_are(text):
    assert f"<legend>{text}</legend>" in quiz(text, YES, NO)._repr_html_()


def test_nothing_is_loaded_and_nothing_runs(page):
    assert not re.search(r"https?://|<link|<img|src=|<script|\son\w+=", page)


def test_the_text_form_does_not_give_the_answer_away():
    asked = quiz("Is it safe?", YES, NO)
    other = quiz("Is it safe?", right(YES.text, "a"), wrong(NO.text, "b"))
    assert repr(asked) == repr(other)
    assert repr(asked).splitlines() == ["Is it safe?", f"  ( ) {YES.text}", "  ( ) No."]


def test_two_quizzes_of_a_page_share_no_identifier(page):
    other = quiz("Is it fast?", YES, NO, PERHAPS)._repr_html_()
    names = [
        {one[key] for one in Elements(text).of("input") for key in ("id", "name")}
        for text in (page, other)
    ]
    assert not names[0] & names[1]


def test_a_quiz_comes_out_the_same_in_every_process(page):
    code = (
        "from precode_lib.widgets import quiz, right, wrong\n"
        f"print(quiz('Is it safe?', wrong({YES.text!r}, {YES.why!r}), "
        f"right({NO.text!r}, {NO.why!r}), wrong({PERHAPS.text!r}, {PERHAPS.why!r}))"
        "._repr_html_())"
    )
    command = [sys.executable, "-X", "utf8", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.stdout == page + "\n", done.stderr


@pytest.mark.parametrize(
    ("options", "came"),
    [
        ([], "0 options, 0 of them right"),
        ([NO], "1 options, 1 of them right"),
        ([YES, PERHAPS], "2 options, 0 of them right"),
        ([NO, right("Never.", "w")], "2 options, 2 of them right"),
        ([NO, *(wrong(text, "w") for text in "abcd")], "5 options, 1 of them right"),
    ],
)
def test_a_quiz_has_two_to_four_options_and_one_right_answer(options, came):
    with pytest.raises(ValueError, match=came):
        quiz("Is it safe?", *options)


def test_two_options_are_not_the_same():
    with pytest.raises(ValueError, match="two options of 'Is it safe"):
        quiz("Is it safe?", NO, wrong("No.", "w"))


@pytest.mark.parametrize("option", ["No.", ("No.", "why")])
def test_what_is_no_option_is_refused(option):
    with pytest.raises(TypeError, match=re.escape(repr(option))):
        quiz("Is it safe?", YES, option)


@pytest.mark.parametrize(("text", "why"), [("", "why"), ("text", " ")])
def test_an_option_says_something_and_why(text, why):
    with pytest.raises(ValueError, match=re.escape(f"{text!r} and {why!r}")):
        wrong(text, why)
