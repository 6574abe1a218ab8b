"""Markers for the exercises on attacking PRECODE."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from precode_lib.attacks import IGA, Recipe, Search, VictimLBFGS, given
from precode_lib.attacks.labels import known_labels
from precode_lib.attacks.objectives import squared_distance
from precode_lib.attacks.starts import zeros
from precode_lib.bottleneck import with_precode
from precode_lib.data import Pictures, victims
from precode_lib.federated import Observation, observe
from precode_lib.gradients import Gradients
from precode_lib.marking import (
    drawn,
    exercise,
    expect,
    expect_choice,
    expect_close,
    expect_number,
    numbers_of,
    open_question,
)
from precode_lib.metrics import score
from precode_lib.models import smlp

NOTEBOOKS_USE = ["ERRORS", "SMALL_SEARCH", "overheard", "search_with_noise"]
ERRORS = [0, 0.1, 0.3, 0.5, 1, 3]
BEFORE = ["hidden1.weight", "hidden1.bias", "encoder.weight", "encoder.bias"]
BEHIND = ["decoder.weight", "decoder.bias", "fc.weight", "fc.bias"]


@exercise
def by_hand(true_distance, wrong_distance, true_loudness, wrong_loudness, generator):
    """Compare with both draws of the coin in the text."""
    throws = torch.tensor([[4.0, 0.0], [-4.0, 0.0]])
    means = {
        "the photograph": torch.tensor([0.0, 3.0]),
        "the wrong picture": torch.tensor([4.0, 6.0]),
    }
    heard = means["the photograph"] + throws[0]
    came = [true_distance, wrong_distance], [true_loudness, wrong_loudness]
    for (name, mean), distance in zip(means.items(), came[0], strict=True):
        cosines = F.cosine_similarity(mean + throws, heard[None])
        distances = 1 - cosines.double()
        expect_number(
            distance,
            distances.mean().item(),
            what=f"the mean distance of {name}",
            secret=True,
            hint="1 minus the cosine for each of both draws, then their mean.",
            mistakes={
                "with the client's own draw alone; the attacker meets both.": (
                    distances[0].item()
                ),
                "with the other draw alone; the attacker meets both.": (
                    distances[1].item()
                ),
                "this is the mean cosine; the distance is 1 minus it.": (
                    cosines.mean().item()
                ),
                "the noise was averaged first; average the distances.": (
                    1 - F.cosine_similarity(mean[None], heard[None]).item()
                ),
                "the sum of both draws; take their mean.": distances.sum().item(),
            },
            rtol=1e-3,
        )
    for (name, mean), loudness in zip(means.items(), came[1], strict=True):
        signal, spread = mean.square().sum().item(), 16.0
        expect_number(
            loudness,
            signal / (signal + spread),
            what=f"the loudness of {name}",
            secret=True,
            hint="|mean|² over |mean|² plus the mean square of the noise.",
            rtol=1e-3,
            mistakes={
                "the share of the noise; asked is that of the mean.": spread
                / (signal + spread),
                "lengths were added; add their squares.": signal**0.5
                / (signal**0.5 + 4),
                "signal over noise; asked is its share of both.": signal / spread,
            },
        )


@exercise
def objective(learner, generator):
    """Try several draws, and loud layers behind the noise."""
    for draws, scale in [(1, 1.0), (4, 20.0), (3, 0.1)]:
        clean = _gradients(generator, scale)
        target = _disturbed(clean, generator, scale)
        guesses = [_disturbed(clean, generator, scale) for _ in range(draws)]
        expect_number(
            learner(guesses, target, list(BEFORE)),
            _mean([_distance(guess, target, BEFORE) for guess in guesses]),
            what="the objective",
            given={"number of draws": draws, "keep": BEFORE},
            hint="for each draw one cosine over all kept entries together; then "
            "the mean of the distances.",
            mistakes=_wrong_objectives(guesses, target),
        )


def _gradients(generator: torch.Generator, scale: float) -> dict[str, Tensor]:
    shapes = [(6, 8), (6,), (4, 6), (4,), (6, 2), (6,), (3, 6), (3,)]
    names = BEFORE + BEHIND
    return {
        name: torch.randn(shape, generator=generator) * (scale if i > 3 else 1 + i)
        for i, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }


def _disturbed(
    clean: Mapping[str, Tensor], generator: torch.Generator, scale: float
) -> dict[str, Tensor]:
    """Little before the noise, a lot behind it."""
    size = {name: 0.5 if name in BEFORE else 2 * scale for name in clean}
    return {
        name: value + size[name] * torch.randn(value.shape, generator=generator)
        for name, value in clean.items()
    }


def _distance(guess: Mapping, target: Mapping, names: Sequence[str]) -> float:
    a, b = (torch.cat([g[n].flatten() for n in names]) for g in (guess, target))
    return 1 - F.cosine_similarity(a, b, dim=0).item()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _wrong_objectives(guesses: list, target: Mapping) -> dict[str, float]:
    averaged = {n: torch.stack([g[n] for g in guesses]).mean(0) for n in target}
    kept = [_distance(guess, target, BEFORE) for guess in guesses]
    return {
        "this looks at all layers; only those in keep count.": _mean(
            [_distance(guess, target, list(target)) for guess in guesses]
        ),
        "these are the layers that were to be left out.": _mean(
            [_distance(guess, target, BEHIND) for guess in guesses]
        ),
        "a distance for each layer, averaged: one cosine over all of them.": _mean(
            [_distance(guess, target, [n]) for guess in guesses for n in BEFORE]
        ),
        "gradients were averaged first; average the distances.": _distance(
            averaged, target, BEFORE
        ),
        "this is the similarity; a search minimises 1 minus it.": 1 - _mean(kept),
        "the first draw alone; take the mean over all.": kept[0],
        "the sum over the draws; take their mean.": sum(kept),
    }


@exercise
def noise_gradient(learner, generator):
    """Compare with autograd, for codes of several sizes and quiet units."""
    for k in (2, 5, 12):
        mu, epsilon, heard = torch.randn(3, k, generator=generator)
        s = 0.05 + torch.rand(k, generator=generator)
        unknown = epsilon.clone().requires_grad_()
        code = mu + s * unknown
        distance = 1 - F.cosine_similarity(code, heard, dim=0)
        right = torch.autograd.grad(distance, unknown)[0]
        gap = (code - heard).detach()
        expect_close(
            learner(mu, s, epsilon, heard),
            right,
            what="the gradient",
            given={"mu": mu, "s": s, "epsilon": epsilon, "heard": heard},
            hint="let autograd do it: epsilon must require a gradient, the distance "
            "must be one number.",
            mistakes={
                "this is the gradient with respect to the code: s is missing.": (
                    right / s
                ),
                "the sign: the distance is 1 minus the cosine.": -right,
                "this belongs to the squared distance, not to the cosine's.": (
                    2 * s * gap
                ),
                "half the squared distance has this gradient.": s * gap,
                "that is the gradient with respect to what was heard.": (
                    _gradient_of_heard(code.detach(), heard)
                ),
            },
        )


def _gradient_of_heard(code: Tensor, heard: Tensor) -> Tensor:
    unknown = heard.clone().requires_grad_()
    distance = 1 - F.cosine_similarity(code, unknown, dim=0)
    return torch.autograd.grad(distance, unknown)[0]


def search_with_noise(photos: Pictures, error: float, iterations: int = 100) -> Tensor:
    """Pixels (V, C, H, W): a search that knows the noise up to such an error."""
    generator = torch.Generator().manual_seed(2)
    shape = tuple(photos.images.shape[1:])
    plain = smlp(shape, width=64, generator=generator)
    model = with_precode(plain, before="fc", k=32, generator=generator)
    epsilon = torch.randn(len(photos), 32, generator=generator)
    wrong = torch.randn(len(photos), 32, generator=generator)
    known = epsilon + error * wrong
    seen = observe(
        model,
        photos.images[:, None],
        photos.labels[:, None],
        noise=[epsilon],
        normalisation=photos.normalisation,
    )
    recipe = replace(IGA, iterations=iterations, hidden=given([known]))
    search = Search(seen, recipe, generator=generator)
    for _ in search:
        pass
    return search.result.pixels[:, 0]


@cache
def _mean_ssim() -> list[float]:
    """Of the search with every error."""
    photos = victims("photos", 4, size=16)
    found = [search_with_noise(photos, error) for error in ERRORS]
    return [score(photos.pixels, pixels).ssim.mean().item() for pixels in found]


@exercise
def known_noise(error, generator):
    """Run the search with every error."""
    good = [e for e, ssim in zip(ERRORS, _mean_ssim(), strict=True) if ssim >= 0.6]
    after = ERRORS.index(good[-1]) + 1
    expect_number(
        error,
        good[-1],
        what="the error",
        secret=True,
        hint="move the slider from the left; the last value before the mean SSIM "
        "falls below 0.6.",
        mistakes={
            "here it is below 0.6 already; one step back.": ERRORS[after],
            "still above 0.6 at the next step, too.": good[-2],
            "the end of the slider: the noise is not known at all.": ERRORS[-1],
        },
    )


@exercise
def match(learner, generator):
    """Both attackers; then only the oracle, where too little was sent for the other."""
    for d, k, n in [(3, 2, 15), (6, 4, 30), (6, 9, 12)]:
        draw = partial(_linear_client, d, k, n, generator)
        A, B, x, epsilon = drawn(draw, _is_well_posed)
        heard = A @ x + B @ epsilon
        given = {"A": A, "B": B, "heard": heard}
        if n >= d + k:
            _expect_picture(learner(A, B, heard), x, given, A, B, epsilon)
        came = learner(A, B, heard, epsilon)
        _expect_picture(came, x, {**given, "noise": epsilon}, A, B, epsilon)


def _linear_client(d: int, k: int, n: int, generator: torch.Generator) -> tuple:
    shapes = [(n, d), (n, k), (d,), (k,)]
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _is_well_posed(case: tuple) -> bool:
    """Whether rounding does not matter, and the noise does."""
    A, B, _, epsilon = case
    n, d = A.shape
    both = torch.cat([A, B], 1) if n >= d + B.shape[1] else A
    is_loud = (torch.linalg.pinv(A) @ B @ epsilon).abs().max() > 0.1
    return bool(torch.linalg.cond(both) < 10 and is_loud)


def _expect_picture(
    came: Any, x: Tensor, given: Mapping, A: Tensor, B: Tensor, epsilon: Tensor
) -> None:
    knows = "noise" in given
    minimal = torch.linalg.pinv(torch.cat([A, B], 1)) @ given["heard"]
    expect_close(
        came,
        x,
        what=f"the picture, {'with' if knows else 'without'} the noise",
        given=given,
        hint="subtract the known noise's part, then solve for x alone."
        if knows
        else "x and the noise are the unknowns of one linear system.",
        mistakes={
            "this ignores the noise; it is an unknown, or known.": (
                torch.linalg.pinv(A) @ given["heard"]
            ),
            "the noise's part was added; take it away from what was heard.": (
                torch.linalg.pinv(A) @ (given["heard"] + B @ epsilon)
            ),
            "picture and noise together; return the picture alone.": torch.cat(
                [x, epsilon]
            ),
            "that is the noise; asked is the picture.": epsilon,
            "this searches for the noise although it was given.": minimal[: len(x)],
        },
        rtol=1e-2,
        atol=1e-2,
    )


# Of clients so small that a search arrives, but for one in a hundred: hence the median.
SMALL_SEARCH = Recipe(
    name="small",
    distance=squared_distance,
    optimizer=partial(VictimLBFGS, lr=1.0),
    iterations=6,
    start=zeros,
    labels=known_labels,
)
_CLIENTS, _SHAPE, _CODE = 3, (1, 5, 5), 4


@cache
def _small_network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    plain = smlp(
        _SHAPE, num_classes=4, width=24, activation=nn.Softplus, generator=generator
    )
    return with_precode(plain, before="fc", k=_CODE, generator=generator)


def overheard(heard: Mapping[str, Tensor], labels: Tensor) -> Observation:
    """What a server knows of clients with these gradients, (V, ...) by name.

    All have the same small network with PRECODE, and one picture each.
    """
    return Observation(
        shared=Gradients(heard),
        model=_small_network(),
        image_shape=torch.Size(_SHAPE),
        num_examples=1,
        num_classes=4,
        labels=labels,
    )


def _small_clients(generator: torch.Generator) -> tuple[Tensor, ...]:
    """Pictures, labels and noise of some clients, one picture each."""
    images = torch.randn(_CLIENTS, 1, *_SHAPE, generator=generator)
    labels = torch.randint(4, (_CLIENTS, 1), generator=generator)
    return images, labels, torch.randn(_CLIENTS, _CODE, generator=generator)


def _sent(images: Tensor, labels: Tensor, noise: Tensor) -> dict[str, Tensor]:
    shared = observe(_small_network(), images, labels, noise=[noise]).shared
    return dict(shared.dense().items())


def _errors(came: Any, images: Tensor) -> Tensor:
    """How far each picture is from the true one, over that one's length: (V,)."""
    found = numbers_of(came)
    expect(
        found is not None and found.numel() == images.numel(),
        f"the result should be pictures of the shape {tuple(images.shape)}.",
        hint="the `images` of the search's `result`.",
    )
    gaps = (found.reshape(images.shape) - images).flatten(1).norm(dim=1)
    return gaps / images.flatten(1).norm(dim=1)


@exercise
def find(learner, generator):
    """Noise that is unknown, that is told, and that is not the clients' own."""
    images, labels, noise = _small_clients(generator)
    heard = _sent(images, labels, noise)
    far = "the median picture is {:.1f} of its length away from the true one, {}."

    came = learner(heard, labels)
    error = _errors(came, images).median().item()
    expect(
        error < 0.1,
        far.format(error, "where the noise is unknown"),
        hint="the recipe's `hidden` is `fresh`: noise drawn anew at every step. It has "
        "to be searched for.",
    )
    error = _errors(learner(heard, labels, noise), images).median().item()
    expect(
        error < 0.1,
        far.format(error, "though the noise is told"),
        hint="`hidden=given([noise])`: a list with the noise of the one bottleneck.",
    )
    wrong = noise.roll(1, 0)
    error = _errors(learner(heard, labels, wrong), images).min().item()
    expect(
        error > 0.1,
        "told a noise that is not the clients', your oracle finds the pictures all the "
        "same.",
        hint="it searches for the noise although it was given; an oracle takes what it "
        "is told.",
    )


VERDICTS = {
    "leaks": "read the second column: does the defense stop this attack?",
    "weak": "read the first column: does the attack work without the defense?",
    "misled": "read the last column: does the secret bring the attack back?",
    "open": "read the last column: it works without the defense, and with the secret?",
    "safe": "no table of attacks shows that; a proof would.",
}


@exercise
def verdicts(a, b, c, d, generator):
    """One word for each row of the table in the text."""
    rows = {"A": (a, "misled"), "B": (b, "weak"), "C": (c, "open"), "D": (d, "leaks")}
    for row, (came, right) in rows.items():
        hints = {word: hint for word, hint in VERDICTS.items() if word != right}
        expect_choice(came, right, hints, what=f"row {row}")


@exercise
def success_rate_zero(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="whether the attacker knew the defense and adapted to it; whether the "
        "same attack works with the defense switched off; whether it works when it is "
        "given the secret noise (if not, the attack is weak and says nothing); whether "
        "a division or the labels need no search at all.",
        mistakes=[
            '"more pictures, more steps": against the wrong objective neither helps.',
            '"a rate of 0 is a proof": it is a statement about this one attack.',
        ],
    )
