"""Markers for the exercises on real clients: what an update says of its gradients."""

from functools import cache, partial

import torch
from torch import Generator, Tensor
from torch.optim import SGD, Adam

from precode_lib.attacks import invert_linear, without_decay
from precode_lib.data import victims
from precode_lib.federated import LocalTraining, observe
from precode_lib.marking import (
    drawn,
    exercise,
    expect_choice,
    expect_close,
    expect_number,
    open_question,
)
from precode_lib.metrics import relative_error
from precode_lib.models import smlp

NOTEBOOKS_USE = ["OPTIMIZERS", "STEPS", "errors"]
STEPS = [1, 2, 5, 10, 20, 50]
OPTIMIZERS = {
    "SGD": partial(SGD, lr=0.02),
    "SGD, decay 0.01": partial(SGD, lr=0.02, weight_decay=0.01),
    "SGD, decay 0.01, momentum 0.9": partial(
        SGD, lr=0.02, weight_decay=0.01, momentum=0.9
    ),
    "Adam": partial(Adam, lr=1e-3),
}


@exercise
def by_hand(slopes, bias_slope, picture, untouched, generator):
    """One unit of a first layer, one step: the numbers of the text."""
    row = partial(torch.tensor, dtype=torch.float64)
    rate, decay = 0.1, 0.5
    weights, bias, sent, sent_bias = row([1.0, -2.0]), 0.4, row([0.65, -0.3]), 0.22
    right, right_bias = sent / rate - decay * weights, sent_bias / rate - decay * bias
    expect_close(
        slopes,
        right,
        what="slopes",
        secret=True,
        hint="the update over the rate, less the decay times the weights.",
        mistakes={
            "divide by the rate first: the decay was multiplied with it, too.": (
                sent - decay * weights
            )
            / rate,
            "the weights are missing.": sent / rate,
            "the decay was added to the slopes: subtract it.": (
                sent / rate + decay * weights
            ),
            "the rate is missing.": sent - decay * weights,
        },
    )
    expect_number(
        bias_slope,
        right_bias,
        what="bias_slope",
        secret=True,
        hint="the same with the bias, which decays as well.",
        mistakes={"the bias decays as well.": sent_bias / rate},
    )
    quotient = right / right_bias
    expect_close(
        picture,
        quotient,
        what="picture",
        secret=True,
        hint="slopes over the slope of the bias.",
        mistakes={
            "this is the division of the update as it was sent.": sent / sent_bias,
            "the other way round: slopes over the bias's.": 1 / quotient,
        },
    )
    expect_close(
        untouched,
        sent / sent_bias,
        what="untouched",
        secret=True,
        hint="the update of the weights over the update of the bias.",
        mistakes={"here the decay is left where it is.": quotient},
        rtol=5e-3,
    )


@exercise
def gradient(learner, generator):
    """Try a client's first step and a later one, against torch's own optimizer."""
    cases = [(0.0, 0.0, False), (0.3, 0.0, False), (0.2, 0.9, False), (0.2, 0.7, True)]
    for decay, momentum, is_later in cases:
        weights, slope, past = torch.randn(3, 3, 4, generator=generator).double()
        lr = 0.05 + 0.1 * float(torch.rand((), generator=generator))
        buffer = past if is_later else None
        update = _one_step(weights, slope, lr, decay, momentum, buffer)
        step, memory = update / lr, momentum * past
        mistakes = {
            "weight decay is still in it.": slope + decay * weights,
            "the decay is subtracted, not added.": slope + 2 * decay * weights,
            "the update is the rate times the rest: divide first.": (
                update - decay * weights
            ),
            "the update is weights before minus after: its sign is the slope's.": (
                -slope
            ),
        }
        if is_later:
            mistakes |= {
                "the buffer's share is still in it.": slope + memory,
                "the buffer is multiplied with momentum first.": (
                    step - past - decay * weights
                ),
                "of the slope nothing is damped: do not divide by 1 - momentum.": (
                    slope / (1 - momentum)
                ),
            }
        else:
            mistakes["in the first step the buffer is the slope, undamped."] = slope * (
                1 - momentum
            )
        expect_close(
            learner(update, weights, lr, decay, momentum, buffer),
            slope,
            what="the gradient",
            given={"lr": lr, "decay": decay, "momentum": momentum, "buffer": buffer},
            hint="solve update = lr * (momentum * buffer + gradient + decay * w).",
            mistakes=mistakes,
        )


def _one_step(
    weights: Tensor,
    slope: Tensor,
    lr: float,
    decay: float,
    momentum: float,
    buffer: Tensor | None,
) -> Tensor:
    """Weights before minus weights after, by torch."""
    moving = weights.clone().requires_grad_()
    optimizer = SGD([moving], lr=lr, weight_decay=decay, momentum=momentum)
    if buffer is not None:
        optimizer.state[moving]["momentum_buffer"] = buffer.clone()
    moving.grad = slope.clone()
    optimizer.step()
    return weights - moving.detach()


@exercise
def picture(learner, generator):
    """Try one step and many, with and without decay."""
    lr = 0.1
    for steps, decay in [(1, 0.0), (1, 0.2), (4, 0.3), (20, 0.1)]:
        left = (1 - lr * decay) ** steps
        case = drawn(
            lambda n=steps, d=decay: _trained(generator, n, lr, d),
            partial(_is_clear, left=left),
        )
        dW, db, W, b, x = case
        unit = db.abs().argmax()
        mistakes = {
            "weight decay is still in it.": dW[unit] / db[unit],
            "after several steps more of the weights is gone.": _quotient(
                case, 1 - lr * decay
            ),
            "each step takes lr * decay of what is *left*: a power, no product.": (
                _quotient(case, 1 - steps * lr * decay)
            ),
            "this is what is left of the weights; what is lost is due.": _quotient(
                case, 1 - left
            ),
            "the bias decays as well.": _quotient(case, left, bias_left=1.0),
        }
        expect_close(
            learner(dW, db, W, b, lr, decay, steps),
            x,
            what="the picture",
            given={"lr": lr, "decay": decay, "steps": steps},
            hint="subtract (1 - left) times the first weights and biases, then divide.",
            mistakes=mistakes,
            rtol=1e-3,
            atol=1e-4,
        )


Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _trained(generator: Generator, steps: int, lr: float, decay: float) -> Case:
    """A layer that takes random slopes of one picture: dW, db, W, b and the picture."""
    W = torch.randn(6, 5, generator=generator).double()
    b = torch.randn(6, generator=generator).double()
    x = torch.randn(5, generator=generator).double()
    weights, biases = W, b
    for _ in range(steps):
        delta = torch.randn(6, generator=generator).double()
        weights = weights - lr * (delta[:, None] * x + decay * weights)
        biases = biases - lr * (delta + decay * biases)
    return W - weights, b - biases, W, b, x


def _is_clear(case: Case, left: float) -> bool:
    """Whether every row has a slope worth dividing by, before and after."""
    _, db, _, b, _ = case
    slopes = torch.stack([db, db - (1 - left) * b])
    return bool(slopes.abs().min() > 2e-2)


def _quotient(case: Case, left: float, *, bias_left: float | None = None) -> Tensor:
    dW, db, W, b, _ = case
    rest = dW - (1 - left) * W
    slope = db - (1 - (left if bias_left is None else bias_left)) * b
    unit = slope.abs().argmax()
    return rest[unit] / slope[unit]


@cache
def errors(optimizer: str, steps: int) -> tuple[float, float]:
    """How far the division of one photograph's update is off: as sent, and undone."""
    photos = victims("photos", 2)[torch.tensor([1])]
    rate = OPTIMIZERS[optimizer].keywords["lr"]
    options = {k: v for k, v in OPTIMIZERS[optimizer].keywords.items() if k != "lr"}
    kind = OPTIMIZERS[optimizer].func
    local = LocalTraining(steps, rate, optimizer=partial(kind, **options))
    model = smlp(width=64, generator=torch.Generator().manual_seed(0))
    seen = observe(model, photos.images[None], photos.labels[None], local=local)
    cleaned = without_decay(seen) if kind is SGD else seen
    pair = (
        relative_error(photos.images, invert_linear(each).images)
        for each in (seen, cleaned)
    )
    as_sent, undone = (each.item() for each in pair)
    return as_sent, undone


@exercise
def local_steps(first, undone, adam, generator):
    """Look at every frame of the slider."""
    name = [*OPTIMIZERS][2]
    as_sent = [errors(name, steps)[0] for steps in STEPS]
    expect_number(
        first,
        next(n for n, off in zip(STEPS, as_sent, strict=True) if off > 0.01),
        what="first",
        secret=True,
        hint="choose decay and momentum, and move the steps from the left.",
        mistakes={
            "a hundredth, not a thousandth.": 1,
            "the last one that is not off by so much; one further.": 10,
        },
    )
    expect_choice(
        undone,
        "no",
        {"yes": "read the error under the last picture, for each optimizer of SGD."},
        what="whether an undone update is off by a hundredth",
    )
    expect_choice(
        adam,
        "hardly",
        {
            "falls": "compare one step and fifty.",
            "grows": "compare one step and fifty.",
        },
        what="how Adam's error moves",
    )


@exercise
def conditions(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="the optimizer and whether its memory outlives the round; how many "
        "pictures share a step, and how many epochs and shuffles there are; whether "
        "batch norms run in training mode and whether running averages are sent; what "
        "the first layer is, and whether it has a bias; whether data are skewed or "
        "repeated; and for each, which leak it ends and which it leaves. It says which "
        "of these were measured, and which are guesses.",
        mistakes=[
            '"we use Adam, so nothing leaks": its signs are a picture.',
            '"we train for ten epochs": of one picture that hides nothing.',
            '"the papers say modern networks resist": searches in training mode, by '
            "the attacks that they tried.",
        ],
    )
