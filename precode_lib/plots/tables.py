"""Tables that scroll inside themselves, ours with the published numbers below."""

from collections.abc import Sequence
from html import escape

from .figures import HtmlFigure, figure_html


def show_table(
    heads: Sequence[str],
    lines: Sequence[Sequence[str | tuple[str, str]]],
    *,
    caption: str,
    names: int = 1,
) -> HtmlFigure:
    """A table; a pair in a cell is our number with the published one, small, below.

    The caption states the finding. Wide tables scroll inside themselves.

    Args:
        heads: of the columns.
        lines: one text or pair (ours, published) per column.
        names: how many columns, from the left, name the line.
    """
    for index, line in enumerate(lines):
        if len(line) != len(heads):
            raise ValueError(
                f"line {index} has {len(line)} cells, the table {len(heads)} columns."
            )
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f"<tr>{''.join(_cell_html(c, i < names) for i, c in enumerate(line))}</tr>"
        for line in lines
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    # A region that scrolls must be reachable by keyboard.
    scroll = (
        '<div class="precode-table" role="region" tabindex="0" '
        f'aria-label="{escape(caption)}">{table}</div>'
    )
    return HtmlFigure(figure_html(scroll, caption=caption), caption)


def _cell_html(cell: str | tuple[str, str], is_name: bool) -> str:
    if is_name:
        return f'<th scope="row">{escape(str(cell))}</th>'
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    ours, published = map(escape, cell)
    below = f"<small>{published}</small>" if published else ""
    return f"<td>{ours}{below}</td>"
