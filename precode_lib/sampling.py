"""Noise and divergence live in `bottleneck`; this is their old address."""

from precode_lib.bottleneck import (
    BITS_BETA,
    NATS_PER_BIT,
    draw_noise,
    kl_terms,
    kl_to_standard_normal,
    noise_from,
    recorded_noise,
    softplus,
)

__all__ = [
    "BITS_BETA",
    "NATS_PER_BIT",
    "draw_noise",
    "kl_terms",
    "kl_to_standard_normal",
    "noise_from",
    "recorded_noise",
    "softplus",
]
