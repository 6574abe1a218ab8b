"""Work beside a notebook's own thread: the newest job counts, older ones give way."""

import atexit
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager

Stale = Callable[[], bool]  # whether a job is no longer wanted

_known: "weakref.WeakSet[Background]" = weakref.WeakSet()


class Background:
    """Runs one job at a time in a daemon thread.

    A job is called with a function that tells whether it has become stale, because a
    newer one was started or `stop` was called; it should look often and return.

    Args:
        pause: seconds that a job waits for a newer one before it begins.
        turn: held by the job that runs; those that share it run one at a time.
    """

    def __init__(self, pause: float = 0, turn: AbstractContextManager | None = None):
        self._pause = pause
        self._turn = threading.Lock() if turn is None else turn
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        _known.add(self)

    def start(self, job: Callable[[Stale], None]) -> None:
        """Make this the current job, and those before it stale."""
        self.stop()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(job, self._stop), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Make the current job stale; returns at once."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the current job has returned; False if it did not in time."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _run(self, job: Callable[[Stale], None], stop: threading.Event) -> None:
        if stop.wait(self._pause):
            return
        with self._turn:
            if not stop.is_set():
                job(stop.is_set)


@atexit.register
def _stop_all() -> None:
    # A thread inside torch while the interpreter goes away may crash it.
    for background in list(_known):
        background.stop()
    for background in list(_known):
        background.wait(2)
