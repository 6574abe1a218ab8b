"""What a client could notice in the model it got, before it computes a gradient.

For the case that the server is not only curious, but changes the model. None of these
signs is a proof: whoever knows the list can avoid it, and layers that are not Linear
are not looked at. What helps for certain is a model that does not come from the server:
one's own architecture, and weights that others can check.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import check_examples, check_model
from precode_lib.bottleneck import rehearse

_FEWEST_UNITS = 16  # of fewer, some are nested by chance
_FEWEST_IMAGES = 16

# From where on a sign is a suspicion. Models as they begin and as they are trained lie
# far on the other side; tests/test_suspicions.py has their numbers.
PARALLEL = 0.9
NESTED = 0.5
MIRRORED = 1 - 1e-9
RARELY = 0.15


@dataclass(frozen=True)
class Signs:
    """Four signs of a Linear layer, each between 0 and 1.

    Args:
        layer: its name.
        parallel: how parallel a row is to the one most like it, the median row. Near 1:
            the rows compute one number over and over.
        nested: of the pairs of units that fire on some of the images and not on others,
            how many fire on sets of which one holds the other. Near 1: they sort.
        mirrored: how equal a row's negative numbers are to its positive ones, up to
            order and one factor, the median row.
        fires: on how many of the images the median unit fires, as a share; None where
            the layer sees something else than the image itself.
    """

    layer: str
    parallel: float
    nested: float
    mirrored: float
    fires: float | None

    @property
    def suspicions(self) -> list[str]:
        """What is wrong here, a sentence each; empty if nothing was noticed."""
        found = []
        if self.parallel > PARALLEL:
            found.append(f"most rows are parallel to another ({self.parallel:.3f})")
        if self.nested > NESTED:
            found.append(f"units fire in nested sets ({self.nested:.0%} of the pairs)")
        if self.mirrored > MIRRORED:
            found.append("negative numbers are the positive ones over again")
        if self.fires is not None and self.fires < RARELY:
            found.append(
                f"half of the units fire on at most {self.fires:.0%} of images"
            )
        return found


def signs(model: nn.Module, images: Tensor) -> list[Signs]:
    """Look at the model's Linear layers of 16 units or more: what each looks like.

    Changes neither the model nor its mode. Run on a client's own images.

    Args:
        images: (N, C, H, W), normalised, 16 at least, or other examples.
    """
    check_model(model)
    check_examples(images, "images")
    if len(images) < _FEWEST_IMAGES:
        raise ValueError(
            f"give {_FEWEST_IMAGES} images at least, got {len(images)}: of a few, any "
            "units fire on nested sets."
        )
    seen: dict[str, Signs] = {}
    flat = images.flatten(1)
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features >= _FEWEST_UNITS
    ]
    hooks = [
        layer.register_forward_hook(partial(_look, seen, name, flat))
        for name, layer in layers
    ]
    try:
        rehearse(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    return list(seen.values())


def _look(
    seen: dict[str, Signs],
    name: str,
    flat: Tensor,
    layer: nn.Linear,
    inputs: tuple[Tensor, ...],
    outputs: Tensor,
) -> None:
    weight = layer.weight.detach().double()
    fires = outputs.detach().flatten(0, -2) > 0  # (N or N T, M)
    sees_images = inputs[0].shape == flat.shape and torch.equal(inputs[0], flat)
    shares = fires.double().mean(0)
    seen[name] = Signs(
        name,
        _parallel(weight),
        _nested(fires[:, (shares > 0.1) & (shares < 0.9)]),
        _mirrored(weight),
        float(shares.median()) if sees_images else None,
    )


def _parallel(weight: Tensor) -> float:
    rows = nn.functional.normalize(weight, dim=1)
    cosines = (rows @ rows.mT).abs().fill_diagonal_(0)
    return float(cosines.amax(1).median())


def _nested(fires: Tensor) -> float:
    """Of the pairs of these columns, the share of which one holds the other."""
    count = fires.shape[1]
    if count < _FEWEST_UNITS:
        return 0.0
    sets = fires.double()
    common, sizes = sets.mT @ sets, sets.sum(0)
    holds = common == torch.minimum(sizes, sizes.unsqueeze(1))
    return (int(holds.sum()) - count) / (count * (count - 1))


def _mirrored(weight: Tensor) -> float:
    half = weight.shape[1] // 2
    below = weight.neg().clamp(min=0).sort(1).values[:, -half:]
    above = weight.clamp(min=0).sort(1).values[:, -half:]
    return float(nn.functional.cosine_similarity(below, above, dim=1).median())
