"""The grader's side of an examination: judge answers that another process holds.

    python -m precode_lib.marking.examiner DESCRIPTOR CHAPTER EXERCISE...

serves the listening Unix socket that it inherited under this number, and writes one
line of JSON on standard output for each question. It ends when its standard input does.

The markers are the same as a learner's. Where an answer is a function, the marker gets
a stand-in that asks the notebook for the value at each input, so only values for fresh
inputs count, whatever the notebook claims. Each question is judged in a process of its
own with limits, so an answer that upsets torch ends that one judgement, not the rest.

The first verdict on an exercise is final, unless it was that no answer was given:
otherwise a notebook could ask until it is right.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import IO, Any

import torch

from .frames import BrokenOffError, receive, send
from .plain import Todo
from .verdicts import RaisedElsewhere, Verdict

CUT_SHORT = "the judgement was cut short."
NOTHING_CAME = "your function returned nothing that can be used"
MOST_QUESTIONS = 200  # about one exercise that are judged; honest ones ask once
MOST_WAITING = 64  # connections that have not said anything yet
MOST_TOLD = 1000  # lines on what changes no finding, so that findings always fit
PATIENT_WITH = 8  # malformed questions; after these nobody is waited for long
MOST_CHARACTERS = 4000  # of a message; markers write far fewer
MOST_TEXT = 20_000  # characters of an open question's answer that are kept

Markers = Mapping[str, Callable[..., Verdict]]


@dataclass(frozen=True)
class Allowance:
    """What one judgement may take.

    Args:
        question: seconds until the question has arrived.
        call: seconds for one call of a learner's function.
        verdict: seconds for the whole.
        memory: bytes beyond what the examiner itself takes.
    """

    question: float = 20
    call: float = 120
    verdict: float = 240
    memory: int = 2 << 30


@dataclass
class Finding:
    """What is known of one exercise.

    Args:
        name: chapter and exercise.
        state: as of a `Verdict`.
        message: for the learner.
        text: the first answer that is text, for a person to read.
        asked: how often the notebook asked.
        code: how the state came about, as of a `Verdict`.
    """

    name: str
    state: str
    message: str
    text: str = ""
    asked: int = 1
    code: str = "judged"

    @property
    def is_final(self) -> bool:
        """Whether asking again changes nothing."""
        return self.state != "unanswered" or self.asked >= MOST_QUESTIONS


def markers(chapter: str, names: Sequence[str]) -> dict[str, Callable[..., Verdict]]:
    """The markers of a chapter's exercises, by chapter and exercise."""
    module = import_module(f"precode_lib.checks.{chapter}")
    return {f"{chapter}.{name}": getattr(module, name).judge for name in names}


def examine(
    connection: socket.socket,
    judges: Markers,
    found: Mapping[str, Finding],
    report: Callable[[Finding], None],
    allowance: Allowance,
) -> None:
    """Judge one question; a notebook that misbehaves is reported, never raised."""
    name, answers = _question(connection, judges, allowance)
    finding = found.get(name)
    if finding is None or not finding.is_final:
        text = next((answer for answer in answers if isinstance(answer, str)), "")
        # Said before judging: a judgement that is cut short is of this exercise, too.
        report(Finding(name, "raised", CUT_SHORT, text, code="cut_short"))
        verdict = _judge(name, answers, judges[name])
        message = verdict.message[:MOST_CHARACTERS]
        finding = Finding(name, verdict.state, message, text, code=verdict.code)
    report(finding)
    with suppress(BrokenOffError):
        send(connection, {"verdict": finding.state, "message": finding.message})


def _question(connection, judges: Markers, allowance: Allowance) -> tuple[str, list]:
    message = receive(connection, allowance.question)
    if not isinstance(message, dict) or message.get("ask") not in [*judges]:
        raise BrokenOffError("no question about an exercise of this notebook")
    given = message.get("answers")
    if not isinstance(given, list) or len(given) > 20:
        raise BrokenOffError("no list of answers")
    return message["ask"], [_answer(one, connection, allowance) for one in given]


def _answer(given: Any, connection: socket.socket, allowance: Allowance) -> Any:
    if not isinstance(given, dict):
        raise BrokenOffError("an answer that is none")
    if "function" in given:
        return _StandIn(connection, allowance)
    return given["plain"] if "plain" in given else _Unplain(str(given.get("unplain")))


class _Unplain:
    """An answer that stayed where it was; plain data's border says what it is not."""

    def __init__(self, problem: str):
        self.problem = problem


class _StandIn:
    """A learner's function, called where the learner's code is."""

    def __init__(self, connection: socket.socket, allowance: Allowance):
        self.connection, self.allowance = connection, allowance
        self.index: int | None = None

    def __call__(self, *inputs: Any) -> Any:
        try:
            send(self.connection, {"call": self.index, "inputs": list(inputs)})
            reply = receive(self.connection, self.allowance.call)
        except BrokenOffError as problem:
            raise _nothing_came(f": {problem}") from None
        if not isinstance(reply, dict):
            raise _nothing_came()
        if "output" in reply:
            return reply["output"]
        if "unplain" in reply:
            what = f"the function's result: {reply['unplain']}"[:MOST_CHARACTERS]
            raise RaisedElsewhere(f"{what}.", "wrong", "judged")
        raise RaisedElsewhere(str(reply.get("raised"))[:MOST_CHARACTERS])


def _nothing_came(why: str = "") -> RaisedElsewhere:
    return RaisedElsewhere(f"{NOTHING_CAME}{why}.", code="nothing_came")


def _judge(name: str, answers: list, judge: Callable[..., Verdict]) -> Verdict:
    functions = [answer for answer in answers if isinstance(answer, _StandIn)]
    for index, function in enumerate(functions):
        function.index = index
    for answer in answers:
        if isinstance(answer, Todo):
            break  # the marker says so
        if isinstance(answer, _Unplain):
            problem = answer.problem[:MOST_CHARACTERS]
            return Verdict(name, "wrong", f"the answer: {problem}.")
    try:
        return judge(*answers)
    except Exception as error:
        # Of the marker, at an answer nobody thought of; its message may be of any size.
        what = f"{type(error).__name__}: {str(error)[:300]}"
        message = f"the answer could not be judged: {what}"
        return Verdict(name, "raised", message, "unjudged")


def serve(
    listener: socket.socket,
    judges: Markers,
    told: IO[str],
    stop: IO | int,
    allowance: Allowance = Allowance(),
) -> dict[str, Finding]:
    """Judge one question after another until `stop` ends; tells each line of `told`.

    However many connections there are, a question is judged as soon as it comes: those
    who say nothing are not waited for, and those who ask again get the same answer.
    """
    desk, waiting = _Desk(told), _Waiting(listener, stop, allowance.question)
    for connection in waiting:
        is_patient = desk.malformed < PATIENT_WITH
        patience = allowance.question if is_patient else allowance.question / 20
        each = replace(allowance, question=patience)
        with connection:
            desk.note(_in_a_process(connection, judges, desk.found, stop, each))
    for _ in range(waiting.dropped):
        desk.note(None)
    return desk.found


class _Waiting:
    """The connections in the order in which they begin to speak, until `stop` ends."""

    def __init__(self, listener: socket.socket, stop: IO | int, patience: float):
        self.listener, self.stop, self.patience = listener, stop, patience
        self.until: dict[socket.socket, float] = {}  # of the silent ones, oldest first
        self.dropped = 0

    def __iter__(self) -> Iterator[socket.socket]:
        while True:
            first = min(self.until.values(), default=None)
            patience = None if first is None else max(0, first - time.monotonic())
            watched = [self.listener, self.stop, *self.until]
            ready, _, _ = select.select(watched, [], [], patience)
            if self.stop in ready:
                break
            if self.listener in ready:
                connection, _ = self.listener.accept()
                self.until[connection] = time.monotonic() + self.patience
            self._drop(self.until.keys() - {*ready})
            for connection in self.until.keys() & {*ready}:
                del self.until[connection]
                yield connection
        for connection in self.until:
            connection.close()

    def _drop(self, silent: Set[socket.socket]) -> None:
        """Of those who have not spoken, the late; and the oldest of too many."""
        now, in_order = time.monotonic(), [c for c in self.until if c in silent]
        late = [each for each in in_order if self.until[each] < now]
        for connection in late or in_order[:-MOST_WAITING]:
            del self.until[connection]
            connection.close()
            self.dropped += 1


class _Desk:
    """What was found, and who is told of it."""

    def __init__(self, told: IO[str]):
        self.told, self.lines = told, 0
        self.found: dict[str, Finding] = {}
        self.malformed = 0

    def note(self, finding: Finding | None) -> None:
        """Keep a finding; None stands for somebody who asked nothing."""
        if finding is None:
            self.malformed += 1
            return self._tell({"malformed": True})
        before = self.found.get(finding.name)
        finding.asked = before.asked + 1 if before else 1
        self.found[finding.name] = finding
        if before and before.is_final:
            return self._tell({"name": finding.name, "asked": finding.asked})
        return self._tell(asdict(finding), always=True)

    def _tell(self, news: dict[str, Any], always: bool = False) -> None:
        self.lines += 1
        if always or self.lines <= MOST_TOLD:
            print(json.dumps(news), file=self.told, flush=True)


def _in_a_process(
    connection: socket.socket,
    judges: Markers,
    found: Mapping[str, Finding],
    stop: IO | int,
    allowance: Allowance,
) -> Finding | None:
    """The last that a process of its own said of one question; None if it was none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _judge_and_exit(connection, judges, found, writing, allowance)
    os.close(writing)
    try:
        return _last(reading, stop, allowance.verdict)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _judge_and_exit(
    connection, judges, found, writing: int, allowance: Allowance
) -> None:
    """Whatever happens, this process ends here."""
    try:
        _limit_memory(allowance.memory)

        def report(finding: Finding) -> None:
            line = json.dumps({**asdict(finding), "text": finding.text[:MOST_TEXT]})
            os.write(writing, line.encode("ascii") + b"\n")

        examine(connection, judges, found, report, allowance)
        os._exit(0)
    finally:
        os._exit(1)


def _last(reading: int, stop: IO | int, seconds: float) -> Finding | None:
    until, data = time.monotonic() + seconds, b""
    watched = [reading, stop]
    while reading in watched and time.monotonic() < until:
        ready, _, _ = select.select(watched, [], [], max(0, until - time.monotonic()))
        if reading in ready:
            chunk = os.read(reading, 1 << 16)
            data += chunk
            if not chunk:
                break
        elif stop in ready:
            break  # the notebook has ended, so nobody can answer any more
    lines = data.split(b"\n")[:-1]
    return Finding(**json.loads(lines[-1])) if lines else None


def _limit_memory(allowance: int) -> None:
    import resource

    with suppress(OSError, ValueError):  # where there is no /proc, only time is limited
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + allowance,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve the socket of one notebook."""
    torch.set_num_threads(1)  # a process with more must not be forked
    descriptor, chapter, *names = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    serve(listener, markers(chapter, names), sys.stdout, sys.stdin)


if __name__ == "__main__":
    main()
