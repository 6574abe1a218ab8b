"""Markers for the exercises on what makes a leak easy or hard."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from precode_lib.attacks import IGA, Search
from precode_lib.data import Pictures
from precode_lib.federated import observe
from precode_lib.marking import (
    exercise,
    expect_close,
    expect_number,
    expect_sequence,
    open_question,
)
from precode_lib.metrics import score
from precode_lib.models import lenet, pytorch_default

NOTEBOOKS_USE = ["SIZES", "STEPS", "watched"]
STEPS = [10, 20, 40, 80, 160]
SIZES = [16, 24, 32, 48]
ENOUGH = 0.5  # SSIM


def _two_steps() -> list[tuple[Tensor, Tensor]]:
    """Weights and bias of the text's client: before, after one step, after two."""
    x, y = torch.tensor([2.0, 1.0], dtype=torch.float64), 12
    states = [(torch.zeros(2, dtype=torch.float64), torch.zeros((), dtype=x.dtype))]
    for _ in range(2):
        w, b = (p.clone().requires_grad_() for p in states[-1])
        slopes = torch.autograd.grad((w @ x + b - y).square() / 2, [w, b])
        pairs = zip((w, b), slopes, strict=True)
        states.append(tuple(p.detach() - s / 12 for p, s in pairs))
    return states


@exercise
def by_hand(dw, db, quotient, generator):
    """Compare with two steps by autograd."""
    _, (w1, b1), (w2, b2) = _two_steps()
    expect_number(
        db,
        b2.item(),
        what="db",
        secret=True,
        hint="first step: δ = -12. Then compute f again, with the new w and b.",
        mistakes={
            "that is the first step alone.": b1.item(),
            "the second step has a gradient of its own: f has changed.": 2 * b1.item(),
            "a step goes against the gradient: the change is -δ/12.": -b2.item(),
            "f is w·x + b: the new b counts as well.": 1 + 7 / 12,
            "after minus before; divide no further.": b2.item() / 2,
            "multiply by the learning rate 1/12.": 12 * b2.item(),
        },
    )
    expect_close(
        dw,
        w2,
        what="dw",
        secret=True,
        hint="each step changes w by -δ/12 times x.",
        mistakes={
            "that is the first step alone.": w1,
            "the second step has a gradient of its own: f has changed.": 2 * w1,
            "a step goes against the gradient: the change is -δ/12 times x.": -w2,
            "δ is multiplied by x, entry by entry.": b2.expand(2),
        },
    )
    expect_close(
        quotient,
        w2 / b2,
        what="quotient",
        secret=True,
        hint="dw divided by db.",
        mistakes={
            "that is dw; divide by db.": w2,
            "dividing by the number of steps is not needed: it cancels.": w2 / b2 / 2,
            "the fraction is upside down.": b2 / w2,
        },
    )


@exercise
def batch(learner, generator):
    """Compare with autograd's gradients of a layer, for several sizes of batch."""
    for size, m, n in [(2, 3, 4), (1, 4, 2), (5, 2, 6)]:
        x = torch.randn(size, n, generator=generator)
        delta = torch.randn(size, m, generator=generator)
        weight = torch.randn(m, n, generator=generator).requires_grad_()
        bias = torch.randn(m, generator=generator).requires_grad_()
        # A loss whose slope at the outputs is delta, whatever they are.
        losses = (F.linear(x, weight, bias) * delta).sum(1)
        right_dW, right_db = torch.autograd.grad(losses.mean(), [weight, bias])
        given = {"delta": delta, "x": x}
        answer = learner(delta, x)
        pair = "return both, the weight's gradient first: `return dW, db`."
        dW, db = expect_sequence(answer, 2, what="the result", hint=pair)
        expect_close(
            dW,
            right_dW,
            given=given,
            what="dW",
            hint="one picture gives an outer product of delta and x; take their mean.",
            mistakes={
                "a product of means is not the mean of the products: each picture's "
                "delta belongs to its own x.": torch.outer(delta.mean(0), x.mean(0)),
                "this is the sum; the client sends the mean.": size * right_dW,
                "this is the transpose; rows belong to outputs.": right_dW.T,
                "this is the first picture's alone.": torch.outer(delta[0], x[0]),
                "divided by the number of outputs, not of pictures.": right_dW
                * size
                / m,
            },
        )
        expect_close(
            db,
            right_db,
            given=given,
            what="db",
            hint="what is the input that belongs to a bias?",
            mistakes={
                "this is the sum; the client sends the mean.": size * right_db,
                "this is the first picture's alone.": delta[0],
                "average over the pictures, not over the outputs.": delta.mean(1),
            },
        )


@exercise
def paired(learner, generator):
    """Compare for two settings that were tried on the same clients."""
    for num in (6, 3, 20):
        clients = torch.rand(num, generator=generator, dtype=torch.float64)
        noise = torch.rand(2, num, generator=generator, dtype=torch.float64)
        a, b = 0.2 * noise + 0.7 * clients
        change = b - a
        answer = learner(a, b)
        pair = "return both, the mean first: `return mean, error`."
        mean, error = expect_sequence(answer, 2, what="the result", hint=pair)
        given = {"a": a, "b": b}
        right = change.mean().item()
        expect_number(
            mean,
            right,
            given=given,
            what="the mean",
            hint="the mean of b - a over the clients.",
            mistakes={
                "the change from a to b is b - a.": -right,
                "signs count: take no absolute values.": change.abs().mean().item(),
                "this is the sum over the clients.": right * num,
            },
        )
        right = change.std().item() / num**0.5
        apart = ((a.var() + b.var()) / num).sqrt().item()
        expect_number(
            error,
            right,
            given=given,
            what="the error",
            hint="the standard deviation of the differences, over the root of n.",
            mistakes={
                "the same clients were attacked twice: take the differences first, "
                "and their spread is much smaller.": apart,
                "this is the spread of one client, not of the mean of n.": (
                    change.std().item()
                ),
                "divide by the root of n, not by n.": change.std().item() / num,
                "of a sample: divide the squares by n - 1, as .std() does.": (
                    change.std(correction=0).item() / num**0.5
                ),
                "this is a variance; take the root.": change.var().item() / num,
            },
        )


@lru_cache
def watched(size: int) -> tuple[Pictures, dict[int, Tensor]]:
    """Two photographs, and the guesses (2, C, H, W) of a search after some steps."""
    from precode_lib.data import victims

    photos = victims("photos", 2, size=size)
    model = lenet(
        (3, size, size),
        init=pytorch_default,
        generator=torch.Generator().manual_seed(0),
    )
    seen = observe(
        model,
        photos.images[:, None],
        photos.labels[:, None],
        normalisation=photos.normalisation,
    )
    recipe = replace(IGA, iterations=STEPS[-1], prior_weight=0.0)
    search = Search(seen, recipe, generator=Generator().manual_seed(1))
    guesses = {}
    for step, _ in enumerate(search, start=1):
        if step in STEPS:
            guesses[step] = search.result.pixels[:, 0]
    return photos, guesses


@exercise
def steps_needed(small, large, generator):
    """Run the searches."""
    for name, came, size in [("small", small, SIZES[0]), ("large", large, SIZES[2])]:
        photos, guesses = watched(size)
        ssim = [score(photos.pixels, guesses[step]).mean.ssim for step in STEPS]
        first = next(i for i, value in enumerate(ssim) if value >= ENOUGH)
        expect_number(
            came,
            STEPS[first],
            what=name,
            secret=True,
            hint="set the size, then add steps until the *mean* SSIM reaches 0.5.",
            mistakes={
                "here the mean SSIM still is below 0.5; more steps.": STEPS[first - 1],
                "enough, but not the first such setting.": STEPS[
                    min(first + 1, len(STEPS) - 1)
                ],
                "that is a size in pixels; the number of steps is asked for.": size,
            },
        )


@exercise
def late_start(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that a mean hides the clients who leak as before, that the cosine "
        "and the division do not mind a short gradient, that a search which fails "
        "shows nothing about the information (more steps, or float64 on the attacker's "
        "side, find what it missed), and that pictures new to the model still "
        "have large gradients. It asks for the worst client, the closed form and an "
        "untrained model that the server may send instead.",
        mistakes=[
            '"trained models leak nothing": the first layer\'s quotient is exact.',
            '"small gradients are safe": a factor cancels in division and cosine.',
        ],
    )
