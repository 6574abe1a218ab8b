"""Mark a whole folder: read everything, run one after another, write after each."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import precode_lib
from precode_lib.data.cache import atomic_file

from . import report, running, sandbox
from .assembly import Clean, clean_notebooks
from .collecting import HandIn, collect, without_notebook
from .limits import Limits
from .marks import Marked, chosen, mark, marks_csv, summary_csv
from .store import Store

Progress = Callable[[int, int, HandIn], None]


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


def grade(settings: Settings, progress: Progress = lambda *_: None) -> list[Marked]:
    """Mark every hand-in of the folder; what is known is written after each.

    Args:
        settings: what and how.
        progress: told how many are done, of how many, and the latest; first none.
    """
    folder, out = settings.folder.resolve(), settings.out.resolve()
    if out == folder or folder in out.parents:
        raise ValueError(f"{out} is inside {folder}; marks must not lie in there.")
    running._psutil()  # says what to install
    clean = clean_notebooks(settings.exercises)
    _check_names(clean, settings.only)
    hand_ins = [one for one in collect(folder, clean) if _is_asked(one, settings.only)]
    if not hand_ins:
        raise ValueError(f"no hand-in is for {', '.join(sorted(settings.only))}.")
    _check_markers([one.clean for one in hand_ins if one.clean])
    store = Store(out / "runs", settings.kind, settings.limits)
    marked: dict[str, Marked] = {}
    others = without_notebook(folder)
    progress(0, len(hand_ins), hand_ins[0])
    for hand_in, run in _runs(hand_ins, store, settings):
        marked[hand_in.file] = mark(hand_in, run, settings.only)
        known = [marked[one.file] for one in hand_ins if one.file in marked]
        write(known, settings, others, is_whole=len(known) == len(hand_ins))
        progress(len(known), len(hand_ins), hand_in)
    return [marked[hand_in.file] for hand_in in hand_ins]


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
    from precode_lib.checks.examiner import markers

    for one in {one.stem: one for one in notebooks}.values():
        try:
            markers(one.stem, one.names)
        except (ImportError, AttributeError) as problem:
            raise ValueError(f"{one.stem}.ipynb has no markers: {problem}") from None


def _runs(
    hand_ins: Sequence[HandIn], store: Store, settings: Settings
) -> Iterator[tuple[HandIn, running.Run | None]]:
    """Each hand-in and what was found of it, as they come."""
    waiting = []
    for hand_in in hand_ins:
        kept = None if settings.again else store.load(hand_in)
        if hand_in.assembled is None:
            yield hand_in, None
        elif kept is not None:
            yield hand_in, kept
        else:
            waiting.append(hand_in)
    interrupted = threading.Event()
    hidden = [settings.folder, settings.out]

    def run(hand_in: HandIn) -> running.Run:
        return running.run(
            hand_in.assembled.text,
            hand_in.clean.stem,
            hand_in.clean.names,
            kind=settings.kind,
            limits=settings.limits,
            hidden=hidden,
            interrupted=interrupted,
        )

    with ThreadPoolExecutor(settings.jobs) as pool, _setting(interrupted):
        left = {pool.submit(run, hand_in): hand_in for hand_in in waiting}
        try:
            while left:
                done, _ = wait(left, return_when=FIRST_COMPLETED)
                for future in done:
                    hand_in, result = left.pop(future), future.result()
                    store.save(hand_in, result)
                    yield hand_in, result
        finally:
            for future in left:
                future.cancel()


@contextmanager
def _setting(event: threading.Event) -> Iterator[None]:
    """Set the event on the way out, whatever the way: it ends what still runs."""
    try:
        yield
    finally:
        event.set()


def write(
    marked: Sequence[Marked],
    settings: Settings,
    others: Sequence[str],
    *,
    is_whole: bool,
) -> None:
    """Write the tables, the page and the students' texts, each file whole."""
    out = settings.out
    files = {
        out / "marks.csv": marks_csv(marked),
        out / "summary.csv": summary_csv(marked),
        out / "report.html": report.page(
            marked, how=_how(settings, is_whole), others=others
        ),
    }
    if is_whole:
        for name, text in report.feedback(marked).items():
            files[out / "feedback" / name] = text
    for path, text in files.items():
        # A byte order mark, without which spreadsheets take UTF-8 for something else.
        encoding = "utf-8-sig" if path.suffix == ".csv" else "utf-8"
        with atomic_file(path) as partial:
            partial.write_text(text, encoding=encoding, newline="")


def _how(settings: Settings, is_whole: bool) -> str:
    limits = settings.limits
    box = {
        "bwrap": "Each ran in a sandbox of bubblewrap",
        "none": "Each ran WITHOUT a sandbox, with all rights of who started it",
    }[settings.kind]
    state = "" if is_whole else "Not all are marked yet. "
    return (
        f"{state}{box}, for at most {limits.seconds:g} s and "
        f"{limits.memory / 1e6:,.0f} MB; precode {precode_lib.__version__}."
    )
