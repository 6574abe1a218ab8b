"""How things look: pictures side by side and matplotlib's curves, as one HTML figure.

Nothing here computes more than pixels and text. Every figure has a caption and a text
alternative, fits a phone and follows the page into dark mode.
"""

from .charts import as_figure, new_axes, plot_bars, plot_dots, plot_strips
from .curves import apart, plot_curves
from .figures import (
    ASSETS,
    COLOURS,
    HtmlFigure,
    Panel,
    colour,
    colour_css,
    data_uri,
    describe,
    figure_html,
    img_html,
    panel_html,
    pixelated,
    show_pictures,
    style_html,
    to_image,
)
from .sources import Source, show_source
from .tables import show_table

__all__ = [
    "ASSETS", "COLOURS", "HtmlFigure", "Panel", "Source", "as_figure", "colour",
    "colour_css", "data_uri", "describe", "figure_html", "img_html", "new_axes",
    "panel_html", "pixelated", "plot_bars", "plot_curves", "plot_dots", "plot_strips",
    "show_pictures", "show_source", "show_table", "style_html", "to_image",
]  # fmt: skip
