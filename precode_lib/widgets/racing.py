"""Searches that run in the page, side by side, while the reader watches."""

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from html import escape

import torch
from torch import Tensor, nn
from torch.optim import Adam

from precode_lib.attacks import (
    Recipe,
    Search,
    before_noise,
    expected,
    given,
    searched,
)
from precode_lib.attacks.objectives import (
    cosine_distance,
    squared_distance,
    total_variation,
)
from precode_lib.basics.schedules import step_decay
from precode_lib.bottleneck import VariationalBottleneck
from precode_lib.data import Pictures
from precode_lib.federated import observe
from precode_lib.metrics import score
from precode_lib.plots import Panel, data_uri, to_image

from .axis import Axis
from .curves import Curve
from .figure import beside
from .in_page import PageFigure, button_html, controls_html, photo_menu_html, trio_html
from .numbers import PageNumbers, filled

_DISTANCES = {squared_distance: "squared", cosine_distance: "cosine"}


class Noise(Enum):
    """What an attacker does about the numbers that PRECODE draws.

    FRESH draws new ones at every step; LEFT_OUT does too, and matches only what no
    noise has touched; SEARCHED looks for them together with the picture, from 0 on;
    ORACLE is told the victim's.
    """

    FRESH = "fresh"
    LEFT_OUT = "left out"
    SEARCHED = "searched"
    ORACLE = "oracle"


@dataclass(frozen=True)
class Lane:
    """One of the searches.

    Args:
        name: written below its guess.
        model: an MLP or a LeNet, perhaps with PRECODE; the page draws its weights.
        recipe: by Adam, with the squared or the cosine distance.
        noise: what stands for PRECODE's.
        bound: of the weights; None for PyTorch's.
    """

    name: str
    model: nn.Module
    recipe: Recipe
    noise: Noise = Noise.FRESH
    bound: float | None = None


def race(
    photos: Pictures,
    lanes: Sequence[Lane],
    axes: Sequence[Axis] = (),
    *,
    steps: int,
    question: str,
    caption: str,
    seed: int = 0,
) -> PageFigure:
    """Searches for one picture, side by side, which the reader starts in the page.

    What the library finds by the same steps is drawn beforehand.

    Args:
        photos: what to choose from, in colour; the first is attacked here.
        lanes: up to four searches.
        axes: sliders that all lanes follow, of these names: sigma, the noise on the
            gradient; factor, by which the client scales it; scale, the units of the
            distance; distance, "squared", "absolute" or "cosine", for all lanes; k
            and beta, PRECODE's. They begin where the lanes are.
        steps: of each search.
        question: what the reader can find out.
        caption: what there is to see.
        seed: of the weights, the noise and the start.
    """
    _check(photos, lanes, axes)
    pixels = (photos.pixels.clamp(0, 1) * 255).round() / 255
    uris = [
        data_uri(to_image(each), format="WEBP", lossless=True, method=6)
        for each in pixels
    ]
    names = [photos.classes[label] for label in photos.labels]
    config = {
        "size": pixels.shape[-1],
        "seed": seed,
        "steps": steps,
        "mean": photos.normalisation.mean,
        "std": photos.normalisation.std,
        "photos": uris,
        "labels": photos.labels.tolist(),
        "lanes": [_told(lane) for lane in lanes],
    }
    key = "".join([*uris, question])
    name = f"search-{zlib.crc32(key.encode()):08x}"
    panels, curve = _first(pixels[:1], photos, lanes, steps, seed)
    body = (
        f'<p class="precode-question">{escape(question)}</p>'
        f"{_tools_html(names, name)}{controls_html(axes, name)}"
        f"{beside(trio_html(panels, size='9rem'), curve.html(0))}"
    )
    return PageFigure("search", config, axes, panels=panels, body=body, caption=caption)


def words_of(model: nn.Module) -> list[str]:
    """The model's layers as the page writes them: "linear 10", "relu", ..."""
    words = []
    inside: set[nn.Module] = set()
    for layer in model.modules():
        if layer in inside:
            continue
        if isinstance(layer, VariationalBottleneck):
            inside |= set(layer.modules())
            words.append(" ".join(map(str, ("precode", *precode_of(layer)))))
        elif isinstance(layer, nn.Linear):
            words.append(f"linear {layer.out_features}")
        elif isinstance(layer, nn.Conv2d):
            numbers = (layer.kernel_size, layer.stride, layer.padding)
            sizes = " ".join(str(each[0]) for each in numbers)
            words.append(f"conv {layer.out_channels} {sizes}")
        elif isinstance(layer, nn.ReLU | nn.Sigmoid):
            words.append(type(layer).__name__.lower())
        elif not isinstance(layer, nn.Flatten) and not [*layer.children()]:
            raise ValueError(f"the page has no layer {type(layer).__name__}.")
    return words


def _check(photos: Pictures, lanes: Sequence[Lane], axes: Sequence[Axis]) -> None:
    channels, height, width = photos.pixels.shape[1:]
    if channels != 3 or height != width:
        raise ValueError(
            "photos must be square pictures in colour, (N, 3, S, S), got "
            f"{tuple(photos.pixels.shape)}."
        )
    if not 1 <= len(lanes) <= 4:
        raise ValueError(f"a race has 1 to 4 lanes, got {len(lanes)}.")
    for axis in axes:
        if axis.name not in _AXES:
            raise ValueError(
                f"an axis of a race is one of {', '.join(_AXES)}, got {axis.name!r}."
            )
        # The first picture is drawn before anybody moves a slider.
        begins = axis.values[axis.start]
        drawn = {_AXES[axis.name](lane) for lane in lanes} - {None}
        if drawn != {begins}:
            raise ValueError(
                f"axis {axis.name!r} begins at {begins!r}; its first picture is drawn "
                f"at {', '.join(map(repr, drawn)) or 'none'}: start it there."
            )


def precode_of(model: nn.Module) -> tuple[int | None, float | None]:
    """PRECODE's k and beta, or None for both where the model has none."""
    for layer in model.modules():
        if isinstance(layer, VariationalBottleneck):
            return layer.decoder.in_features, layer.beta
    return None, None


# What a slider may move, and where a lane stands before anybody moves it.
_AXES: dict[str, Callable[[Lane], object]] = {
    "sigma": lambda lane: 0,
    "factor": lambda lane: 1,
    "scale": lambda lane: 1,
    "distance": lambda lane: _DISTANCES.get(lane.recipe.distance),
    "k": lambda lane: precode_of(lane.model)[0],
    "beta": lambda lane: precode_of(lane.model)[1],
}


def _told(lane: Lane) -> dict:
    """The lane as the page reads it."""
    try:
        recipe = told_recipe(lane.recipe)
    except ValueError as error:
        raise ValueError(f"lane {lane.name!r}: {error}") from None
    return {
        "name": lane.name,
        "net": {
            "image": list(lane.model.image_shape),
            "layers": words_of(lane.model),
            "bound": lane.bound or 0,
        },
        "recipe": {**recipe, "noise": lane.noise.value},
    }


def told_recipe(recipe: Recipe) -> dict:
    """A search as the page reads it."""
    adam = recipe.optimizer
    if recipe.distance not in _DISTANCES:
        raise ValueError("the page has the squared and the cosine distance.")
    if (
        not isinstance(adam, partial)
        or adam.func is not Adam
        or [*adam.keywords] != ["lr"]
    ):
        raise ValueError(f"the page searches by partial(Adam, lr=...), got {adam!r}.")
    if recipe.prior_weight and recipe.prior is not total_variation:
        raise ValueError("the page's prior is total variation.")
    return {
        "distance": _DISTANCES[recipe.distance],
        "lr": adam.keywords["lr"],
        "signed": recipe.signed,
        "boxed": recipe.boxed,
        "prior": recipe.prior_weight,
        "decays": recipe.schedule is step_decay,
    }


def _first(
    pixels: Tensor, photos: Pictures, lanes: Sequence[Lane], steps: int, seed: int
) -> tuple[list[Panel], Curve]:
    """What the library finds, lane by lane, and its objectives."""
    images = photos.normalisation.normalise(pixels.double())[None]
    labels = photos.labels[None, :1]
    panels = [Panel("what the client has", pixels[0], "original")]
    lines = {}
    for lane in lanes:
        k, _ = precode_of(lane.model)
        noise = []
        if k is not None:
            noise = [torch.from_numpy(PageNumbers(seed + 1).normal(k))[None]]
        model = filled(lane.model, PageNumbers(seed), bound=lane.bound)
        seen = observe(
            model, images, labels, noise=noise, normalisation=photos.normalisation
        )
        start = PageNumbers(seed + 2).normal(images.numel())
        search = Search(
            seen,
            _recipe(lane, noise, steps),
            generator=torch.Generator().manual_seed(seed),
            start=torch.from_numpy(start).view(images.shape),
        )
        last, heights = None, []
        for last in search:
            heights.append(last.objective.item())
        found = photos.normalisation.denormalise(last.images[0]).clamp(0, 1)
        similarity = score(pixels.double(), found).ssim.item()
        values = {
            "SSIM": f"{round(similarity, 2) + 0:.2f}",
            "objective": _short(heights[-1]),
        }
        panels.append(Panel(lane.name, found[0], "leaked", values))
        lines[lane.name] = ("leaked", range(len(heights)), heights)
    words = ("step", "objective (log scale)")
    return panels, Curve(lines, [steps - 1], *words, log=(False, True))


def _short(number: float) -> str:
    """As the page writes it: 3.4e-2."""
    return re.sub(r"e([+-])0", r"e\1", f"{number:.1e}")


def _recipe(lane: Lane, noise: list[Tensor], steps: int) -> Recipe:
    recipe = replace(lane.recipe, iterations=steps)
    if lane.noise is Noise.LEFT_OUT:
        return replace(recipe, layers=before_noise)
    if lane.noise is Noise.SEARCHED:
        return replace(recipe, hidden=searched(start=expected))
    if lane.noise is Noise.ORACLE:
        return replace(recipe, hidden=given(noise))
    return recipe


def _tools_html(names: list[str], name: str) -> str:
    return (
        '<div class="precode-tools">'
        f"{button_html('run', 'Search', is_main=True)}"
        f"{button_html('again', 'From the start')}"
        f"{button_html('seed', 'Another start')}"
        f"{photo_menu_html(names, name)}"
        f"{button_html('choose', 'Your photograph')}"
        '<output data-part="reached" aria-live="off"></output></div>'
    )
