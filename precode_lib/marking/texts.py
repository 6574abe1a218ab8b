"""Open questions: a person reads the answer; here it is only seen that there is one.

In scripts that write no blanks between words, letters count instead.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from .verdicts import HANDED_IN, HandedIn, NotSolved, unanswered

FEWEST = 25  # words; two or three sentences
# About how many letters are a word, where there are no blanks; vowel signs above and
# below are no letters of their own.
_LETTERS = {
    **dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI", "TANGUT"), 1.6),
    **dict.fromkeys(("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE"), 3.0),
    **dict.fromkeys(("BALINESE", "TAI", "NEW"), 3.0),  # New Tai Lue
}


def open_question(
    answer: Any, *, mentions: str, mistakes: Sequence[str] = (), fewest: int = FEWEST
) -> HandedIn:
    """Refuse an answer too short to be one; otherwise say what a good one mentions.

    Args:
        answer: the learner's, in words.
        mentions: what a good answer contains, for comparing it oneself.
        mistakes: common misconceptions, for the same purpose.
        fewest: words below which it is no answer.
    """
    if not isinstance(answer, str):
        raise NotSolved(f"the answer should be text, got a {type(answer).__name__}.")
    if answer.strip().strip(".").upper() in ("", "TODO"):
        raise unanswered()
    length, different = _length(answer)
    if different < fewest * 0.6 or length < fewest:
        raise NotSolved(
            f"{int(length)} words are few for an open question; at least {fewest} "
            "different enough ones are expected.\n"
            "Where to look: say what you would expect, why, and what would change it."
        )
    remarks = [f"{HANDED_IN} A good answer mentions {mentions}"]
    remarks += [f"Often misunderstood: {mistake}" for mistake in mistakes]
    return HandedIn("\n".join(remarks))


def _length(text: str) -> tuple[float, float]:
    """How many words a text has, and how many different ones.

    A run of letters without blanks is as long as so many words; its groups of two or
    three letters tell whether they are different ones.
    """
    length, different = 0.0, set()
    groups: dict[float, set[str]] = {}
    for letters, run in _runs(text):
        if letters:
            length += len(run) / letters
            size = 2 if letters < 2 else 3
            found = {run[i : i + size] for i in range(len(run) - size + 1)}
            groups.setdefault(letters, set()).update(found)
        else:
            words = [word for word in run.split() if any(map(str.isalnum, word))]
            length += len(words)
            different.update(map(str.lower, words))
    return length, len(different) + sum(len(its) / n for n, its in groups.items())


def _runs(text: str) -> list[tuple[float, str]]:
    """The text in parts, each with how many letters are a word in it: 0 with blanks."""
    runs: list[tuple[float, list[str]]] = []
    for character in text:
        letters = _letters_a_word(character)
        is_sign = unicodedata.category(character)[0] != "L"  # vowels above and below
        if (letters and is_sign) or character in "\u200b\u200c\u200d":
            continue
        if not runs or runs[-1][0] != letters:
            runs.append((letters, []))
        runs[-1][1].append(character)
    return [(letters, "".join(run)) for letters, run in runs]


def _letters_a_word(character: str) -> float:
    if character.isascii():
        return 0
    first = re.split("[ -]", unicodedata.name(character, ""))[0]
    return _LETTERS.get(first, 0)
