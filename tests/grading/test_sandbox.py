"""What a program in the box sees, may do and may not; how it is stopped."""

import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from boxes import (
    ATTEMPTS,
    LIMITS,
    NONE_PROBLEM,
    RESTRICTED,
    inside,
    needs_bwrap,
    none,
    stopped,
)

from precode_lib import checks
from precode_lib.grading import crowds, dropping, running, sandbox
from precode_lib.grading.limits import MB, Limits
from precode_lib.marking import stubs

pytestmark = needs_bwrap


def test_only_python_the_system_and_the_library_are_seen(tmp_path):
    code = ATTEMPTS + (
        "import os\nprint(json.dumps([sorted(os.listdir('/')), os.listdir('/tmp'),"
        " sorted(os.listdir('/etc')), dict(os.environ)]))"
    )
    os.environ["MY_SECRET"] = "secret"
    try:
        root, tmp, etc, variables = inside(tmp_path, code)
    finally:
        del os.environ["MY_SECRET"]
    ours = {path.parts[1] for path in sandbox.readable()}
    assert set(root) <= ours | {"proc", "dev", "tmp", "run", "etc"}
    assert set(etc) <= {*sandbox._CONFIGURATION}
    assert not {"passwd", "shadow", "hosts", "ssh"} & set(etc)
    # The tests' folder is in /tmp and not seen; the library may be there, and is.
    shown = {p.parts[2] for p in sandbox.readable() if p.parts[:2] == ("/", "tmp")}
    assert set(tmp) <= {"home", *shown}
    assert tmp_path.relative_to(tmp_path.anchor).parts[1] not in {*tmp} - shown
    assert "MY_SECRET" not in variables


def test_of_the_repository_only_the_library_is_seen(tmp_path):
    repository = Path(sandbox.__file__).parents[2]
    code = (
        f"import os, json; print(json.dumps(sorted(os.listdir({str(repository)!r}))))"
    )
    python = Path(sys.prefix)  # it may lie in the repository, too
    inner = repository in python.parents
    ours = python.relative_to(repository).parts[:1] if inner else ()
    assert set(inside(tmp_path, code)) <= {"precode_lib", "data", *ours}


def test_of_the_markers_only_stubs_are_seen(tmp_path):
    code = (
        "import json, pathlib, precode_lib\n"
        "folder = pathlib.Path(precode_lib.__file__).parent / 'checks'\n"
        "found = {str(p.relative_to(folder)): p.read_text()"
        " for p in folder.rglob('*') if p.is_file()}\n"
        "from precode_lib.checks import labels\n"
        "print(json.dumps([found, str(labels.__file__)]))"
    )
    found, imported = inside(tmp_path, code)
    assert {*found} == {f"{p.name}" for p in Path(checks.__file__).parent.glob("*.py")}
    for chapter in stubs.chapters():
        assert found[f"{chapter}.py"] == stubs.stub(chapter)
    assert Path(imported).name == "labels.py"


def test_hand_ins_are_hidden_wherever_they_are(tmp_path):
    # As if they were in the folder of Python's own packages.
    if not os.access(sys.prefix, os.W_OK):
        pytest.skip("who tests may not write to the environment")
    place = Path(sys.prefix) / f"hand-ins-{os.getpid()}"
    place.mkdir()
    try:
        (place / "a.ipynb").write_text("secret")
        code = f"import os, json; print(json.dumps(os.listdir({str(place)!r})))"
        assert inside(tmp_path, code) == ["a.ipynb"]
        assert inside(tmp_path, code, hidden=[place]) == []
    finally:
        (place / "a.ipynb").unlink()
        place.rmdir()


def test_hand_ins_are_hidden_behind_links_too(tmp_path, monkeypatch):
    # The environment is reached by a link, and by its own path; or the hand-ins are.
    environment = tmp_path / "environment"
    (environment / "hand-ins").mkdir(parents=True)
    (environment / "hand-ins" / "a.ipynb").write_text("secret")
    (tmp_path / "link").symlink_to(environment)
    (tmp_path / "class").symlink_to(environment / "hand-ins")
    seen = [*sandbox.readable(), tmp_path / "link", environment]
    monkeypatch.setattr(sandbox, "readable", lambda: seen)
    names = [str(tmp_path / name / "hand-ins") for name in ("link", "environment")]
    code = f"import os, json; print(json.dumps([os.listdir(p) for p in {names!r}]))"
    assert inside(tmp_path, code) == [["a.ipynb"]] * 2
    for hidden in (tmp_path / "class", environment / "hand-ins"):
        assert inside(tmp_path, code, hidden=[hidden]) == [[], []]


def test_nothing_can_be_written_but_a_small_folder(tmp_path):
    library = Path(sandbox.__file__).parent
    places = [library, Path(sys.prefix), "/usr", "/", "/etc", "/dev", "/run/examiner"]
    code = (
        ATTEMPTS
        + f"""
places = {[str(place) for place in places]!r}
written = [attempt(lambda: open(place + "/new", "w") and True) for place in places]
block = b"x" * 1_000_000
def fill(path):
    with open(path, "wb") as file:
        for count in range(1000):
            file.write(block)
    return count
filled = [attempt(lambda: fill(p)) for p in ("/tmp/home/a", "/dev/shm/a")]
print(json.dumps([written, filled]))
"""
    )
    written, filled = inside(tmp_path, code)
    assert written == ["OSError"] * len(places)
    assert filled == ["OSError", "OSError"]


def test_there_is_no_network_and_nobody_else(tmp_path):
    with running._listening(tmp_path) as listener:
        listener.set_inheritable(False)
        code = (
            ATTEMPTS
            + f"""
import os, signal, socket
def connect():
    socket.create_connection(("127.0.0.1", 1), 2)
print(json.dumps([
    attempt(connect),
    attempt(lambda: socket.getaddrinfo("pypi.org", 443) and True),
    attempt(lambda: os.kill({os.getpid()}, 0)),
    max(int(name) for name in os.listdir("/proc") if name.isdigit()) < 20,
    [name for _, name in socket.if_nameindex()],
]))
"""
        )
        refused, unknown, signalled, is_alone, cards = inside(tmp_path, code)
    assert (refused, unknown) == ("ConnectionRefusedError", "gaierror")
    assert signalled == "ProcessLookupError"
    assert is_alone
    assert cards == ["lo"]


def test_a_program_has_no_rights_of_root(tmp_path):
    code = (
        "import json, os; status = open('/proc/self/status').read()\n"
        "caps = [l.split()[1] for l in status.splitlines() if l.startswith('Cap')]\n"
        "print(json.dumps([os.getuid(), sorted({int(c, 16) for c in caps}),"
        " 'NoNewPrivs:\\t1' in status, 'Seccomp:\\t2' in status]))"
    )
    assert inside(tmp_path, code) == [1000, [0], True, True]


SETTINGS = (
    ATTEMPTS
    + """
import os
found = opened = 0
refused = set()
for folder, _, names in os.walk("/proc/sys"):
    for name in names:
        found += 1
        outcome = attempt(lambda: os.open(f"{folder}/{name}", os.O_WRONLY) and "open")
        refused.add(outcome)
print(json.dumps([found, sorted(refused)]))
"""
)


def test_no_setting_of_the_machine_can_be_written(tmp_path):
    found, outcomes = inside(tmp_path, SETTINGS)
    assert found > 100
    # PermissionError: its mode; OSError: a file system that is read-only.
    assert set(outcomes) <= {"PermissionError", "OSError"}


def test_nothing_in_proc_can_be_written_not_even_of_a_process_itself(tmp_path):
    names = ["sys/kernel/core_pattern", "sys/kernel/msgmnb", "self/comm"]
    names += ["self/oom_score_adj", "self/uid_map"]
    code = ATTEMPTS + (
        f"print(json.dumps([attempt(lambda: open('/proc/' + name, 'r+') and 'open')"
        f" for name in {names!r}]))"
    )
    assert set(inside(tmp_path, code)) <= {"PermissionError", "OSError"}


def everybody_reads(folder: Path) -> bool:
    """Whether a user without rights can look into it, from the root on."""
    return all(f.stat().st_mode & 0o005 == 0o005 for f in (folder, *folder.parents))


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="for whoever marks as root")


def outside_of(tmp_path, look):
    """What `look` finds of the processes in a box, from outside, while they run."""
    (tmp_path / "meeting").mkdir()
    places = {"meeting": tmp_path / "meeting", "scratch": tmp_path, "hidden": ()}
    code = "print(1, flush=True); input()"
    with sandbox.box("bwrap", LIMITS, **places) as box:
        command = [*box.command[: -len(sandbox._INSIDE)], sys.executable, "-c", code]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started = {"env": dict(box.environment), "pass_fds": box.descriptors}
        with subprocess.Popen(command, **pipes, **started) as process:
            assert process.stdout.readline() == b"1\n"
            family = [process.pid]
            family += [p.pid for p in psutil.Process(process.pid).children(True)]
            found = [look(pid) for pid in family]
            process.communicate(b"\n")
    return found


@as_root
def test_as_root_a_hand_in_is_of_a_user_that_nobody_else_has(tmp_path):
    def status(pid):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return dict(line.split(":\t") for line in lines if ":\t" in line)

    found = outside_of(tmp_path, status)
    assert len(found) >= 3  # bubblewrap twice, and the program
    users = {number for one in found for number in one["Uid"].split("\t")}
    groups = {number for one in found for number in one["Gid"].split("\t")}
    assert len(users) == 1
    assert users == groups
    assert int(*users) not in {user.pw_uid for user in pwd.getpwall()} - {65534}
    assert {one["Groups"].strip() for one in found} == {""}
    # The outer process of bubblewrap, too, which is in no box.
    assert {one["CapEff"] for one in found} == {"0" * 16}


@as_root
def test_two_hand_ins_of_roots_have_two_users():
    one, other = sandbox._free_user(), sandbox._free_user()
    assert one != other or one == 65534  # in a container that has no more


@as_root
def test_as_root_the_environment_may_lie_in_a_private_folder(tmp_path, monkeypatch):
    private = tmp_path / "private"
    (private / "environment").mkdir(parents=True)
    (private / "environment" / "module.py").write_text("")
    (private / "letter.txt").write_text("")
    private.chmod(0o700)
    environment = private / "environment"
    seen = [*sandbox.readable(), environment]
    monkeypatch.setattr(sandbox, "readable", lambda: seen)
    code = (
        "import os, json; print(json.dumps([os.listdir(p) for p in"
        f" ({str(environment)!r}, {str(private)!r})]))"
    )
    assert inside(tmp_path, code) == [["module.py"], ["environment"]]


@as_root
def test_where_root_cannot_be_another_user_nothing_is_marked(tmp_path, monkeypatch):
    def nobody():
        raise ValueError("this container has no user but root.")

    monkeypatch.setattr(sandbox, "_free_user", nobody)
    check_that_root_is_refused(tmp_path, "no user but root")


@as_root
def test_what_another_user_cannot_read_is_never_read_as_root(tmp_path, monkeypatch):
    if everybody_reads(Path(checks.__file__).parents[2]):
        pytest.skip("the library is installed in place, where everybody reads it")
    secret = tmp_path / "environment"
    secret.mkdir()
    (secret / "precode_lib.py").write_text("")
    secret.chmod(0o700)
    seen = [p for p in sandbox.readable() if p.name != "precode_lib"]
    monkeypatch.setattr(sandbox, "readable", lambda: [*seen, secret])
    variables = sandbox.environment
    ours = {"PYTHONPATH": str(secret)}
    monkeypatch.setattr(sandbox, "environment", lambda *a: {**variables(*a), **ours})
    check_that_root_is_refused(tmp_path, "precode_lib")


def check_that_root_is_refused(tmp_path, reason):
    problems = (sandbox.bwrap_problem, sandbox.none_problem)
    for problem in problems:
        problem.cache_clear()
    try:
        for kind in ("auto", "bwrap", "none"):
            with pytest.raises(ValueError, match="command as an ordinary user") as said:
                sandbox.choose(kind)
            assert reason in str(said.value) or "Permission denied" in str(said.value)
    finally:
        for problem in problems:
            problem.cache_clear()


@as_root
@pytest.mark.parametrize("is_there", [True, False])
def test_as_root_nothing_starts_when_the_grader_has_ended(is_there, monkeypatch):
    if not is_there:
        monkeypatch.setattr(sandbox.os, "getpid", lambda: 2)
    command = [*sandbox._as(1900000001), "/bin/echo", "started"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (done.stdout == "started\n") is is_there
    assert ("the grader has ended" in done.stderr) is not is_there


@as_root
def test_who_has_given_up_root_cannot_take_it_up_again():
    code = (
        "import os; status = open('/proc/self/status').read().split()\n"
        "def back(how, *a):\n"
        "    try: return how(*a) or 'back'\n"
        "    except PermissionError: return 'no'\n"
        "print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups(),"
        " back(os.setuid, 0), back(os.setgid, 0), back(os.setresuid, -1, -1, 0),"
        " status[status.index('CapPrm:') + 1]]))"
    )
    command = [sys.executable, "-I", "-c"]
    folder = str(Path(dropping.__file__).parent)
    drop = f"import sys, json; sys.path.insert(0, {folder!r})\n"
    drop += "import dropping; dropping.drop(1900000001)\n"
    command += [drop + code]
    said = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert said.returncode == 0, said.stderr
    users, groups, others, *back, rights = json.loads(said.stdout)
    assert users == groups == [1900000001] * 3
    assert others == []
    assert back == ["no"] * 3
    assert int(rights, 16) == 0


BOMB = (
    RESTRICTED
    + """
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""
)
ESCAPE = "import os, time\nos.fork(); os.setsid() if os.fork() else 0\ntime.sleep(999)"
CROWD = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(b"x" * 150_000_000)
        time.sleep(100)
time.sleep(100)
"""


@pytest.mark.parametrize("kind", ["bwrap", none])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import time; time.sleep(999)", "longer than 4 seconds"),
        ("import sys\nwhile 1: sys.stdout.write('x' * 65536)", "output was more"),
        (CROWD, "400 MB of memory"),
        ("import os, signal; os.kill(os.getpid(), 9)", "ended"),
        ("raise SystemExit(3)", "driver ended with code 3"),
        ("import nothing_like_this", "No module named"),
        ("pass", "ended its own driver"),
        ("import time; print('x' * 90); time.sleep(999)", "longer than 4"),
    ],
    ids=["sleep", "flood", "memory", "suicide", "code", "import", "early", "talk"],
)
def test_whatever_goes_on_is_stopped_with_its_reason(monkeypatch, kind, code, reason):
    limits = Limits(seconds=4, memory=400 * MB, output=1 * MB)
    assert reason in stopped(code, monkeypatch, kind, limits)


def noting(family, seen):
    def noted(pid):
        found = family(pid)
        seen.append(len(found))
        return found

    return noted


def test_a_fork_bomb_is_stopped_and_leaves_nobody(monkeypatch):
    limits = Limits(seconds=60, processes=30, threads=60, memory=9000 * MB)
    began = time.monotonic()
    seen = []
    monkeypatch.setattr(running, "_family", noting(running._family, seen))
    assert "more than 30 processes" in stopped(BOMB, monkeypatch, "bwrap", limits)
    # A user's own limit does not count bubblewrap's outer process.
    assert 30 < max(seen) <= 61
    assert time.monotonic() - began < 20


def running_with(word):
    """Processes that have this word on their command line, and keep on running."""
    found = [p for p in psutil.process_iter() if word in words_of(p)]
    return psutil.wait_procs(found, timeout=5)[1]


def words_of(process):
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def test_a_process_that_left_its_family_dies_with_the_box(monkeypatch):
    limits = Limits(seconds=3)
    assert "longer than 3" in stopped(ESCAPE, monkeypatch, "bwrap", limits)
    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if ESCAPE in (p.info["cmdline"] or [])
    ]
    assert left == []


def test_without_bubblewrap_children_are_found_and_killed(monkeypatch):
    if NONE_PROBLEM:
        pytest.skip(NONE_PROBLEM)
    monkeypatch.setattr(crowds, "_make", lambda limits: ())
    code = "import os, time\nos.fork() or os.setsid()\ntime.sleep(998)"
    assert "longer than 5" in stopped(code, monkeypatch, "none", Limits(seconds=5))
    left = [
        p for p in psutil.process_iter(["cmdline"]) if code in (p.info["cmdline"] or [])
    ]
    assert left == []


def test_private_memory_has_a_limit_in_each_process(tmp_path):
    given = json.dumps(
        {"file": MB, "threads": 60, "memory": 300 * MB, "cell_seconds": 1}
    )
    code = (
        RESTRICTED
        + """
try:
    bytearray(500_000_000)
except MemoryError:
    print("memory", end=" ")
try:
    open("big", "wb").write(b"x" * 5_000_000)
except OSError:
    print("file", end=" ")
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=given,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout == "memory file ", done.stderr


def test_an_interrupt_ends_what_runs(monkeypatch):
    event = threading.Event()
    threading.Timer(2, event.set).start()
    code = "import time; time.sleep(999)"
    assert stopped(code, monkeypatch, interrupted=event) == "interrupted"


def test_the_box_dies_with_the_grader(tmp_path):
    code = f"""
import subprocess, sys, time
from pathlib import Path
from precode_lib.grading import sandbox
from precode_lib.grading.limits import Limits
sandbox._INSIDE = [sys.executable, "-c", "import time; time.sleep(987)"]
places = dict(meeting=Path({str(tmp_path)!r}), scratch=Path("/tmp"), hidden=())
with sandbox.box("bwrap", Limits(), **places) as box:
    subprocess.Popen(box.command, env=dict(box.environment), pass_fds=box.descriptors)
    print("started", flush=True)
    time.sleep(100)
"""
    grader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert grader.stdout.readline() == b"started\n"
    time.sleep(2)
    family = psutil.Process(grader.pid).children(recursive=True)
    assert len(family) >= 2
    os.kill(grader.pid, signal.SIGKILL)
    grader.communicate()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_without_a_sandbox_nothing_is_run_unless_asked(monkeypatch):
    monkeypatch.setattr(sandbox, "none_problem", lambda: "")
    monkeypatch.setattr(sandbox, "bwrap_problem", lambda: "there is no bwrap.")
    for kind in ("auto", "bwrap"):
        with pytest.raises(ValueError, match="apt-get install bubblewrap"):
            sandbox.choose(kind)
    assert sandbox.choose("none") == "none"


def test_a_bubblewrap_that_may_not_work_here_is_found_out(monkeypatch):
    # Not in `tmp_path`, where another user than root would not find it.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    fake = folder / "bwrap"
    fake.write_text(
        '#!/bin/sh\n[ "$1" = --help ] && echo --size && exit\n'
        "echo 'No permissions to create new namespace' >&2\nexit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    try:
        sandbox.bwrap_problem.cache_clear()
        assert "No permissions" in sandbox.bwrap_problem()
        fake.unlink()
        sandbox.bwrap_problem.cache_clear()
        assert "no program" in sandbox.bwrap_problem()
    finally:
        monkeypatch.undo()
        folder.rmdir()
        sandbox.bwrap_problem.cache_clear()
