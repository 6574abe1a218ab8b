"""Tables that scroll inside themselves, ours with the published numbers below."""

from collections.abc import Sequence
from html import escape

from .figures import HtmlFigure, figure_html, unsigned

MOST_ABREAST = 5  # columns that find room on a phone, more or less


def show_table(
    heads: Sequence[str],
    lines: Sequence[Sequence[str | tuple[str, str]]],
    *,
    caption: str,
    names: int = 1,
) -> HtmlFigure:
    """A table; a pair in a cell is our number with the published one, small, below.

    The caption states the finding. Wide tables scroll inside themselves; on a phone,
    where there are more columns than fit, each line becomes a block of its own.

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
    is_wide = len(heads) > MOST_ABREAST
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(_line_html(line, heads, names, is_wide) for line in lines)
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    # A region that scrolls must be reachable by keyboard.
    scroll = (
        f'<div class="precode-table{" precode-wide" if is_wide else ""}" '
        f'role="region" tabindex="0" aria-label="{escape(caption)}">{table}</div>'
    )
    return HtmlFigure(figure_html(scroll, caption=caption), caption)


def _line_html(line: Sequence, heads: Sequence[str], names: int, is_wide: bool) -> str:
    """A row; in a wide table each number knows its head, for where rows are stacked."""
    row = "".join(f'<th scope="row">{_text(str(cell))}</th>' for cell in line[:names])
    for head, cell in zip(heads[names:], line[names:], strict=True):
        known = f' data-head="{escape(head)}"' if is_wide and head else ""
        row += f"<td{known}>{_cell_html(cell)}</td>"
    return f"<tr>{row}</tr>"


def _cell_html(cell: str | tuple[str, str]) -> str:
    if isinstance(cell, str):
        return _text(cell)
    ours, published = map(_text, cell)
    return f"{ours}<small>{published}</small>" if published else ours


def _text(cell: str) -> str:
    return escape(unsigned(cell))
