"""A sum of clients that readers make larger and smaller, in the page."""

import math
import zlib
from dataclasses import replace
from html import escape

import torch
from torch import Tensor

from precode_lib.attacks import IGA, Search, known_labels
from precode_lib.attacks.closed_form import isolated_inputs, largest_row
from precode_lib.data import Pictures
from precode_lib.federated import Observation, observe
from precode_lib.metrics import score
from precode_lib.models import mlp
from precode_lib.plots import Panel, data_uri, to_image

from .axis import Axis
from .in_page import PageFigure, button_html, controls_html, file_html, trio_html
from .numbers import PageNumbers, filled
from .racing import told_recipe

_PAPER = 0.93  # where no picture is
_RECIPE = replace(IGA, labels=known_labels)


def sum_of_clients(
    photos: Pictures,
    *,
    question: str,
    caption: str,
    start: int = 8,
    width: int = 256,
    steps: int = 200,
    seed: int = 0,
) -> PageFigure:
    """A figure in which readers add up clients, and see what the sum gives away.

    Each client has one picture, and the server nothing but the mean of their gradients:
    of a network with one hidden layer of ReLUs, drawn by the page from `seed`. One
    division, isolated rows and a search (IGA, on a button) look at it. The first state
    is drawn here, by the library.

    Args:
        photos: of one client each; square and in colour, from 2 to 64.
        question: what the reader can find out.
        caption: what there is to see.
        start: how many clients are in the sum at first.
        width: units of the hidden layer.
        steps: of the search.
        seed: of the weights; the search starts from the numbers of `seed + 2`.
    """
    _check(photos, start)
    pixels = (photos.pixels.clamp(0, 1) * 255).round() / 255
    sheet = data_uri(to_image(_mosaic(pixels)), format="WEBP", lossless=True, method=6)
    counts = range(1, len(pixels) + 1)
    axes = [Axis("count", counts, "Clients in the sum", text=str, start=start - 1)]
    config = {
        "size": pixels.shape[-1],
        "width": width,
        "seed": seed,
        "start": seed + 2,
        "steps": steps,
        "first": start,
        "mean": photos.normalisation.mean,
        "std": photos.normalisation.std,
        "labels": photos.labels.tolist(),
        "sheet": sheet,
        "recipe": told_recipe(_RECIPE),
    }
    seen = _seen(pixels[:start], photos, width, seed)
    rows = isolated_inputs(seen)[0].images
    panels = _panels(pixels[:start].double(), seen, rows, _found(seen, steps, seed))
    name = f"sum-{zlib.crc32(sheet.encode()):08x}"
    body = (
        f'<p class="precode-question">{escape(question)}</p>'
        f"{controls_html(axes, name)}{trio_html(panels, size='12rem')}"
        f'<p class="precode-notice" data-part="notice">{_notice(start, len(rows))}</p>'
        '<div class="precode-tools">'
        f"{button_html('run', 'Search', is_main=True)}"
        f"{button_html('choose', 'Your photograph')}{file_html()}"
        '<output data-part="reached" aria-live="off"></output></div>'
    )
    return PageFigure("sum", config, axes, panels=panels, body=body, caption=caption)


def _check(photos: Pictures, start: int) -> None:
    count, channels, height, width = photos.pixels.shape
    if not 2 <= count <= 64 or channels != 3 or height != width:
        raise ValueError(
            "photos must be 2 to 64 square pictures in colour, (N, 3, S, S), got "
            f"{tuple(photos.pixels.shape)}."
        )
    if not 1 <= start <= count:
        raise ValueError(f"start must be from 1 to {count} clients, got {start}.")


def _seen(pixels: Tensor, photos: Pictures, width: int, seed: int) -> Observation:
    """The sum, as the gradient of one batch, which it equals up to a factor."""
    drawn = mlp(tuple(pixels.shape[1:]), depth=1, width=width)
    images = photos.normalisation.normalise(pixels.double())
    return observe(
        filled(drawn, PageNumbers(seed)),
        images[None],
        photos.labels[None, : len(pixels)],
        normalisation=photos.normalisation,
    )


def _found(seen: Observation, steps: int, seed: int) -> Tensor:
    """What the page's search finds."""
    shape = (1, seen.num_examples, *seen.image_shape)
    start = torch.from_numpy(PageNumbers(seed + 2).normal(math.prod(shape)))
    search = Search(
        seen,
        replace(_RECIPE, iterations=steps),
        generator=torch.Generator().manual_seed(seed),  # draws nothing here
        start=start.view(shape),
    )
    last = None
    for last in search:  # noqa: B007
        pass
    return last.images[0]


def _panels(own: Tensor, seen: Observation, rows: Tensor, guess: Tensor) -> list[Panel]:
    def pixels(images: Tensor) -> Tensor:
        return seen.normalisation.denormalise(images.view(-1, *own.shape[1:]))

    shared, count = seen.shared.dense(), len(own)
    layer = [shared[f"features.hidden1.{part}"] for part in ("weight", "bias")]
    mixture = pixels(largest_row(*layer)).clamp(0, 1)
    nearest = int((own - mixture).square().flatten(1).sum(1).argmin())
    similar = score(own[[nearest]], mixture).ssim.item()
    guess = _placed(pixels(guess).clamp(0, 1), own)
    whole = int(score(own, guess).success.sum())
    return [
        Panel("on the phones", _mosaic(own), "original"),
        Panel("one division", mixture[0], "leaked", {"SSIM": f"{similar:.2f}"}),
        Panel(
            "isolated rows",
            _mosaic(_placed(pixels(rows).clamp(0, 1), own)),
            "leaked",
            {"seen": f"{len(rows)} of {count}"},
        ),
        Panel("a search", _mosaic(guess), "leaked", {"seen": f"{whole} of {count}"}),
    ]


def _placed(found: Tensor, own: Tensor) -> Tensor:
    """What was found at the place of the picture nearest to it, paper elsewhere.

    The nearest pairs come first, as in the page.
    """
    placed = torch.full_like(own, _PAPER)
    away = torch.cdist(found.flatten(1), own.flatten(1))
    for _ in range(len(found)):
        one, at = divmod(int(away.argmin()), len(own))
        placed[at] = found[one]
        away[one], away[:, at] = torch.inf, torch.inf
    return placed


def _mosaic(pictures: Tensor) -> Tensor:
    """Pictures (N, C, S, S) in a square, in rows as long as they are many."""
    across = math.ceil(len(pictures) ** 0.5)
    size = pictures.shape[-1]
    paper = torch.ones(across**2 - len(pictures), *pictures.shape[1:])
    rows = torch.cat([pictures, paper.to(pictures)]).split(across)
    square = torch.cat([torch.cat([*row], dim=2) for row in rows], dim=1)
    empty = across - math.ceil(len(pictures) / across)  # rows without a picture
    return square.roll(empty * size // 2, dims=1)


def _notice(count: int, alone: int) -> str:
    if count == 1:
        return "A sum of one hides nothing: every row is the picture times one number."
    if alone == count:
        return (
            f"A sum of {count} hides nobody: each picture has units that no other one "
            "woke."
        )
    if alone:
        have = "has units to itself" if alone == 1 else "have units to themselves"
        return (
            f"{alone} of {count} {have}. Where several pictures meet, the division "
            "gives a mixture."
        )
    return f"No unit saw one picture alone: the rows give away nobody of {count}."
