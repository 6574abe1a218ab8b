"""Noise and divergence: the part that every stochastic layer of the library shares.

A bottleneck asks `draw_noise` for its noise and hands its cost to `record_kl`. Who
wants to fix the noise, to see it or to collect the costs opens a context; the modules
keep no state, so they can be copied, pickled, compiled and run under torch.func.
Dropout's masks come the same way, once `hold_dropout` made it ask.

Contexts belong to the thread that opened them. Do not `yield` to a caller inside one:
Python would leave it open for the caller too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NoiseSource = torch.Generator | Sequence[Tensor] | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Law:
    """How a layer's hidden numbers are drawn, and where they lie.

    They are written so that 0 is what to expect: a bottleneck gives its mean then, a
    dropout all of its features.

    Args:
        name: for people.
        draw: (shape, *, generator, device, dtype) -> numbers.
        box: where they lie, or where a search may look for them; None for anywhere.
        is_shared: whether all examples of a victim have the same.
    """

    name: str
    draw: Callable[..., Tensor]
    box: tuple[float, float] | None = None
    is_shared: bool = False


NORMAL = Law("noise", torch.randn)

NATS_PER_BIT = math.log(2)
# The authors' code measures the KL in bits, but the cross-entropy in nats: its
# beta = 1e-3 weighs as much as this beta does on our KL, which is in nats.
BITS_BETA = 1e-3 / NATS_PER_BIT


def _from_torch(like: Tensor, law: Law) -> Tensor:
    if law is NORMAL:
        return torch.randn_like(like)
    return law.draw(like.shape, generator=None, device=like.device, dtype=like.dtype)


_noise: ContextVar[Callable[[Tensor, Law], Tensor]] = ContextVar(
    "noise", default=_from_torch
)
_noise_lists: ContextVar[tuple[list[Tensor], ...]] = ContextVar(
    "noise_lists", default=()
)
_kl_lists: ContextVar[tuple[list[Tensor], ...]] = ContextVar("kl_lists", default=())


def softplus(raw: Tensor) -> Tensor:
    """ln(1 + eˣ), to the last digit of raw's dtype.

    PyTorch's default switches to x at x = 20, which costs 2e-9 in float64.
    """
    return F.softplus(raw, threshold=_negligible(raw))


def log_softplus(raw: Tensor) -> Tensor:
    """ln ln(1 + eˣ), with finite values and gradients where softplus underflows to 0.

    Its slope tends to 1 at the negative end and to 0 at the positive one.
    """
    cut = -_negligible(raw)
    # Below the cut ln softplus(x) = x - eˣ/2 + ..., which rounds to x. The clamp keeps
    # the unused branch finite: where() would turn its infinite gradient into NaN.
    return torch.where(raw < cut, raw, softplus(raw.clamp(min=cut)).log())


def _negligible(raw: Tensor) -> float:
    """The x from which on e⁻ˣ is lost beside 1 in raw's dtype."""
    return -math.log(torch.finfo(raw.dtype).eps)


def kl_to_standard_normal(
    mean: Tensor, std: Tensor, log_std: Tensor | None = None
) -> Tensor:
    """KL(N(mean, std²) ‖ N(0, 1)) in nats, summed over features: (B, K) → (B,).

    Give log_std as well where std may underflow to 0.
    """
    if log_std is None:
        log_std = std.log()
    return 0.5 * (mean.square() + std.square() - 2 * log_std - 1).sum(dim=1)


@contextmanager
def noise_from(source: NoiseSource) -> Iterator[None]:
    """Decide where the bottlenecks take their noise from; otherwise torch's global RNG.

    A tensor given for noise stays in the graph, so that an attacker can search for it.

    Args:
        source: a torch.Generator; or noise tensors, one for each time a bottleneck
            runs, in that order, all of which have to be used; or a function from the
            mean (B, K) to noise of the same shape (torch.zeros_like: no noise). A
            function whose `knows_laws` is true is given the layer's `Law` as well.
    """
    draw = _drawer(source)
    token = _noise.set(draw)
    try:
        yield
    finally:
        _noise.reset(token)
    if isinstance(draw, _GivenNoise):
        draw.check_all_used()


@contextmanager
def recorded_noise() -> Iterator[list[Tensor]]:
    """Collect the noise every bottleneck uses, in the order in which they run.

    `with noise_from(noises):` replays what was recorded. The list's `laws` say how each
    was drawn.
    """
    with _collecting(_noise_lists, Recorded()) as noises:
        yield noises


class Recorded(list):
    """Noise tensors, with the law of each."""

    def __init__(self) -> None:
        super().__init__()
        self.laws: list[Law] = []


@contextmanager
def kl_terms() -> Iterator[list[Tensor]]:
    """Collect beta · KL of every bottleneck that runs, per example: (B,) each."""
    with _collecting(_kl_lists, []) as terms:
        yield terms


@contextmanager
def unheard() -> Iterator[None]:
    """Hide what runs here from every open list of noise and of KL.

    For rehearsals, and for what runs once more with noise that was already recorded.
    """
    tokens = [(lists, lists.set(())) for lists in (_noise_lists, _kl_lists)]
    try:
        yield
    finally:
        for lists, token in tokens:
            lists.reset(token)


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Let the model run so that nobody notices: for looking at it.

    Its bottlenecks give their means, no open list hears of them, and torch's global
    generators, from which dropout draws, are afterwards where they were. Whether
    gradients are taken is as outside; running statistics are the caller's to save.
    """
    gpus = {p.device for p in model.parameters() if p.is_cuda}
    silent = noise_from(torch.zeros_like)
    with torch.random.fork_rng([*gpus]), silent, unheard():
        yield


def draw_noise(mean: Tensor, law: Law = NORMAL) -> Tensor:
    """Standard normal noise of mean's shape, dtype and device, from the open context.

    For authors of stochastic layers; `noise_from` chooses the source.

    Args:
        mean: of what shape, (N, ...).
        law: how the numbers are drawn, where they are not normal.
    """
    noise = _noise.get()(mean, law)
    if not isinstance(noise, Tensor):
        raise TypeError(
            "the function given to noise_from must return a tensor of the mean's "
            f"shape, got {type(noise).__name__}."
        )
    if noise.shape != mean.shape:
        raise ValueError(
            f"noise must have the shape of the bottleneck's mean, {tuple(mean.shape)}, "
            f"got {tuple(noise.shape)}."
        )
    noise = noise.to(mean)
    for noises in _noise_lists.get():
        noises.append(noise)
        noises.laws.append(law)
    return noise


def record_kl(term: Tensor) -> None:
    """Hand beta · KL per example (B,) to every open `kl_terms` list."""
    for terms in _kl_lists.get():
        terms.append(term)


@contextmanager
def _collecting(
    lists: ContextVar[tuple[list[Tensor], ...]], collected: list[Tensor]
) -> Iterator[list[Tensor]]:
    # All open lists are filled, not only the innermost: looking at the terms from
    # outside must not depend on whether the loss opens a list of its own.
    token = lists.set((*lists.get(), collected))
    try:
        yield collected
    finally:
        lists.reset(token)


class _GivenNoise:
    """Hands out given tensors one by one."""

    def __init__(self, noises: Sequence[Tensor]):
        self.noises, self.num_used = tuple(noises), 0

    def __call__(self, mean: Tensor, law: Law) -> Tensor:
        if self.num_used == len(self.noises):
            raise ValueError(
                f"noise_from was given {self.num_used} noise tensors, but another "
                "bottleneck ran; give one per run of a bottleneck."
            )
        self.num_used += 1
        return self.noises[self.num_used - 1]

    def check_all_used(self) -> None:
        if self.num_used != len(self.noises):
            raise ValueError(
                f"noise_from was given {len(self.noises)} noise tensors, but only "
                f"{self.num_used} were used; give one per run of a bottleneck."
            )


def _drawer(source: NoiseSource) -> Callable[[Tensor, Law], Tensor]:
    if isinstance(source, torch.Generator):
        # Drawn where the generator lives, so that a seed means one noise everywhere.
        return lambda mean, law: law.draw(
            mean.shape, generator=source, device=source.device, dtype=mean.dtype
        )
    if isinstance(source, list | tuple) and all(isinstance(s, Tensor) for s in source):
        return _GivenNoise(source)
    if getattr(source, "knows_laws", False):
        return source
    if callable(source):
        return lambda mean, law: source(mean)
    raise TypeError(
        "noise must come from a torch.Generator, a list of tensors or a function of "
        f"the mean, got {type(source).__name__}."
    )
