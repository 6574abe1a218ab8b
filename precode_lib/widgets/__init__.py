"""Sliders that work twice: live in a running notebook, and on a page without a kernel.

`explore` draws a picture per setting, `watch` follows an attack. While the book is
built (PRECODE_STATIC=1) both draw every frame once and return a `SliderFigure`, which
needs nothing but the page; elsewhere they return ipywidgets that compute as you move.

`leak_your_own`, `race` and `sum_of_clients` need neither: the page itself computes, and
readers put in a picture of their own. `quiz` asks a question with a few options,
`checklist` one for each rule of a list. All of these are the same everywhere.

Frames are not kept on disk: they depend on all that `render` closes over, models and
generators included, which no key of ours would name honestly. The book keeps whole
executed notebooks instead, until their code or the library changes.
"""

from .axis import Axis
from .checklist import Checklist, Item, checklist
from .curves import Curve
from .exploring import explore
from .figure import SliderFigure
from .in_page import PageFigure
from .leaking import leak_your_own
from .numbers import PageNumbers, filled
from .quiz import Option, Quiz, quiz, right, wrong
from .racing import Lane, Noise, race
from .summing import sum_of_clients
from .watching import watch

__all__ = [
    "Axis",
    "Checklist",
    "Curve",
    "Item",
    "Lane",
    "Noise",
    "Option",
    "PageFigure",
    "PageNumbers",
    "Quiz",
    "SliderFigure",
    "checklist",
    "explore",
    "filled",
    "leak_your_own",
    "quiz",
    "race",
    "right",
    "sum_of_clients",
    "watch",
    "wrong",
]
