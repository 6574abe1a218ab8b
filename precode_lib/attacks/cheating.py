"""Another threat model: a server that changes the model before it sends it.

Everywhere else the server is honest and curious: it sends what it trains, and looks.
This one is malicious (letter F of Carletti et al. 2025; with pictures of its own, as
`imprint` needs them, G). It sends weights in which a unit of the first layer hears one
picture of a batch and no other. What it reads afterwards is an `Observation`, like any
attacker. What a client could notice: `precode_lib.federated.suspicions`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from precode_lib.attacks.mixtures import in_box
from precode_lib.attacks.observed import first_linear, named_layer
from precode_lib.basics.validation import (
    check_count,
    check_examples,
    check_finite,
    check_function,
    check_generator,
    check_model,
    check_range,
)
from precode_lib.federated import Observation
from precode_lib.gradients import dense

# From the shape of a picture to one number per pixel, what a bin is a bin of.
Functional = Callable[[torch.Size], Tensor]


def brightness(image_shape: torch.Size) -> Tensor:
    """The mean of all numbers of a picture."""
    return torch.full(image_shape, 1 / prod(image_shape))


def slope(image_shape: torch.Size) -> Tensor:
    """How much brighter the top of a picture is than its bottom: half a cosine down."""
    height = image_shape[-2]
    down = torch.cos(torch.pi * (torch.arange(height) + 0.5) / height)
    return down[:, None].expand(image_shape) / prod(image_shape)


class Imprint(nn.Module):
    """A model behind rows that sort its pictures into bins; see `imprint`.

    Args:
        model: what the server pretends to train.
        weight: (K, C * H * W), neighbours being nearly the same.
        thresholds: (K,): row k fires on what lies above thresholds[k].
        push: by how much the pixels of a picture grow with the mean of its rows.
    """

    def __init__(
        self, model: nn.Module, weight: Tensor, thresholds: Tensor, push: float
    ):
        super().__init__()
        count, size = weight.shape
        self.rows = skip_init(nn.Linear, size, count)
        self.back = skip_init(nn.Linear, count, 1, bias=False)
        self.model = model
        with torch.no_grad():
            self.rows.weight.copy_(weight)
            self.rows.bias.copy_(-thresholds)
            self.back.weight.fill_(push / count)
        self.to(weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to what the model says of them, a little brighter."""
        more = self.back(self.rows(images.flatten(1)).relu())
        return self.model(images + more.view(-1, *[1] * (images.dim() - 1)))


@dataclass(frozen=True, repr=False)
class Binned:
    """What lay in each bin of an `Imprint`.

    Args:
        images: (V, K, C, H, W), normalised: of a bin with one picture that picture, of
            one with several a mixture, of an empty one zeros.
        strength: (V, K), the bin's part of the bias gradient; 0 where it is empty.
        plausible: (V, K) bool, whether something is there that may be a real picture.
            Mixtures may look like one: this is no proof.
    """

    images: Tensor
    strength: Tensor
    plausible: Tensor

    def __repr__(self) -> str:
        found = self.plausible.sum(1).tolist()
        return f"Binned({found} plausible of {self.strength.shape[1]} bins)"

    def of(self, victim: int) -> Tensor:
        """The plausible pictures of one victim: (N, C, H, W), the darkest bin first."""
        return self.images[victim, self.plausible[victim]]


def imprint(
    model: nn.Module,
    public: Tensor,
    *,
    rows: int = 128,
    functional: Functional = brightness,
    push: float = 0.1,
    disguise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Imprint:
    """Another threat model: put rows in front of a copy of `model` that sort pictures.

    All rows compute one functional of the picture; their biases are its quantiles in
    public pictures. So a picture fires all rows below its own bin, with one and the
    same slope, and consecutive rows differ by what lies in one bin; `read_bins`
    divides. After Fowl et al. 2022. It works through anything that comes later, such
    as PRECODE or dropout, and on sums of clients. Two pictures in a bin stay mixed.

    Args:
        public: (N, C, H, W), normalised, of the kind that clients have.
        rows: K, the number of bins.
        functional: what is sorted by.
        disguise: the size of noise on each row, as a share of the row, in directions
            that no public picture has.
        generator: of the noise.
    """
    check_model(model)
    check_count(rows, "rows", 2)
    check_function(functional, "functional", "brightness")
    check_range(disguise, "disguise", 0)
    check_range(push, "push")
    flat = _flat(public)
    row = functional(public.shape[1:]).to(flat).flatten()
    weight = row.expand(rows, -1)
    if disguise:
        weight = weight + disguise * row.norm() * _unseen(flat, rows, generator)
    values = flat @ weight.mT  # (N, K)
    levels = torch.arange(rows).to(values) / rows
    thresholds = torch.quantile(values, levels, dim=0).diagonal().clone()
    lowest, highest = values[:, 0].aminmax()
    thresholds[0] = lowest - (highest - lowest)  # who is darker than anything public
    return Imprint(copy.deepcopy(model), weight, thresholds, push)


def imprint_slices(
    model: nn.Module,
    public: Tensor,
    *,
    pairs: int = 64,
    width: float = 1 / 64,
    directions: int = 40,
    disguise: float = 2.0,
    push: float = 0.1,
    generator: torch.Generator,
) -> Imprint:
    """Another threat model: an imprint whose rows are hard to tell from usual ones.

    Each pair of rows has a functional of its own, a random mixture of the strongest
    directions of public pictures, and cuts a thin slice out of them: who lies in a
    slice alone comes back. `read_bins(observation, group=2)` reads it.

    Args:
        public: see `imprint`.
        pairs: how many slices.
        width: of a slice, as a share of the pictures: 1 over the batch is best.
        directions: how many directions of public pictures are mixed.
        disguise: see `imprint`.
        generator: of the mixtures, the slices' places and the noise.
    """
    check_generator(generator)
    check_count(pairs, "pairs")
    check_count(directions, "directions")
    check_range(width, "width", 0, 0.2, open_low=True)
    check_range(disguise, "disguise", 0, open_low=True)
    check_range(push, "push")
    flat = _flat(public)
    strongest = torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh
    strongest = strongest[:directions]
    mixtures = torch.randn(pairs, len(strongest), generator=generator).to(flat)
    rows = nn.functional.normalize(mixtures @ strongest, dim=1)
    weight = rows.repeat_interleave(2, 0)
    weight = weight + disguise * _unseen(flat, 2 * pairs, generator)
    starts = 0.1 + (0.8 - width) * torch.rand(pairs, generator=generator).to(flat)
    levels = torch.stack([starts, starts + width], 1).flatten()
    thresholds = torch.quantile(flat @ weight.mT, levels, dim=0).diagonal()
    return Imprint(copy.deepcopy(model), weight, thresholds, push)


def read_bins(
    observation: Observation, *, layer: str | None = None, group: int | None = None
) -> Binned:
    """What lies in each bin of an imprinted model: differences of rows, divided.

    x = (G_k - G_{k+1}) / (g_k - g_{k+1}), of the rows of the weight's and the entries
    of the bias's gradient; behind the last row of all there is nothing. Exact where a
    bin holds one picture of the batch, or of the sum of many clients' batches.

    Args:
        layer: the rows' layer; by default the one that sees the picture.
        group: how many consecutive rows have a functional in common; by default all.
    """
    names = first_linear(observation, layer)
    bias = dense(observation.shared[names.bias])
    for name in names:
        check_finite(dense(observation.shared[name]), f"the gradient of {name!r}")
    kind, eps = bias.dtype, torch.finfo(bias.dtype).eps
    # Float64: a bin is a small difference of large sums.
    here = _steps(dense(observation.shared[names.weight]).flatten(2).double(), group)
    strength = _steps(bias.double(), group)
    loudest = bias.double().abs().amax(1, keepdim=True)
    occupied = strength.abs() > 64 * eps * loudest
    flat = here / strength.where(occupied, 1).unsqueeze(2)
    flat = flat.where(occupied.unsqueeze(2), 0).to(kind)
    images = flat.view(*strength.shape, *observation.image_shape)
    real = in_box(images.flatten(0, 1), observation.normalisation)
    real = real.view_as(occupied)
    strength = strength.where(occupied, 0).to(kind)
    return Binned(images, strength, occupied & real)


def expected_hits(num_pictures: int, rows: int) -> float:
    """How many of n pictures are alone in one of K equally likely bins, on average.

    n (1 - 1/K)^(n-1): each, if none of the others falls into its bin.
    """
    check_count(num_pictures, "num_pictures")
    check_count(rows, "rows")
    return num_pictures * (1 - 1 / rows) ** (num_pictures - 1)


def set_traps(
    model: nn.Module,
    *,
    layer: str,
    shrink: float = 0.97,
    darkest: Tensor | float = 0.0,
    generator: torch.Generator,
) -> nn.Module:
    """Another threat model: a copy of `model` whose first layer fires on few pictures.

    A random half of each row is negative, the other half the same numbers, positive
    and a little smaller, so that most rows add up to less than 0 on most pictures: what
    fires a unit is often alone. After Boenisch et al. 2023. `isolated_inputs` reads the
    gradient: every unit that one picture fired gives it. The architecture stays.

    Args:
        layer: a Linear layer that sees the flattened picture, before a ReLU.
        shrink: of the positive half. Below 1; the smaller, the fewer pictures fire.
        darkest: the least value of a picture, (C, 1, 1) or a number; of normalised
            ones `normalisation.box[0]`. What counts as positive is above it.
    """
    check_model(model)
    check_generator(generator)
    check_range(shrink, "shrink", 0, 1, open_low=True)
    model = copy.deepcopy(model)
    linear = model.get_submodule(named_layer(layer, dict(model.named_modules())))
    if not isinstance(linear, nn.Linear) or linear.bias is None:
        raise ValueError(
            f"{layer!r} must be a Linear layer with a bias, got "
            f"{type(linear).__name__}."
        )
    with torch.no_grad():
        weight = _trapping(linear.weight, shrink, generator)
        linear.weight.copy_(weight)
        dark = torch.as_tensor(darkest).to(weight).flatten()
        check_finite(dark, "darkest")
        if linear.in_features % len(dark):
            raise ValueError(
                f"darkest has {len(dark)} numbers, which {linear.in_features} inputs "
                "cannot be shared among."
            )
        dark = dark.repeat_interleave(linear.in_features // len(dark))
        linear.bias.copy_(-(weight @ dark))
    return model


def _flat(public: Tensor) -> Tensor:
    check_examples(public, "public")
    if public.dim() < 3 or len(public) < 2:
        raise ValueError(
            "public must be pictures (N, C, H, W), two at least, got "
            f"{tuple(public.shape)}."
        )
    return public.flatten(1)


def _unseen(flat: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Random directions of norm 1 at right angles to these pictures: (count, size)."""
    check_generator(generator)
    seen = torch.linalg.svd(flat, full_matrices=False).Vh
    if len(seen) == flat.shape[1]:
        raise ValueError(
            f"{len(flat)} public pictures leave no direction of {flat.shape[1]} for a "
            "disguise: give fewer."
        )
    noise = torch.randn(count, flat.shape[1], generator=generator).to(flat)
    noise = noise - noise @ seen.mT @ seen
    return noise / noise.norm(dim=1, keepdim=True)


def _steps(rows: Tensor, group: int | None) -> Tensor:
    """Each row minus the next one of its group, along dimension 1.

    Where all are one group, the last row stands for itself.
    """
    if group is None:
        return rows - torch.cat([rows[:, 1:], torch.zeros_like(rows[:, :1])], 1)
    check_count(group, "group", 2)
    if rows.shape[1] % group:
        raise ValueError(f"{rows.shape[1]} rows are no groups of {group}.")
    grouped = rows.unflatten(1, (-1, group))
    return (grouped[:, :, :-1] - grouped[:, :, 1:]).flatten(1, 2)


def _trapping(like: Tensor, shrink: float, generator: torch.Generator) -> Tensor:
    """Rows as `like`'s: half of each negative, half the same numbers, times shrink."""
    count, size = like.shape
    half = size // 2
    numbers = torch.randn(count, half, generator=generator).to(like).abs()
    numbers = numbers * like.std()
    pairs = torch.cat([-numbers, shrink * numbers], 1)
    if size % 2:
        pairs = torch.cat([pairs, torch.zeros_like(pairs[:, :1])], 1)
    order = torch.rand(count, size, generator=generator).argsort(1).to(like.device)
    return pairs.gather(1, order)
