"""`precode`: reproduce the paper's tables, show which results are there, mark hand-ins.

Thin: it reads arguments, calls `precode_lib.experiments` or `precode_lib.grading`, and
prints. What needs torch is imported by the command that needs it: help and results
come at once.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import precode_lib
from precode_lib.audit import command as audit
from precode_lib.experiments import (
    LISTED,
    RESULTS,
    SCALES,
    TABLES,
    Store,
    as_csv,
    as_json,
    as_page,
    cells_csv,
    cells_of,
    default_folder,
    find,
    listed,
    make_writable,
    records,
    shipped,
    victims_csv,
    write_sheets,
    write_tables,
)

if TYPE_CHECKING:
    from precode_lib.experiments import Cell, Event, Table, Tally

_SUMMARY = "Reproduce the paper's tables, show which results are there, mark hand-ins."
_CODES = (
    "Exit codes: 0 all is well, 1 some cells could not be run, or some hand-ins not to "
    "their end, 2 the command was not understood, or something it needs is missing, 3 "
    "stopped before the end (what was finished is kept)."
)
OK, INCOMPLETE, MISUSED, STOPPED = 0, 1, 2, 3
# What is cut off where the terminal ends is the end of the postfix. No remaining time:
# cells differ a hundredfold, and the cost was announced.
_BAR = "{n_fmt}/{total_fmt} cells |{bar:12}| {elapsed}{postfix}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    try:
        options = _parser().parse_args(arguments)
        return options.command(options)
    except KeyboardInterrupt:
        print(
            "\nStopped. What was finished is kept; the same command goes on from here.",
            file=sys.stderr,
        )
        return STOPPED
    except BrokenPipeError:  # `precode results | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (ValueError, OSError) as problem:  # no such file, disk full, ...
        print(f"precode: {problem}", file=sys.stderr)
        return MISUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="precode", description=_SUMMARY, epilog=_CODES
    )
    parser.add_argument(
        "--version", action="version", version=f"precode {precode_lib.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    names = [*TABLES, "all"]

    run = commands.add_parser("reproduce", help="run a table's cells and print it")
    run.set_defaults(command=_reproduce)
    run.add_argument("table", choices=names, metavar="TABLE", help=", ".join(names))
    run.add_argument("--data", metavar="PATH", help="a folder with the data sets")
    run.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... or auto")
    run.add_argument("--seeds", type=_numbers, metavar="0,1", help="only these seeds")
    run.add_argument(
        "--workers", type=_count, default=1, help="processes on this machine"
    )
    run.add_argument("--scheduler", metavar="tcp://...", help="a Dask scheduler to use")
    run.add_argument(
        "--work",
        metavar="FOLDER",
        help="for checkpoints and weights; default unfinished/ in the cache folder",
    )
    run.add_argument(
        "--fresh",
        action="store_true",
        help="run also what came with the repository; results go to --results, or to "
        "fresh/ in the folder of --work",
    )
    run.add_argument("--dry-run", action="store_true", help="say the cost, run nothing")
    run.add_argument("--quiet", action="store_true", help="no progress bar")

    show = commands.add_parser("results", help="show what has been run")
    show.set_defaults(command=_results)
    show.add_argument("table", nargs="?", default="all", choices=names, metavar="TABLE")
    for command, default in ((run, "smoke"), (show, None)):
        which = f"how much is run; default {default}" if default else "default all"
        command.add_argument("--scale", choices=[*SCALES], default=default, help=which)
        command.add_argument(
            "--results",
            metavar="FOLDER",
            help=f"of result files; default {RESULTS}, of the repository if it is one",
        )
        form = command.add_mutually_exclusive_group()
        for kind in ("json", "csv"):
            form.add_argument(
                f"--{kind}",
                dest="form",
                action="store_const",
                const=kind,
                help=f"rows as {kind.upper()}",
            )
        if command is show:
            for kind in ("cell", "victim"):
                form.add_argument(
                    f"--{kind}s",
                    dest="form",
                    action="store_const",
                    const=f"{kind}s",
                    help=f"CSV with a row for every {kind}",
                )
    audit.add(commands)
    _add_grade(commands)
    return parser


def _add_grade(commands) -> None:
    from precode_lib.grading.limits import SANDBOXES, Limits

    limits = Limits()
    grade = commands.add_parser("grade", help="mark a folder of hand-ins")
    grade.set_defaults(command=_grade)
    grade.add_argument(
        "folder", type=Path, metavar="FOLDER", help="of hand-ins: a folder per student"
    )
    grade.add_argument("--out", type=Path, help="for the marks; default FOLDER-marks")
    grade.add_argument(
        "--only",
        type=_names,
        metavar="NAMES",
        help="only these exercises count, such as labels.by_hand,labels.any_features",
    )
    grade.add_argument(
        "--exercises", type=Path, help="folder of clean notebooks; default the book's"
    )
    grade.add_argument(
        "--sandbox",
        choices=SANDBOXES,
        default="auto",
        help="bwrap; a container of podman or docker; none: for your own notebooks",
    )
    grade.add_argument(
        "--jobs", type=_count, metavar="N", help="at a time; default half of the cores"
    )
    grade.add_argument(
        "--timeout",
        type=_count,
        metavar="SECONDS",
        default=int(limits.seconds),
        help="that a notebook computes or sleeps; default %(default)s, and five times "
        "that by the clock",
    )
    grade.add_argument(
        "--cell-timeout",
        type=_count,
        metavar="SECONDS",
        help="of the same kind, for one cell; default a third of it",
    )
    grade.add_argument(
        "--memory",
        type=_count,
        metavar="MB",
        default=limits.memory // 1_000_000,
        help="for a notebook; default %(default)s",
    )
    grade.add_argument("--again", action="store_true", help="also what is marked")
    grade.add_argument("--json", action="store_true", help="rows as JSON")
    grade.add_argument("--quiet", action="store_true", help="no progress bar")


def _grade(options: argparse.Namespace) -> int:
    from precode_lib.grading import report, room, sandbox, tables
    from precode_lib.grading.limits import Limits

    third = max(1, options.timeout // 3)
    settings = room.Settings(
        folder=options.folder,
        out=options.out or room.default_out(options.folder),
        exercises=options.exercises or room.book_exercises(),
        kind=sandbox.choose(options.sandbox),
        limits=Limits(
            seconds=options.timeout,
            cell_seconds=options.cell_timeout or third,
            memory=options.memory * 1_000_000,
        ),
        jobs=options.jobs or room.default_jobs(),
        again=options.again,
        only=options.only,
    )
    with _progress_of_class(options, settings.jobs) as show:
        graded = room.grade(settings, show)
    marked = graded.marked
    remarks = report.remarks(marked, graded.remarks)
    for sentence in report.for_terminal(remarks):
        print(sentence, file=sys.stderr)
    if options.json:
        print(tables.as_json(marked))
    else:
        print(report.summary(marked, settings.kind))
        print(settings.out / "report.html")
    return OK if all(one.ended for one in marked) else INCOMPLETE


@contextmanager
def _progress_of_class(options: argparse.Namespace, jobs: int):
    """Lend what shows each step; a line each minute where there is no terminal."""
    from tqdm.auto import tqdm

    bar_format = _BAR.replace(" cells ", " hand-ins ")
    said = time.monotonic()
    with tqdm(disable=options.quiet or None, bar_format=bar_format) as bar:

        def show(step) -> None:
            nonlocal said
            bar.n, bar.total = step.done, step.total
            bar.set_postfix_str(step.rest())
            if options.quiet:
                return
            if not step.file:
                print(step.cost(jobs), file=sys.stderr)
            elif bar.disable and time.monotonic() > said + 60:
                said = time.monotonic()
                print(step, file=sys.stderr)

        yield show


def _reproduce(options: argparse.Namespace) -> int:
    from precode_lib.experiments import (
        Lab,
        default_work,
        forecast,
    )

    scale = SCALES[options.scale]
    chosen = scale if options.seeds is None else replace(scale, seeds=options.seeds)
    work = _absolute(options.work) or default_work()
    tables = _tables(options.table)
    results = _fresh_folder(options, work) if options.fresh else _folder(options)
    cells, store = cells_of(tables, chosen), Store(results / scale.name)
    lab = Lab(
        work=work,
        data=_existing(options.data),
        device=_device(options.device, is_here=options.scheduler is None),
    )
    ahead = forecast(cells, store)
    announced = f"{options.table} at scale {scale.name}: {ahead}"
    print(announced, _shipped(cells, store), sep="", file=sys.stderr, flush=True)
    if options.dry_run:
        return OK
    _make_writable(store.folder, options.results, "--results")
    if options.scheduler is None:  # else it is the workers' own
        _make_writable(lab.work, options.work, "--work")
    print(f"Cells are kept in {store.folder}, tables beside it.", file=sys.stderr)
    tally = _run(options, cells, store, lab, total=ahead.total)
    found = find([*cells_of(tables, scale), *cells], store)
    try:
        write_tables(tables, scale, found, results)
        if options.form:
            _print_records(records(tables, chosen, found), options.form)
        else:
            print(as_page(tables, chosen, found), end="")
        if scale.name in LISTED:
            write_sheets(results)
    finally:  # why cells failed may be why this does: a full disk
        _report_problems(tally)
    return OK if tally.is_complete else INCOMPLETE


def _run(options: argparse.Namespace, cells, store: Store, lab, *, total: int):
    """Run the cells here or on workers; returns what became of them."""
    from precode_lib.experiments import Tally, is_idle, lend_client, run_on

    tally = Tally()
    with (
        lend_client(options.workers, options.scheduler) as client,
        _bar(total, options) as show,
    ):
        if client is not None and is_idle(client):
            print("No workers are there yet; cells wait.", file=sys.stderr)
        for event in run_on(client, cells, store, lab):
            tally.add(event)
            show(event, tally)
    return tally


def _shipped(cells: "list[Cell]", store: Store) -> str:
    """What to know of cells that nobody here has run, in a line."""
    keys = shipped(store.folder)
    came = [f for f in find(cells, store).values() if f.key in keys]
    if not came:
        return ""
    dates = sorted({finished.made["date"] for finished in came})
    dated = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return (
        f"\nThese {len(came)} cells came with the repository (dated {dated}); run them "
        "anew with --fresh."
    )


def _fresh_folder(options: argparse.Namespace, work: Path) -> Path:
    """Where results go that were not looked for: never to those of the repository."""
    if options.results is None:
        return work / "fresh"
    folder = Path(options.results)
    if folder.resolve() == default_folder().resolve():
        raise ValueError(
            f"--fresh keeps the results in {folder} as they are; name another folder "
            "with --results, or none."
        )
    return folder


def _results(options: argparse.Namespace) -> int:
    folder, tables = _folder(options), _tables(options.table)
    if options.results and not folder.is_dir():
        raise FileNotFoundError(
            f"--results names {folder}, which is no folder; name the one that "
            "`precode reproduce` was given."
        )
    if options.form in ("cells", "victims"):
        return _print_sheet(options, folder)
    names = [options.scale] if options.scale else ["paper", "lite", "smoke"]
    made = []
    for scale in (SCALES[name] for name in names):
        cells = cells_of(tables, scale)
        found = find(cells, Store(folder / scale.name))
        if found or options.scale:
            made += records(tables, scale, found)
        if not options.form:
            print(f"{scale.name}: {len(found)} of {len(cells)} cells are there.")
            if found or options.scale:
                print(as_page(tables, scale, found), end="")
    if options.form:
        _print_records(made, options.form)
    return OK


def _print_sheet(options: argparse.Namespace, folder: Path) -> int:
    """The sheet of all tables' cells, or of one table's."""
    rows = listed(folder, [options.scale] if options.scale else LISTED)
    wanted = [r for r in rows if options.table in ("all", *r.tables)]
    as_sheet = cells_csv if options.form == "cells" else victims_csv
    print(as_sheet(wanted), end="")
    return OK


def _tables(name: str) -> "list[Table]":
    return list(TABLES.values()) if name == "all" else [TABLES[name]]


def _folder(options: argparse.Namespace) -> Path:
    return Path(options.results) if options.results else default_folder()


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"seeds are whole numbers with commas, such as 0,1,2; got {text!r}"
        )
    return tuple(dict.fromkeys(map(int, parts)))


def _names(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(","))
    if not all("." in name for name in names):
        raise argparse.ArgumentTypeError(
            "notebooks and answer cells with commas are wanted, such as "
            f"labels.by_hand,labels.any_features; got {text!r}"
        )
    return names


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on is wanted, got {text!r}")
    return int(text)


def _absolute(path: str | None) -> Path | None:
    """A worker may start in another folder than this process."""
    return None if path is None else Path(path).expanduser().absolute()


def _existing(path: str | None) -> Path | None:
    folder = _absolute(path)
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(
            f"--data names {folder}, which is no folder; name the folder that holds "
            "the data sets' files."
        )
    return folder


def _device(name: str, *, is_here: bool):
    from precode_lib.experiments import device_named

    try:
        return device_named(name, is_here=is_here)
    except ValueError as problem:
        raise ValueError(f"--device {problem}") from problem


def _make_writable(folder: Path, named: str | None, option: str) -> None:
    """Find out now, not when the first cell has been run and cannot be kept."""
    try:
        make_writable(folder)
    except OSError as problem:
        raise ValueError(
            f"{option} {named or folder} cannot be written to: {problem.strerror}."
        ) from problem


@contextmanager
def _bar(total: int, options: argparse.Namespace) -> Iterator:
    """A progress bar over cells, which also says how far the present one is."""
    from tqdm.auto import tqdm

    shown = {"disable": options.quiet or None, "bar_format": _BAR}
    with tqdm(total=total, leave=False, **shown) as bar:

        def show(event: "Event", tally: "Tally") -> None:
            bar.n = min(total, sum(tally.counts.values()))
            note = ""
            if event.progress is not None:
                done, all_ = event.progress.done, event.progress.total
                note = f"{event.cell} | {done:,}/{all_:,} {event.progress.note}"
            bar.set_postfix_str(note, refresh=bool(event.state))
            bar.update(0)

        yield show


def _print_records(made: Sequence[dict], form: str) -> None:
    print(as_json(made) + "\n" if form == "json" else as_csv(made), end="")


def _report_problems(tally: "Tally") -> None:
    for line in tally.complaints:
        print(f"\n{line}", file=sys.stderr)
    if tally.counts.get("missing"):
        print("This command also looks in --data FOLDER.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
