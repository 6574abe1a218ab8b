"""Run one hand-in in a box, watched from outside, with an examiner who judges it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from . import sandbox
from .limits import Limits

POLL = 0.1  # seconds between two looks at what a hand-in uses
GRACE = 10  # seconds for the examiner to end
EXAMINER_OUTPUT = 64_000_000  # bytes; 200 questions with long texts are fewer
_WORDS = 300  # characters of an error that are kept


@dataclass
class Run:
    """What is known after a hand-in has run.

    Args:
        stopped: why it was stopped before its end; empty if it was not.
        findings: by exercise, what the examiner said: state, message, text, asked.
        cells: by number of the code cell, what the box said: error, seconds. Written
            by the hand-in's side; good for explaining, not for marking.
        begun: the last cell that began, by the same source; -1 for none.
        malformed: how often somebody spoke to the examiner in another way.
        seconds: of wall-clock time.
        memory: the most that was seen, in bytes.
    """

    stopped: str = ""
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    cells: dict[int, dict[str, Any]] = field(default_factory=dict)
    begun: int = -1
    malformed: int = 0
    seconds: float = 0.0
    memory: int = 0


def run(
    notebook: str,
    chapter: str,
    names: Sequence[str],
    *,
    kind: sandbox.Kind,
    limits: Limits,
    hidden: Sequence[Path] = (),
    interrupted: threading.Event | None = None,
) -> Run:
    """Run a notebook (its JSON text) whose checks are the chapter's exercises `names`.

    Never raises because of what the notebook does.
    """
    began = time.monotonic()
    result = Run()
    with _folders() as (meeting, scratch), _listening(meeting) as listener:
        with _examiner(listener, chapter, names) as told:
            hiding = [*hidden, scratch]
            places = {"meeting": meeting, "scratch": scratch, "hidden": hiding}
            with sandbox.box(kind, limits, **places) as box:
                log = _in_a_box(box, notebook, limits, result, interrupted)
        _note_findings(told, result)
        _note_cells(log, result)
    result.seconds = round(time.monotonic() - began, 1)
    return result


@contextmanager
def _folders() -> Iterator[tuple[Path, Path]]:
    # /tmp where it is: a socket's path may have about a hundred characters.
    short = "/tmp" if os.path.isdir("/tmp") else None
    folder = Path(tempfile.mkdtemp(prefix="precode-", dir=short))
    try:
        meeting, scratch = folder / "meeting", folder / "scratch"
        meeting.mkdir(), scratch.mkdir()
        yield meeting, scratch
    finally:
        # A hand-in without bubblewrap may have taken away permissions.
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _listening(meeting: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(meeting / sandbox.SOCKET))
        listener.listen(8)
        yield listener


@contextmanager
def _examiner(
    listener: socket.socket, chapter: str, names: Sequence[str]
) -> Iterator["_Drain"]:
    number = listener.fileno()
    module = ["-m", "precode_lib.checks.examiner"]
    process = subprocess.Popen(
        [sys.executable, "-B", *module, str(number), chapter, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[number],
        cwd="/",  # never a folder in which a hand-in may lie: Python would import it
        env={**os.environ, "OMP_NUM_THREADS": "1"} | _library(),
        start_new_session=True,
    )
    told = _Drain(process.stdout, EXAMINER_OUTPUT)
    try:
        yield told
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        told.finish()


def _library() -> dict[str, str]:
    """Where precode_lib is, for a process that starts in another folder."""
    ours = sandbox.environment("", "")["PYTHONPATH"]
    theirs = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [ours, theirs]))}


class _Drain:
    """Reads all that comes from a pipe and keeps the first so many bytes."""

    def __init__(self, pipe: IO[bytes], limit: int):
        self.pipe, self.limit = pipe, limit
        self.data, self.is_full = bytearray(), False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while chunk := os.read(self.pipe.fileno(), 1 << 16):
                self.data += chunk[: self.limit - len(self.data)]
                self.is_full = len(self.data) >= self.limit

    def finish(self) -> None:
        """Wait until the other end is closed, but not for ever."""
        self.thread.join(GRACE)
        if not self.thread.is_alive():
            self.pipe.close()

    def lines(self) -> Iterator[dict]:
        """The lines that are objects of JSON."""
        for line in bytes(self.data).split(b"\n"):
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    yield value


def _in_a_box(
    box: sandbox.Box,
    notebook: str,
    limits: Limits,
    result: Run,
    interrupted: threading.Event | None,
) -> _Drain:
    process = _start(box)
    complaints = _Drain(process.stderr, 2000)
    log = _Drain(process.stdout, limits.output)
    given = f"{_settings(limits)}\n{notebook}".encode("ascii")
    feeding = threading.Thread(target=_feed, args=(process.stdin, given), daemon=True)
    feeding.start()
    try:
        result.stopped = _watch(process, log, limits, result, interrupted)
    finally:
        if not box.is_one:
            _end_family(process)
        process.kill()
        process.wait()
    log.finish(), complaints.finish()
    if "driver" in result.stopped and complaints.data:
        result.stopped += f": {complaints.data.decode('ascii', 'replace').strip()}"
    feeding.join(GRACE)
    return log


def _start(box: sandbox.Box) -> subprocess.Popen:
    return subprocess.Popen(
        box.command,
        env=dict(box.environment),
        pass_fds=box.descriptors,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    )


def _settings(limits: Limits) -> str:
    """One line of JSON with the limits that the box sets itself."""
    names = ("file", "threads", "memory", "cell_seconds")
    return json.dumps({name: getattr(limits, name) for name in names})


def _feed(pipe: IO[bytes], data: bytes) -> None:
    # In a thread, because a box that does not read would stop the grader here.
    with suppress(OSError), pipe:
        pipe.write(data)


def _watch(
    process: subprocess.Popen,
    log: _Drain,
    limits: Limits,
    result: Run,
    interrupted: threading.Event | None,
) -> str:
    """Wait for the end; or return at once with the reason to stop."""
    until = time.monotonic() + limits.seconds
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(POLL)
            return "" if code == 0 else f"its driver ended with code {code}"
        if interrupted is not None and interrupted.is_set():
            return "interrupted"
        if time.monotonic() > until:
            return f"it ran longer than {limits.seconds:g} seconds"
        if log.is_full:
            return f"its output was more than {limits.output / 1e6:.0f} MB"
        family = _family(process.pid)
        # First, because it takes long to look at very many.
        if len(family) > limits.processes:
            return f"it ran more than {limits.processes} processes"
        memory = _resident(family)
        result.memory = max(result.memory, memory)
        if memory > limits.memory:
            return f"it took more than {limits.memory / 1e6:,.0f} MB of memory"


def _resident(family: list) -> int:
    """The bytes that processes hold; what several share counts several times."""
    memory = 0
    for process in family:
        with suppress(_psutil().Error):
            memory += process.memory_info().rss
    return memory


def _family(pid: int) -> list:
    """A process and its descendants."""
    with suppress(_psutil().Error):
        process = _psutil().Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _end_family(process: subprocess.Popen) -> None:
    """Kill it and its descendants until none is left, as far as they can be found.

    A process whose parent has ended is no descendant any more, and is missed. In
    bubblewrap none is: there the system ends all with the first.
    """
    until = time.monotonic() + GRACE
    while time.monotonic() < until:
        family = _stopped_family(process.pid, until)
        for member in family[1:]:
            with suppress(_psutil().Error):
                member.kill()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.poll()
        if not family[1:]:
            break
    process.kill()


def _stopped_family(pid: int, until: float) -> list:
    """The family, when nobody in it can start another process any more."""
    stopped: set[int] = set()
    while True:
        family = _family(pid)
        running = [member for member in family if member.pid not in stopped]
        if not running or time.monotonic() > until:
            return family
        for member in running:
            with suppress(_psutil().Error):
                member.suspend()
            stopped.add(member.pid)


def _psutil():
    try:
        import psutil
    except ModuleNotFoundError as problem:
        raise ValueError(
            "marking hand-ins needs nbval, pytest and psutil: "
            "pip install 'precode-lib[classroom]'."
        ) from problem
    return psutil


def _note_findings(told: _Drain, result: Run) -> None:
    """Of the examiner, which is ours; still read so that nothing in it can raise."""
    for line in told.lines():
        if "malformed" in line:
            result.malformed += 1
        elif "state" in line:
            result.findings[line["name"]] = line
        elif line.get("name") in result.findings:
            result.findings[line["name"]]["asked"] = line["asked"]


def _note_cells(log: _Drain, result: Run) -> None:
    """Of the box, which may say anything."""
    finished = False
    for line in log.lines():
        finished = finished or line.get("finished") is True
        number = line.get("cell")
        if type(number) is not int or not 0 <= number < 10_000:
            continue
        if line.get("event") == "begins":
            result.begun = number
        seconds = line.get("seconds")
        if line.get("event") == "ends" and type(seconds) is float:
            error = str(line.get("error", ""))[:_WORDS]
            result.cells[number] = {"error": error, "seconds": seconds}
    if not finished and not result.stopped:
        result.stopped = "it ended its own driver"
