"""The other box for one hand-in: a rootless container of podman or docker.

The image brings Python and what the library needs; the library itself, with stubs for
its markers, is this one. The engine sets the limits that in bubblewrap are watched.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import precode_lib

from . import crowds
from .limits import SHARED, Limits

IMAGE = "precode-grading"
BUILD = "build --tag precode-grading --file tools/Containerfile ."
LIBRARY = "/opt/precode"  # in the container
_LABEL = "precode-box"
# What an engine says that belongs to nobody but who started it.
_ROOTLESS = {
    "podman": ("{{.Host.Security.Rootless}}", "true"),
    "docker": ("{{.SecurityOptions}}", "name=rootless"),
}
_TRIAL = """
import nbval, psutil, precode_lib
for name in ("memory.max", "pids.max"):
    print(open(f"/sys/fs/cgroup/{name}").read().strip())
"""


@cache
def engine() -> str:
    """The program to use; a ValueError says why there is none."""
    problems = []
    for name, (form, rootless) in _ROOTLESS.items():
        if shutil.which(name) is None:
            continue
        code, told = _asked([name, "info", "--format", form])
        if code == 0 and rootless in told:
            return name
        why = told.strip()[-200:] if code else "it runs as root, and has to be rootless"
        problems.append(f"{name}: {why}.")
    found = " ".join(problems) or "there is neither `podman` nor `docker`."
    raise ValueError(
        f"no engine runs containers without root here: {found}\nInstall podman (Debian "
        "and Ubuntu: apt-get install podman) and run the command as an ordinary user."
    )


@cache
def check() -> None:
    """Try a container; a ValueError says what is missing."""
    program = engine()
    limits = Limits()
    library = {Path(precode_lib.__file__).parent: f"{LIBRARY}/precode_lib"}
    words = [*_words(program, f"{_LABEL}-trial-{os.getpid()}", limits, library), "--rm"]
    code, told = _asked([*words, *_variables({}), IMAGE, "python", "-c", _TRIAL])
    if code:
        raise ValueError(
            f"{program} does not run the image {IMAGE}: {told.strip()[-300:]}\n"
            f"Build it once, in the repository's folder: {program} {BUILD}"
        )
    numbers = [int(word) if word.isdecimal() else None for word in told.split()[-2:]]
    if None in numbers or numbers[0] > limits.firm:
        raise ValueError(
            f"{program} sets no limits of memory and processes here: it needs control "
            "groups of version 2, which systemd lends to users."
        )


@contextmanager
def lent(
    limits: Limits,
    *,
    meeting: Path,
    stubs: Path,
    command: Sequence[str],
    variables: Mapping[str, str],
) -> Iterator["Container"]:
    """Lend a container for one hand-in; in the end it is gone with all in it.

    Args:
        limits: that the engine sets.
        meeting: the folder with the examiner's socket; its parent is private.
        stubs: the folder that stands for the markers.
        command: of the driver, without Python.
        variables: all that it gets.
    """
    program = engine()
    _clear_left_over(program)
    # Whoever is in the container may go in; who is outside is stopped before it.
    meeting.chmod(0o755)
    for path in meeting.iterdir():
        path.chmod(0o666)
    name = meeting.parent.name
    seen = {**_library(stubs), meeting: "/run/examiner"}
    words = [*_words(program, name, limits, seen), *_variables(variables), IMAGE]
    container = Container(program, name, [*words, "python", "-B", *command])
    try:
        yield container
    finally:
        container.end()


class Container:
    """A container that may run."""

    def __init__(self, program: str, name: str, command: Sequence[str]):
        self.program, self.name, self.command = program, name, command
        self.hold = crowds.Hold(has_memory=True)
        self._root = 0

    def root(self) -> int | None:
        """Its first process, as this machine numbers it; None before it is there."""
        if not self._root:
            form = ["--format", "{{.State.Pid}}"]
            _, told = _asked([self.program, "inspect", *form, self.name])
            self._root = int(told) if told.strip().isdecimal() else 0
        return self._root or None

    def end(self) -> None:
        """Kill all that is in it."""
        _asked([self.program, "rm", "--force", self.name])


def _words(
    program: str, name: str, limits: Limits, seen: Mapping[Path, str]
) -> list[str]:
    """How a container begins that has nothing but what it is given."""
    words = [program, "run", "--interactive", "--name", name, "--label", _LABEL]
    words += ["--pull", "never", "--network", "none", "--hostname", "box"]
    words += ["--read-only", "--cap-drop", "ALL", "--user", "1000:1000"]
    words += ["--security-opt", "no-new-privileges"]
    # Else SELinux keeps the container from the examiner's socket.
    words += ["--security-opt", "label=disable"]
    words += ["--pids-limit", str(limits.threads)]
    words += ["--memory", f"{limits.firm}b", "--memory-swap", f"{limits.firm}b"]
    words += ["--shm-size", f"{SHARED}b", "--oom-score-adj", "1000"]
    words += ["--tmpfs", f"/tmp:rw,nosuid,nodev,mode=1777,size={limits.scratch}"]
    words += ["--ulimit", "core=0", "--ulimit", "nofile=1024:1024"]
    words += ["--workdir", "/tmp"]
    for source, place in seen.items():
        words += ["--volume", f"{source}:{place}:ro"]
    return words


def _variables(variables: Mapping[str, str]) -> list[str]:
    ours = {**variables, "PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": LIBRARY}
    return [
        word for name, value in ours.items() for word in ("--env", f"{name}={value}")
    ]


def _library(stubs: Path) -> dict[Path, str]:
    library = Path(precode_lib.__file__).parent
    seen = {library: f"{LIBRARY}/precode_lib", stubs: f"{LIBRARY}/precode_lib/checks"}
    results = library.parent / "data" / "results"
    return {
        **seen,
        **({results: f"{LIBRARY}/data/results"} if results.exists() else {}),
    }


def _clear_left_over(program: str) -> None:
    """Remove containers of graders that were killed; never a living one's."""
    form = ["--format", "{{.Names}}", "--filter", f"label={_LABEL}"]
    _, told = _asked([program, "ps", "--all", *form])
    for name in told.split():
        folder = (
            Path("/tmp") / name
        )  # as `places` makes it, and keeps it while it lives
        if name.startswith(f"{_LABEL}-") and not folder.exists():
            with suppress(OSError):
                _asked([program, "rm", "--force", name])


def _asked(command: Sequence[str]) -> tuple[int, str]:
    """What a command returns and says."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return 1, str(problem)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr
