"""PRECODE: sample the features before classifying them.

`modules` are the bottlenecks, `insertion` puts one into any model, `sampling` is where
their noise comes from and their cost goes, `losses` the loss that counts this cost.
"""

from .held import hold_dropout, hold_statistics
from .losses import Loss, logits_of, loss, num_classes, per_example_loss, rehearse
from .modules import (
    Bottleneck,
    ConvolutionalBottleneck,
    PublishedConvolutionalBottleneck,
    VariationalBottleneck,
    with_cvb,
    with_dropout,
    with_precode,
)
from .sampling import (
    BITS_BETA,
    NATS_PER_BIT,
    Law,
    NoiseSource,
    draw_noise,
    kl_terms,
    kl_to_standard_normal,
    noise_from,
    quiet,
    recorded_noise,
    softplus,
    unheard,
)

__all__ = [
    "BITS_BETA",
    "NATS_PER_BIT",
    "Bottleneck",
    "ConvolutionalBottleneck",
    "Law",
    "PublishedConvolutionalBottleneck",
    "VariationalBottleneck",
    "hold_dropout",
    "hold_statistics",
    "kl_terms",
    "kl_to_standard_normal",
    "loss",
    "noise_from",
    "per_example_loss",
    "quiet",
    "recorded_noise",
    "softplus",
    "with_cvb",
    "with_dropout",
    "with_precode",
]
