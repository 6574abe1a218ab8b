"""A limit on the number of processes where the system sets root none: control groups.

`RLIMIT_NPROC` stops a fork bomb of any other user. Of root's, the grader would have to
catch thousands of processes with one of its own.
"""

import os
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
# The shell enters the group and becomes the program, which is born inside.
_ENTER = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"']


@contextmanager
def at_most(number: int) -> Iterator[Sequence[str]]:
    """Lend words to put before a command; it and all it starts are so many threads.

    No words, where the user is not root, or the system lets nobody make a group. In the
    end whoever is left in the group is killed.
    """
    group = _make(number) if os.geteuid() == 0 else None
    if group is None:
        yield []
        return
    try:
        yield [*_ENTER, str(group / "cgroup.procs")]
    finally:
        _clear(group)


def is_possible() -> bool:
    """Whether the number of a notebook's processes has a limit here."""
    with at_most(1) as words:
        return os.geteuid() != 0 or bool(words)


def _make(number: int) -> Path | None:
    for place in (_GROUPS / "pids", _GROUPS):  # version 1, and version 2
        group = place / f"precode-{uuid.uuid4().hex[:12]}"
        with suppress(OSError):
            group.mkdir()
            try:
                # Not `write_text`: it would make the file, were this no control group.
                with open(group / "pids.max", "r+", encoding="ascii") as file:
                    file.write(str(number))
                return group
            except OSError:
                group.rmdir()
    return None


def _clear(group: Path) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(OSError, ValueError):
            for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        with suppress(OSError):
            group.rmdir()  # refused as long as somebody is in it
            return
        time.sleep(0.05)
