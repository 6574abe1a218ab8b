"""What the attacker's client draws where the victim's drew what nobody told.

A bottleneck's noise, dropout's masks, a batch norm's statistics: each is a *site* of
the model. A policy says what stands there while an attacker searches: fresh numbers at
every step, the mean of many, nothing, the true ones, or numbers that are searched for.

A policy is a function from `Sites` to a `Hidden`, which lives as long as the search.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from precode_lib.attacks.unknowns import Trial, Unknown, drawn
from precode_lib.basics.validation import check_count
from precode_lib.bottleneck import Law
from precode_lib.federated import Client


@dataclass(frozen=True)
class Site:
    """One place where the client draws.

    Args:
        name: of the layer that asks; the second time it does, with a number.
        law: how its numbers are drawn.
        shape: of one victim's numbers: (B, ...), or (1, ...) if its pictures share.
    """

    name: str
    law: Law
    shape: tuple[int, ...]


class Sites:
    """Where the client draws, and all that a policy needs to know of the search.

    Args:
        client: that the attacker imagines.
        images: of one victim, (1, B, ...), for a look at the client.
        labels: likewise.
        num_searches: how many are made side by side, restarts counted.
        num_victims: of how many victims.
        generator: of all that is drawn.
    """

    def __init__(
        self,
        client: Client,
        images: Tensor,
        labels: Tensor,
        *,
        num_searches: int,
        num_victims: int,
        generator: Generator,
    ):
        self.num_searches, self.num_victims = num_searches, num_victims
        self.generator = generator
        self.num_examples = images.shape[1]
        self._client, self._images, self._labels = client, images, labels

    @cached_property
    def found(self) -> list[Site]:
        """The sites, in the order in which they draw; found by running the client."""
        sites: list[Site] = []
        with _running(self._client.model) as running:
            note = _Noting(sites, running)
            with torch.no_grad():
                self._client(self._images.detach(), self._labels.detach(), noise=note)
        return sites


class _Noting:
    """A source of noise that gives nothing, and notes who asked."""

    knows_laws = True

    def __init__(self, sites: list[Site], running: list[str]):
        self._sites, self._running = sites, running

    def __call__(self, mean: Tensor, law: Law) -> Tensor:
        layer = self._running[-1] if self._running else law.name
        times = 1 + sum(site.name.split(" #")[0] == layer for site in self._sites)
        name = layer if times == 1 else f"{layer} #{times}"
        shape = (1 if law.is_shared else len(mean), *mean.shape[1:])
        self._sites.append(Site(name, law, shape))
        return torch.zeros_like(mean)


@contextmanager
def _running(model: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running just now, the innermost last."""
    names: list[str] = []
    handles = []
    for name, module in model.named_modules():

        def enter(module, inputs, name=name):
            names.append(name)

        def leave(module, inputs, output):
            names.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


class Hidden:
    """What stands at the sites while a search runs.

    Attributes:
        copies: how many draws each picture meets in one evaluation.
        unknowns: what of it is searched for.
    """

    copies = 1
    unknowns: Sequence[Unknown] = ()

    def __init__(self, sites: Sites):
        self.sites = sites

    def next_step(self) -> None:
        """A step of the search begins; its evaluations all see the same."""

    def of(self, searches: Tensor, guess: Trial) -> Callable[[Tensor, Law], Tensor]:
        """What the client of these searches draws, for `noise_from`."""
        return _InOrder(partial(self.at, searches=searches, guess=guess))

    def at(
        self, index: int, mean: Tensor, law: Law, *, searches: Tensor, guess: Trial
    ) -> Tensor:
        """What stands at the site of this number: (S * B, ...)."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly."""
        return {"generator": self.sites.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.sites.generator.set_state(state["generator"])


class _InOrder:
    """A source of noise that counts who asks."""

    knows_laws = True

    def __init__(self, at: Callable[[int, Tensor, Law], Tensor]):
        self._at, self._next = at, 0

    def __call__(self, mean: Tensor, law: Law) -> Tensor:
        index, self._next = self._next, self._next + 1
        return self._at(index, mean, law)


Policy = Callable[[Sites], Hidden]


class Drawn(Hidden):
    """Numbers drawn for all searches at once, and handed out in pieces.

    A search gets the same ones however many others are still active and however the
    evaluation is cut into chunks; and the same again when a step evaluates twice.
    """

    def __init__(self, sites: Sites, *, copies: int = 1, is_fixed: bool = False):
        super().__init__(sites)
        self.copies, self._is_fixed = copies, is_fixed
        self._drawn: list[Tensor] = []  # (searches, B, ...) for each site

    def next_step(self) -> None:
        """Forget the numbers of the last step."""
        if not self._is_fixed:
            self._drawn.clear()

    def at(self, index, mean, law, *, searches, guess) -> Tensor:
        """What was drawn here in this step."""
        examples = len(mean) // len(searches)
        if index == len(self._drawn):
            rows = 1 if law.is_shared else examples
            shape = (self.sites.num_searches, rows, *mean.shape[1:])
            self._drawn.append(_draw(law, shape, self.sites.generator).to(mean))
        return _rows(self._drawn[index][searches], examples)

    def state_dict(self) -> dict[str, Any]:
        """The generator; and what was drawn, if it is to stay."""
        kept = [d.clone() for d in self._drawn] if self._is_fixed else []
        return {**super().state_dict(), "drawn": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        super().load_state_dict(state)
        self._drawn = [d.clone() for d in state["drawn"]]


def _draw(law: Law, shape: Sequence[int], generator: Generator) -> Tensor:
    return law.draw(
        tuple(shape), generator=generator, device=generator.device, dtype=torch.float32
    )


def _rows(values: Tensor, examples: int) -> Tensor:
    """(S, B or 1, ...) -> (S * B, ...)."""
    return values.expand(-1, examples, *values.shape[2:]).flatten(0, 1)


def fresh(sites: Sites) -> Hidden:
    """New numbers at every step, as the authors' attackers draw them."""
    return Drawn(sites)


def mean_of(draws: int, *, is_fixed: bool = False) -> Policy:
    """The client's mean gradient over so many draws stands for the victim's.

    Args:
        is_fixed: whether the same draws serve all steps; a search by L-BFGS wants an
            objective that stays what it is.
    """
    check_count(draws, "draws")
    return partial(Drawn, copies=draws, is_fixed=is_fixed)


class _Still(Hidden):
    def at(self, index, mean, law, *, searches, guess) -> Tensor:
        return torch.zeros_like(mean)


def still(sites: Sites) -> Hidden:
    """Nothing: bottlenecks give their means, dropouts all of their features."""
    return _Still(sites)


class _Given(Hidden):
    def __init__(self, sites: Sites, numbers: Sequence[Tensor], num_victims: int):
        super().__init__(sites)
        self._numbers, self._num_victims = numbers, num_victims

    def at(self, index, mean, law, *, searches, guess) -> Tensor:
        if index >= len(self._numbers):
            raise ValueError(
                f"{len(self._numbers)} tensors of noise were given, but the client "
                "draws once more; give one for each time that a layer draws."
            )
        own = self._numbers[index][searches % self._num_victims]
        return _rows(own.to(mean), len(mean) // len(searches))


def given(numbers: Sequence[Tensor], *, num_examples: int = 1) -> Policy:
    """The very numbers that the victims drew: an oracle, which no attacker has.

    It tells a weak attack from a strong defense: where it fails too, the attack is.

    Args:
        numbers: as `recorded_noise` collects them around `observe`: (V * B, ...) each,
            for each site in order; chunks of victims one after the other are put
            together.
        num_examples: B.
    """
    check_count(num_examples, "num_examples")
    if isinstance(numbers, Tensor):
        raise TypeError(
            f"numbers are a list with a tensor for each layer that draws, got one "
            f"tensor {tuple(numbers.shape)}: write given([noise])."
        )
    for each in numbers:
        if not isinstance(each, Tensor) or len(each) % num_examples:
            came = getattr(each, "shape", type(each).__name__)
            raise ValueError(
                f"the noise of victims with {num_examples} pictures each is (V * B, "
                f"...), got {came}."
            )

    def policy(sites: Sites) -> Hidden:
        whole = _whole(numbers, len(sites.found))
        rows = [each.unflatten(0, (-1, num_examples)) for each in whole]
        came = [len(each) for each in rows]
        if set(came) - {sites.num_victims}:
            raise ValueError(
                f"the noise given is of {came} victims, site by site, the search of "
                f"{sites.num_victims}: was the model run more than once?"
            )
        return _Given(sites, rows, sites.num_victims)

    return policy


def _whole(numbers: Sequence[Tensor], num_sites: int) -> list[Tensor]:
    """One tensor for each site, of victims that were observed chunk by chunk."""
    if not numbers or num_sites == 0 or len(numbers) % num_sites:
        raise ValueError(
            f"the client draws {num_sites} times, {len(numbers)} tensors of noise were "
            "given: give one for each time that a layer draws."
        )
    return [torch.cat(list(numbers[i::num_sites])) for i in range(num_sites)]


class _Searched(Hidden):
    def __init__(self, sites: Sites, **options: Any):
        super().__init__(sites)
        self.unknowns = [_unknown(site, **options) for site in sites.found]

    def at(self, index, mean, law, *, searches, guess) -> Tensor:
        if index >= len(guess.draws):
            raise ValueError(
                f"the client drew {len(guess.draws)} times when the search began, and "
                "now once more: it must draw as often each time."
            )
        return _rows(guess.draws[index], len(mean) // len(searches))


def searched(
    *,
    start: Callable[..., Tensor] | None = None,
    signed: bool = False,
    rate: float = 1.0,
    prior: Callable[[Tensor], Tensor] | None = None,
    prior_weight: float = 0.0,
) -> Policy:
    """Numbers that are searched for, together with the pictures.

    Args:
        start: (shape, *, generator, device) -> the first ones; None draws them as the
            layer would.
        signed: whether the optimizer sees only the signs of their slopes.
        rate: how far they move where a pixel moves by 1.
        prior: numbers (S, B, ...) of one site -> (S,), with `prior_weight`:
            `kept_share` holds dropout's masks to their rate.
    """
    options = {
        "start": start, "signed": signed, "rate": rate,
        "prior": prior, "prior_weight": prior_weight,
    }  # fmt: skip
    return partial(_Searched, **options)


def expected(shape: Sequence[int], *, generator: Generator, device) -> Tensor:
    """What to expect of anything hidden: 0. A start for `searched`."""
    return torch.zeros(tuple(shape), device=device)


def kept_share(masks: Tensor) -> Tensor:
    """|the share that a mask keeps - the share that it should|: (S, B, ...) -> (S,).

    Scheliga et al. 2023 (DIA), with a weight of 1e-4.
    """
    return masks.flatten(1).mean(1).abs()


def _unknown(site: Site, *, start=None, **options: Any) -> Unknown:
    def enter(guess: Trial, values: Tensor) -> None:
        guess.draws.append(values)

    first = drawn(site.shape, site.law.draw if start is None else start)
    return Unknown(site.name, first, enter, box=site.law.box, **options)
