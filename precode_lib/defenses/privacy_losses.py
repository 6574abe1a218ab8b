"""What one example can change in DP-SGD's messages: its privacy losses, composed.

Two worlds, with the example and without it; the noise is in units of the clipping norm.
The privacy loss of an outcome is the logarithm of how much likelier it is in one world
than in the other, and the losses of the steps add up. What follows is a bound: the
losses go onto a grid by connecting the dots of the convex curve of excesses (Doroshenko
et al. 2022), which never lies below the true one, and all that a finite grid leaves out
is counted as an outcome that gives the example away.
"""

from collections.abc import Sequence
from math import ceil, erf, expm1, floor, inf, log, log1p, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from precode_lib.basics.validation import check_count, check_range

_TAIL = 1e-12  # what the grid may leave out
_REACH = 9.0  # standard deviations of one step's noise: beyond lies 1e-19
_LOUD = 1e-3  # less noise is as good as none
_FAINT = 1e-10  # chances so near to each other are nearly equal
_LARGEST = 300.0  # a loss above gives the example away; exp still is finite
_POINTS = 2**18  # of the grid of all steps
_MOST = 2**22


class PrivateSteps(NamedTuple):
    """So many steps of DP-SGD of one kind.

    Args:
        noise_multiplier: σ, the noise in the sum over the clipping norm.
        sample_rate: the chance of each example to be in a step, drawn anew and
            independently (Poisson sampling); 1 for steps with all of them.
        steps: how many.
    """

    noise_multiplier: float
    sample_rate: float = 1.0
    steps: int = 1


class Excesses(NamedTuple):
    """sup over events E of P(E) - e^ε Q(E), at a grid of ε: a convex falling curve.

    Args:
        epsilon: (n,), rising.
        excess: (n,); the δ of (ε, δ)-differential privacy, one direction of it.
    """

    epsilon: Tensor
    excess: Tensor


def check_steps(history: Sequence[PrivateSteps]) -> None:
    """Refuse what is no DP-SGD."""
    for part in history:
        if not isinstance(part, PrivateSteps):
            raise TypeError(
                "a history is a list of PrivateSteps(noise_multiplier, sample_rate, "
                f"steps), got {part!r:.80} in it."
            )
        check_range(part.noise_multiplier, "noise_multiplier", 0)
        check_range(part.sample_rate, "sample_rate", 0, 1, open_low=True)
        check_count(part.steps, "steps", 0)


def excesses(history: Sequence[PrivateSteps], *, likelier_with: bool) -> Excesses:
    """The curve of all steps together, from above.

    Args:
        likelier_with: whether P is the world with the example, and Q the one without;
            else the other way round. With sampling the two curves differ.
    """
    history = [part for part in history if part.steps]
    faint = sum(part.steps * _difference(part) for part in history if _is_faint(part))
    history = [part for part in history if not _is_faint(part)]
    coarse = [_one_step(part, _width(part) / 2**12, likelier_with) for part in history]
    low, high = _range_of_sum(history, coarse)
    spacing = min([(high - low) / _POINTS, *map(_resolution, history)])
    spacing = max([spacing, *(w / _MOST for w in [high - low, *map(_width, history)])])
    fine = [_one_step(part, spacing, likelier_with) for part in history]
    epsilon, excess = _sum_of(history, fine, spacing, low, high)
    return Excesses(epsilon, (excess + faint).clamp(max=1))


def _difference(part: PrivateSteps) -> float:
    """The most by which a step's outcomes can differ in their chance: P(E) - Q(E)."""
    return part.sample_rate * erf(1 / (2 * sqrt(2) * max(part.noise_multiplier, _LOUD)))


def _is_faint(part: PrivateSteps) -> bool:
    """Whether its losses drown in rounding; then what it gives away is all counted."""
    return _difference(part) < _FAINT


class _Losses(NamedTuple):
    """P's chances of the losses first * spacing, ...; with `out` it is all out."""

    first: int
    chances: Tensor
    spacing: float
    out: float

    @property
    def values(self) -> Tensor:
        count = torch.arange(len(self.chances), dtype=torch.float64)
        return (self.first + count) * self.spacing


def _loss_at(outcome: float, part: PrivateSteps) -> float:
    """log of how much likelier an outcome is with the example; its share lies at 1."""
    sigma = max(part.noise_multiplier, _LOUD)
    exponent = (2 * outcome - 1) / (2 * sigma**2)
    exponent = min(max(exponent, -_LARGEST), _LARGEST)
    if part.sample_rate == 1:
        return exponent
    return log1p(part.sample_rate * expm1(exponent))


def _ends(part: PrivateSteps) -> tuple[float, float]:
    reach = _REACH * part.noise_multiplier
    return _loss_at(-reach, part), _loss_at(1 + reach, part)


def _width(part: PrivateSteps) -> float:
    low, high = _ends(part)
    return high - low


def _resolution(part: PrivateSteps) -> float:
    """A twentieth of the spread of one step's loss, about: finer changes nothing."""
    sigma = max(part.noise_multiplier, 0.2)
    return part.sample_rate * sqrt(expm1(1 / sigma**2)) / 20


def _one_step(part: PrivateSteps, spacing: float, likelier_with: bool) -> _Losses:
    """Connect the dots: an outcome between two losses becomes a lottery of the two.

    Which keeps its chances in both worlds. More can only help to tell them apart.
    """
    low, high = _ends(part)
    if not likelier_with:
        low, high = -high, -low
    first, last = floor(low / spacing), ceil(high / spacing)
    losses = torch.arange(first, last + 1, dtype=torch.float64) * spacing
    ratio = losses.exp()
    p, q = _chances_between(losses, part, likelier_with)
    width = torch.diff(ratio)
    # Of Q's chance, to the upper and to the lower end of each interval.
    up = ((p[1:-1] - ratio[:-1] * q[1:-1]) / width).clamp(min=0)
    down = ((ratio[1:] * q[1:-1] - p[1:-1]) / width).clamp(min=0)
    up = torch.cat([p[:1] / ratio[0], up])  # below the first: to it, and to -∞
    down = torch.cat([down, q[-1:]])  # above the last: to it, and to +∞
    chances, without = (up + down) * ratio, (q[0] - p[0] / ratio[0]).clamp(min=0)
    out = (p[-1] - ratio[-1] * q[-1]).clamp(min=0).item()
    # What rounding took or gave is as good as out: many steps make it a lot.
    rounding = abs(chances.sum().item() + out - 1)
    rounding += abs((up.sum() + down.sum() + without).item() - 1)
    return _Losses(first, chances, spacing, min(1.0, out + rounding))


def _chances_between(
    losses: Tensor, part: PrivateSteps, likelier_with: bool
) -> tuple[Tensor, Tensor]:
    """Of P and of Q: below the first loss, between each two, above the last."""
    sigma, rate = max(part.noise_multiplier, _LOUD), part.sample_rate
    sign = 1 if likelier_with else -1
    # The outcome with this loss: there a Gaussian at 1 is so much likelier than at 0.
    odds = 1 + (sign * losses).expm1() / rate
    outcome = sigma**2 * odds.clamp(min=0).log() + 0.5
    without = _chance_between(sign * outcome / sigma)
    drawn = _chance_between(sign * (outcome - 1) / sigma)
    with_it = (1 - rate) * without + rate * drawn
    return (with_it, without) if likelier_with else (without, with_it)


def _chance_between(edges: Tensor) -> Tensor:
    """Of a standard normal number, between rising edges: also far out not all 0."""
    infinite = edges.new_full((1,), inf)
    edges = torch.cat([-infinite, edges, infinite]) / sqrt(2)
    above, below = torch.erfc(edges) / 2, torch.erfc(-edges) / 2
    is_high = edges[1:] + edges[:-1] > 0  # NaN from infinities: either will do
    return torch.where(is_high, above[:-1] - above[1:], below[1:] - below[:-1])


def _growth(parts: Sequence[PrivateSteps], losses: Sequence[_Losses], tilt: Tensor):
    """log E[exp(tilt * sum of all losses)], for every tilt."""
    total = torch.zeros_like(tilt)
    for part, one in zip(parts, losses, strict=True):
        exponents = one.chances.log() + tilt[:, None] * one.values
        total += part.steps * exponents.logsumexp(1)
    return total


def _range_of_sum(
    parts: Sequence[PrivateSteps], losses: Sequence[_Losses]
) -> tuple[float, float]:
    """Where all but _TAIL of the sum lies, by Chernoff's bound, and a little more."""
    if not parts:
        return -1.0, 1.0
    tilt = torch.logspace(-2, 3.5, 100, dtype=torch.float64)
    up = ((_growth(parts, losses, tilt) - log(_TAIL)) / tilt).amin().item()
    down = ((_growth(parts, losses, -tilt) - log(_TAIL)) / tilt).amin().item()
    low, high = sorted((-down, up))  # they cross where next to all is out
    room = 0.1 * (high - low) + 1e-9
    return low - room, high + room


def _sum_of(
    parts: Sequence[PrivateSteps],
    losses: Sequence[_Losses],
    spacing: float,
    low: float,
    high: float,
) -> Excesses:
    """Add independent losses, by Fourier transforms, and read the curve off."""
    first = floor(low / spacing)
    num = 2 ** ceil(log((high - low) / spacing + 2, 2))
    spectrum: Tensor | float = 1.0
    caught = 1.0  # the chance that no step gives it all away
    for part, one in zip(parts, losses, strict=True):
        index = (torch.arange(len(one.chances)) + one.first) % num
        circle = torch.zeros(num, dtype=torch.float64)
        circle.index_add_(0, index, one.chances)
        spectrum = spectrum * torch.fft.rfft(circle) ** part.steps
        caught *= (1 - one.out) ** part.steps
    if not parts:
        chances = torch.zeros(num, dtype=torch.float64)
        chances[0] = 1.0
    else:
        chances = torch.fft.irfft(spectrum, n=num)
    chances = chances.clamp(min=0).roll(-(first % num))
    out = 1 - caught + (2 * _TAIL if parts else 0.0)
    epsilon = (first + torch.arange(num, dtype=torch.float64)) * spacing
    # sum over larger losses l of P(l) (1 - e^(ε - l)), without an overflow
    logs = chances.clamp(min=1e-300).log()
    likely = logs.flip(0).logcumsumexp(0).flip(0).exp()
    other = (logs - epsilon).flip(0).logcumsumexp(0).flip(0)
    excess = (likely - (other + epsilon).exp()).clamp(min=0) + out
    return Excesses(epsilon, excess.clamp(max=1))
