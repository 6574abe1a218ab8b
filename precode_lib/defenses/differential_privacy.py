"""DP-SGD at the client: clip the gradient of every picture, average, add noise.

Abadi et al. 2016, algorithm 1. Clipping needs one gradient per picture, so it is a step
of the client and no function of the gradient of its batch.
"""

from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor

from precode_lib.basics.validation import check_count, check_range
from precode_lib.bottleneck import NoiseSource
from precode_lib.defenses.clipping import clip
from precode_lib.defenses.noise import add_noise
from precode_lib.gradients import (
    Capture,
    Gradients,
    Outer,
    Term,
    check_victims,
    prefers_factors,
)


def dp_sgd_step(
    capture: Capture,
    images: Tensor,
    labels: Tensor,
    *,
    clip_norm: float,
    noise_multiplier: float,
    generator: torch.Generator,
    expected_batch_size: int | None = None,
    noise: NoiseSource | None = None,
) -> Gradients:
    """What V clients share under DP-SGD: (Σ clipped gradients + N(0, (σC)²)) / B.

    A `ClientStep`. Returns dense gradients; without noise, factored ones. Holds one
    gradient per picture of every layer that is not factored.

    Args:
        capture: of the model; one with batch statistics has no gradient per picture.
        images: (V, B, C, H, W).
        labels: (V, B) classes, or (V, B, classes) probabilities.
        clip_norm: C, the longest that the gradient of one picture may be.
        noise_multiplier: σ, the noise in the sum over C; see `epsilon`.
        generator: draws the noise.
        expected_batch_size: divides the sum when the pictures were drawn at random
            (Poisson sampling), where the actual B would tell on them; None for B.
        noise: where bottlenecks draw from.

    >>> import torch
    >>> from precode_lib.defenses import dp_sgd_step
    >>> from precode_lib.gradients import Capture, squared_norm
    >>> from precode_lib.models import lenet
    >>> images, labels = torch.rand(2, 4, 3, 32, 32), torch.zeros(2, 4).long()
    >>> options = {"clip_norm": 0.5, "noise_multiplier": 0, "generator": None}
    >>> shared = dp_sgd_step(Capture(lenet()), images, labels, **options)
    >>> (squared_norm(shared).sqrt() <= 0.5001).tolist()
    [True, True]
    """
    check_victims(images, labels)
    check_range(clip_norm, "clip_norm", 0, open_low=True)
    check_range(noise_multiplier, "noise_multiplier", 0)
    size = images.shape[1] if expected_batch_size is None else expected_batch_size
    check_count(size, "expected_batch_size")
    if capture.mixes_examples(images, labels):
        raise ValueError(
            "the model mixes its batch (as batch norm does), so no picture has a "
            "gradient of its own to clip; use group norm, or model.eval()."
        )
    # Each picture as a victim of its own, so that one pass has all their gradients.
    x, y = (tensor.flatten(0, 1).unsqueeze(1) for tensor in (images, labels))
    clipped = clip(capture(x, y, noise=noise), clip_norm)
    mean = Gradients(
        {name: _sum(t, images.shape[1], size) for name, t in clipped.items()}
    )
    if noise_multiplier == 0:
        return mean
    std = noise_multiplier * clip_norm / size
    return add_noise(mean, std, generator=generator)


def epsilon(
    noise_multiplier: float,
    *,
    sample_rate: float,
    steps: int,
    delta: float,
    accountant: Callable[[], Any] | None = None,
) -> float:
    """The ε of (ε, delta)-differential privacy after so many steps of DP-SGD.

    By Opacus' accountant, for adding or removing one picture, and only if every step
    drew each picture independently with probability `sample_rate`. Needs the extra
    `dp`. Infinite without noise.

    Args:
        noise_multiplier: σ of `dp_sgd_step`.
        sample_rate: the expected batch size over the number of the client's pictures.
        steps: how many.
        delta: below 1 / number of pictures, if it is to mean anything.
        accountant: a class of opacus.accountants; RDPAccountant by default, while
            PRVAccountant finds a smaller ε.
    """
    check_range(noise_multiplier, "noise_multiplier", 0)
    check_range(sample_rate, "sample_rate", 0, 1, open_low=True)
    check_range(delta, "delta", 0, 1, open_low=True, open_high=True)
    check_count(steps, "steps", 0)
    if noise_multiplier == 0:
        return inf if steps else 0.0
    if steps == 0:
        return 0.0
    chosen = (_rdp_accountant() if accountant is None else accountant)()
    # Its own step() would be called `steps` times to the same end.
    chosen.history = [(noise_multiplier, sample_rate, steps)]
    return float(chosen.get_epsilon(delta=delta))


def _rdp_accountant() -> Callable[[], Any]:
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise ImportError(
            "epsilon is computed by Opacus, which is not installed: "
            "pip install 'precode-lib[dp]'."
        ) from error
    return RDPAccountant


def _sum(term: Term, num_pictures: int, divisor: int) -> Term:
    """The sum over each victim's pictures, divided: V · B gradients to V."""
    if not isinstance(term, Outer):
        return term.unflatten(0, (-1, num_pictures)).sum(1) / divisor
    left, right = (
        side.unflatten(0, (-1, num_pictures)).flatten(1, 2)
        for side in (term.left / divisor, term.right)
    )
    total = Outer(left, right, term.shape)
    return total if prefers_factors(left.shape[1], term.shape) else total.dense()
