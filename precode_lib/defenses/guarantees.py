"""What DP-SGD promises about one example, whatever is done with its messages.

Two relations between data sets: an example takes part or does not (*add and remove*,
what Opacus counts), or it stands in the place of another (*substitution*), which moves
the sum by up to 2 C instead of C. A function here says which one it is about.
"""

from collections.abc import Hashable, Iterable, Sequence
from math import hypot, inf, sqrt
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from precode_lib.basics.validation import check_examples, check_range
from precode_lib.defenses.privacy_losses import (
    Excesses,
    PrivateSteps,
    check_steps,
    excesses,
)

__all__ = [
    "Promise",
    "mse_without_prior",
    "promise_of",
    "promises_by_client",
    "reconstruction_bound",
    "substitution_bound",
]


class Promise(NamedTuple):
    """What is proven about one example, by add and remove.

    Args:
        epsilon: of (epsilon, delta)-differential privacy.
        bound: the best chance to find the example; see `reconstruction_bound`.
    """

    epsilon: float
    bound: float


def reconstruction_bound(
    kappa: float,
    *,
    noise_multiplier: float,
    sample_rate: float = 1.0,
    steps: int = 1,
) -> float:
    """How likely a secret is found at most behind DP-SGD, if it was with kappa before.

    Of whoever sees all steps, by the trade-off between the worlds with the example and
    without it (Hayes et al. 2023; Dong et al. 2022). It holds for every attack, also
    one that knows all other examples and that this one takes part: a world that nobody
    is in serves as the yardstick. Steps with all examples in closed form; others by
    composition, to about 1e-4 and never below.

    Args:
        kappa: the best chance of a guess without the gradient, such as 1 / 1000 for a
            thousand equally likely pictures.
        noise_multiplier: σ of `dp_sgd_step`.
        sample_rate: the chance of each example to be in a step, drawn anew and
            independently; shuffled batches are another thing.
        steps: how many.

    >>> from precode_lib.defenses import reconstruction_bound
    >>> round(reconstruction_bound(1 / 256, noise_multiplier=1.0), 5)
    0.04845
    >>> options = {"noise_multiplier": 1.0, "sample_rate": 0.01, "steps": 1000}
    >>> round(reconstruction_bound(1 / 256, **options), 3)
    0.013
    """
    _check_kappa(kappa)
    history = [PrivateSteps(noise_multiplier, sample_rate, steps)]
    return _power(kappa, history, likelier_with=True)


def substitution_bound(
    kappa: float,
    *,
    noise_multiplier: float,
    sample_rate: float = 1.0,
    steps: int = 1,
) -> float:
    """How likely an outcome is with this example, if with another it is with kappa.

    The same as `reconstruction_bound` with a real example as the yardstick, which is
    weaker: with all examples in every step, that of half the noise. Between two
    candidates it limits what one says of the other; the best guess among them is right
    no more often than `reconstruction_bound` allows.

    With sampling it goes through the world without either, which may be too careful.

    Args:
        kappa: the chance of the outcome, such as a guess, with the other example.
        noise_multiplier: σ of `dp_sgd_step`.
        sample_rate: see `reconstruction_bound`.
        steps: how many.

    >>> from precode_lib.defenses import substitution_bound
    >>> round(substitution_bound(1 / 256, noise_multiplier=2.0), 5)
    0.04845
    """
    _check_kappa(kappa)
    history = [PrivateSteps(noise_multiplier, sample_rate, steps)]
    halfway = _power(kappa, history, likelier_with=False)
    return _power(halfway, history, likelier_with=True)


def promise_of(
    history: Sequence[PrivateSteps], *, delta: float, kappa: float
) -> Promise:
    """What remains promised about an example after all these steps, by add and remove.

    Needs no accountant of another library; its epsilon is at most that of Opacus' PRV.

    Args:
        history: in any order.
        delta: below 1 / number of examples, if it is to mean anything.
        kappa: see `reconstruction_bound`.
    """
    _check_kappa(kappa)
    check_range(delta, "delta", 0, 1, open_low=True, open_high=True)
    check_steps(history)
    return Promise(_epsilon(history, delta), _power(kappa, history, likelier_with=True))


def promises_by_client(
    participations: Iterable[tuple[Hashable, PrivateSteps]],
    *,
    delta: float,
    kappa: float,
) -> dict[Hashable, Promise]:
    """Client by client, what remains promised about each of its examples.

    The server knows who takes part in which round, so being drawn by chance hides
    nothing from it: a round counts for those who were in it, in full. Examples of
    different clients share no message of one client, so their epsilons do not add up;
    the weakest promise is the federation's.

    Args:
        participations: (client, its local steps) for every round of every client.
        delta: see `promise_of`.
        kappa: see `reconstruction_bound`.

    >>> from precode_lib.defenses import PrivateSteps, promises_by_client
    >>> steps = PrivateSteps(2.0, sample_rate=0.1, steps=5)
    >>> rounds = [("ann", steps), ("ben", steps), ("ann", steps)]
    >>> kept = promises_by_client(rounds, delta=1e-5, kappa=1 / 1000)
    >>> {client: round(promise.epsilon, 1) for client, promise in kept.items()}
    {'ann': 0.8, 'ben': 0.6}
    """
    counts: dict[Hashable, dict[tuple[float, float], int]] = {}
    for client, part in participations:
        check_steps([part])
        sigma, rate, steps = part
        kinds = counts.setdefault(client, {})
        kinds[sigma, rate] = kinds.get((sigma, rate), 0) + steps
    return {
        client: promise_of(
            [PrivateSteps(*kind, steps) for kind, steps in kinds.items()],
            delta=delta,
            kappa=kappa,
        )
        for client, kinds in counts.items()
    }


def mse_without_prior(images: Tensor, *, noise_multiplier: float) -> Tensor:
    """The mean squared error that an unbiased division has at least behind DP-SGD.

    σ² |x|² (Riess et al. 2024): the noise on a first linear layer's rows δ xᵀ, best
    combined, leaves x + N(0, (σ C / |δ|)²), and clipping keeps |δ| |x| below C. Of
    attackers who use this layer alone, know δ at best, and expect nothing of pictures.
    Whoever clamps, smooths, compares candidates or just answers grey may be better.

    Args:
        images: (V, ...), as the layer gets them (normalised).
        noise_multiplier: σ of `dp_sgd_step`, one picture in one step.
    """
    check_examples(images, "images")
    check_range(noise_multiplier, "noise_multiplier", 0)
    return noise_multiplier**2 * images.flatten(1).square().sum(1)


def _check_kappa(kappa: float) -> None:
    check_range(kappa, "kappa", 0, 1, open_low=True)


def _power(
    kappa: float, history: Sequence[PrivateSteps], *, likelier_with: bool
) -> float:
    """The most that P(E) can be for an event with Q(E) = kappa."""
    check_steps(history)
    history = [part for part in history if part.steps]
    if kappa == 1 or not history:
        return kappa
    if all(part.sample_rate == 1 for part in history):
        if any(part.noise_multiplier == 0 for part in history):
            return 1.0
        apart = hypot(*(sqrt(part.steps) / part.noise_multiplier for part in history))
        return NormalDist().cdf(NormalDist().inv_cdf(kappa) + apart)
    curve = excesses(history, likelier_with=likelier_with)
    bounds = kappa * curve.epsilon.exp() + curve.excess
    return min(1.0, bounds.amin().item())


def _epsilon(history: Sequence[PrivateSteps], delta: float) -> float:
    both = [excesses(history, likelier_with=side) for side in (True, False)]
    return max(_epsilon_of(curve, delta) for curve in both)


def _epsilon_of(curve: Excesses, delta: float) -> float:
    """The smallest on the grid whose excess is no more than delta."""
    enough = curve.excess <= delta
    if not enough.any():
        return inf
    return max(0.0, curve.epsilon[enough.to(torch.uint8).argmax()].item())
