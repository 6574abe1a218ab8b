"""Firm limits on what all processes of a hand-in take together: control groups.

As root the grader makes groups of its own; for an ordinary user systemd makes one,
where it may. What is in no group is watched only, and each of its processes has limits.
"""

import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .limits import Limits

GROUPS = Path("/sys/fs/cgroup")
_PREFIX = "precode-box-"
# The shell enters the group and becomes the program, which is born inside.
_ENTER = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"']
_OLD = 60  # seconds after which what no grader holds was left by a dead one
# What limits memory and, behind it, what counts those who were killed for it.
_EVENTS = {"memory.max": "memory.events", "memory.limit_in_bytes": "memory.oom_control"}
# Which may be missing: where nothing is swapped.
_SWAP = {"memory.swap.max", "memory.memsw.limit_in_bytes"}


@dataclass(frozen=True)
class Hold:
    """How a program comes under firm limits.

    Args:
        words: to put before a command.
        variables: that these words need, and the command must not see.
        groups: of the command's own, if they are known before it starts.
        has_memory: whether memory is among what is limited.
    """

    words: Sequence[str] = ()
    variables: Mapping[str, str] | None = None
    groups: Sequence[Path] = ()
    has_memory: bool = False

    def ran_out(self, pid: int) -> bool:
        """Whether the system has killed one of its processes, for want of memory."""
        if not self.has_memory:
            return False
        for group in self.groups or [GROUPS / own_path("", pid).lstrip("/")]:
            for name in _EVENTS.values():
                with suppress(OSError, ValueError):
                    text = (group / name).read_text(encoding="ascii")
                    if re.search(r"^oom_kill [1-9]", text, re.MULTILINE):
                        return True
        return False


@contextmanager
def held(limits: Limits, *, is_root: bool) -> Iterator[Hold]:
    """Lend firm limits, as far as the system has them.

    In the end whoever is left in a group of root's is killed.
    """
    if not is_root:
        yield _scope(limits)
        return
    clear_left_over()
    groups = dict(_make(limits))
    locks = [_locked(group) for group in groups]
    try:
        words = [w for g in groups for w in [*_ENTER, str(g / "cgroup.procs")]]
        has_memory = any({*_EVENTS} & {*names} for names in groups.values())
        yield Hold(words, None, [*groups], has_memory)
    finally:
        for group in groups:
            _clear(group)
        for lock in filter(None, locks):
            os.close(lock)


def clear_left_over() -> None:
    """Remove the empty groups that graders have left who were killed."""
    for place in {place for places in _places().values() for place in places}:
        for group in place.glob(f"{_PREFIX}*"):
            if is_left_over(group):
                with suppress(OSError):
                    group.rmdir()  # refused as long as somebody is in it


def is_left_over(folder: Path) -> bool:
    """Whether nobody holds it, and who made it has had the time to."""
    try:
        if time.time() - folder.stat().st_mtime < _OLD:
            return False
    except OSError:
        return False
    lock = _locked(folder)
    if lock is None:
        return False
    os.close(lock)
    return True


def hold(folder: Path) -> int | None:
    """Show other graders that it is in use, until this process or the number ends."""
    return _locked(folder)


def _locked(folder: Path) -> int | None:
    import fcntl  # of Unix

    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return number
    except OSError:
        os.close(number)
        return None


def own_path(controller: str, pid: int | str = "self") -> str:
    """The group of a process; the controller is empty for version 2."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return path
    return "/"


def _places() -> dict[str, list[Path]]:
    """By controller, the folders in which groups may be made, best first."""
    if (GROUPS / "cgroup.controllers").exists():  # version 2: one for both
        return {"": _inner_first(GROUPS, "")}
    return {name: _inner_first(GROUPS / name, name) for name in ("pids", "memory")}


def _inner_first(root: Path, controller: str) -> list[Path]:
    # Below the grader's own group, whose limits then hold, too.
    return [root / own_path(controller).lstrip("/"), root]


def _make(limits: Limits) -> Iterator[tuple[Path, Sequence[str]]]:
    """Make groups; tells what each limits."""
    wanted = {
        "": {
            "pids.max": limits.threads,
            "memory.max": limits.firm,
            "memory.swap.max": 0,
        },
        "pids": {"pids.max": limits.threads},
        "memory": {
            "memory.limit_in_bytes": limits.firm,
            "memory.memsw.limit_in_bytes": limits.firm,
        },
    }
    name = f"{_PREFIX}{uuid.uuid4().hex[:12]}"
    for controller, places in _places().items():
        for place in places:
            if _filled(place / name, wanted[controller]):
                yield place / name, [*wanted[controller]]
                break


def _filled(group: Path, settings: Mapping[str, int]) -> bool:
    """Make one group with these limits, or none."""
    try:
        group.mkdir()
    except OSError:
        return False
    try:
        for name, value in settings.items():
            if name in _SWAP and not (group / name).exists():
                continue
            # Not `write_text`: it would make the file, were this no control group.
            with open(group / name, "r+", encoding="ascii") as file:
                file.write(str(value))
        return True
    except OSError:
        with suppress(OSError):
            group.rmdir()
        return False


def _clear(group: Path) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(OSError, ValueError):
            for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            group.rmdir()  # refused as long as somebody is in it
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)


def _scope(limits: Limits) -> Hold:
    """A group that the user's systemd makes, where it does."""
    variables = {
        name: os.environ[name]
        for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
        if name in os.environ
    }
    program = shutil.which("systemd-run")
    if program is None:
        return Hold()
    words = [program, *_SCOPE, *_properties(limits.firm, limits.threads), "--"]
    works = _works(tuple(words), tuple(variables.items()))
    return Hold(words, variables, (), has_memory=True) if works else Hold()


_SCOPE = ["--user", "--scope", "--quiet", "--collect"]


def _properties(memory: int, tasks: int) -> list[str]:
    found = {"MemoryMax": memory, "MemorySwapMax": 0, "TasksMax": tasks}
    return [f"--property={name}={value}" for name, value in found.items()]


@cache
def _works(words: Sequence[str], variables: Sequence[tuple[str, str]]) -> bool:
    """Whether the limits are those of the group in which a program then is.

    A user's systemd says yes and sets none, where it was not given the controllers.
    """
    group = f"{GROUPS}/$(sed -n s/^0:://p /proc/self/cgroup)"
    look = f'cat "{group}/memory.max" "{group}/pids.max"'
    try:
        told = subprocess.run(
            [*words, "/bin/sh", "-c", look],
            env={"PATH": "/usr/bin:/bin", **dict(variables)},
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    numbers = told.stdout.split()  # or "max", for none
    return told.returncode == 0 and [n.isdecimal() for n in numbers] == [True, True]
