"""Names by strangers: shown whole where they are names, and never taken for another."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precode_lib.grading import names

PERSIAN = "علی\u200cرضا"
KEPT = [
    *("Anna Müller", "Łukasz", "Zoe\u0308", "李小龙", "ភាសា\u200bខ្មែរ", "O'Brien; x"),
    *(PERSIAN, "\u0600١٢٣", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "❤️\u200d🔥"),
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England
    "\U0001fb00\U0001faff",  # some emoji are newer than Python
]


@pytest.mark.parametrize("name", KEPT)
def test_names_and_emoji_of_all_scripts_stay_whole(name):
    assert names.printable(name) == name
    assert [*names.told_apart([name]).values()] == [name]


@pytest.mark.parametrize(
    "character",
    [
        *("\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029"),
        *("\u202a", "\u202d", "\u202e", "\u2066", "\u2069", "\u200e", "\ufeff"),
        *("\ue000", "\ufffe", "\U0001ffff", "\U000e0041", "\U000e007f", "\u0378"),
    ],
)
def test_what_a_terminal_or_browser_obeys_is_made_visible(character):
    assert names.printable(f"a{character}b") == "a\ufffdb"
    assert names.printable(f"🏴{character}") == "🏴\ufffd"


def test_a_name_that_is_no_unicode_can_be_written():
    assert names.printable("a\udcff") == "a\\udcff"


ALIKE = [
    ("eve\x01", "eve\x02"),
    ("eve\ufffd", "eve\x02"),
    ("Zoë", "Zoe\u0308"),
    (PERSIAN, "علیرضا"),
    ("anna", "an\u200dna"),
    ("anna", "аnnа"),  # two letters are Cyrillic
    ("a b", "a\xa0b"),
    ("a b", "a  b "),
    ("anna", "ａｎｎａ"),
    ("x\u202e", "x\u202d"),
]


@pytest.mark.parametrize("pair", ALIKE, ids=ascii)
def test_two_names_that_look_alike_are_told_apart_and_found(pair):
    shown = names.told_apart([*pair, "ben"])
    assert shown["ben"] == "ben"
    first, second = (shown[name] for name in pair)
    assert names.look(first) != names.look(second)
    for name in pair:
        assert shown[name].endswith(f"[{names.escaped(name)}]")
    assert names.alike([*pair, "ben"]) == [sorted(pair)]


def test_names_that_differ_to_the_eye_are_left_alone():
    different = ["lena", "Lena", "lena m", "lena-m", "Lené", PERSIAN]
    assert names.told_apart(different) == {name: name for name in different}
    assert names.alike(different) == []


@pytest.mark.parametrize("name", ["", " ", "\u3164", "\u2800\u2800", "\u200d"])
def test_a_name_that_nobody_sees_is_spelled_out(name):
    assert names.told_apart([name])[name].strip().endswith(f"[{names.escaped(name)}]")


def test_nobody_takes_the_place_of_a_name_that_is_spelled_out():
    taken = ["eve\x01", "eve\x02", "eve\ufffd [eve\\x01]", "eve\ufffd [eve\\x02]"]
    shown = names.told_apart(taken)
    assert len({names.look(text) for text in shown.values()}) == 4
    assert shown[taken[2]] == taken[2]


POOL = st.text("ab\x01\x02\u200c \xa0а[]\\x1\ufffd\udcff", max_size=6)


@given(st.sets(POOL, max_size=12))
def test_no_two_names_are_shown_alike_whatever_they_are(found):
    shown = names.told_apart(found)
    assert {*shown} == found
    assert len({names.look(text) for text in shown.values()}) == len(found)
    for text in shown.values():
        assert names.look(text)
        assert not re.search(r"[\x00-\x1f\ud800-\udfff]", text)


def test_people_are_sorted_by_letters_and_copies_by_numbers():
    found = ["Zoë", "anna", "Ömer", "Ben", "Åsa", "olga"]
    in_order = ["anna", "Åsa", "Ben", "olga", "Ömer", "Zoë"]
    assert sorted(found, key=names.alphabetical) == in_order
    files = ["x10.ipynb", "x9.ipynb", "x.ipynb", "x" + "9" * 5000]
    assert sorted(files, key=names.natural)[:2] == ["x9.ipynb", "x10.ipynb"]
