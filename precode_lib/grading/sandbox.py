"""The box in which a hand-in runs: bubblewrap, a container, or none.

In bubblewrap a notebook sees of the machine the Python that runs it, the system's
libraries, and this package; it has a small folder of its own, and no network. It cannot
see or signal any process outside, and when its first process ends, all others do. It
is never root's: who marks as root lends each hand-in a user that nobody else has.
"""

import atexit
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import precode_lib

from . import calls, containers, crowds, dropping
from .limits import SHARED, Limits
from .places import USERS, folder

Kind = Literal["bwrap", "container", "none"]
HOME = "/tmp/home"  # in the box
MEETING = "/run/examiner"  # in the box: the folder of the examiner's socket
SOCKET = "socket"
# It may lie where another user cannot read it.
_TRIAL = "import precode_lib; precode_lib.__version__"
_AS_ROOT = (
    "As root, each hand-in becomes a user without rights, which has to be possible and "
    "to read the Python environment; best, run the command as an ordinary user. "
)
_DRIVER = ["-m", "precode_lib.grading.inside"]
_INSIDE = [sys.executable, "-B", *_DRIVER]
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
        hold: the firm limits that it is under.
        root: finds the first process in it, where it is no descendant.
        end: ends all that is left in it, where that takes more than a signal.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    descriptors: Sequence[int] = ()
    is_one: bool = False
    hold: crowds.Hold = field(default_factory=crowds.Hold)
    root: Callable[[], int | None] | None = None
    end: Callable[[], None] | None = None


def choose(kind: str) -> Kind:
    """The box to use; a ValueError says what is missing where it does not work."""
    if not hasattr(os, "fork"):
        raise ValueError(
            "hand-ins cannot be marked on this system, with or without a sandbox: the "
            "examiner needs Unix. Run the command in a container as the page `Marking "
            "hand-ins` shows, or in a virtual machine with Linux (on Windows: WSL)."
        )
    if kind == "none":
        if problem := none_problem():
            raise ValueError(
                "a hand-in must never be root's, and here it cannot be another "
                f"user's: {problem}\nRun the command as an ordinary user."
            )
        return "none"
    if kind == "container":
        containers.check()
        return "container"
    problem = bwrap_problem()
    if problem:
        raise ValueError(
            f"hand-ins are programs by others, and their sandbox does not work here: "
            f"{problem}\n{_AS_ROOT if _is_root() else ''}"
            "Install bubblewrap (Debian and Ubuntu: apt-get install "
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
    try:
        with _walls(Limits(), None, ()) as (words, descriptors):
            trial = [*words, sys.executable, "-c", _TRIAL]
            tried = subprocess.run(
                trial,
                capture_output=True,
                text=True,
                timeout=60,
                pass_fds=descriptors,
                env=environment(HOME, ""),
                cwd="/",
            )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"bwrap could not be started ({error})."
    if tried.returncode:
        return f"bwrap says: {(tried.stderr or 'nothing').strip()[-300:]}"
    return ""


@cache
def none_problem() -> str:
    """Why a hand-in cannot run without a box; only root's may not."""
    if not _is_root():
        return ""
    try:
        command = [*_as(_free_user()), sys.executable, "-c", _TRIAL]
        tried = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment("/", ""),
            cwd="/",
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)
    return tried.stderr.strip()[-300:] if tried.returncode else ""


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
    if kind == "container":
        with _container(limits, meeting) as one:
            yield one
        return
    with crowds.held(limits, is_root=_is_root()) as hold:
        if kind == "none":
            user = _free_user() if _is_root() else None
            _give([meeting.parent, meeting, *meeting.iterdir(), scratch], user)
            variables = environment(str(scratch), str(meeting / SOCKET))
            yield _held(hold, [*_as(user), *_INSIDE], variables)
            return
        with _walls(limits, meeting, hidden) as (words, descriptors):
            variables = environment(HOME, f"{MEETING}/{SOCKET}")
            one = _held(hold, [*words, *_INSIDE], variables)
            yield replace(one, descriptors=descriptors, is_one=True)


@contextmanager
def _container(limits: Limits, meeting: Path) -> Iterator[Box]:
    given = {"meeting": meeting, "stubs": markers_stubs(), "command": _DRIVER}
    variables = environment(HOME, f"{MEETING}/{SOCKET}")
    with containers.lent(limits, **given, variables=variables) as one:
        ours = dict(os.environ)  # for the engine's program; the container has its own
        ways = {"hold": one.hold, "root": one.root, "end": one.end}
        yield Box(one.command, ours, **ways)


def _held(
    hold: crowds.Hold, command: Sequence[str], variables: Mapping[str, str]
) -> Box:
    """A box under firm limits, of whose own variables nothing gets in."""
    if hold.variables is None:
        return Box([*hold.words, *command], variables, hold=hold)
    pairs = [f"{name}={value}" for name, value in variables.items()]
    words = [*hold.words, "/usr/bin/env", "-i", *pairs, *command]
    return Box(words, {"PATH": variables["PATH"], **hold.variables}, hold=hold)


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


@contextmanager
def _walls(
    limits: Limits, meeting: Path | None, hidden: Sequence[Path]
) -> Iterator[tuple[list[str], list[int]]]:
    """Lend the words before a command that put it in bubblewrap, and descriptors."""
    sources = {place: place for place in readable() if not _is_short_link(place)}
    if meeting is not None:  # else it is a trial
        sources[_checks()] = markers_stubs()
        sources[Path(MEETING)] = meeting
    with ExitStack() as stack:
        number = stack.enter_context(_readable_at(calls.program()))
        entering: list[str] = []
        if _is_root():
            user = _free_user()
            _give([meeting, *meeting.iterdir()] if meeting else [], user)
            places = stack.enter_context(_reachable([*sources.values()], user))
            entering = _as(user, zip(sources.values(), places, strict=True))
            sources = dict(zip(sources, places, strict=True))
        yield [*entering, *_bwrap(limits, sources, hidden, number)], [number]


def _checks() -> Path:
    return Path(precode_lib.__file__).parent / "checks"


@cache
def markers_stubs() -> Path:
    """A folder with what the box sees of the markers, for as long as the grader runs.

    It stands for `precode_lib/checks`, in which the expected values lie.
    """
    from precode_lib.marking import stubs

    lent = ExitStack()
    atexit.register(lent.close)
    return stubs.write(lent.enter_context(folder()) / "checks")


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _as(user: int | None, mounted: Iterable[tuple[Path, Path]] = ()) -> list[str]:
    """The words before a command that make it this user's; none for nobody."""
    if user is None:
        return []
    pairs = [str(path) for pair in mounted for path in pair]
    # By its file: the library's other modules take seconds, and are not asked for.
    python = [sys.executable, "-I", "-S", "-B", dropping.__file__]
    return [*python, str(os.getpid()), str(user), *pairs, "--"]


def _free_user() -> int:
    """The number of a user that nobody has, for one hand-in.

    Two hand-ins of one user would share what the system allows each. The numbers from
    0x70000000 are free by the convention of systemd, which lists who has the others; a
    container may have less, and `nobody` in any case.
    """
    for user in (random.SystemRandom().choice(USERS), 65534):
        if all(_is_mapped(user, kind) for kind in ("uid", "gid")):
            return user
    raise ValueError("this container has no user but root.")


def _is_mapped(user: int, kind: str) -> bool:
    try:
        lines = Path(f"/proc/self/{kind}_map").read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return user == 65534
    ranges = [tuple(map(int, line.split())) for line in lines]
    return any(first <= user < first + count for first, _, count in ranges)


def _give(paths: Iterable[Path], user: int | None) -> None:
    if user is not None:
        for path in paths:
            os.chown(path, user, user, follow_symlinks=False)


@contextmanager
def _reachable(sources: Sequence[Path], user: int) -> Iterator[list[Path]]:
    """Lend an empty place for each source, of the same kind, which the user reaches."""
    with folder() as made:
        places = [made / str(number) for number in range(len(sources))]
        for source, place in zip(sources, places, strict=True):
            place.mkdir() if source.is_dir() else place.touch()
        _give([made], user)
        yield places  # what is mounted there is not seen here


def _is_short_link(place: Path) -> bool:
    return place.is_symlink() and len(place.parts) == 2  # /bin -> usr/bin


def _bwrap(
    limits: Limits, sources: Mapping[Path, Path], hidden: Sequence[Path], filter_at: int
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
    # Settings of the machine in /proc/sys ask who writes, not with which rights.
    words += ["--remount-ro", "/proc"]
    words += ["--size", str(SHARED), "--tmpfs", "/dev/shm"]
    # Shared pages of /dev/zero stay when no process shows them any more.
    words += ["--ro-bind", "/dev/null", "/dev/zero", "--remount-ro", "/dev"]
    words += ["--size", str(limits.scratch), "--tmpfs", "/tmp"]
    seen = readable()
    # Outer folders first, since a later mount covers an earlier one.
    for place in sorted(seen, key=lambda path: len(path.parts)):
        if _is_short_link(place):
            words += ["--symlink", os.readlink(place), str(place)]
        else:
            words += ["--ro-bind", str(sources[place]), str(place)]
    if _checks() in sources:
        words += ["--ro-bind", str(sources[_checks()]), str(_checks())]
    for place in _covered(hidden, seen):
        words += ["--perms", "0555", "--size", "4096", "--tmpfs", str(place)]
        words += ["--remount-ro", str(place)]
    words += ["--dir", HOME, "--chdir", HOME]
    if Path(MEETING) in sources:
        words += ["--ro-bind", str(sources[Path(MEETING)]), MEETING]
    return [*words, "--remount-ro", "/", "--"]


def _covered(hidden: Sequence[Path], seen: Sequence[Path]) -> list[Path]:
    """Where in the box hidden folders would be seen, under whatever name."""
    found = []
    for path in {path.resolve() for path in hidden}:
        for place in seen:
            below = place.resolve()
            if path.is_dir() and below in (path, *path.parents):
                found.append(place / path.relative_to(below))
    return [*dict.fromkeys(found)]


@cache
def _help(program: str) -> str:
    return subprocess.run(
        [program, "--help"], capture_output=True, text=True, timeout=60
    ).stdout


def _user_site() -> list[str]:
    import site

    folder = site.getusersitepackages()
    return [folder] if folder in sys.path else []


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
