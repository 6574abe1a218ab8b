"""The reader's own picture, its gradient, and what the server computes: in the page."""

import zlib
from html import escape

import torch
from torch import Tensor

from precode_lib.attacks.closed_form import invert_linear, total_least_squares
from precode_lib.data import Pictures
from precode_lib.federated import Observation, observe
from precode_lib.metrics import score
from precode_lib.models import mlp
from precode_lib.plots import Panel, data_uri, to_image

from .axis import Axis
from .in_page import (
    PageFigure,
    button_html,
    controls_html,
    photo_menu_html,
    trio_html,
)
from .numbers import PageNumbers, filled

_SIGMAS = (0, 1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 5e-2, 1e-1, 2e-1)
_PRUNED = (0, 0.5, 0.9, 0.97, 0.99, 0.997, 0.999)


def leak_your_own(
    photos: Pictures,
    *,
    question: str,
    caption: str,
    rows: int = 1,
    width: int = 64,
    seed: int = 0,
) -> PageFigure:
    """A figure into which readers put a picture of their own, which stays in the page.

    They choose a file, draw, or take a photograph; sliders blur the gradient, and one
    division gives the picture back. The network is one hidden layer of ReLUs, drawn by
    the page from `seed`; the first picture is drawn here, by the library.

    Args:
        photos: what to begin with, and what a batch is filled up with; square, and four
            at least.
        question: what the reader can find out.
        caption: what there is to see.
        rows: how many rows of the gradient to show.
        width: units of the hidden layer, of which each sends one row.
        seed: of the weights, and of the noise on the gradient.
    """
    _check(photos)
    axes = _axes()
    # As the page reads them: 8 bits.
    pixels = (photos.pixels.clamp(0, 1) * 255).round() / 255
    uris = [
        data_uri(to_image(each), format="WEBP", lossless=True, method=6)
        for each in pixels
    ]
    names = [photos.classes[label] for label in photos.labels]
    config = {
        "size": pixels.shape[-1],
        "width": width,
        "rows": rows,
        "seed": seed,
        "mean": photos.normalisation.mean,
        "std": photos.normalisation.std,
        "labels": photos.labels.tolist(),
        "photos": uris,
        "names": names,
    }
    seen = _seen(pixels[:1], photos, width, seed)
    name = f"leak-{zlib.crc32(uris[0].encode()):08x}-{rows}"
    panels = _panels(pixels[0], seen, photos, rows)
    first = trio_html(panels, size="12rem" if rows == 1 else "15rem")
    body = (
        f'<p class="precode-question">{escape(question)}</p>'
        f"{_tools_html(names, name)}{first}"
        '<p class="precode-notice" data-part="notice">Every row is the picture times '
        "one number, and that number is sent along. The server divides.</p>"
        f"{controls_html(axes[:1], name)}{_more_html(axes, name, is_open=rows > 1)}"
    )
    return PageFigure("leak", config, axes, panels=panels, body=body, caption=caption)


def _check(photos: Pictures) -> None:
    count, channels, height, width = photos.pixels.shape
    if count < 4 or channels != 3 or height != width:
        raise ValueError(
            "photos must be at least 4 square pictures in colour, (N, 3, S, S), got "
            f"{tuple(photos.pixels.shape)}."
        )


def _axes() -> list[Axis]:
    return [
        Axis("sigma", _SIGMAS, "Noise on the gradient, σ"),
        Axis("pruned", _PRUNED, "Pruned: the smallest become 0", text=_percent),
        Axis("batch", (1, 2, 4), "Pictures in the batch", text=str),
        Axis("k", (4, 16, 64, 256), "Code size k", text=str, start=2),
        Axis("beta", (0, 1e-3, 1e-2, 1e-1, 1), "Weight of the KL, β", start=1),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _seen(pixels: Tensor, photos: Pictures, width: int, seed: int) -> Observation:
    """What the page's network sends of one picture."""
    drawn = mlp(tuple(pixels.shape[1:]), depth=1, width=width)
    model = filled(drawn, PageNumbers(seed))
    images = photos.normalisation.normalise(pixels.double())
    labels = photos.labels[:1]
    return observe(
        model, images[None], labels[None], normalisation=photos.normalisation
    )


def _panels(
    pixels: Tensor, seen: Observation, photos: Pictures, rows: int
) -> list[Panel]:
    found = invert_linear(seen, estimate=total_least_squares).images
    leaked = photos.normalisation.denormalise(found).clamp(0, 1)
    similarity = score(pixels[None].double(), leaked).ssim.item()
    shared = seen.shared.dense()
    order = shared["features.hidden1.bias"][0].argsort(descending=True)[:rows]
    drawn = shared["features.hidden1.weight"][0, order].view(rows, *pixels.shape)
    sent = f"{'one row' if rows == 1 else f'{rows} rows'} of what it sends"
    return [
        Panel("what the client has", pixels, "original"),
        Panel(sent, _tiled(drawn)),
        Panel(
            "what the server computes",
            leaked[0],
            "leaked",
            {"SSIM": f"{similarity:.2f}"},
        ),
    ]


def _tiled(pictures: Tensor) -> Tensor:
    """Pictures (N, C, H, W), each stretched to [0, 1], as one square picture."""
    flat = pictures.flatten(1)
    low, high = flat.amin(1)[:, None], flat.amax(1)[:, None]
    pictures = ((flat - low) / (high - low).clamp_min(1e-12)).view_as(pictures)
    across = round(len(pictures) ** 0.5)
    lines = [torch.cat([*line], dim=2) for line in pictures.split(across)]
    return torch.cat(lines, dim=1)


def _tools_html(names: list[str], name: str) -> str:
    return (
        '<div class="precode-tools">'
        f"{button_html('choose', 'Your photograph', is_main=True)}"
        f"{button_html('draw', 'Draw', more=' aria-pressed=false')}"
        f"{button_html('camera', 'Camera')}{photo_menu_html(names, name)}</div>"
        '<div class="precode-view" data-part="view" hidden>'
        '<video muted playsinline aria-label="What the camera sees"></video>'
        f'<div class="precode-tools">{button_html("take", "Take the picture")}'
        f"{button_html('cancel', 'Cancel')}</div></div>"
        '<p class="precode-small">Stays in this page: nothing is sent or stored.</p>'
    )


def _more_html(axes: list[Axis], name: str, *, is_open: bool) -> str:
    return (
        f"<details{' open' if is_open else ''}>"
        "<summary>More: pruning, batches, PRECODE</summary>"
        f"<div>{controls_html(axes[1:3], name)}"
        '<label class="precode-check"><input type="checkbox" data-part="precode" '
        'autocomplete="off" disabled>PRECODE before the last layer'
        '<output data-part="kl" aria-live="off"></output></label>'
        '<div class="precode-of-precode" hidden>'
        f"{controls_html(axes[3:], name)}</div></div></details>"
    )
