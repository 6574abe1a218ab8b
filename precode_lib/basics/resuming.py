"""Runs that may be stopped at any step, counted, saved, and gone on with later."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TypeVar

Step = TypeVar("Step")


class Resumable(Iterator[Step]):
    """A run as an iterator of its steps; it prints nothing.

    Stop the loop whenever you like: the next call goes on from there, and `state_dict`
    takes it elsewhere. A run that has been resumed with fewer steps than it has made
    already is over. Over or not, it is something, so its truth is True.
    """

    looks_every = 1  # steps of `progress` between two notes

    @abstractmethod
    def _left(self) -> int:
        """How many steps are left at most; less than none if too many were made."""

    @abstractmethod
    def _advance(self) -> Step:
        """Make one step and report it."""

    @abstractmethod
    def state_dict(self) -> dict:
        """All that a resumed run needs: tensors, lists, numbers and strings only."""

    @abstractmethod
    def load_state_dict(self, state: dict) -> None:
        """Go on from where a run with this `state_dict` was."""

    def __len__(self) -> int:
        """How many steps are left at most, for progress bars."""
        return max(0, self._left())

    def __bool__(self) -> bool:
        """A run is something, also when it is over."""
        return True

    def __next__(self) -> Step:
        """Make one step, unless the run is over."""
        if not len(self):
            raise StopIteration
        return self._advance()

    def _bar(self) -> dict:
        """How its progress bar begins, in options of `tqdm`."""
        return {"unit": "step"}

    def _note(self, step: Step) -> str:
        """What its progress bar says after a step."""
        return ""


def progress(run: Resumable, *, every: int | None = None, **options) -> Iterator:
    """The steps of a run behind a bar that says how it goes.

    Any other bar fits as well: a run knows its length. Stop the loop, and the run can
    be resumed.

    Args:
        run: a search, a training, a federation: whatever is `Resumable`.
        every: steps between two looks at the results (each look waits for a GPU); by
            default as often as this kind of run can afford.
        options: of `tqdm.auto.tqdm`.
    """
    from tqdm.auto import tqdm  # only for people who watch

    every = run.looks_every if every is None else every
    with tqdm(**{"total": len(run), **run._bar(), **options}) as bar:
        for number, step in enumerate(run):
            if number % every == 0:
                bar.set_postfix_str(run._note(step), refresh=False)
            bar.update()
            yield step
