"""Does a gradient say anything? What was silent in it, and for whom."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from precode_lib.gradients import Gradients, Outer, Term, squared_norm

# So many entries of a gradient are looked at before all of them are.
_SAMPLE = 64


class VacuousGradientWarning(UserWarning):
    """Most of what a model's clients compute is exactly zero, whatever their data."""


@dataclass(frozen=True, eq=False, repr=False)
class Health:
    """Which parts of a gradient are exactly zero: an attacker learns nothing of them.

    Some are in healthy models: a part that did not run, a unit that nothing reaches.
    Where most are, as behind a last layer of zeros, an attack that finds nothing says
    nothing of the model once it has learnt.

    Args:
        silent: which parameters are zero for which victims, (V, P).
        names: of the P parameters.
        sizes: how many entries each has.
        shared: the gradient itself.
    """

    silent: Tensor
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    shared: Gradients

    @property
    def silent_for_all(self) -> list[str]:
        """The parameters whose gradient is exactly zero for every victim."""
        return self._named(self.silent.all(0))

    @property
    def silent_for_some(self) -> dict[str, list[int]]:
        """The parameters that are silent for some victims only, and for which."""
        some = self._named(self.silent.any(0) & ~self.silent.all(0))
        columns = dict(zip(self.names, self.silent.T, strict=True))
        return {name: columns[name].nonzero().flatten().tolist() for name in some}

    @property
    def nothing_sent(self) -> list[int]:
        """The victims whose whole gradient is zero."""
        return self.silent.all(1).nonzero().flatten().tolist()

    @property
    def vacuous(self) -> Tensor:
        """The victims of whom more than half is silent, counted both ways: (V,).

        By parameters and by their entries, for one alone proves little: a branch that
        a loss leaves out may be large, and small ones may be many.
        """
        return vacuous(self.silent, self.sizes)

    @property
    def silent_share(self) -> float:
        """The share of the entries that are in parameters silent for all, in [0, 1]."""
        silent = self.silent.all(0).tolist()
        pairs = zip(self.sizes, silent, strict=True)
        return sum(size for size, is_one in pairs if is_one) / sum(self.sizes)

    @cached_property
    def norms(self) -> Tensor:
        """Of each victim's whole gradient: (V,)."""
        return squared_norm(self.shared.detach()).sqrt().cpu()

    @cached_property
    def not_finite(self) -> list[str]:
        """The parameters whose gradient holds NaN or infinity."""
        return [n for n in self.names if not _is_finite(self.shared[n])]

    def to_dict(self) -> dict[str, object]:
        """All of it as JSON knows it."""
        return {
            "parameters": len(self.names),
            "silent": self.silent_for_all,
            "silent_share": self.silent_share,
            "silent_for_some": self.silent_for_some,
            "nothing_sent": self.nothing_sent,
            "vacuous": self.vacuous.tolist(),
            "norms": [n if isfinite(n) else None for n in self.norms.tolist()],
            "not_finite": self.not_finite,
        }

    def silence(self) -> str:
        """What is silent, in words; nothing where nothing is."""
        words = []
        if self.silent_for_all:
            words.append(
                f"{len(self.silent_for_all)} of {len(self.names)} parameters silent "
                f"({self.silent_share:.0%} of the entries)"
            )
        if self.silent_for_some:
            more = "more " if words else ""
            words.append(f"{len(self.silent_for_some)} {more}silent for some victims")
        if self.nothing_sent:
            words.append(f"nothing sent by victims {listed(self.nothing_sent)}")
        return ", ".join(words)

    def __repr__(self) -> str:
        words = [self.silence() or "nothing silent"]
        if self.not_finite:
            words.append(f"NaN or infinity in {listed(self.not_finite)}")
        words.append(f"smallest norm {self.norms.min().item():.3g}")
        return f"Health({', '.join(words)})"

    def _named(self, chosen: Tensor) -> list[str]:
        pairs = zip(self.names, chosen.tolist(), strict=True)
        return [name for name, is_one in pairs if is_one]


def health_of(gradients: Gradients) -> Health:
    """A look at what was sent; no factored term is built for it."""
    return Health(
        silent=silence_of(gradients),
        names=tuple(gradients),
        sizes=sizes_of(gradients),
        shared=gradients,
    )


def silence_of(gradients: Gradients) -> Tensor:
    """Which parameters are exactly zero for which victims: (V, P)."""
    terms = [*gradients.values()]
    # Most speak in the first entry that one looks at, and need no second look.
    silent = torch.stack([_entry(term) == 0 for term in terms], 1).cpu()
    for number in silent.any(0).nonzero().flatten().tolist():
        silent[:, number] = _is_silent(terms[number])
    return silent


def sizes_of(gradients: Gradients) -> tuple[int, ...]:
    """How many entries each parameter has."""
    return tuple(shape.numel() for shape in gradients.shapes.values())


def vacuous(silent: Tensor, sizes: Sequence[int]) -> Tensor:
    """For which victims most is silent, by parameters and by their entries: (V,)."""
    entries = torch.tensor(sizes).double()
    share = (silent * entries).sum(1) / entries.sum()
    return (share > 0.5) & (silent.double().mean(1) > 0.5)


def warning_of(silent: Tensor, gradients: Gradients) -> str | None:
    """What to say if most of the gradients are silent for every victim: (V, P)."""
    if not (silent.any() and vacuous(silent, sizes_of(gradients)).all()):
        return None
    pairs = zip(gradients, silent.all(0).tolist(), strict=True)
    left = [name for name, is_silent in pairs if not is_silent]
    return (
        f"the gradient is exactly zero in {len(gradients) - len(left)} of "
        f"{len(gradients)} parameters, left {'are' if left else 'is'} "
        f"{listed(left) or 'none'}. A last layer of zeros, as fresh transformers have, "
        "lets nothing through, nor does one that is saturated: an attack that fails "
        "here says nothing of the model once it has learnt."
    )


def listed(items: Iterable[object]) -> str:
    """The first few, and how many more there are."""
    words = [str(item) for item in items]
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return ", ".join(words[:3]) + more


@torch.no_grad()
def _is_silent(term: Term) -> Tensor:
    """For which victims a parameter's gradient is exactly zero: (V,)."""
    if isinstance(term, Outer):
        left, right = (side.abs().amax(2) for side in (term.left, term.right))
        return ~(left * right).bool().any(1)
    flat = term.reshape(len(term), -1)
    step = max(1, flat.shape[1] // _SAMPLE)
    silent = ~flat[:, ::step].bool().any(1)
    return ~flat.bool().any(1) if bool(silent.any()) else silent


def _entry(term: Term) -> Tensor:
    """The last entry of each victim's, or of its first outer product: (V,)."""
    if isinstance(term, Outer):
        return term.left[:, 0, -1] * term.right[:, 0, -1]
    return term.reshape(len(term), -1)[:, -1]


def _is_finite(term: Term) -> bool:
    sides = (term.left, term.right) if isinstance(term, Outer) else (term,)
    return all(bool(side.isfinite().all()) for side in sides)
