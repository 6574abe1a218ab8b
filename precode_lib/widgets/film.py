"""The steps of an attack that are worth showing, and how each looks."""

import math
from collections.abc import Sequence

from torch import Tensor

from precode_lib.attacks import AttackStep
from precode_lib.metrics import pair, reorder, score
from precode_lib.plots import Panel

from .curves import Curve

MOST_PICTURES = 4
_DENSER = 4  # kept while it runs, for an attack may end long before its last step


class Film:
    """What an attack has tried: every objective, and pictures at log-spaced steps.

    At most four pictures are followed. Where a victim has several, each original is
    shown beside the guess that `metrics.pair` gives it at the newest step.

    Args:
        search: iterates over AttackSteps, and has an `observation` and a `recipe`.
        originals: pixels (V, C, H, W) or (V, B, C, H, W) in [0, 1].
        frames: how many pictures of the whole to keep, about.
        labels: a name for each picture.
    """

    def __init__(
        self,
        search,
        originals: Tensor,
        *,
        frames: int,
        labels: Sequence[str] | None = None,
    ):
        observation = search.observation
        shape = (observation.num_victims, observation.num_examples)
        if originals.dim() == 4 and shape[1] == 1:
            originals = originals[:, None]
        if tuple(originals.shape) != (*shape, *observation.image_shape):
            raise ValueError(
                "originals must be the pixels (V, B, C, H, W) = "
                f"{(*shape, *observation.image_shape)} of the search's victims, got "
                f"{tuple(originals.shape)}."
            )
        if frames < 2:
            raise ValueError(f"a film has at least 2 frames, got {frames}.")
        self.num_victims = min(shape[0], math.ceil(MOST_PICTURES / shape[1]))
        self.num_pictures = min(MOST_PICTURES, self.num_victims * shape[1])
        self.names = _names(self.num_pictures, labels)
        self.originals = originals[: self.num_victims].detach().cpu()
        self.length = search.recipe.iterations
        self.frames = frames
        self.objectives: dict[int, list[float]] = {}
        self._normalisation = observation.normalisation
        self._images: dict[int, Tensor] = {}
        self._wanted = set(log_spaced(self.length, _DENSER * frames))
        self._newest = -1
        self._order: Tensor | None = None

    def add(self, step: AttackStep) -> None:
        """Take in the attack's next step."""
        self.objectives[step.iteration] = step.objective[: self.num_victims].tolist()
        pixels = self._pixels(step.images)
        if not pixels.isfinite().all():
            return  # the attack has diverged, and its objective says so
        if self._newest not in self._wanted:
            self._images.pop(self._newest, None)
        self._images[step.iteration] = pixels.clamp(0, 1)
        self._newest = step.iteration
        self._order = None

    @property
    def kept(self) -> list[int]:
        """The iterations that have a picture, the newest always among them."""
        return sorted(self._images)

    def chosen(self) -> list[int]:
        """`frames` of the iterations kept, from the first to the newest."""
        kept = self.kept
        if not kept:
            raise ValueError("the attack made no step with finite pictures to show.")
        offsets = log_spaced(kept[-1] - kept[0] + 1, self.frames)
        aims = [kept[0] + offset for offset in offsets]
        return sorted({min(kept, key=lambda one: abs(one - aim)) for aim in aims})

    def panels(self, iteration: int) -> list[Panel]:
        """Original beside guess, picture by picture."""
        guesses = reorder(self._images[iteration], self._paired())
        originals, guesses = self.originals.flatten(0, 1), guesses.flatten(0, 1)
        panels = []
        for index, name in enumerate(self.names):
            original, guess = originals[index], guesses[index]
            scores = score(original[None], guess[None])
            victim = index // self.originals.shape[1]
            values = {
                # + 0: no "-0.00"
                "SSIM": f"{round(scores.ssim.item(), 2) + 0:.2f}",
                "PSNR": _decibels(scores.psnr.item()),
                "objective": f"{self.objectives[iteration][victim]:.2g}",
            }
            panels.append(Panel(f"original{name}", original, "original"))
            panels.append(Panel(f"guess{name}", guess, "leaked", values))
        return panels

    def curve(self, marks: Sequence[int], *, end: float = 0) -> Curve:
        """The objective of each victim over the iterations, marked at some of them."""
        places = sorted(self.objectives)
        columns = zip(*(self.objectives[place] for place in places), strict=True)
        names = [f"guess{name}" for name in self.names]
        if self.originals.shape[1] > 1:  # a batch has one objective
            names = [f"victim {index + 1}" for index in range(self.num_victims)]
        lines = {
            name: ("leaked", places, column)
            for name, column in zip(names, columns, strict=True)
        }
        return Curve(
            lines, marks, "iteration", "objective (log scale)", (True, True), end
        )

    def _pixels(self, images: Tensor) -> Tensor:
        images = images[: self.num_victims].detach().cpu()
        known = self._normalisation is not None
        return self._normalisation.denormalise(images) if known else images

    def _paired(self) -> Tensor:
        if self._order is None:
            self._order = pair(self.originals, self._images[self._newest])
        return self._order


def log_spaced(length: int, count: int) -> list[int]:
    """Up to `count` of 0, ..., length - 1, ever sparser, both ends among them."""
    chosen = [0]
    for left in range(min(count, length) - 1, 0, -1):
        last = math.log(chosen[-1] + 1)
        aim = math.exp(last + (math.log(length) - last) / left) - 1
        chosen.append(max(chosen[-1] + 1, round(aim)))
    return chosen


def _names(count: int, labels: Sequence[str] | None) -> list[str]:
    """What to write behind "original" and "guess"."""
    if labels is not None:
        if len(labels) < count:
            raise ValueError(f"got {len(labels)} labels for {count} pictures.")
        return [f": {label}" for label in labels[:count]]
    return [""] if count == 1 else [f" {index + 1}" for index in range(count)]


def _decibels(psnr: float) -> str:
    return f"{psnr:.1f} dB" if math.isfinite(psnr) else "∞ dB"
