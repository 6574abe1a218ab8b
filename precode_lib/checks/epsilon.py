"""Markers for the exercises on what an epsilon buys."""

from functools import cache
from math import exp, log, sqrt
from statistics import NormalDist

import torch
from torch import Tensor

from precode_lib.defenses import PrivateSteps, Promise, promise_of
from precode_lib.marking import (
    exercise,
    expect_choice,
    expect_close,
    expect_number,
    expect_repeatable,
    open_question,
)

NOTEBOOKS_USE = ["NOISES", "SETTINGS", "hundred", "kept"]
NOISES = [0.4, 0.52, 0.7, 1.08, 1.6, 2.4]
# The sample rate and the steps of each way to train.
SETTINGS = {"whole": (1.0, 1), "rare": (0.01, 10)}

_NORMAL = NormalDist()
_ROUNDED = 5e-3  # what a table of four digits leaves open
_LINE, _BEFORE = 1.5, 0.25


@exercise
def by_hand(odds, belief, d, generator):
    """Compare with the areas right of 1.5, behind noise of 1."""
    present, absent = (1 - NormalDist(peak, 1).cdf(_LINE) for peak in (1, 0))
    ratio = present / absent
    after = ratio * _BEFORE / (1 - _BEFORE)
    expect_number(
        odds,
        ratio,
        what="odds",
        secret=True,
        rtol=_ROUNDED,
        hint="the area right of the line with you, over the one without you.",
        mistakes={
            "these areas lie left of the line.": (1 - present) / (1 - absent),
            "the one with you goes on top.": absent / present,
            "this is the ratio of the densities at the line.": exp(_LINE - 0.5),
            "with you the peak is at 1: look up 0.5, not 1.5.": 1.0,
        },
    )
    expect_number(
        belief,
        after / (1 + after),
        what="belief",
        secret=True,
        rtol=_ROUNDED,
        hint="25 percent are odds of 1 : 3; multiply, then make them a probability.",
        mistakes={
            "these are odds; a probability is odds / (1 + odds).": after,
            "the odds are multiplied, not the probability.": ratio * _BEFORE,
            "that is for even odds before; these are 1 : 3.": ratio / (1 + ratio),
            "25 percent are odds of 1 : 3, not 1 : 4.": ratio / 4 / (1 + ratio / 4),
        },
    )
    expect_number(
        d,
        present - 2 * absent,
        what="d",
        secret=True,
        rtol=_ROUNDED,
        hint="solve the definition for d, with the two areas and e^ε = 2.",
        mistakes={
            "e^ε is 2 here; ε is its logarithm.": present - log(2) * absent,
            "that is for ε = 0.": present - absent,
            "the factor stands before the area without you.": 2 * present - absent,
            "e^ε is 2 here, not e².": present - exp(2) * absent,
        },
    )


@exercise
def bound(learner, generator):
    """Compare with the formula, from a weak attacker to a strong one."""
    for kappa, m, T in [(0.1, 1.0, 1), (0.01, 2.0, 9), (0.3, 4.0, 2), (0.5, 0.5, 1)]:
        base = _NORMAL.inv_cdf(kappa)
        expect_number(
            learner(kappa, m, T),
            _NORMAL.cdf(base + sqrt(T) / m),
            what="the bound",
            given={"kappa": kappa, "m": m, "T": T},
            hint="to the normal scale, √T / m further, and back.",
            mistakes={
                "noises of different steps average: √T, not T.": _NORMAL.cdf(
                    base + T / m
                ),
                "T is missing: more steps tell more.": _NORMAL.cdf(base + 1 / m),
                "more noise should make it smaller: divide by m.": _NORMAL.cdf(
                    base + sqrt(T) * m
                ),
                "κ is a probability: bring it to the normal scale first.": _NORMAL.cdf(
                    kappa + sqrt(T) / m
                ),
                "this is still on the normal scale.": base + sqrt(T) / m,
                "the message helps the attacker: plus.": _NORMAL.cdf(
                    base - sqrt(T) / m
                ),
                "the root is of T alone.": _NORMAL.cdf(base + sqrt(T / m)),
            },
        )


@exercise
def posterior(learner, generator):
    """Compare with Bayes' rule; gradients differ in length, candidates in prior."""
    for num, C, m, scale in [(3, 1.0, 0.6, 2.0), (5, 0.5, 1.5, 0.4), (4, 2.0, 0.05, 3)]:
        gradients = scale * torch.randn(num, 6, generator=generator).double()
        gradients[-1] *= 0.1  # shorter than C: clipping leaves it
        prior = torch.rand(num, generator=generator).double() + 0.1
        prior = prior / prior.sum()
        noise = torch.randn(6, generator=generator).double()
        clipped = gradients * (C / gradients.norm(dim=1, keepdim=True)).clamp(max=1)
        seen = clipped[-1] + m * C * noise

        def likely(sent, std, prior=prior, seen=seen):
            squares = (seen - sent).square().sum(1)
            return (prior.log() - squares / (2 * std**2)).softmax(0)

        even = torch.ones_like(prior)
        unit = C * gradients / gradients.norm(dim=1, keepdim=True)
        inner = (prior.log() + clipped @ seen / (m * C) ** 2).softmax(0)
        expect_close(
            expect_repeatable(learner, seen, gradients, C, m, prior),
            likely(clipped, m * C),
            what="the probabilities",
            given={"seen": seen, "gradients": gradients, "C": C, "m": m},
            hint="clip each row, square the distance over 2 (m C)², add log prior, "
            "then softmax, which does not underflow.",
            mistakes={
                "the client clipped its gradient, so clip the candidates'.": likely(
                    gradients, m * C
                ),
                "clipping only shortens: short gradients stay as they are.": likely(
                    unit, m * C
                ),
                "not all candidates were equally probable before.": likely(
                    clipped, m * C, even
                ),
                "the noise is measured in units of C: its deviation is m C.": likely(
                    clipped, m
                ),
                "the exponent has 2 (m C)² below.": likely(clipped, m * C / sqrt(2)),
                "long gradients win by an inner product alone: use the distance.": (
                    inner
                ),
            },
        )


@cache
def kept(setting: str, m: float) -> Promise:
    """What a setting promises with this noise, at d = 1e-5 and one in a hundred."""
    rate, steps = SETTINGS[setting]
    return promise_of([PrivateSteps(m, rate, steps)], delta=1e-5, kappa=0.01)


def hundred(share: float) -> Tensor:
    """A hundred squares, as many of them coloured as the share: pixels (3, 99, 99)."""
    filled = torch.arange(100) < round(100 * share)
    cells = filled.view(10, 10).repeat_interleave(10, 0).repeat_interleave(10, 1)
    inside = torch.arange(99) % 10 < 9
    cells = cells[:99, :99] & inside & inside[:, None]
    colour = torch.tensor([0.72, 0.29, 0.0]).view(3, 1, 1)
    grey = torch.where(inside & inside[:, None], 0.85, 1.0)
    return torch.where(cells, colour, grey)


@exercise
def equal(m_whole, m_rare, better, times, generator):
    """Look up which of the slider's noises comes nearest to ε = 4."""
    right = {
        setting: min(NOISES, key=lambda m: abs(kept(setting, m).epsilon - 4))
        for setting in SETTINGS
    }
    for name, came, other in (("whole", m_whole, "rare"), ("rare", m_rare, "whole")):
        expect_number(
            came,
            right[name],
            what=f"m_{name}",
            secret=True,
            hint=f"choose “{name}” and move the noise until ε is about 4.",
            mistakes={
                "that is the other setting's.": right[other],
                "that is ε; asked for is the noise.": 4.0,
            },
        )
    bounds = {name: kept(name, m).bound for name, m in right.items()}
    expect_choice(
        better,
        "rare",
        {
            "whole": "compare how many of a hundred guesses are right at most.",
            "both": "ε is the same, but compare the guesses that are right.",
        },
        what="better",
    )
    ratio = bounds["whole"] / bounds["rare"]
    expect_number(
        times,
        ratio,
        what="times",
        secret=True,
        rtol=0.06,
        hint="the larger share of right guesses over the smaller, at those two noises.",
        mistakes={
            "the larger one goes on top.": 1 / ratio,
            "ε is the same, yet the shares are not.": 1.0,
            "that is the ratio of the noises.": right["whole"] / right["rare"],
            "a difference; asked for is how many times.": bounds["whole"]
            - bounds["rare"],
        },
    )


@exercise
def whose_promise(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the server has the updates before it adds the noise, so only "
        "readers of the sums are meant; that the rounds of one client add up and are "
        "no share of something; that the server knows who takes part; and that d, the "
        "noise in units of the clipping norm, the sampling and the unit (a record, a "
        "client) are missing.",
        mistakes=[
            '"0.6 is even better than 2": a client in thirty rounds has given away '
            "more than in one.",
            '"30 of 100 is a sampling rate": it hides who took part only from those '
            "who do not know it.",
        ],
    )
