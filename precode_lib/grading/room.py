"""Mark a whole folder: read everything, run one after another, write now and then."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import precode_lib

from . import running, sandbox, tables, writing
from .assembly import Clean, clean_notebooks
from .collecting import Collected, HandIn, collect
from .limits import Limits
from .marks import Marked, chosen, mark, unmarked
from .names import printable
from .pace import Pace, Standing
from .store import Store, sound

Progress = Callable[[Standing], None]


@dataclass(frozen=True)
class Settings:
    """How a folder is marked.

    Args:
        folder: of hand-ins.
        out: where the marks go; never inside the folder.
        exercises: the folder of clean notebooks.
        kind: of sandbox.
        limits: for each hand-in.
        jobs: how many are run at a time.
        again: run also what was run before and has not changed.
        only: the exercises that count, such as "labels.any_features"; None for all.
    """

    folder: Path
    out: Path
    exercises: Path
    kind: sandbox.Kind
    limits: Limits = field(default_factory=Limits)
    jobs: int = 1
    again: bool = False
    only: frozenset[str] | None = None


def default_jobs() -> int:
    """Half of the cores, and at least one."""
    return max(1, (os.cpu_count() or 1) // 2)


def default_out(folder: Path) -> Path:
    """Next to the folder of hand-ins."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}-marks")


def book_exercises() -> Path:
    """The students' notebooks of the book that this library belongs to."""
    folder = Path(precode_lib.__file__).parents[1] / "book" / "exercises"
    if not folder.is_dir():
        raise FileNotFoundError(
            "the book is not installed beside the library; say with --exercises where "
            "its folder book/exercises is."
        )
    return folder


@dataclass(frozen=True)
class Graded:
    """A class that was marked.

    Args:
        marked: the hand-ins, in alphabetical order.
        remarks: sentences on what the folder holds besides.
    """

    marked: Sequence[Marked]
    remarks: Sequence[str]


def grade(settings: Settings, progress: Progress = lambda _: None) -> Graded:
    """Mark every hand-in of the folder; what is known is written every few seconds.

    Whatever is wrong with one hand-in is in its own marks, and changes no other's.

    Args:
        settings: what and how.
        progress: told of each step; first, before anything is run.
    """
    collected = _collected(settings)
    hand_ins = collected.hand_ins
    files = writing.Files(settings.out, _how(settings), collected.remarks)
    marked: dict[int, Marked] = {}
    try:
        _mark_all(hand_ins, settings, marked, files, progress)
    except RuntimeError as problem:  # of the system, or an error of ours
        last = hand_ins[[*marked][-1]].file if marked else "nothing"
        raise ValueError(
            f"{problem}; it came after {last}. What was finished is kept; the same "
            "command goes on from here."
        ) from problem
    finally:  # also when somebody has stopped it
        files.write(marked, is_whole=len(marked) == len(hand_ins))
    return Graded([marked[n] for n in range(len(hand_ins))], collected.remarks)


def _collected(settings: Settings) -> Collected:
    """The hand-ins that are asked for; says what is missing before anything is run."""
    folder, out = settings.folder.resolve(), settings.out.resolve()
    if out == folder or folder in out.parents:
        raise ValueError(f"{out} is inside {folder}; marks must not lie in there.")
    running._psutil(), tables._xlsxwriter()  # say what to install
    clean = clean_notebooks(settings.exercises)
    _check_names(clean, settings.only)
    collected = collect(folder, clean)
    hand_ins = [one for one in collected.hand_ins if _is_asked(one, settings.only)]
    if not hand_ins:
        raise ValueError(f"no hand-in is for {', '.join(sorted(settings.only))}.")
    _check_markers([one.clean for one in hand_ins if one.clean])
    return Collected(hand_ins, collected.remarks)


def _mark_all(
    hand_ins: Sequence[HandIn],
    settings: Settings,
    marked: dict[int, Marked],
    files: writing.Files,
    progress: Progress,
) -> None:
    """Fill in the marks by the hand-ins' numbers, as they come."""
    store = Store(settings.out / "runs", settings.kind, settings.limits)
    known, waiting = _known(hand_ins, store, settings)
    pace, left = Pace(settings.jobs), len(waiting)

    def step(file: str) -> Standing:
        longest = settings.limits.seconds * left / settings.jobs
        return Standing(
            len(marked), len(hand_ins), file, left, pace.left(left), longest
        )

    progress(step(""))
    with closing(_runs(hand_ins, waiting, settings)) as runs:
        for number, run in chain(known.items(), runs):
            hand_in = hand_ins[number]
            marked[number] = _mark(hand_in, run, settings.only)
            if number in waiting:
                left -= 1
                pace.add(run.seconds)
                store.save(hand_in, marked[number].run)
            elif run is not None and marked[number].run is None:
                store.forget(hand_in)
            files.now_and_then(marked)
            progress(step(hand_in.file))


def _check_names(clean: Mapping[str, Clean], only: frozenset[str] | None) -> None:
    """Refuse names of exercises that do not exist; say which do."""
    for name in sorted(only or ()):
        stem = name.partition(".")[0]
        if stem not in clean:
            raise ValueError(f"{name}: no notebook is called {stem!r}.")
        known = [f"{stem}.{one}" for one in clean[stem].names]
        if name not in known:
            raise ValueError(f"{name}: {stem}.ipynb has {', '.join(known)}.")


def _is_asked(hand_in: HandIn, only: frozenset[str] | None) -> bool:
    return hand_in.clean is None or bool(chosen(hand_in.clean, only))


def _check_markers(notebooks: Sequence[Clean]) -> None:
    from precode_lib.marking.examiner import markers

    for one in {one.stem: one for one in notebooks}.values():
        try:
            markers(one.stem, one.names)
        except (ImportError, AttributeError) as problem:
            raise ValueError(f"{one.stem}.ipynb has no markers: {problem}") from None


def _known(
    hand_ins: Sequence[HandIn], store: Store, settings: Settings
) -> tuple[dict[int, running.Run | None], dict[int, None]]:
    """By number: what need not be run, and what has to be, in a just order.

    Each student's first notebooks come before anybody's second ones.
    """
    known: dict[int, running.Run | None] = {}
    waiting: dict[str, list[int]] = {}
    for number, hand_in in enumerate(hand_ins):
        if hand_in.assembled is None:
            known[number] = None
        elif not settings.again and (kept := store.load(hand_in)) is not None:
            known[number] = kept
        else:
            waiting.setdefault(hand_in.owner, []).append(number)
    turns: list[tuple[int, int]] = []
    for theirs in waiting.values():
        # What counts comes first: the latest of each notebook.
        latest = {hand_ins[n].clean.stem: n for n in sorted(theirs, key=_age(hand_ins))}
        theirs.sort(key=lambda number: number not in latest.values())
        turns += list(enumerate(theirs))
    return known, dict.fromkeys(number for _, number in sorted(turns))


def _age(hand_ins: Sequence[HandIn]) -> Callable[[int], tuple]:
    return lambda number: hand_ins[number].age


def _runs(
    hand_ins: Sequence[HandIn], waiting: Iterable[int], settings: Settings
) -> Iterator[tuple[int, running.Run]]:
    """The number of each hand-in and what was found of it, as they come."""
    interrupted = threading.Event()
    hidden = [settings.folder, settings.out]

    def run(hand_in: HandIn) -> running.Run:
        try:
            found = running.run(
                hand_in.assembled.text,
                hand_in.clean.stem,
                hand_in.clean.names,
                kind=settings.kind,
                limits=settings.limits,
                hidden=hidden,
                interrupted=interrupted,
            )
            return sound(found)
        except Exception as problem:  # whatever it is, others may fare better
            words = f"its run has failed: {_described(problem)}"
            return running.Run(stopped=words, cause="failed")

    with ThreadPoolExecutor(settings.jobs) as pool, _setting(interrupted):
        left = {pool.submit(run, hand_ins[number]): number for number in waiting}
        try:
            while left:
                done, _ = wait(left, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=left.__getitem__):
                    yield left.pop(future), future.result()
        finally:
            for future in left:
                future.cancel()


def _described(problem: Exception) -> str:
    return f"{type(problem).__name__}: {str(problem)[:200]}"


def _mark(
    hand_in: HandIn, run: running.Run | None, only: frozenset[str] | None
) -> Marked:
    """The marks of a hand-in, fit to be written; without the run if there are none."""
    try:
        marked = mark(hand_in, run, only)
        writing.rehearse(marked)
        return marked
    except Exception as problem:  # it is about this hand-in alone
        why = f"no marks can be made of what was found: {_described(problem)}"
        return unmarked(hand_in, printable(why), only)


@contextmanager
def _setting(event: threading.Event) -> Iterator[None]:
    """Set the event on the way out, whatever the way: it ends what still runs."""
    try:
        yield
    finally:
        event.set()


def _how(settings: Settings) -> str:
    limits = settings.limits
    box = {
        "bwrap": "Each ran in a sandbox of bubblewrap",
        "container": "Each ran in a container of its own",
        "none": "Each ran WITHOUT a sandbox, with all rights of who started it",
    }.get(settings.kind, f"Each ran in a sandbox of {settings.kind}")
    return (
        f"{box}, for at most {limits.seconds:g} s and {limits.memory / 1e6:,.0f} MB; "
        f"precode {precode_lib.__version__}."
    )
