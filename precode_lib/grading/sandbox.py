"""The box in which a hand-in runs: bubblewrap, or none.

In bubblewrap a notebook sees of the machine the Python that runs it, the system's
libraries, and this package; it has a small folder of its own, and no network. It cannot
see or signal any process outside, and when its first process ends, all others do.
"""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import precode_lib

from . import crowds
from .limits import MB, Limits

Kind = Literal["bwrap", "none"]
HOME = "/tmp/home"  # in the box
MEETING = "/run/examiner"  # in the box: the folder of the examiner's socket
SOCKET = "socket"
_INSIDE = [sys.executable, "-B", "-m", "precode_lib.grading.inside"]
# What programs of the system want to read; nothing of it is private.
_SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"]
# What tells more of the machine than a notebook needs.
_COVERED = [f"/proc/{n}" for n in ("cmdline", "keys", "kallsyms", "timer_list")]
_CONFIGURATION = ["ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts"]


@dataclass(frozen=True)
class Box:
    """How to start a program in it.

    Args:
        command: with its arguments.
        environment: all of it.
        descriptors: that it inherits.
        is_one: whether all that runs in it ends with the program itself.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    descriptors: Sequence[int] = ()
    is_one: bool = False


def choose(kind: str) -> Kind:
    """The box to use; a ValueError says what is missing where it does not work."""
    if not hasattr(os, "fork"):
        raise ValueError(
            "hand-ins cannot be marked on this system, with or without a sandbox: the "
            "examiner needs Unix. Run the command in a container as the page `Marking "
            "hand-ins` shows, or in a virtual machine with Linux (on Windows: WSL)."
        )
    if kind == "none":
        return "none"
    problem = bwrap_problem()
    if problem:
        raise ValueError(
            f"hand-ins are programs by others, and their sandbox does not work here: "
            f"{problem}\nInstall bubblewrap (Debian and Ubuntu: apt-get install "
            "bubblewrap), or run the command in a container as the page `Marking "
            "hand-ins` shows. --sandbox none runs them as you: they can then read, "
            "change and delete whatever you can."
        )
    return "bwrap"


@cache
def bwrap_problem() -> str:
    """Why bubblewrap cannot be used here; nothing if it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "there is no program `bwrap`."
    if "--size" not in _help(program):
        return "this bubblewrap is older than 0.5."
    with _readable_at(syscall_filter()) as number:
        trial = [*_bwrap(Limits(), None, (), number), sys.executable, "-c", ""]
        try:
            tried = subprocess.run(
                trial, capture_output=True, text=True, timeout=60, pass_fds=[number]
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bwrap could not be started ({error})."
    if tried.returncode:
        return f"bwrap says: {(tried.stderr or 'nothing').strip()[:300]}"
    return ""


@contextmanager
def box(
    kind: Kind, limits: Limits, *, meeting: Path, scratch: Path, hidden: Sequence[Path]
) -> Iterator[Box]:
    """Lend a box that runs `inside` with the notebook on its standard input.

    Args:
        kind: of box.
        limits: of which the box itself enforces some.
        meeting: the folder with the examiner's socket, and nothing else.
        scratch: the notebook's own folder, where there is no bubblewrap.
        hidden: folders that must not be seen, wherever they are.
    """
    if kind == "none":
        variables = environment(str(scratch), str(meeting / SOCKET))
        with crowds.at_most(limits.threads) as entering:
            yield Box([*entering, *_INSIDE], variables)
        return
    filtering, entry = _readable_at(syscall_filter()), crowds.at_most(limits.threads)
    with filtering as number, entry as entering:
        command = [*entering, *_bwrap(limits, meeting, hidden, number), *_INSIDE]
        variables = environment(HOME, f"{MEETING}/{SOCKET}")
        yield Box(command, variables, [number], is_one=True)


def environment(home: str, socket: str) -> dict[str, str]:
    """All variables that a notebook gets: nothing of the lecturer's."""
    library = str(Path(precode_lib.__file__).parents[1])
    folders = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    return {
        "PATH": os.pathsep.join(folders),
        "PYTHONPATH": os.pathsep.join([library, *_user_site()]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "HOME": home,
        "TMPDIR": home,
        "USER": "learner",
        "LOGNAME": "learner",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLCONFIGDIR": f"{home}/matplotlib",
        "IPYTHONDIR": f"{home}/ipython",
        "PRECODE_EXAMINER": socket,
    }


def readable() -> list[Path]:
    """What a notebook in bubblewrap can read of the machine, /proc and /dev apart."""
    library = Path(precode_lib.__file__).parent
    ours = [library, library.parent / "data" / "results"]
    pythons = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)]
    pythons += [Path(os.path.realpath(sys.executable)).parent]
    pythons += map(Path, _user_site())
    places = [*map(Path, _SYSTEM), *pythons, *ours]
    places += [Path("/etc", name) for name in _CONFIGURATION]
    # / can be the prefix of a container's Python; its folders are in _SYSTEM.
    return [p for p in dict.fromkeys(places) if p.exists() and p != Path("/")]


def _bwrap(
    limits: Limits, meeting: Path | None, hidden: Sequence[Path], filter_at: int
) -> list[str]:
    program = shutil.which("bwrap") or "bwrap"
    words = [
        program,
        "--unshare-user",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
    ]
    if "--disable-userns" in _help(program):  # from 0.8 on
        words += ["--disable-userns"]
    words += ["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]
    words += ["--hostname", "box", "--seccomp", str(filter_at)]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for place in filter(os.path.exists, _COVERED):
        words += ["--ro-bind", "/dev/null", place]
    words += ["--size", str(64 * MB), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    words += ["--size", str(limits.scratch), "--tmpfs", "/tmp"]
    seen = readable()
    # Outer folders first, since a later mount covers an earlier one.
    for place in sorted(seen, key=lambda path: len(path.parts)):
        if place.is_symlink() and len(place.parts) == 2:  # /bin -> usr/bin
            words += ["--symlink", os.readlink(place), str(place)]
        else:
            words += ["--ro-bind", str(place), str(place)]
    for place in {path.resolve() for path in hidden}:
        if place.is_dir() and {place, *place.parents} & {*seen}:
            words += ["--perms", "0555", "--size", "4096", "--tmpfs", str(place)]
            words += ["--remount-ro", str(place)]
    words += ["--dir", HOME, "--chdir", HOME]
    if meeting is not None:
        words += ["--ro-bind", str(meeting), MEETING]
    return [*words, "--remount-ro", "/", "--"]


@cache
def _help(program: str) -> str:
    return subprocess.run(
        [program, "--help"], capture_output=True, text=True, timeout=60
    ).stdout


def _user_site() -> list[str]:
    import site

    folder = site.getusersitepackages()
    return [folder] if folder in sys.path else []


# By number on x86_64 and aarch64: what no notebook needs and what takes memory that no
# process is seen to have (the first four), or has often opened a way out of a box.
_REFUSED = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "mq_open": (240, 180),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "ptrace": (101, 117),
    "process_vm_writev": (311, 271),
}
_AUDIT = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def syscall_filter() -> bytes:
    """A program for seccomp that refuses some system calls; it allows the others.

    On other machines than x86_64 and aarch64 it allows all.
    """
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000  # refuse: EPERM
    known = _AUDIT.get(os.uname().machine)
    if known is None:
        return _instruction(end, 0, 0, allow)
    architecture, column = known
    numbers = [pair[column] for pair in _REFUSED.values()]
    count = len(numbers)
    program = [
        _instruction(load, 0, 0, 4),  # the architecture
        _instruction(equal, 1, 0, architecture),
        _instruction(end, 0, 0, kill),
        _instruction(load, 0, 0, 0),  # the call's number
        # x32 has the same calls under other numbers.
        _instruction(at_least, count + 1, 0, 0x40000000),
        *(
            _instruction(equal, count - index, 0, number)
            for index, number in enumerate(numbers)
        ),
        _instruction(end, 0, 0, allow),
        _instruction(end, 0, 0, refuse),
    ]
    return b"".join(program)


def _instruction(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


@contextmanager
def _readable_at(data: bytes) -> Iterator[int]:
    """Lend a descriptor from which the data can be read."""
    reading, writing = os.pipe()
    os.write(writing, data)  # less than a pipe holds
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)
