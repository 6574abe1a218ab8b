"""Run one hand-in in a box, watched from outside, with an examiner who judges it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from . import places, sandbox, usage
from .endings import ENDINGS, Cause, Stop
from .limits import Limits
from .usage import _psutil

POLL = 0.1  # seconds between two looks at what a hand-in uses
GRACE = 10  # seconds for the examiner to end
EXAMINER_OUTPUT = 64_000_000  # bytes; 200 questions with long texts are fewer
LONGEST = 1e6  # seconds that a cell may say it took
_WORDS = 300  # characters of an error that are kept


@dataclass
class Run:
    """What is known after a hand-in has run.

    Args:
        stopped: why it was stopped before its end; empty if it was not.
        cause: the same as a code; marks go by this.
        findings: by exercise, what the examiner said: state, message, text, asked.
        cells: by number of the code cell, what the box said: error, seconds, how.
            Written by the hand-in's side; good for explaining, not for marking.
        begun: the last cell that began, by the same source; -1 for none.
        malformed: how often somebody spoke to the examiner in another way.
        seconds: of wall-clock time.
        worked: seconds of its own, as `Limits` counts them.
        memory: the most that was seen, in bytes.
    """

    stopped: str = ""
    cause: Cause = ""
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    cells: dict[int, dict[str, Any]] = field(default_factory=dict)
    begun: int = -1
    malformed: int = 0
    seconds: float = 0.0
    worked: float = 0.0
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
    with places.folders() as (meeting, scratch), _listening(meeting) as listener:
        with _examiner(listener, chapter, names) as told:
            lent = {"meeting": meeting, "scratch": scratch}
            hiding = [*hidden, scratch]
            with sandbox.box(kind, limits, **lent, hidden=hiding) as box:
                helper = told.process
                log = _in_a_box(box, notebook, limits, result, interrupted, helper)
        _note_findings(told, result)
        _note_cells(log, result)
        _note_calls(result)
    result.seconds = round(time.monotonic() - began, 1)
    return result


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
    module = ["-m", "precode_lib.marking.examiner"]
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
    told.process = process
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

    process: subprocess.Popen

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
    helper: subprocess.Popen | None = None,
) -> _Drain:
    """Run the notebook; the time of a helper, the examiner, is the notebook's, too."""
    process = _start(box)
    complaints = _Drain(process.stderr, 2000)
    log = _Drain(process.stdout, limits.output)
    given = f"{_settings(limits)}\n{notebook}".encode("ascii")
    feeding = threading.Thread(target=_feed, args=(process.stdin, given), daemon=True)
    feeding.start()
    try:
        watch = _Watch(box, process, log, limits, result, helper)
        result.cause, result.stopped = watch.until_the_end(interrupted)
    finally:
        (_end_one if box.is_one else _end_family)(process)
        process.kill()
        process.wait()
        if box.end is not None:
            box.end()
    log.finish(), complaints.finish()
    if result.cause == "driver" and complaints.data:
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


@dataclass
class _Watch:
    """Looks at what a hand-in uses, several times a second."""

    box: sandbox.Box
    process: subprocess.Popen
    log: _Drain
    limits: Limits
    result: Run
    helper: subprocess.Popen | None = None
    clock: usage.Clock = field(default_factory=usage.Clock)
    seen: set[int] = field(default_factory=set)

    def until_the_end(self, interrupted: threading.Event | None) -> Stop:
        """Wait for it; or return at once with the reason to stop."""
        until = time.monotonic() + self.limits.clock
        while True:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(POLL)
            if self._is_alone():
                return self._alone
            if self.process.returncode is not None:
                return self._ended(self.process.returncode)
            if interrupted is not None and interrupted.is_set():
                return Stop("interrupted", "interrupted")
            if time.monotonic() > until:
                words = f"it ran longer than {self.limits.clock:g} seconds by the clock"
                return Stop("clock", words)
            stop = self._too_much()
            if stop.cause:
                return stop

    def _ended(self, code: int) -> Stop:
        if code and self.box.hold.ran_out(self._root()):
            return self._much_memory
        words = f"its driver ended with code {code}"
        return Stop("driver", words) if code else Stop()

    def _too_much(self) -> Stop:
        limits, family = self.limits, _family(self._root())
        # First, because it takes long to look at very many.
        if len(family) > limits.processes:
            words = f"it ran more than {limits.processes} processes"
            return Stop("processes", words)
        if self.log.is_full:
            words = f"its output was more than {limits.output / 1e6:.0f} MB"
            return Stop("output", words)
        for member in family:
            if member.pid not in self.seen:
                self.seen.add(member.pid)
                usage.first_to_go(member)
        helpers = [] if self.helper is None else _family(self.helper.pid)
        self.result.worked = round(self.clock.look([*family, *helpers]), 1)
        if self.result.worked > limits.seconds:
            return Stop("time", f"it ran longer than {limits.seconds:g} seconds")
        return self._too_much_memory(family)

    def _too_much_memory(self, family: Sequence[Any]) -> Stop:
        limits = self.limits
        memory = usage.memory(family, limits.memory)
        self.result.memory = max(self.result.memory, memory)
        if memory > limits.memory or self.box.hold.ran_out(self._root()):
            return self._much_memory
        if self.box.is_one and usage.files(family) > limits.files:
            return Stop("files", f"it made more than {limits.files:,} files")
        if self.box.is_one and usage.sockets(family) > limits.sockets:
            return Stop("sockets", f"it opened more than {limits.sockets} sockets")
        if usage.descriptors(family) > limits.descriptors:
            words = f"it had more than {limits.descriptors:,} descriptors open"
            return Stop("descriptors", words)
        if usage.left() < usage.reserve():
            return Stop(
                "machine",
                f"the machine had less than {usage.reserve() / 1e6:,.0f} MB of memory "
                "left; mark it again with --jobs 1",
            )
        return Stop()

    def _is_alone(self) -> bool:
        """Whether the examiner, which ends only when it is told to, has ended before.

        Then nobody is there to ask, whatever else the hand-in does.
        """
        return self.helper is not None and self.helper.poll() is not None

    @property
    def _alone(self) -> Stop:
        words = f"its examiner ended with code {self.helper.returncode}; mark it again"
        return Stop("examiner", words)

    @property
    def _much_memory(self) -> Stop:
        words = f"it took more than {self.limits.memory / 1e6:,.0f} MB of memory"
        return Stop("memory", words)

    def _root(self) -> int:
        found = self.box.root() if self.box.root is not None else None
        return found or self.process.pid


_family = usage.family


def _end_one(process: subprocess.Popen) -> None:
    """Kill a box: all in it end with its first process, which is this one's child.

    That ends with its parent, too, but not before it has said so to the system.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, signal.SIGSTOP)  # it starts nobody any more
    for member in _family(process.pid)[1:]:
        with suppress(_psutil().Error):
            member.kill()


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


def _note_findings(told: _Drain, result: Run) -> None:
    """Of the examiner, which is ours; still read so that nothing in it can raise."""
    for line in told.lines():
        if "malformed" in line:
            result.malformed += 1
        elif "state" in line:
            result.findings[line["name"]] = line
        elif line.get("name") in result.findings:
            result.findings[line["name"]]["asked"] = line["asked"]


def _note_calls(result: Run) -> None:
    """Say so where the examiner has stopped to listen."""
    from precode_lib.marking.examiner import MOST_QUESTIONS

    calls = result.malformed + sum(
        one.get("asked", 0) for one in result.findings.values()
    )
    if calls >= MOST_QUESTIONS and not result.cause:
        result.cause = "questions"
        result.stopped = f"it called on the examiner {MOST_QUESTIONS} times"


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
        seconds, how = line.get("seconds"), line.get("how")
        if line.get("event") == "ends" and _is_a_time(seconds):
            error = str(line.get("error", ""))[:_WORDS]
            how = how if error and how in ENDINGS else "raised" if error else "well"
            result.cells[number] = {"error": error, "seconds": seconds, "how": how}
    if not finished and not result.cause:
        result.cause = "driver"
        result.stopped = "it ended its own driver"


def _is_a_time(value: Any) -> bool:
    """Whether it is a number of seconds; neither NaN nor beyond all measure."""
    return type(value) is float and 0 <= value < LONGEST
