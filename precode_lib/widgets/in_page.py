"""Figures that compute in the page itself, without kernel or network.

Python draws their first picture, which also stays where no script runs and on paper;
assets/engine.js draws the same network, by `numbers`, and goes on from there. In a
running notebook it is the same script that computes, in the cell's output; where the
notebook is not trusted, JupyterLab shows the first picture.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from precode_lib.plots import ASSETS, Panel, figure_html, img_html, panel_html

from .axis import Axis
from .figure import control_html


class PageFigure:
    """A figure that a script of the page drives.

    Args:
        kind: the script's name in assets, and what it looks for.
        config: what the script needs to know, as JSON; it gets the axes as well.
        axes: the sliders and menus that the script reads.
        panels: its first picture, for whoever asks what Python found.
        body: the figure's own HTML, with its first picture.
        caption: what there is to see.
    """

    def __init__(
        self,
        kind: str,
        config: Mapping[str, Any],
        axes: Sequence[Axis],
        *,
        panels: Sequence[Panel],
        body: str,
        caption: str,
    ):
        self._kind, self.panels = kind, list(panels)
        told = [
            {"name": axis.name, "values": list(axis.values), "texts": axis.texts()}
            for axis in axes
        ]
        written = json.dumps({**config, "axes": told}, ensure_ascii=False)
        figure = figure_html(
            f"<style>{_asset('live.css')}</style>{body}"
            '<p class="precode-hidden" role="status"></p>'
            "<noscript><p>This is its first picture. To try your own, turn on "
            "JavaScript: it computes in this page.</p></noscript>",
            caption=caption,
            classes="precode-live-page",
            # JupyterLab takes keys from whatever does not carry this mark.
            attributes=f' data-lm-suppress-shortcuts="true" '
            f'data-{kind}="{escape(written)}"',
        )
        scripts = "\n".join(
            map(_asset, ("engine.js", "pictures.js", "shell.js", f"{kind}.js"))
        )
        self._html = f"{figure}<script>{scripts}</script>"

    def __repr__(self) -> str:
        return f"<figure that computes in the page: {self._kind}>"

    def _repr_html_(self) -> str:
        return self._html


def trio_html(panels: Sequence[Panel], *, size: str) -> str:
    """Panels side by side on every screen; four of them two by two on a narrow one."""
    shown = "".join(panel_html(panel, img_html(panel)) for panel in panels)
    four = " precode-four" if len(panels) == 4 else ""
    return f'<div class="precode-trio{four}" style="--size:{size}">{shown}</div>'


def controls_html(axes: Sequence[Axis], name: str) -> str:
    """The axes' sliders; the script finds them by the axis at the end of their id."""
    return "".join(control_html(axis, f"{name}-{axis.name}") for axis in axes)


def button_html(part: str, text: str, *, is_main: bool = False, more: str = "") -> str:
    """A button that a script finds by its part, and enables."""
    main = ' class="precode-main"' if is_main else ""
    return (
        f'<button type="button" data-part="{part}"{main}{more} disabled>'
        f"{escape(text)}</button>"
    )


def photo_menu_html(names: Sequence[str], name: str) -> str:
    """A menu of pictures, the reader's own at its end, and where a file comes in."""
    options = "".join(
        f'<option value="{i}">{escape(each)}</option>' for i, each in enumerate(names)
    )
    return (
        f'<label class="precode-hidden" for="{name}-photo">Picture</label>'
        f'<select id="{name}-photo" data-part="photo" autocomplete="off" disabled>'
        f'{options}<option value="own">your own</option></select>{file_html()}'
    )


def file_html() -> str:
    """Where a file comes in; a button opens it."""
    return (
        '<input type="file" accept="image/*" data-part="file" tabindex="-1" '
        'aria-hidden="true" hidden disabled>'
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8").strip()
