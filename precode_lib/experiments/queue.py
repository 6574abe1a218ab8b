"""Run many cells: finished ones are skipped, unfinished ones go on where they were.

`reproduce` runs them one after the other in this process; `reproduce_with` hands them
to Dask workers, on this machine or on a cluster. Both yield what happens, and both
write each result as soon as it is there.
"""

import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from precode_lib.basics.files import atomic_file
from precode_lib.data import MissingDataError
from precode_lib.experiments.cells import (
    Cell,
    Progress,
    key_of,
    version_of,
    with_trainings,
)
from precode_lib.experiments.costs import in_words, seconds
from precode_lib.experiments.lab import Lab
from precode_lib.experiments.one_cell import forget, run, weights_file
from precode_lib.experiments.store import (
    BusyError,
    Finished,
    Store,
    claimed,
    commit,
    find,
    made,
)

if TYPE_CHECKING:
    from distributed import Client, Future

# What a cell can come to.
FINISHED, KEPT, MISSING, FAILED, BUSY = "finished", "kept", "missing", "failed", "busy"
RETRIES = 3  # of a cell on a cluster, on whichever worker
_PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class Event:
    """Something that happened to a cell.

    Args:
        cell: which.
        state: finished (run now), kept (had been run before), missing (its pictures are
            not here), failed, busy (another process has it), or empty: it is running.
        progress: how far it is, while it is running.
        problem: what went wrong, in words.
    """

    cell: Cell
    state: str = ""
    progress: Progress | None = None
    problem: str = ""


@dataclass
class Tally:
    """What became of the cells so far, by state."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Count an event that ended a cell."""
        if event.state:
            self.counts[event.state] = self.counts.get(event.state, 0) + 1
        if event.problem:
            self.problems[str(event.cell)] = event.problem

    @property
    def is_complete(self) -> bool:
        """Whether every cell has its result."""
        return self.counts.keys() <= {FINISHED, KEPT}

    @property
    def complaints(self) -> list[str]:
        """A sentence for each problem, however many cells have it."""
        cells_of: dict[str, list[str]] = {}
        for cell, problem in self.problems.items():
            cells_of.setdefault(problem, []).append(cell)
        more = {p: f" and {len(c) - 1} more" for p, c in cells_of.items() if c[1:]}
        return [f"not run: {c[0]}{more.get(p, '')}: {p}" for p, c in cells_of.items()]


@dataclass(frozen=True)
class Forecast:
    """What cells will cost, before they are run; as text, a sentence.

    Args:
        cells: how many.
        finished: how many of them are there.
        to_run: how many have to be run.
        trainings: how many more have to be run first.
        seconds: of one processor core.
    """

    cells: int
    finished: int
    to_run: int
    trainings: int
    seconds: float

    @property
    def total(self) -> int:
        """The cells and the trainings that come first."""
        return self.cells + self.trainings

    def __str__(self) -> str:
        first = f" after {self.trainings} trainings" if self.trainings else ""
        cost = f"{first}, about {in_words(self.seconds)} of one core"
        return (
            f"{self.cells} cells, {self.finished} finished, {self.to_run} to run"
            f"{cost if self.to_run else ''}."
        )


def forecast(cells: Sequence[Cell], store: Store) -> Forecast:
    """What it will cost to run those cells that are not finished."""
    found, known = find(cells, store), list(store)
    left = [cell for cell in cells if cell not in found]
    to_run = with_trainings(left)
    return Forecast(
        cells=len(cells),
        finished=len(found),
        to_run=len(left),
        trainings=len(to_run) - len(left),
        seconds=sum(seconds(cell, known) for cell in to_run),
    )


@dataclass(frozen=True)
class Task:
    """A cell that has to be run.

    Args:
        cell: which.
        key: of its files.
        marks: of a training: the epochs whose weights some attack starts from.
        after: the key of the training that has to come first, if any.
    """

    cell: Cell
    key: str
    marks: tuple[int, ...] = ()
    after: str | None = None


def plan(
    cells: Iterable[Cell], store: Store, lab: Lab
) -> tuple[list[Task], list[Event]]:
    """What has to be run, in order, and an event for every cell that hasn't to be.

    An attack on a trained model brings the training along, unless its weights are here.
    """
    tasks: dict[str, Task] = {}
    events = []
    for cell in dict.fromkeys(cells):
        try:
            key = key_of(cell, lab.digest(cell))
        except MissingDataError as problem:
            events.append(Event(cell, MISSING, problem=str(problem)))
            continue
        if store.file(key).exists():
            events.append(Event(cell, KEPT))
        else:
            after = _training_first(cell, lab, tasks)
            tasks.setdefault(key, Task(cell, key, after=after))
    ordered = sorted(tasks.values(), key=lambda task: not task.marks)
    return ordered, events


def _training_first(cell: Cell, lab: Lab, tasks: dict[str, Task]) -> str | None:
    """Plan the training that this attack starts from; its key, or None."""
    training = cell.training
    if training is None or weights_file(training, lab, cell.epoch).exists():
        return None
    key = key_of(training, lab.digest(training))
    planned = tasks.get(key, Task(training, key))
    marks = tuple(sorted({*planned.marks, cell.epoch}))
    tasks[key] = replace(planned, marks=marks)
    return key


def reproduce(cells: Iterable[Cell], store: Store, lab: Lab) -> Iterator[Event]:
    """Run what is not finished yet, here and one after the other.

    A cell that fails does not keep the others from being run.
    """
    tasks, events = plan(cells, store, lab)
    yield from events
    unsettled: dict[str, Event] = {}
    for task in tasks:
        if task.after in unsettled and not _has_weights(task.cell, lab):
            event = _follows(task.cell, unsettled[task.after])
            yield event
            continue
        for event in _reproduce_one(task, store, lab):
            yield event
            if event.state in (BUSY, FAILED):
                unsettled[task.key] = event


def reproduce_with(
    client: "Client", cells: Iterable[Cell], store: Store, lab: Lab
) -> Iterator[Event]:
    """Run what is not finished yet on a Dask cluster's workers.

    Workers need the library, the pictures (`lab.data` or their cache folder) and one
    shared `lab.work`, where they leave weights and go on with each other's unfinished
    cells. Results come back here and are written here. A worker that dies loses nothing
    but the steps since its last checkpoint: its cell goes to another one.
    """
    from distributed import as_completed

    tasks, events = plan(cells, store, lab)
    yield from events

    def submit(task: Task) -> "Future":
        key = f"precode-{task.key}"
        future = client.submit(_run_remotely, task, lab, key=key, retries=RETRIES)
        task_of[future.key] = task
        return future

    # Attacks are sent when their training is safe here, not as its dependents: Dask
    # would train again if the worker died that holds a result it still needs.
    task_of: dict[str, Task] = {}
    first = [submit(task) for task in tasks if task.after is None]
    # loop: without it, only a client that is the default would do.
    running = as_completed(first, loop=client.loop)
    del first
    for future in running:
        task = task_of[future.key]
        followers = [each for each in tasks if each.after == task.key]
        event = _received(future, task, store, lab)
        future.release()  # or it would be run again if its worker died
        yield event
        if event.state == FINISHED:
            running.update([submit(each) for each in followers])
        else:
            yield from (_follows(each.cell, event) for each in followers)


def _received(future: "Future", task: Task, store: Store, lab: Lab) -> Event:
    """Write down what a worker hands back."""
    if future.status != "finished":
        return _unfinished(task.cell, future.exception())
    store.write(future.result())
    forget(lab, task.key)
    return Event(task.cell, FINISHED)


def _reproduce_one(task: Task, store: Store, lab: Lab) -> Iterator[Event]:
    cell = task.cell
    try:
        with claimed(lab.work, task.key):
            if _is_done(task, store, lab):
                yield Event(cell, KEPT)  # another process was faster
                return
            store.write((yield from _finish(task, lab)))
            forget(lab, task.key)
        yield Event(cell, FINISHED)
    except Exception as problem:
        yield _unfinished(cell, problem)


def _unfinished(cell: Cell, problem: BaseException) -> Event:
    if isinstance(problem, BusyError):
        return Event(cell, BUSY, problem=str(problem))
    return Event(cell, FAILED, problem=f"{type(problem).__name__}: {problem}")


def _follows(cell: Cell, training: Event) -> Event:
    """An attack shares the fate of the training that it starts from."""
    text = f"it starts from a training that was not finished ({training.problem})"
    return Event(cell, training.state, problem=text)


def _is_done(task: Task, store: Store, lab: Lab) -> bool:
    files = [weights_file(task.cell, lab, mark) for mark in task.marks]
    return all(file.exists() for file in [store.file(task.key), *files])


def _has_weights(cell: Cell, lab: Lab) -> bool:
    return weights_file(cell.training, lab, cell.epoch).exists()


def _finish(task: Task, lab: Lab) -> Generator[Event, None, Finished]:
    """Run a cell to its end; yields events, returns what is to be stored."""
    commit()  # now: hours later the checkout may be another
    spent = lab.work / f"{task.key}.seconds"
    before = float(spent.read_text(encoding="utf-8") or 0) if spent.exists() else 0.0
    start, noted = time.process_time(), time.monotonic()
    steps = run(task.cell, lab, task.key, marks=task.marks)
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            result = end.value
            break
        yield Event(task.cell, progress=progress)
        if time.monotonic() - noted > lab.every:
            noted = time.monotonic()
            with atomic_file(spent) as partial:
                so_far = before + time.process_time() - start
                partial.write_text(f"{so_far:.2f}", encoding="utf-8")
    total = before + time.process_time() - start
    spent.unlink(missing_ok=True)
    return Finished(
        task.cell,
        result,
        pictures=[lab.gallery.about(each) for each in lab.pictures(task.cell)],
        made=made(lab.device, total),
        key=task.key,
        version=version_of(task.cell),
        data=lab.digest(task.cell),
    )


def _run_remotely(task: Task, lab: Lab) -> Finished:
    """A worker's part: run the cell, quietly, and hand the result back."""
    lab = _settled(lab)
    if key_of(task.cell, lab.digest(task.cell)) != task.key:
        raise ValueError(
            "the worker's pictures, or its version of the library, are not those of "
            "the process that sent it the cell; give both the same."
        )
    # A worker that was killed may hold its claim a moment longer than its connection.
    with _one_thread(), claimed(lab.work, task.key, patience=_PATIENCE):
        steps = _finish(task, lab)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value


_labs: dict[str, Lab] = {}


def _settled(lab: Lab) -> Lab:
    """This process's lab of these settings, which loads pictures once for all cells."""
    return _labs.setdefault(repr(lab), lab)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Workers share the machine: on a CPU each keeps to one core.

    OMP_NUM_THREADS, which torch obeys from its start, overrides the one of here.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        yield
    finally:
        torch.set_num_threads(before)
