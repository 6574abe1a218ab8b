"""One thread at a time looks into a model.

Taking a gradient hangs hooks into a model, or lends it other weights and buffers for
the length of a call. A second thread that used the model meanwhile (a live slider while
the reader runs the next cell) would meet them. What does so is `one_at_a_time`: threads
wait for each other here, and not in torch. To compute side by side, use processes.
"""

import functools
import threading
from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)

# One for all models: some share layers, and torch's choice of attention is global.
_TURN = threading.RLock()


def one_at_a_time(function: F) -> F:
    """Let no other thread into any function of this kind while it runs."""

    @functools.wraps(function)
    def waiting(*args, **kwargs):
        with _TURN:
            return function(*args, **kwargs)

    return waiting
