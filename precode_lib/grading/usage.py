"""What a hand-in's processes use, seen from outside, look by look.

Time is the hand-in's own: the seconds in which its processes compute, and those in
which all of them sleep. On a busy machine they wait for a core, too; that is not their
time, so a notebook comes as far as on a quiet one.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Of /proc/PID/status: what a process holds, here or swapped out, and its page tables.
_HELD = ("VmRSS", "VmSwap", "VmPTE", "HugetlbPages")
_KIB = 1024
_AGAIN = 0.05  # seconds


@dataclass
class Clock:
    """Counts the seconds of a family of processes.

    Args:
        seconds: so far.
        cpu: by process, the seconds that it has computed; also of those that are gone.
        looked: when that was, by the machine's clock.
    """

    seconds: float = 0.0
    cpu: dict[tuple[int, float], float] = field(default_factory=dict)
    looked: float = field(default_factory=time.monotonic)

    def look(self, family: Sequence[Any]) -> float:
        """Add what has passed since the last look; the seconds so far."""
        now, before, is_busy = time.monotonic(), sum(self.cpu.values()), False
        for process in family:
            with suppress(_psutil().Error), process.oneshot():
                times = process.cpu_times()
                key = process.pid, process.create_time()
                self.cpu[key] = times.user + times.system
                is_busy = is_busy or _is_busy(process)
        passed, self.looked = now - self.looked, now
        computed = sum(self.cpu.values()) - before
        self.seconds += computed if is_busy else max(passed, computed)
        return self.seconds


def _is_busy(process: Any) -> bool:
    """Whether one of its threads computes, or waits for a core or a disk."""
    threads = [*_threads(process.pid)]
    states = [state for state in map(_state, threads) if state]
    if not states:  # no Linux
        names = _psutil()
        return process.status() in (names.STATUS_RUNNING, names.STATUS_DISK_SLEEP)
    return bool({"R", "D"} & {*states})


def _threads(pid: int) -> Iterator[Path]:
    with suppress(OSError):
        yield from Path(f"/proc/{pid}/task").iterdir()


def _state(thread: Path) -> str:
    with suppress(OSError, IndexError):
        # Behind the name, which may hold anything.
        return (thread / "stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    return ""


def family(pid: int) -> list:
    """A process and its descendants."""
    with suppress(_psutil().Error):
        process = _psutil().Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def memory(members: Sequence[Any], limit: int) -> int:
    """The bytes that processes hold together.

    What several share counts several times, as long as that is less than the limit:
    the other way takes the system longer.
    """
    simple = sum(map(_held, members))
    if simple <= limit:
        return simple
    together = sum(map(_share, members))
    if together <= limit:
        return together
    # Pages that came to be shared between two members were counted twice.
    time.sleep(_AGAIN)
    return min(together, sum(map(_share, members)))


def _held(process: Any) -> int:
    if found := _of_status(Path(f"/proc/{process.pid}")):
        return found
    with suppress(_psutil().Error):
        return process.memory_info().rss
    return 0


def _of_status(place: Path) -> int:
    found = _fields(place / "status", _HELD)
    # A process whose first thread has ended shows nothing, but its others do.
    for thread in [] if found else _threads(int(place.name)):
        if found := _fields(thread / "status", _HELD):
            break
    return sum(found.values())


def _share(process: Any) -> int:
    place = Path(f"/proc/{process.pid}")
    for part in (place, *_threads(process.pid)):
        if found := _fields(part / "smaps_rollup", ("Pss", "SwapPss")):
            tables = _fields(part / "status", ("VmPTE", "HugetlbPages"))
            return sum(found.values()) + sum(tables.values())
    return _held(process)


def _fields(file: Path, names: Sequence[str]) -> dict[str, int]:
    """Some lines of a file of the system's, in bytes; none if it cannot be read."""
    found = {}
    with suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in names and value.strip():
                found[name] = int(value.split()[0]) * _KIB
    return found


def files(members: Sequence[Any]) -> int:
    """How many files are in the box that these processes are in; 0 if in none."""
    for process in members:
        inside = Path(f"/proc/{process.pid}/root")
        with suppress(OSError):
            if os.stat(inside / "tmp").st_dev == os.stat("/tmp").st_dev:
                continue  # not in the box yet, or bubblewrap's outer process
            places = [os.statvfs(inside / name) for name in ("tmp", "dev/shm")]
            return sum(place.f_files - place.f_ffree for place in places)
    return 0


def sockets(members: Sequence[Any]) -> int:
    """How many sockets are in the box's own network; 0 if it has none of its own."""
    with suppress(OSError, ValueError, IndexError):
        ours = os.stat("/proc/self/ns/net").st_ino
        for process in members:
            if os.stat(f"/proc/{process.pid}/ns/net").st_ino != ours:
                text = Path(f"/proc/{process.pid}/net/sockstat").read_text("ascii")
                return int(text.split()[2])
    return 0


def descriptors(members: Sequence[Any]) -> int:
    """How many descriptors they have; pipes and terminals hold memory of their own."""
    count = 0
    for process in members:
        with suppress(OSError):
            count += len(os.listdir(f"/proc/{process.pid}/fd"))
    return count


def first_to_go(process: Any) -> None:
    """Let the system end this one first, when the machine has no memory left."""
    with suppress(OSError):
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")


def left() -> int:
    """The bytes that the machine has left for programs."""
    return _psutil().virtual_memory().available


def reserve() -> int:
    """The bytes that a machine needs for itself."""
    return min(max(_psutil().virtual_memory().total // 20, 256 << 20), 1 << 30)


def _psutil():
    try:
        import psutil
    except ModuleNotFoundError as problem:
        raise ValueError(
            "marking hand-ins needs nbval, pytest and psutil: "
            "pip install 'precode-lib[classroom]'."
        ) from problem
    return psutil
