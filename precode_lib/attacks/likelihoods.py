"""The distance that belongs to a noise: how improbable it makes what was shared.

Each is -log p(shared | guess's gradient) in nats, less what no guess changes. So it
adds up with a prior that is minus a log-density as well, and the two need no weight.
Whoever searches with one knows a defense and its settings, and not what it drew.
"""

from collections.abc import Callable
from functools import partial
from math import inf, log, sqrt

import torch
from torch import Tensor

from precode_lib.attacks.objectives import (
    Distance,
    absolute_distance,
    entrywise,
    scaled,
    squared_distance,
)
from precode_lib.basics.validation import check_count, check_range
from precode_lib.defenses import (
    Defense,
    add_laplace_noise,
    add_noise,
    clip,
    prune,
    prune_at_random,
    prune_globally,
    quantise,
)
from precode_lib.gradients import Gradients, cosine_similarity, squared_norm

__all__ = [
    "after",
    "direction_likelihood",
    "gaussian_likelihood",
    "laplace_likelihood",
    "likelihood_of",
    "pruning_distance",
    "random_pruning_likelihood",
    "rounding_distance",
    "stochastic_rounding_likelihood",
]

# Up to here -log(1 - u) is followed, of u in steps; beyond, its tangent goes on, for a
# guess that could not have been rounded so must still find its way.
_NEARLY_A_STEP = 0.9


def gaussian_likelihood(std: float) -> Distance:
    """Squared differences / 2 std²: for `add_noise`."""
    check_range(std, "std", 0, open_low=True)
    return scaled(squared_distance, 1 / (2 * std**2))


def laplace_likelihood(
    *, scale: float | None = None, std: float | None = None
) -> Distance:
    """Absolute differences / scale: for `add_laplace_noise`, with its options.

    The slope of each entry is a sign, which doesn't get smaller near the minimum: let
    the learning rate fall.
    """
    if (scale is None) == (std is None):
        raise ValueError(
            f"give either scale or std = √2 · scale, got scale={scale} and std={std}."
        )
    scale = std / sqrt(2) if scale is None else scale
    check_range(scale, "scale", 0, open_low=True)
    return scaled(absolute_distance, 1 / scale)


def direction_likelihood(std: float) -> Distance:
    """Gaussian noise on a gradient whose length is anybody's guess.

    The best length is put in for each guess, a profile likelihood: what is left is
    |shared|² (1 - cos²) / 2 std², the squared sine. For a client that clips or scales
    by a number nobody told. A guess of the opposite direction is as good as none.
    """
    check_range(std, "std", 0, open_low=True)

    def squared_sine(guess: Gradients, target: Gradients) -> Tensor:
        cosine = cosine_similarity(guess, target).clamp_min(0)
        return squared_norm(target) * (1 - cosine.square()) / (2 * std**2)

    return squared_sine


def random_pruning_likelihood(ratio: float, std: float) -> Distance:
    """Gaussian noise on a gradient that lost some entries, nobody told which.

    For `prune_at_random` and then `add_noise`: each entry is noise alone with
    probability `ratio`, or else the guess and noise. Where the guess is far off, an
    entry counts as dropped and pulls no more: begin near, or with a larger std.
    """
    check_range(ratio, "ratio", 0, 1, open_high=True)
    check_range(std, "std", 0, open_low=True)
    dropped = log(ratio) if ratio else -inf

    def mixture(guess: Tensor, shared: Tensor) -> Tensor:
        noise_alone = dropped - (shared / std).square() / 2
        with_guess = log(1 - ratio) - ((shared - guess) / std).square() / 2
        return -torch.logaddexp(noise_alone, with_guess)

    return entrywise(mixture)


def rounding_distance(bits: int = 8, *, symmetric: bool = True) -> Distance:
    """How far the guess is outside the cells of `quantise`, in steps and squared.

    Inside its cell every entry is as probable as any other, outside impossible. So this
    is zero for all gradients that round to what was shared, and no likelihood beyond.
    """
    step_of = _steps(bits, symmetric)

    def excess(guess: Tensor, shared: Tensor) -> Tensor:
        steps = (guess - shared).abs() / step_of(shared)
        return (steps - 0.5).clamp_min(0).square()

    return entrywise(excess)


def stochastic_rounding_likelihood(bits: int = 8) -> Distance:
    """-log(1 - |difference| / step): for symmetric `quantise` with a generator.

    An entry goes to the grid point above or below it, to the nearer one more often.
    Where less than a tenth of a step is left, and beyond, the tangent there.
    """
    step_of = _steps(bits, symmetric=True)

    def of_entries(guess: Tensor, shared: Tensor) -> Tensor:
        steps = (guess - shared).abs() / step_of(shared)
        inside = steps.clamp_max(_NEARLY_A_STEP)
        return -torch.log1p(-inside) + (steps - inside) / (1 - _NEARLY_A_STEP)

    return entrywise(of_entries)


def _steps(bits: int, symmetric: bool) -> Callable[[Tensor], Tensor]:
    """Rounded entries (V, n) -> the grid's step (V, 1), which they give away."""
    check_count(bits, "bits", 2 if symmetric else 1)
    check_range(bits, "bits", 1, 16)

    def step_of(shared: Tensor) -> Tensor:
        if symmetric:
            reach = shared.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        else:
            low = shared.amin(1, keepdim=True).clamp(max=0)
            high = shared.amax(1, keepdim=True).clamp(min=0)
            reach = (high - low) / (2**bits - 1)
        return reach.where(reach > 0, 1)  # of a silent parameter there is no step

    return step_of


def _where_kept(guess: Tensor, shared: Tensor) -> Tensor:
    return (guess - shared).square() * (shared != 0)


def _outside_of_pruned(guess: Tensor, shared: Tensor) -> Tensor:
    sizes = shared.abs()
    smallest_kept = sizes.where(sizes > 0, inf).amin(1, keepdim=True)
    too_large = (guess.abs() - smallest_kept).clamp_min(0)
    return torch.where(sizes > 0, guess - shared, too_large).square()


# For `prune`: what was kept is as it was, and what was dropped is known to be no larger
# than the smallest of it in the same parameter.
pruning_distance = entrywise(_outside_of_pruned)


def after(defense: Defense, distance: Distance) -> Distance:
    """The distance of what the defense makes of the guess's gradient.

    For what a client does without chance, such as clipping to a known length: the
    attacker does the same to the guess. The defense must have a useful derivative.
    """

    def of_defended(guess: Gradients, target: Gradients, **options: Tensor) -> Tensor:
        return distance(defense(guess), target, **options)

    return of_defended


def likelihood_of(defense: Defense) -> Distance:
    """The distance for an attacker who knows this defense and its settings.

    Args:
        defense: one of this library with its options bound by `functools.partial`.

    >>> from functools import partial
    >>> import torch
    >>> from precode_lib.attacks.likelihoods import likelihood_of
    >>> from precode_lib.defenses import add_noise
    >>> from precode_lib.gradients import Gradients
    >>> generator = torch.Generator()
    >>> distance = likelihood_of(partial(add_noise, std=0.5, generator=generator))
    >>> guess, shared = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> distance(Gradients({"bias": guess}), Gradients({"bias": shared}))
    tensor([2.])
    """
    known = isinstance(defense, partial) and defense.func in _KNOWN
    if not known:
        names = ", ".join(function.__name__ for function in _KNOWN)
        raise ValueError(
            f"no likelihood of {defense!r:.80}: give partial(f, ...) with f one of "
            f"{names}; for others write one with `entrywise`."
        )
    return _KNOWN[defense.func](**defense.keywords)


def _of_quantise(bits=8, *, symmetric=True, generator=None) -> Distance:
    if generator is None:
        return rounding_distance(bits, symmetric=symmetric)
    if not symmetric:
        raise ValueError(
            "an affine grid that rounds at random need not use its ends, so what was "
            "shared doesn't give away its step: no likelihood is known for it."
        )
    return stochastic_rounding_likelihood(bits)


_KNOWN: dict[Callable, Callable[..., Distance]] = {
    add_noise: lambda std, generator=None: gaussian_likelihood(std),
    add_laplace_noise: lambda generator=None, **size: laplace_likelihood(**size),
    clip: lambda max_norm: after(partial(clip, max_norm=max_norm), squared_distance),
    prune: lambda ratio: pruning_distance,
    prune_at_random: lambda ratio, generator=None: entrywise(_where_kept),
    prune_globally: lambda ratio: pruning_distance,
    quantise: _of_quantise,
}
