"""A film that is shown while the attack still runs."""

import threading
import time
import weakref
from collections.abc import Iterator

import ipywidgets

from precode_lib.plots import figure_html, img_html

from .background import Background, Stale
from .figure import beside, panels_html
from .film import Film
from .live import (
    LiveFigure,
    failure_html,
    heading,
    status_html,
    stop_button,
)

_SECONDS_PER_DRAWING = 0.2
_MILLISECONDS_PER_FRAME = 200

# The film that runs for each question, so that a cell run again stops its earlier self.
_running: "weakref.WeakValueDictionary[str, Projector]" = weakref.WeakValueDictionary()


class Projector:
    """Widgets over a film that grows: a scrubber, Play, progress and Stop.

    `_run` is called in the background, `_moved` and `_stopped` in the notebook's
    thread; what they draw, they draw under the lock.

    Args:
        search: the attack's steps.
        film: takes them in.
        question, caption: as for `watch`.
    """

    def __init__(self, search: Iterator, film: Film, *, question: str, caption: str):
        self._search, self._film = search, film
        self._question, self._caption = question, caption
        self._lock = threading.RLock()
        self._drawn_at = 0.0
        self.background = Background()
        self.view = ipywidgets.HTML()
        self.slider = ipywidgets.IntSlider(
            min=0, max=0, readout=False, description="Iteration",
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="24em", max_width="100%"),
        )  # fmt: skip
        self.reading = ipywidgets.HTML()
        self.play = ipywidgets.Play(min=0, max=0, interval=_MILLISECONDS_PER_FRAME)
        ipywidgets.jslink((self.play, "value"), (self.slider, "value"))
        self.progress = ipywidgets.IntProgress(min=0, max=film.length)
        self.status = ipywidgets.HTML()
        self.stop = stop_button(self._stopped)
        self.slider.observe(self._moved, "value")

    def show(self) -> LiveFigure:
        """Make the first step, start the others, and return the widgets."""
        earlier = _running.get(self._question)
        if earlier is not None:
            earlier.background.stop()
        _running[self._question] = self
        step = next(self._search, None)
        if step is None:
            raise ValueError("this search is over; give watch a new one.")
        self._film.add(step)
        self._grow()
        self.background.start(self._run)
        controls = ipywidgets.HBox([self.play, self.slider, self.reading])
        progress = ipywidgets.HBox([self.progress, self.status, self.stop])
        children = [heading(self._question), controls, self.view, progress]
        figure = LiveFigure(children, page=lambda: self.view.value)
        figure.projector = self  # lives as long as what it moves
        return figure

    def _moved(self, _change) -> None:
        with self._lock:
            self._draw()

    def _stopped(self) -> None:
        with self._lock:
            self.background.stop()
            self._rest(f"stopped after {len(self._film.objectives)} iterations")

    def _run(self, stale: Stale) -> None:
        try:
            for step in self._search:
                with self._lock:
                    if stale():
                        return
                    self._film.add(step)
                    if time.monotonic() - self._drawn_at > _SECONDS_PER_DRAWING:
                        self._grow()
            with self._lock:
                if not stale():
                    self._grow()
                    count = len(self._film.objectives)
                    self._rest(f"done after {count} iterations")
        except Exception as error:
            with self._lock:
                self._rest("")
                self.status.value = failure_html("The attack failed.", error)

    def _grow(self) -> None:
        """Offer the new frames; who looks at the newest goes on to the next."""
        follows = self.slider.value == self.slider.max
        newest = len(self._film.kept) - 1
        self.slider.max = self.play.max = newest
        self.progress.value = len(self._film.objectives)
        self.status.value = status_html(
            f"iteration {max(self._film.objectives)} of at most {self._film.length}"
        )
        if follows and self.slider.value != newest:
            self.slider.value = newest  # draws
        else:
            self._draw()
        self._drawn_at = time.monotonic()

    def _draw(self) -> None:
        kept = self._film.kept
        iteration = kept[min(self.slider.value, len(kept) - 1)]
        panels = self._film.panels(iteration)
        curve = self._film.curve([iteration], end=self._end()).html(0)
        pictures = panels_html(panels, lambda panel, _: img_html(panel), panels)
        self.view.value = figure_html(beside(pictures, curve), caption=self._caption)
        self.reading.value = f"<output>{iteration}</output>"

    def _end(self) -> int:
        return self._film.length if not self.stop.disabled else 0

    def _rest(self, text: str) -> None:
        self.stop.disabled = True
        self._draw()
        self.status.value = status_html(text, spoken=True)
