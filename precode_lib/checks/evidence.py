"""Markers for the exercises on the evidence: rates of success, and their limits."""

from functools import cache

import torch
from torch import Tensor

from precode_lib.marking import exercise, expect_number, expect_sequence, open_question

NOTEBOOKS_USE = ["THRESHOLDS", "figure5"]
THRESHOLDS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
ROWS = {"DMLP, noise 1e-2": ("dmlp", "ng-2"), "LeNet, no defense": ("lenet", "none")}
SEEDS, VICTIMS = 3, 128  # of the paper


@exercise
def by_hand(successes_a, successes_b, highest, lowest, generator):
    """Count in 384ths, and apply the rule of three to 16 victims."""
    victims = SEEDS * VICTIMS
    for came, percent in [(successes_a, 63.80), (successes_b, 42.45)]:
        expect_number(
            came,
            round(percent / 100 * victims),
            what=f"the successes of {percent:.2f} %",
            secret=True,
            hint="the share times 384, which is close to a whole number.",
            mistakes={
                "of one seed's 128 no count gives this percentage: take all three.": (
                    round(percent / 100 * VICTIMS)
                ),
                "a count is a whole number; the percentage is rounded.": (
                    percent / 100 * victims
                ),
                "these are the failures.": victims - round(percent / 100 * victims),
            },
            rtol=0,
            atol=1e-3,
        )
    # Seeds attack the same pictures again: they do not make more victims.
    bound = 100 * 3 / 16
    hints = {
        "in percent, please.": (bound / 100, 1 - bound / 100),
        "48 attempts, but on the same 16 pictures, three times each.": (
            300 / 48,
            100 - 300 / 48,
        ),
        "what was seen is not all that is possible.": (0.0, 100.0),
        "this is the other answer's bound.": (100 - bound, bound),
    }
    for came, right, i, what in [
        (highest, bound, 0, "the highest rate"),
        (lowest, 100 - bound, 1, "the lowest rate"),
    ]:
        expect_number(
            came,
            right,
            what=what,
            secret=True,
            hint="three divided by the number of different victims.",
            mistakes={hint: pair[i] for hint, pair in hints.items()},
            rtol=2e-3,
        )


@exercise
def success_rate(learner, generator):
    """Try two and more seeds, with values at the threshold itself."""
    for seeds, victims in [(3, 16), (2, 5), (4, 10)]:
        ssim = torch.rand(seeds, victims, generator=generator, dtype=torch.float64)
        ssim[:, 0] = 0.6
        ssim[0, 1:4], ssim[1, 1:4] = 0.9, 0.1
        came = expect_sequence(
            learner(ssim),
            2,
            what="the result",
            hint="return mean, spread: two numbers.",
        )
        rates = 100 * (ssim >= 0.6).double().mean(1)
        expect_number(
            came[0],
            rates.mean().item(),
            what="the mean",
            given={"ssim": ssim},
            hint="the share of successes of each seed, in percent, then their mean.",
            mistakes=_wrong_means(ssim),
        )
        expect_number(
            came[1],
            rates.std().item(),
            what="the spread",
            given={"ssim": ssim, "rates": rates},
            hint="the sample standard deviation of the seeds' rates.",
            mistakes=_wrong_spreads(ssim, rates),
        )


def _wrong_means(ssim: Tensor) -> dict[str, float]:
    def rate(successes: Tensor) -> float:
        return 100 * successes.double().mean().item()

    return {
        "an SSIM of 0.6 itself counts as a success.": rate(ssim > 0.6),
        "in percent, please.": rate(ssim >= 0.6) / 100,
        "these are the failures.": rate(ssim < 0.6),
        "this is the mean SSIM: count successes first.": ssim.mean().item(),
        "this is the mean SSIM in percent: count successes first.": (
            100 * ssim.mean().item()
        ),
        "a seed is no success because its mean SSIM is high.": rate(
            ssim.mean(1) >= 0.6
        ),
    }


def _wrong_spreads(ssim: Tensor, rates: Tensor) -> dict[str, float]:
    return {
        "divide by the number of seeds minus 1: they are a sample.": (
            rates.std(correction=0).item()
        ),
        "this spread is over all victims; asked is that over seeds.": (
            100 * (ssim >= 0.6).double().std().item()
        ),
        "in percent, like the mean.": rates.std().item() / 100,
        "this is the standard error of the mean; asked is the seeds' spread.": (
            rates.std().item() / len(rates) ** 0.5
        ),
        "the variance; its root is missing.": rates.var().item(),
        "this is the spread of the seeds' mean SSIM.": ssim.mean(1).std().item(),
        "the range of the rates is not their standard deviation.": (
            (rates.max() - rates.min()).item()
        ),
    }


@exercise
def highest_rate(learner, generator):
    """Try few victims and many."""
    more = torch.randint(20, 200, (2,), generator=generator).tolist()
    for victims in (16, 384, *more, 1):
        right = _highest_rate(victims)
        expect_number(
            learner(victims),
            right,
            what="the rate",
            given={"victims": victims},
            rtol=1e-3,
            hint="with rate p none of n succeeds with probability (1 - p) to the "
            "power n; which p makes that 0.05?",
            mistakes={
                "the rule of three is for many victims; here solve the equation.": 3
                / victims,
                "this is 1 - p.": 0.05 ** (1 / victims),
                "0.05 is the probability of seeing none, not that of seeing some.": (
                    1 - 0.95 ** (1 / victims)
                ),
                "none of n does not mean that none ever will.": 0.0,
                "that the next one succeeds is not what was asked.": 1 / (victims + 1),
                "a share, please, not percent.": 100 * right,
            },
        )


def _highest_rate(victims: int) -> float:
    """By bisection: the rate with which none succeeds with probability 0.05."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        none = (1 - middle) ** victims
        low, high = (middle, high) if none > 0.05 else (low, middle)
    return low


@cache
def figure5() -> dict[str, list[tuple[Tensor, dict[int, Tensor]]]]:
    """Of two rows of the paper's figure 5, by seed: our SSIM (V,), stored pictures."""
    from precode_lib.experiments import LITE
    from precode_lib.experiments.reading import Shelf, pictures_of

    shelf = Shelf.of(LITE)
    cells = {(c.setup.model, c.setup.defense): c for c in shelf.cells("fig5")}
    return {
        name: [
            (torch.tensor(run.result["ssim"]), pictures_of(run))
            for run in shelf.seeds_of(cells[who])
        ]
        for name, who in ROWS.items()
    }


@exercise
def threshold(value, generator):
    """Count the successes of both rows, for every seed and at every threshold."""
    dmlp, lenet = (torch.stack([s for s, _ in runs]) for runs in figure5().values())

    def lead(at: float) -> Tensor:
        """By how many pictures the DMLP is ahead, of each seed."""
        return (dmlp >= at).sum(1) - (lenet >= at).sum(1)

    with_every = [at for at in THRESHOLDS if (lead(at) > 0).all()]
    in_sum = [at for at in THRESHOLDS if lead(at).sum() > 0]
    expect_number(
        value,
        with_every[-1],
        what="the threshold",
        secret=True,
        hint="compare the two counts at each place of the slider, seed by seed.",
        mistakes={
            "all seeds together, yes; with one of them LeNet is ahead.": in_sum[-1],
            "at the next step every seed has the DMLP ahead as well.": with_every[-2],
            "this is the paper's; there the three seeds disagree.": 0.6,
        },
    )


@exercise
def printed_strengths(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the printed strength hardly protects here; that an agreement at "
        "ten times the noise is a likely explanation and no proof; that the scale of "
        "the gradients, the initialisation or the convention of the noise could differ "
        "as well, and that one row fits the printed noise better; that PRECODE's own "
        "rows do not depend on it, while the comparison with its competitors does; and "
        "what would settle it: the code or a run.",
        mistakes=[
            '"the paper is wrong": its rows may be right, for other strengths.',
            '"our run is wrong": the undefended rows and PRECODE\'s agree.',
        ],
    )
