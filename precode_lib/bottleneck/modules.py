"""PRECODE: sample the features before classifying them.

Scheliga, Mäder, Seeland 2022; the convolutional kind is its 2023 successor (CVB).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import check_count, check_range
from precode_lib.models import built

from .held import HeldDropout
from .insertion import Example, Names, inserted, per_place, places
from .sampling import (
    draw_noise,
    kl_to_standard_normal,
    log_softplus,
    record_kl,
    softplus,
)


class Bottleneck(nn.Module):
    """What all bottlenecks share: a weight beta, one sample, and its KL term.

    The sample differs on every call, in training and in evaluation mode alike, unless
    `noise_from` fixes it. The module remembers nothing of a call: `kl_terms` collects
    the costs. beta is an attribute, not a part of the state dict.
    """

    def __init__(self, beta: float):
        super().__init__()
        check_range(beta, "beta", 0)
        self.beta = beta

    def kl(self, mean: Tensor, std: Tensor, log_std: Tensor) -> Tensor:
        """The divergence from N(0, 1) per example, in nats: → (B,)."""
        return kl_to_standard_normal(mean, std, log_std)

    def sample(self, mean: Tensor, raw_std: Tensor) -> Tensor:
        """Draw mean + softplus(raw_std) · noise and record beta · KL."""
        std = softplus(raw_std)
        # log_softplus, not std.log(): where std underflows to 0, the KL stays finite.
        record_kl(self.beta * self.kl(mean, std, log_softplus(raw_std)))
        return mean + std * draw_noise(mean)


class VariationalBottleneck(Bottleneck):
    """Encode features as a Gaussian, draw one sample, decode it to the same shape.

    Features of any shape (B, ...) are flattened and restored. The module does not
    hide what the layers before it reveal by themselves.

    Args:
        num_features: how many numbers an example has at this place.
        k: size of the code, K in the authors' program.
        beta: weight of the KL, in nats; see BITS_BETA for the authors' unit.
        generator: draws the initial weights; without it torch's global RNG does.
    """

    def __init__(
        self,
        num_features: int,
        k: int = 256,
        beta: float = 1e-3,
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__(beta)
        check_count(num_features, "num_features")
        check_count(k, "k")
        self.encoder = built(
            lambda: nn.Linear(num_features, 2 * k), generator=generator
        )
        self.decoder = built(lambda: nn.Linear(k, num_features), generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        """(B, ...) with num_features numbers per example → a sample of that shape."""
        self._check(features)
        mean, raw_std = self.encoder(features.flatten(1)).chunk(2, dim=1)
        return self.decoder(self.sample(mean, raw_std)).view(features.shape)

    def extra_repr(self) -> str:
        """Size of the code and weight, for print(model)."""
        return f"k={self.decoder.in_features}, beta={self.beta:g}"

    def _check(self, features: Tensor) -> None:
        shape, expected = tuple(features.shape), self.encoder.in_features
        if len(shape) < 2:
            raise ValueError(
                f"features must have a batch dimension, (B, {expected}), got {shape}."
            )
        if math.prod(shape[1:]) != expected:
            raise ValueError(
                f"this bottleneck takes {expected} features per example, got "
                f"{math.prod(shape[1:])} in shape {shape}."
            )


class ConvolutionalBottleneck(Bottleneck):
    """The bottleneck for feature maps: every layer is a convolution (CVB).

    The KL is summed over channels and averaged over positions, as in the reference,
    which however reads softplus as log-variance in the KL and as standard deviation
    in the sample; here it is the standard deviation in both, and in
    `PublishedConvolutionalBottleneck` it is as there. Spreads are limited to
    softplus(±5).

    Args:
        num_channels: channels of the feature maps.
        k: channels of the code; None takes half of num_channels, but at least 8.
        beta: weight of the KL; the reference uses 0.1 (small CNN) or 5e-5 (ResNet18).
        kernel_size: of the mean and spread; odd.
        generator: draws the initial weights; without it torch's global RNG does.
    """

    def __init__(
        self,
        num_channels: int,
        k: int | None = None,
        beta: float = 0.1,
        *,
        kernel_size: int = 5,
        generator: torch.Generator | None = None,
    ):
        super().__init__(beta)
        check_count(num_channels, "num_channels")
        k = max(8, num_channels // 2) if k is None else k
        check_count(k, "k")
        check_count(kernel_size, "kernel_size")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")

        def conv(channels_in: int, channels_out: int, size: int) -> nn.Conv2d:
            return built(
                lambda: nn.Conv2d(
                    channels_in, channels_out, size, padding=size // 2, bias=False
                ),
                generator=generator,
            )

        self.mean = conv(num_channels, k, kernel_size)
        self.spread = conv(num_channels, k, kernel_size)
        self.decoder = conv(k, num_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, num_channels, H, W) → a sample of that shape."""
        expected = self.mean.in_channels
        if features.ndim != 4 or features.shape[1] != expected:
            raise ValueError(
                f"this bottleneck takes feature maps (B, {expected}, H, W), got "
                f"{tuple(features.shape)}."
            )
        raw_std = self.spread(features).clamp(-5, 5)
        return self.decoder(self.sample(self.mean(features), raw_std))

    def kl(self, mean: Tensor, std: Tensor, log_std: Tensor) -> Tensor:
        """The divergence per example in nats, averaged over positions: → (B,)."""
        return super().kl(mean, std, log_std).mean(dim=(1, 2))

    def extra_repr(self) -> str:
        """Size of the code and weight, for print(model)."""
        return f"k={self.decoder.in_channels}, beta={self.beta:g}"


class PublishedConvolutionalBottleneck(ConvolutionalBottleneck):
    """CVB with the KL of its authors' code, whose derivative drives the spread to 0.

    With s the spread, it is ½ Σ (mean² + eˢ - s - 1): least at s = 0, where the sample
    has no noise, and not at the s = 1 of a standard normal.
    """

    def kl(self, mean: Tensor, std: Tensor, log_std: Tensor) -> Tensor:
        """As published, averaged over positions: → (B,)."""
        return 0.5 * (mean.square() + std.exp() - std - 1).sum(1).mean(dim=(1, 2))


def with_precode(
    model: nn.Module,
    before: Names | None = None,
    *,
    after: Names | None = None,
    k: int | Sequence[int] = 256,
    beta: float | Sequence[float] = 1e-3,
    example: Example | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A copy of the model with PRECODE beside the named layers; the model stays as is.

    Without names it goes before the last Linear that runs, as in the paper. Layer "fc"
    turns into a Sequential of "fc.bottleneck" and "fc.layer", which is where the state
    dict now keeps the old parameters.

    Args:
        model: any module from images to logits.
        before: one layer name or several, as in model.named_modules().
        after: likewise.
        k: size of the code; a list gives one per place, those of `before` first.
        beta: weight of the KL, likewise.
        example: images (N, C, H, W) or a shape (C, H, W) for the dry run that finds
            the sizes; by default model.image_shape, or (3, 32, 32).
        generator: draws the bottlenecks' initial weights, in the order of the places.

    >>> from precode_lib.bottleneck import with_precode
    >>> from precode_lib.models import lenet
    >>> defended = with_precode(lenet(), k=64)
    >>> [name for name, _ in defended.fc.named_children()]
    ['bottleneck', 'layer']
    """
    chosen = places(model, before, after, example=example)
    ks = per_place(k, len(chosen), "k")
    betas = per_place(beta, len(chosen), "beta")
    modules = [
        VariationalBottleneck(math.prod(p.feature_shape), k, beta, generator=generator)
        for p, k, beta in zip(chosen, ks, betas, strict=True)
    ]
    return inserted(model, chosen, modules)


def with_cvb(
    model: nn.Module,
    before: Names | None = None,
    *,
    after: Names | None = None,
    k: int | Sequence[int | None] | None = None,
    beta: float | Sequence[float] = 0.1,
    example: Example | None = None,
    generator: torch.Generator | None = None,
    kind: type[ConvolutionalBottleneck] = ConvolutionalBottleneck,
) -> nn.Module:
    """A copy of the model with convolutional bottlenecks beside the named layers.

    Its authors place one after the first convolution block. Otherwise as
    `with_precode`; the features at each place have to be maps (N, C, H, W).

    Args:
        kind: of bottleneck, such as `PublishedConvolutionalBottleneck`.
    """
    chosen = places(model, before, after, example=example)
    ks = per_place(k, len(chosen), "k")
    betas = per_place(beta, len(chosen), "beta")
    for place in chosen:
        if len(place.feature_shape) != 3:
            raise ValueError(
                f"at layer {place.layer!r} an example's features have shape "
                f"{place.feature_shape}, not (C, H, W); with_precode takes any shape."
            )
    modules = [
        kind(p.feature_shape[0], k, beta, generator=generator)
        for p, k, beta in zip(chosen, ks, betas, strict=True)
    ]
    return inserted(model, chosen, modules)


def with_dropout(
    model: nn.Module,
    p: float = 0.5,
    before: Names | None = None,
    *,
    after: Names | None = None,
    example: Example | None = None,
) -> nn.Module:
    """A copy of the model that drops features beside the named layers, in training.

    Its masks come from where the bottlenecks' noise does (see `hold_dropout`), so that
    a client can draw them from a generator of its own. Otherwise as `with_precode`.
    """
    check_range(p, "p", 0, 1)
    chosen = places(model, before, after, example=example)
    held = [HeldDropout(nn.Dropout(p)) for _ in chosen]
    return inserted(model, chosen, held)
