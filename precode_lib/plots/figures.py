"""Pictures and finished figures as HTML: colours by role, captions, alternatives."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image
from torch import Tensor

from precode_lib.basics.validation import check_count

ASSETS = Path(__file__).parents[1] / "assets"

# role: (on light, on dark). Blue, vermilion and green stay apart for colour-blind
# readers, and each has at least 4.5:1 contrast as text on the book's backgrounds.
COLOURS = {
    "original": ("#0067a5", "#6db9f0"),
    "leaked": ("#b84a00", "#f5a05a"),
    "defended": ("#00765a", "#4fc9a4"),
    "neutral": ("#5c6570", "#a3adb8"),
}


def colour(role: str) -> str:
    """The colour of a role on light paper: original, leaked, defended or neutral."""
    check_role(role)
    return COLOURS[role][0]


def colour_css() -> str:
    """The roles' colours as CSS variables, for light and for dark pages."""
    light, dark = (
        "".join(f"--precode-{role}:{pair[i]};" for role, pair in COLOURS.items())
        for i in (0, 1)
    )
    return (
        f":root{{{light}}}\n"
        f'html[data-theme="dark"],[data-jp-theme-light="false"]{{{dark}}}\n'
    )


@dataclass(frozen=True)
class Panel:
    """One picture with its label, its role's colour and the numbers written below it.

    Args:
        label: one or two words, such as "original".
        pixels: (C, H, W) in [0, 1], with C 1 or 3; values outside are clamped.
        role: original, leaked, defended or neutral; it decides the colour.
        values: names and formatted numbers, such as {"SSIM": "0.97"}.
    """

    label: str
    pixels: Tensor
    role: str = "neutral"
    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_role(self.role)
        plain = {name: unsigned(value) for name, value in self.values.items()}
        object.__setattr__(self, "values", plain)
        if self.pixels.dim() != 3 or self.pixels.shape[0] not in (1, 3):
            raise ValueError(
                f"panel {self.label!r}: pixels must be (C, H, W) with C 1 or 3, got "
                f"{tuple(self.pixels.shape)}; take one picture out of a batch."
            )


@dataclass(frozen=True, repr=False)
class HtmlFigure:
    """A figure that shows itself in a notebook and on a page; `text` is its summary."""

    html: str
    text: str

    def __repr__(self) -> str:
        return f"<figure: {self.text}>"

    def _repr_html_(self) -> str:
        return self.html


def show_pictures(
    panels: Sequence[Panel],
    *,
    caption: str,
    width: float = 11,
    across: int | None = None,
) -> HtmlFigure:
    """Show pictures side by side on one scale, each `width` rem wide where it fits.

    The caption states the finding. Each picture's text alternative is its label with
    its values. With `across`, each row has that many on every screen, so that what
    stands below each other can be compared.
    """
    if not panels:
        raise ValueError("show_pictures needs at least one panel, got none.")
    style, table = f"--size:{width:g}rem", ""
    if across is not None:
        check_count(across, "across")
        style, table = f"{style};--across:{across}", " precode-across"
    shown = "".join(panel_html(panel, img_html(panel)) for panel in panels)
    body = f'<div class="precode-panels{table}" style="{style}">{shown}</div>'
    labels = ", ".join(describe(panel) for panel in panels)
    return HtmlFigure(figure_html(body, caption=caption), labels)


def describe(panel: Panel) -> str:
    """The panel in words: its label, then its values."""
    values = ", ".join(f"{name} {value}" for name, value in panel.values.items())
    return f"{panel.label}: {values}" if values else panel.label


def unsigned(text: str) -> str:
    """The text with 0.00 for -0.00: of a number rounded to nothing no sign is left."""
    return re.sub(r"(?<![\w.])-(0(?:\.0+)?)(?![\w.])", r"\1", text)


def to_image(pixels: Tensor) -> Image.Image:
    """(C, H, W) in [0, 1] → an 8-bit RGB image; values outside are clamped."""
    levels = (pixels.detach().cpu().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(levels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def data_uri(image: Image.Image, **options) -> str:
    """Encode an image as a data URI; `options` are Pillow's, PNG unless they say so."""
    options = {"format": "PNG", **options}
    buffer = BytesIO()
    image.save(buffer, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{options['format'].lower()};base64,{encoded}"


def figure_html(
    body: str, *, caption: str, classes: str = "", attributes: str = ""
) -> str:
    """Wrap a figure's body with the shared style and the caption."""
    return (
        f'<figure class="precode-figure {classes}"{attributes}>{style_html()}'
        f"{body}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def style_html() -> str:
    """The style of everything in a `precode-figure`, colours included."""
    css = colour_css() + (ASSETS / "figure.css").read_text(encoding="utf-8")
    return f"<style>{css}</style>"


def panel_html(panel: Panel, picture: str) -> str:
    """A picture's element with the panel's label and values below it."""
    values = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in panel.values.items()
    )
    return (
        f'<div class="precode-panel precode-{panel.role}">{picture}'
        f'<p class="precode-label">{escape(panel.label)}</p>'
        f"{f'<dl>{values}</dl>' if values else ''}</div>"
    )


def img_html(panel: Panel) -> str:
    """A panel's picture as an element of its own."""
    return (
        f'<img class="precode-picture{pixelated(panel)}" '
        f'alt="{escape(panel.label)}" src="{data_uri(to_image(panel.pixels))}">'
    )


def pixelated(panel: Panel) -> str:
    """The class that keeps small pictures' pixels square, or nothing for large ones."""
    return " precode-pixelated" if panel.pixels.shape[-1] < 128 else ""


def check_role(role: str) -> None:
    """Refuse a role that has no colour."""
    if role not in COLOURS:
        raise ValueError(f"role must be one of {', '.join(COLOURS)}; got {role!r}.")
