"""Sliders in a running notebook, whose pictures are computed beside it.

Only values of widgets are set from other threads. Works with ipywidgets 7.7 and 8, and
only with what belongs to ipywidgets itself: Colab shows that as it is, anything else
only after `google.colab.output.enable_custom_widget_manager()`, which loads scripts
from elsewhere.
"""

import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape
from inspect import isgenerator
from typing import Any

import ipywidgets

from precode_lib.plots import Panel, show_pictures

from .axis import Axis
from .background import Background, Stale
from .figure import frames_of

_REST = 0.15  # seconds a slider rests before its setting is computed
# All figures draw in turn: a model that two of them share is not made for threads.
_TURN = threading.Lock()
_VIEW = "application/vnd.jupyter.widget-view+json"


class LiveFigure(ipywidgets.VBox):
    """Widgets that a reader without a kernel sees as the picture they showed last."""

    # ipywidgets 7 displays itself through this, past the bundle below.
    _ipython_display_ = None

    def __init__(self, children: Sequence[Any], page: Callable[[], str], **options):
        super().__init__(children, **options)
        self.add_class("precode-live")  # by which figure.css finds its sliders
        self._page = page

    def _repr_mimebundle_(self, **_kwargs) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle = {"text/plain": "<live figure>", _VIEW: view}
        # Colab has one output for all kinds; there the widget must be the only one.
        return bundle if _in_colab() else {**bundle, "text/html": self._page()}


def _in_colab() -> bool:
    return "google.colab" in sys.modules


def heading(question: str) -> ipywidgets.HTML:
    """The question above the controls."""
    return ipywidgets.HTML(f"<strong>{escape(question)}</strong>")


def status_html(text: str, *, spoken: bool = False) -> str:
    """What is under way; only what is `spoken` do screen readers read out at once."""
    role = ' role="status"' if spoken else ""
    return f'<span class="precode-status"{role}>{escape(text)}</span>'


def failure_html(what: str, error: Exception) -> str:
    """An error as a sentence, with its traceback folded away."""
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return (
        f'<p role="alert"><strong>{escape(what)}</strong> {type(error).__name__}: '
        f"{escape(str(error))}</p><details><summary>Where it happened</summary>"
        f"<pre>{escape(lines)}</pre></details>"
    )


def stop_button(on_click: Callable[[], None]) -> ipywidgets.Button:
    """A button to stop what is under way."""
    button = ipywidgets.Button(
        description="Stop", tooltip="Stop and keep what was found so far"
    )
    button.on_click(lambda _button: on_click())
    return button


class Explorer:
    """One slider or menu per axis over a picture that is drawn when they come to rest.

    `_draw` and what it calls run in the background, `_moved` and `_stopped` in the
    notebook's thread; what they show, they show under the lock.

    Args:
        render, axes, question, caption: as for `explore`.
        rest: seconds for which the sliders rest before their setting is drawn.
    """

    def __init__(
        self,
        render: Callable[..., Any],
        axes: Sequence[Axis],
        *,
        question: str,
        caption: str,
        rest: float = _REST,
    ):
        self._render, self._axes = render, axes
        self._question, self._caption = question, caption
        self._pages: dict[tuple[int, ...], str] = {}
        self._lock = threading.RLock()
        self.background = Background(rest, _TURN)
        self.view = ipywidgets.HTML()
        self.status = ipywidgets.HTML()
        self.stop = stop_button(self._stopped)
        self.sliders = [_slider(axis) for axis in axes]
        for slider in self.sliders:
            slider.observe(self._moved, "value")

    def show(self) -> LiveFigure:
        """Draw the first setting, or the first frame of it, and return the widgets."""
        setting = self._setting()
        drawn = self._render(**self._values(setting))
        frames = frames_of(drawn)
        first = next(frames, None)
        if first is None:
            raise ValueError("render yielded no panels; it must yield at least once.")
        self._write(first)
        if isgenerator(drawn):
            self._announce(1, film=True)
            follow = partial(self._follow, setting, frames, film=True, seen=1)
            self.background.start(follow)
        else:
            self._finish(setting)
        progress = ipywidgets.HBox([self.status, self.stop])
        children = [heading(self._question), *self.sliders, self.view, progress]
        return LiveFigure(children, page=lambda: self.view.value)

    def _setting(self) -> tuple[int, ...]:
        return tuple(slider.value for slider in self.sliders)

    def _values(self, setting: tuple[int, ...]) -> dict[str, Any]:
        pairs = zip(self._axes, setting, strict=True)
        return {axis.name: axis.values[index] for axis, index in pairs}

    def _moved(self, _change) -> None:
        with self._lock:
            self.background.stop()
            setting = self._setting()
            page = self._pages.get(setting)
            if page is not None:
                self.view.value = page
                self._finish(setting)
                return
            self._announce(0, film=False)
            self.view.add_class("precode-busy")
            self.background.start(partial(self._draw, setting))

    def _stopped(self) -> None:
        with self._lock:
            self.background.stop()
            self._rest("Stopped; this is what it had drawn.")

    def _draw(self, setting: tuple[int, ...], stale: Stale) -> None:
        try:
            drawn = self._render(**self._values(setting))
        except Exception as error:
            self._fail(setting, error, stale)
            return
        self._follow(setting, frames_of(drawn), stale, film=isgenerator(drawn))

    def _follow(
        self,
        setting: tuple[int, ...],
        frames: Iterator[list[Panel]],
        stale: Stale,
        *,
        film: bool,
        seen: int = 0,
    ) -> None:
        """Show frame after frame until there are no more or nobody wants them."""
        try:
            for count, panels in enumerate(frames, seen + 1):
                with self._lock:
                    if stale():
                        return
                    self._write(panels)
                    self._announce(count, film=film)
            with self._lock:
                if not stale():
                    self._finish(setting)
        except Exception as error:
            self._fail(setting, error, stale)
        finally:
            frames.close()

    def _fail(self, setting: tuple[int, ...], error: Exception, stale: Stale) -> None:
        with self._lock:
            if stale():
                return
            pairs = zip(self._axes, setting, strict=True)
            where = ", ".join(f"{axis.title} {axis.texts()[i]}" for axis, i in pairs)
            self.view.value = failure_html(f"Drawing {where} failed.", error)
            self._rest("")

    def _write(self, panels: Sequence[Panel]) -> None:
        self.view.value = show_pictures(list(panels), caption=self._caption).html
        self.view.remove_class("precode-busy")

    def _announce(self, seen: int, *, film: bool) -> None:
        """Say that something is under way; only a film of frames can be stopped."""
        count = f" frame {seen}" if film else ""
        self.status.value = status_html(f"computing…{count}")
        self.stop.layout.display = "" if film else "none"

    def _finish(self, setting: tuple[int, ...]) -> None:
        self._pages[setting] = self.view.value
        self._rest("")

    def _rest(self, text: str) -> None:
        self.view.remove_class("precode-busy")
        self.status.value = status_html(text, spoken=True)
        self.stop.layout.display = "none"


def _slider(axis: Axis) -> ipywidgets.Widget:
    kind = ipywidgets.Dropdown if axis.choice else ipywidgets.SelectionSlider
    return kind(
        options=list(zip(axis.texts(), range(len(axis.values)), strict=True)),
        value=axis.start,
        description=axis.title,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="28em", max_width="100%"),
    )
