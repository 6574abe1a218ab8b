"""Markers for the exercises on audits: rules, proofs, and what a zero says."""

from collections.abc import Callable
from functools import cache
from itertools import product
from math import sqrt
from typing import Any

import torch
from torch import Generator

from precode_lib.audit import FIGURES, Report, audit, criterion
from precode_lib.data import Pictures, victims
from precode_lib.marking import (
    exercise,
    expect,
    expect_choice,
    expect_close,
    expect_number,
    listed,
    open_question,
)
from precode_lib.metrics import exact_interval
from precode_lib.models import lenet, smlp

NOTEBOOKS_USE = ["REPORTS", "clients", "seen"]
REPORTS = ["A", "B", "C", "D"]

# The table of the exercise by hand: whom each attack found, of six clients.
FOUND = {
    "search": [1, 0, 0, 1, 0, 0],
    "strong search": [1, 1, 0, 0, 0, 0],
    "oracle": [1, 1, 1, 1, 0, 1],
}


@exercise
def by_hand(recovered, asr, fires, code, generator):
    """Count whom an attacker found, without the oracle and nobody twice."""
    table = torch.tensor([*FOUND.values()])
    attackers, clients = table[:2], table.shape[1]
    right = int(attackers.any(0).sum())
    mistakes = {
        "an oracle is told what no attacker knows: it judges the attacks.": int(
            table.any(0).sum()
        ),
        "one client was found twice; count clients, not ticks.": int(attackers.sum()),
        "another attack found somebody else: who was found by any of them?": int(
            attackers.sum(1).max()
        ),
        "found by any attack is enough; it need not be all of them.": int(
            attackers.all(0).sum()
        ),
    }
    expect_number(
        recovered,
        right,
        what="the number that came back",
        secret=True,
        hint="each client once, if at least one attack found it.",
        mistakes=mistakes,
    )
    expect_number(
        asr,
        right / clients,
        what="the asr",
        secret=True,
        hint="that number, as a share of the six.",
        mistakes={
            "a share, not percent.": 100 * right / clients,
            **{hint: wrong / clients for hint, wrong in mistakes.items()},
        },
    )
    expect_choice(
        fires,
        "no",
        {"yes": "> is not >=, and nothing was certified."},
        what="whether the rule fires",
    )
    expect_number(
        code,
        0,
        what="the exit code",
        secret=True,
        hint="it follows from the rule alone; see the chapter's table.",
        mistakes={
            "1 is for a rule that fired.": 1,
            "2 is for an audit that could not say anything; two attacks ran.": 2,
        },
    )


@exercise
def rule(text, generator):
    """Try the rule on every combination of rates and proofs."""
    expect(
        isinstance(text, str),
        f"the rule should be text; got {text!r:.40}.",
        hint='write it in quotation marks, such as "asr > 0".',
    )
    try:
        mine = criterion(text)
    except ValueError as problem:
        expect(
            False, f"{problem}", hint="names, numbers, `and`, `or`, and comparisons."
        )
    hints = {
        "asr > 0.1 and certified": "either is enough for a failure: `or`.",
        "asr >= 0.1 or certified": "one in ten is not yet *more* than one in ten.",
        "asr > 10 or certified": "asr is a share, between 0 and 1.",
        "recovered > 1 or certified": "recovered is a number of examples; of how many?",
        "asr > 0.1": "and if it is a proof?",
        "certified": "and without a proof?",
        "asr > 0.1 or features": "features are an inner layer's: nobody's example.",
    }
    for rate, proofs, clients in product((0, 1, 2, 5), (0, 1, 3), (10, 40)):
        figures = {
            **dict.fromkeys(FIGURES, 0.0),
            "asr": rate / 10,
            "recovered": rate * clients // 10,
            "certified": min(proofs, rate * clients // 10),
            "ssim": 0.9,
            "labels": 1.0,
            "features": clients,
        }
        wanted = rate > 1 or figures["certified"] > 0
        if mine.fires(figures) != wanted:
            near = [its for its in hints if _alike(mine, criterion(its))]
            shown = f"asr {figures['asr']:.1f}, certified {figures['certified']:.0f}"
            expect(
                False,
                f"not right yet. Of {clients} examples, with {shown}, it should "
                f"{'fail' if wanted else 'pass'}.",
                hint=hints[near[0]] if near else "which figures are asked for?",
            )


def _alike(one: Any, other: Any) -> bool:
    """Whether two rules agree wherever the figures are what this exercise varies."""
    varied = {
        "asr": (0.0, 0.1, 0.2, 0.5, 20.0),
        "certified": (0, 1),
        "recovered": (0, 1, 2, 20),
        "features": (0, 5),
    }
    others = dict.fromkeys(FIGURES, 0.0)
    return all(
        one.fires(figures) == other.fires(figures)
        for values in product(*varied.values())
        for figures in [others | dict(zip(varied, values, strict=True))]
    )


@exercise
def leaking(learner, generator):
    """Try reports in which something is right, or proven, or a picture, and not all."""
    for is_quiet in (False, True):
        report = _report(generator, is_quiet)
        came = listed(learner(report))
        expect(
            came is not None and all(isinstance(name, str) for name in came),
            "the result should be names in a list or a set.",
            hint="what stands at `parameter`.",
        )
        expect(
            len(set(came)) == len(came),
            "not right yet. Some of the names are there twice.",
            hint="two cases may have the same parameter: a set keeps one of each.",
        )
        right = _leaking(report, _is_proven_example)
        if set(came) == right:
            continue
        mistakes = {
            "features are the inputs of an inner layer: nobody's example.": _is_proven,
            "right is what the judge says; proven is `certified`.": _is_right,
            "one client whose example is proven is enough.": _is_proven_of_all,
        }
        where = {h: _leaking(report, counts) for h, counts in mistakes.items()}
        where["a control is not under audit."] = _leaking(
            report, _is_proven_example, controls=True
        )
        hints = [hint for hint, names in where.items() if set(came) == names]
        expect(
            False,
            f"not right yet. {len(right)} names are due here, got {len(set(came))}, of "
            f"which {len(right & set(came))} are right.",
            hint=hints[0]
            if hints
            else "of each finding: a case under audit, an example, and a proof?",
        )


Counts = Callable[[dict], bool]


def _leaking(report: dict, counts: Counts, *, controls: bool = False) -> set[str]:
    return {
        finding["parameter"]
        for case in report["cases"]
        if controls or not case["control"]
        for finding in case["findings"]
        if finding["parameter"] is not None and counts(finding)
    }


def _is_proven(finding: dict) -> bool:
    return any(finding["certified"])


def _is_proven_example(finding: dict) -> bool:
    return _is_proven(finding) and finding["gives"] != "features"


def _is_proven_of_all(finding: dict) -> bool:
    return _is_proven_example(finding) and all(finding["certified"])


def _is_right(finding: dict) -> bool:
    return any(finding["recovered"])


def _report(generator: Generator, is_quiet: bool) -> dict:
    """As the JSON of a report: two cases under audit, and a control."""
    layers = torch.randperm(9, generator=generator).tolist()
    a, b, c, d, e, f, g = (f"layers.{layer}.weight" for layer in layers[:7])
    searched = _finding(None, "picture", [True, True], [False, False], "search")
    features = _finding(b, "features", [], [True, True])
    wrong = _finding(c, "picture", [True, False], [False, False])
    first, second = [searched, features, wrong], [_finding(f, "picture", [], [])]
    if not is_quiet:
        first += [
            _finding(a, "picture", [True, True], [True, True]),
            _finding(d, "tokens", [False, True], [False, True]),
        ]
        second += [
            _finding(a, "picture", [True, True], [True, True]),
            _finding(e, "row", [True, True], [True, False]),
        ]
    control = [_finding(g, "picture", [True, True], [True, True]), features]
    return {
        "schema": 1,
        "cases": [
            _case("batch 1, noise:1e-3", first, generator),
            _case("batch 2, noise:1e-3", second, generator),
            _case("batch 1", control, generator, is_control=True),
        ],
    }


def _finding(
    parameter: str | None,
    gives: str,
    recovered: list[bool],
    certified: list[bool],
    group: str = "closed form",
) -> dict:
    return {
        "attack": "division" if parameter else "strong search",
        "group": group,
        "state": "done" if certified else "sees nothing",
        "gives": gives,
        "parameter": parameter,
        "recovered": recovered,
        "certified": certified,
    }


def _case(
    name: str, findings: list[dict], generator: Generator, *, is_control: bool = False
) -> dict:
    order = torch.randperm(len(findings), generator=generator).tolist()
    shuffled = [findings[i] for i in order]
    return {"name": name, "control": is_control, "findings": shuffled}


@exercise
def highest(learner, generator):
    """Try none, some and all, of few and of many."""
    trials = int(torch.randint(5, 40, (), generator=generator))
    some = int(torch.randint(1, trials, (), generator=generator))
    for found, of in [(0, 4), (0, 100), (1, 8), (7, 16), (some, trials), (6, 6)]:
        rate = found / of
        spread = 1.96 * sqrt(rate * (1 - rate) / of)
        expect_number(
            learner(found, of),
            exact_interval(found, of)[1],
            what="the highest rate",
            given={"recovered": found, "examples": of},
            hint="at this rate, so many or fewer have a probability of 0.025.",
            mistakes={
                "this is the rate that was seen; luck may have kept it low.": rate,
                "that is for none; here some came back.": 1 - 0.025 ** (1 / of),
                "0.025, since the other 0.025 are on the other side.": (
                    exact_interval(found, of, 0.9)[1]
                ),
                "the normal approximation, which is poor for few examples.": (
                    rate + spread
                ),
                "as many *or fewer*: leave none of the terms out.": (
                    exact_interval(max(found - 1, 0), of)[1]
                ),
                "this is the other end of the interval.": exact_interval(found, of)[0],
            },
            rtol=1e-3,
        )


@exercise
def signs(learner, generator):
    """Try gradients of several shapes, with zeros, and with nothing but zeros."""
    for shape in [(3, 4), (6,), (2, 3, 2, 2), (5,)]:
        gradient = torch.randn(shape, generator=generator)
        gradient.view(-1)[::3] = 0
        if shape == (5,):
            gradient = torch.zeros(shape)
        sizes = gradient.abs()
        sign = gradient.sign()
        expect_close(
            learner(gradient),
            sign * sizes.mean(),
            what="what is sent",
            given={"gradient": gradient},
            hint="the sign of each entry, times one number for the whole tensor.",
            mistakes={
                "the signs alone: the server would not know how far to go.": sign,
                "this is the largest size; the mean is due.": sign * sizes.max(),
                "the mean of the sizes, not of the entries.": sign * gradient.mean(),
                "the mean of the sizes, not the root of the mean square.": (
                    sign * gradient.square().mean().sqrt()
                ),
                "the mean over all entries, zeros included.": (
                    sign * sizes[sizes > 0].mean().nan_to_num()
                ),
                "a zero stays a zero.": torch.where(gradient >= 0, 1.0, -1.0)
                * sizes.mean(),
            },
        )


@cache
def clients() -> Pictures:
    """The four clients of the reports."""
    return victims("photos", 4)


@cache
def seen(letter: str) -> Report:
    """One of the reports in which 0 of 4 came back, with its control, if it has one."""
    dense = smlp(width=64, generator=torch.Generator().manual_seed(0))
    small = lenet(generator=torch.Generator().manual_seed(0))
    if letter == "C":
        torch.nn.init.zeros_(dense.fc.weight)
    noisy = {"effort": 0.0, "defense": "noise:1e-2"}
    model, options = {
        "A": (small, {**noisy, "effort": 0.03}),
        "B": (dense, {"effort": 0.0, "defense": "dp-sgd:1:1"}),
        "C": (dense, {"effort": 0.0}),
        "D": (small, noisy),
    }[letter]
    return audit(model, clients(), accuracy=False, **options)


@exercise
def zeros(defended, blind, weak, untried, generator):
    """Look at each report again."""
    of = {
        "A": "in A nothing came back without the defense, either.",
        "B": "in B all came back without the defense, and none with it.",
        "C": "in C most of the parameters sent nothing but zeros.",
        "D": "in D no attack that could bring a picture back was tried.",
    }
    for came, right, what in [
        (defended, "B", "the report that speaks for its defense"),
        (blind, "C", "the one with nothing to see"),
        (weak, "A", "the one whose attack was too weak"),
        (untried, "D", "the one in which nothing was tried"),
    ]:
        hints = {letter.lower(): hint for letter, hint in of.items() if letter != right}
        expect_choice(came, right.lower(), hints, what=what)


@exercise
def release_notes(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that nothing which was tried broke the rule, with the numbers: 0 of "
        "8, so that up to 37 percent are not excluded; that the control makes it a "
        "test, since 6 of 8 come back without the defense; that all labels were read "
        "off, which the rule did not ask for; what was not tried: other searches, "
        "longer ones, servers that change the model, several rounds of one client; and "
        "that pruning proves nothing, so the word *safe* has no place.",
        mistakes=[
            '"0 % of the pictures leak": that is what was seen, on eight clients.',
            '"the defense is proven": a proof is an epsilon or a bound, with numbers.',
            '"nothing leaks": every label did.',
        ],
    )
