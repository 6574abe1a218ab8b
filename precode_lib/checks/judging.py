"""Markers for the exercises on judging a defense: claims, verdicts, a checklist."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from precode_lib.marking import (
    exercise,
    expect,
    expect_choice,
    expect_number,
    listed,
    open_question,
)
from precode_lib.metrics import exact_interval

NOTEBOOKS_USE = ["QUESTIONS"]
BROKEN, WITHSTOOD, OPEN = "broken", "not broken by what was tried", "open"

Counts = Sequence[int]  # of one attack, a number a seed
_Rule = Callable[[Counts, Counts, Sequence[Counts], int], str]

# What the exercise asks of its paper.
QUESTIONS = {
    "attacker": "Is it said who listens, what they know, and whether they keep to the "
    "protocol?",
    "adapted": "Was an attack made for this defense?",
    "arithmetic": "Was arithmetic tried before a search?",
    "control": "Does the same attack find most pictures without the defense?",
    "oracle": "Was an attacker told what the client drew?",
    "ages": "Were trained networks attacked as well as untrained ones?",
    "setting": "Is the setting said: mode, batch, first layer, labels?",
    "recognised": "Is it said how many are found, how many recognised, and how the "
    "worst client fares?",
    "interval": "Are there counts of fixed victims, several seeds and an interval?",
    "price": "Is the price said, with its spread?",
    "words": "Do the words say no more than the counts?",
    "repeated": "Can somebody else run it again?",
}
# The right answer, and of wrong ones why.
_FILLED = {
    "attacker": ("yes", "the second paragraph says all three."),
    "adapted": ("no", "IGA draws signs of its own, as if the client's were not fixed."),
    "arithmetic": ("no", "only a search is mentioned, whatever the first layer is."),
    "control": ("no", "it was run, and finds 9 of 200: this search finds nothing."),
    "oracle": ("no", "nobody is told the client's signs."),
    "ages": ("no", "all weights are fresh."),
    "setting": ("yes", "the third paragraph says all four."),
    "recognised": ("in part", "found is there, with its threshold; the rest is not."),
    "interval": (
        "in part",
        "the victims are counted and fixed; one seed, no interval.",
    ),
    "price": ("yes", "an accuracy with and without, of five seeds, with their spread."),
    "words": ("no", "a guarantee holds for every attacker; one was tried."),
    "repeated": ("yes", "the code, the weights and the list of victims are public."),
}


@exercise
def by_hand(a, b, c, d, highest, sentence, generator):
    """Read the four tables of the text."""
    zero = "a zero says something only if the control and the oracle find most."
    hints = {
        "a": {BROKEN: "nobody found more than one of 16.", OPEN: f"{zero} They do."},
        "b": {BROKEN: "nobody found one.", WITHSTOOD: f"{zero} Does the control?"},
        "c": {
            WITHSTOOD: "one attack that finds most is enough, whatever others miss.",
            OPEN: "12 of 16 is more than half; nothing is open about that.",
        },
        "d": {BROKEN: "nobody found one.", WITHSTOOD: f"{zero} Does the oracle?"},
    }
    right = {"a": WITHSTOOD, "b": OPEN, "c": BROKEN, "d": OPEN}
    for letter, came in zip("abcd", (a, b, c, d), strict=True):
        expect_choice(
            came, right[letter], hints[letter], what=f"the verdict on {letter}"
        )
    expect_number(
        highest,
        exact_interval(0, 16)[1],
        what="the highest rate",
        secret=True,
        hint="equation eq-judge-zero, with n = 16.",
        rtol=0.01,
        mistakes={
            "that is what was seen; which rate is not excluded?": 0.0,
            "a share, not percent.": 100 * exact_interval(0, 16)[1],
            "that is one victim in 16; the interval goes further.": 1 / 16,
            "0.025, since the other 0.025 are on the other side.": 1 - 0.05 ** (1 / 16),
            "this is the probability of a miss; take it from 1.": 0.025 ** (1 / 16),
            "three over n is the one-sided rule of thumb.": 3 / 16,
        },
    )
    expect_choice(
        sentence,
        "b",
        {
            "a": "16 victims cannot tell 6 % from 20 %, and no attack is named.",
            "c": "that is a promise; nothing in the table is a proof.",
            "d": "the control finds 15: the attacks do work.",
        },
        what="the sentence",
    )


@exercise
def verdict(learner, generator):
    """Try counts around every border of the rule, for several numbers of victims."""
    given = [
        (*table, victims)
        for victims in (8, 16, 40)
        for table in _tables(victims, generator)
    ]
    came = [learner(*each) for each in given]
    for word in came:
        known = isinstance(word, str) and word in (BROKEN, WITHSTOOD, OPEN)
        expect(
            known,
            f"the verdict should be one of the three words; got {word!r:.60}.",
            hint=f'"{BROKEN}", "{WITHSTOOD}" or "{OPEN}", as in the text.',
        )
    hints = [
        hint
        for hint, rule in _MISTAKES.items()
        if all(rule(*each) == word for each, word in zip(given, came, strict=True))
    ]
    for each, word in zip(given, came, strict=True):
        shown = "control {}, oracle {}, attacks {}, {} victims".format(*each)
        expect(
            word == _verdict(*each),
            f"not right yet. With {shown} it should be {_verdict(*each)!r}, got "
            f"{word!r}.",
            hint=hints[0] if hints else "read the three lines of the rule again.",
        )


def _tables(n: int, generator: Generator) -> Iterator[tuple[list, list, list]]:
    """(control, oracle, attacks), each attack a list of counts, a number a seed."""
    most, half, few = n // 2 + 1, n // 2, n // 8
    some = int(torch.randint(most, n + 1, (), generator=generator))
    yield [n, some], [], [[0, 0], [some, most]]  # one finds most
    yield [0, 0], [0, 0], [[some, n]]  # and then no control matters
    yield [n, n], [n, n], [[n, few + 1]]  # not with every seed
    yield [n, n], [n, n], [[half, half]]  # not more than half
    yield [n, n], [n, n], [[n, 0], [0, n]]  # nor one and the same attack
    yield [n, some], [most, n], [[few, 0], [0, few]]  # withstood
    yield [some, n], [], [[0, 0]]  # nothing is drawn: no oracle
    yield [n, n], [n, n], [[few, few + 1]]  # in between
    yield [n, half], [n, n], [[0, 0]]  # the control is too weak
    yield [n, n], [half, n], [[0, 0], [0, 0]]  # the oracle is
    yield [n, n, n], [n, n, n], [[0, 0, few], [half, most, most]]


def _verdict(
    control: Counts,
    oracle: Counts,
    attacks: Sequence[Counts],
    victims: int,
    *,
    least: Callable[[Counts], float] = min,
    finds: Callable[[float, int], bool] = lambda found, of: 2 * found > of,
    is_rare: Callable[[float, int], bool] = lambda found, of: 8 * found <= of,
) -> str:
    if any(finds(least(counts), victims) for counts in attacks):
        return BROKEN
    rare = all(is_rare(max(counts), victims) for counts in attacks)
    works = all(finds(least(c), victims) for c in (control, oracle) if c)
    return WITHSTOOD if rare and works else OPEN


def _pooled(attacks: Sequence[Counts]) -> list[int]:
    """The best attack of each seed, as if they were one."""
    return [max(column) for column in zip(*attacks, strict=True)]


_MISTAKES: dict[str, _Rule] = {
    "the control has to find more than half before a zero says anything.": (
        lambda c, o, a, n: _verdict([], o, a, n)
    ),
    "the oracle has to find more than half, where there is one.": (
        lambda c, o, a, n: _verdict(c, [], a, n)
    ),
    "nothing is drawn where the oracle's list is empty: then none is needed.": (
        lambda c, o, a, n: _verdict(c, o or [0], a, n)
    ),
    "broken needs one attack with *every* seed, not with one of them.": (
        lambda c, o, a, n: _verdict(c, o, a, n, least=max)
    ),
    "every seed counts, not their mean.": (
        lambda c, o, a, n: _verdict(
            c, o, a, n, least=lambda counts: sum(counts) / len(counts)
        )
    ),
    "one and the same attack with every seed, not the best of each.": (
        lambda c, o, a, n: _verdict(c, o, [_pooled(a)], n)
    ),
    "half is not more than half.": (
        lambda c, o, a, n: _verdict(c, o, a, n, finds=lambda f, of: 2 * f >= of)
    ),
    "exactly one in eight is not more than one in eight.": (
        lambda c, o, a, n: _verdict(c, o, a, n, is_rare=lambda f, of: 8 * f < of)
    ),
    "not broken needs at most one in eight; between that and half it is open.": (
        lambda c, o, a, n: _verdict(c, o, a, n, is_rare=lambda f, of: 2 * f <= of)
    ),
    "broken is broken, whatever control and oracle find.": (
        lambda c, o, a, n: (
            _verdict(c, o, a, n) if _verdict(c, o, [[0]], n) == WITHSTOOD else OPEN
        )
    ),
}


@exercise
def to_match(learner, generator):
    """Try a defended layer in every place, two of them, and none."""
    for defended in ([0], [2], [4], [0, 4], []):
        heard = _heard(defended, generator)
        hidden = {f"layers.{place}.weight" for place in defended}
        right = {*heard} - hidden
        came = listed(learner(heard))
        expect(
            came is not None and all(isinstance(name, str) for name in came),
            f"the names should be a list of text; got {came!r:.60}.",
            hint="return the keys that the attack should go on matching.",
        )
        mistakes = {
            "those are the names to leave out.": hidden,
            "a column is dW[:, f]; dW[f] is a row.": {*heard} - _zeroed(heard, dim=1),
            "a zero here and there is no sign; a whole column is.": {
                name for name, value in heard.items() if (value != 0).all()
            },
            "the layer's bias is as it was: keep it.": right
            - {name.replace("weight", "bias") for name in hidden},
            "all of them: then the search meets the defense.": {*heard},
        }
        hints = [h for h, names in mistakes.items() if {*came} == names]
        expect(
            {*came} == right and len(came) == len(right),
            f"not right yet. {len(right)} of {len(heard)} names are due here, got "
            f"{len(came)}, of which {len(right & {*came})} are right.",
            hint=hints[0] if hints else "leave out a matrix with a column of zeros.",
        )


def _heard(defended: Sequence[int], generator: Generator) -> dict[str, Tensor]:
    """Of three layers: columns of zeros in some, rows and single zeros elsewhere."""
    gradient = {}
    for place, (rows, columns) in {0: (6, 8), 2: (5, 6), 4: (3, 5)}.items():
        weight = torch.randn(rows, columns, generator=generator)
        weight[place % rows, place % columns] = 0  # one entry
        weight[-1] = 0 if place == 2 else weight[-1]  # a row: a unit that was off
        if place in defended:
            dropped = torch.randperm(columns, generator=generator)[: columns // 2]
            weight[:, dropped] = 0
        gradient[f"layers.{place}.weight"] = weight
        gradient[f"layers.{place}.bias"] = weight.sum(1)
    return gradient


def _zeroed(heard: dict[str, Tensor], *, dim: int) -> set[str]:
    """The matrices with a column (dim 0) or a row (dim 1) of zeros."""
    return {n for n, v in heard.items() if v.ndim == 2 and (v == 0).all(dim).any()}


@exercise
def fill_in(filled, generator):
    """Compare line by line with what the paper of the text says."""
    names = ", ".join(QUESTIONS)
    expect(
        isinstance(filled, dict) and {*filled} == {*QUESTIONS},
        f"filled should be a dict with these {len(QUESTIONS)} keys: {names}.",
        hint='write {"attacker": "yes", ...}, with an answer for each.',
    )
    for name, (right, why) in _FILLED.items():
        others = {word: why for word in ("yes", "in part", "no") if word != right}
        expect_choice(_as_text(filled[name]), right, others, what=f"{name!r}")


def _as_text(answer: Any) -> Any:
    """Of a truth value the word."""
    return {True: "yes", False: "no"}[answer] if isinstance(answer, bool) else answer


@exercise
def transformed(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that an attacker who knows the policy can try each of its few "
        "outcomes (built against it); that a division finds the transformed picture "
        "exactly in a fully connected network (arithmetic first); that there is a "
        "second truth, the picture that was used (found and recognised); that ATS "
        "was found to be weakest in the first steps of training (young and old); that "
        "its two scores choose a policy without an attack, so they are no evidence "
        "against one; that the price is accuracy, at our scale about as much as "
        "strong noise; and a verdict in the words of the rule.",
        mistakes=[
            '"ATS holds, since SSIM with the original is small": a shifted face is a '
            "face.",
            '"ATS is broken": where, for which network, age and attacker?',
            '"the outcome is a secret": it is one of a few, so it can be tried.',
        ],
    )
