"""A checklist asks for a judgement on each rule, and tells ours afterwards only."""

import re

import pytest
from elements import Elements

from precode_lib.widgets import Item, checklist

CONTROL = Item("Control", "Is it found <without>?", "in part", "The MLP is, LeNet not.")
ORACLE = Item("Oracle & co", "Is it found when told?", "no", "Nobody ran `given`.")


@pytest.fixture
def page() -> str:
    return checklist("A paper", CONTROL, ORACLE)._repr_html_()


def test_every_item_is_a_line_to_unfold_in_the_order_given(page):
    assert re.findall(r"<summary>(.*?)</summary>", page) == [
        "1. <strong>Control.</strong> Is it found &lt;without&gt;?",
        "2. <strong>Oracle &amp; co.</strong> Is it found when told?",
    ]
    assert not any("open" in one for one in Elements(page).of("details"))


def test_a_line_asks_by_three_radio_buttons_of_one_group(page):
    names = [one["name"] for one in Elements(page).of("input")]
    assert [names.count(name) for name in dict.fromkeys(names)] == [3, 3]
    labels = re.findall(r"<label[^>]*>(.*?)</label>", page)
    assert labels == ["yes", "in part", "no"] * 2
    assert "<legend>Is it found &lt;without&gt;?</legend>" in page


def test_whatever_is_chosen_our_answer_and_its_reason_are_told(page):
    told = re.findall(r'<p class="precode-feedback.*?</p>', page)
    assert all("We say <em>in part</em>: The MLP is, LeNet not." in t for t in told[:3])
    assert all("We say <em>no</em>: Nobody ran <code>" in t for t in told[3:])
    rights = ["Right." in t for t in told]
    assert rights == [False, True, False, False, False, True]


def test_the_text_form_has_the_questions_and_not_our_answers():
    text = repr(checklist("A paper", CONTROL, ORACLE))
    assert text.splitlines() == [
        "A paper",
        "  1. Control. Is it found <without>?",
        "  2. Oracle & co. Is it found when told?",
    ]


def test_nothing_is_loaded_and_nothing_runs(page):
    assert not re.search(r"https?://|<link|<img|src=|<script|\son\w+=", page)


def test_an_item_is_answered_by_yes_in_part_or_no():
    with pytest.raises(ValueError, match="got 'maybe' at 'Control'"):
        Item("Control", "Is it found?", "maybe", "Who knows.")


@pytest.mark.parametrize(
    ("items", "came"),
    [
        ([], "needs items, got none for 'A paper'"),
        ([CONTROL, CONTROL], "the same name"),
        ([CONTROL, Item("Other", CONTROL.question, "no", "w")], "the same question"),
    ],
)
def test_items_are_several_and_different(items, came):
    with pytest.raises(ValueError, match=came):
        checklist("A paper", *items)
