"""What a search tells: one look at a time, and the result."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from precode_lib.models import Inputs, Packing

OUTCOMES = ("running", "converged", "plateau", "exhausted", "diverged", "failed")
RUNNING, CONVERGED, PLATEAU, EXHAUSTED, DIVERGED, FAILED = range(6)


@dataclass(frozen=True, slots=True, repr=False)
class AttackStep:
    """One look at the search: for each victim the restart that is best just now."""

    iteration: int
    objective: Tensor  # (V,): distance plus priors, of the very images beside it
    images: Tensor  # (V, B, C, H, W), normalised
    num_active: int  # searches that have not stopped, restarts counted

    def __repr__(self) -> str:
        return (
            f"AttackStep({self.iteration}, objective "
            f"{self.objective.median().item():.3g} in the median, images "
            f"{tuple(self.images.shape)}, {self.num_active} searching)"
        )


@dataclass(frozen=True, repr=False)
class Reconstruction:
    """The lowest objective each victim's search ever saw, and how the search ended.

    What an attack is given back as, whether it searches or divides. `found` holds, by
    name, what else was searched for, such as a bottleneck's noise: (V, ...) each, of
    the lowest objective as well. `blind` says, for each victim, why the attack could
    not have found anything, in words, or "": then a bad picture is no good news.
    `packing` tells the inputs of a model of several apart.
    """

    attack: str
    images: Tensor  # (V, B, C, H, W), normalised: of the lowest objective
    objective: Tensor  # (V,); infinite if it never was a number
    labels: Tensor  # (V, B)
    last_images: Tensor  # (V, B, C, H, W): of the last step
    last_objective: Tensor  # (V,)
    iterations: Tensor  # (V,): steps made
    outcome: tuple[str, ...]  # one of OUTCOMES for each victim
    normalisation: object | None = None
    found: Mapping[str, Tensor] = field(default_factory=dict)
    blind: tuple[str, ...] = ()
    packing: Packing | None = None

    @property
    def conclusive(self) -> list[bool]:
        """For each victim, whether it means anything that nothing was found.

        It does not where the attack broke off, met a NaN, or was blind.
        """
        broken = [end in ("running", "diverged", "failed") for end in self.outcome]
        blind = self.blind or [""] * len(broken)
        return [not (b or why) for b, why in zip(broken, blind, strict=True)]

    @property
    def pixels(self) -> Tensor:
        """The images (V, B, C, H, W) as pixels in [0, 1]."""
        if self.packing is not None:
            raise ValueError(
                "the model has several inputs, packed into rows: `pieces` has them "
                "apart, as the model takes them."
            )
        if self.normalisation is None:
            raise ValueError(
                "the observation has no normalisation, so pixels are unknown; give "
                "`observe` one (data.IDENTITY if the model sees pixels)."
            )
        return self.normalisation.denormalise(self.images).clamp(0, 1)

    @property
    def pieces(self) -> Inputs:
        """Of a model of several inputs all of them, (V, B, ...) each."""
        if self.packing is None:
            raise ValueError("the model has a single input: see `images`.")
        return self.packing.unpack(self.images)

    def __repr__(self) -> str:
        counts = {name: self.outcome.count(name) for name in OUTCOMES}
        counts["blind"] = sum(map(bool, self.blind))
        ends = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
        return (
            f"Reconstruction({self.attack}, {tuple(self.images.shape)}, objective "
            f"{self.objective.median().item():.3g} in the median, {ends})"
        )
