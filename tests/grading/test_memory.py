"""Memory of all kinds: held by the system where it can, seen and counted elsewhere."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from boxes import ATTEMPTS, LIMITS, RESTRICTED, inside, needs_bwrap, stopped

from precode_lib.grading import crowds, usage
from precode_lib.grading.limits import MB, Limits

pytestmark = needs_bwrap
IS_ROOT = os.geteuid() == 0
SMALL = Limits(memory=100 * MB, scratch=20 * MB)


def holds():
    with crowds.held(SMALL, is_root=IS_ROOT) as hold:
        return hold.has_memory


needs_groups = pytest.mark.skipif(not holds(), reason="nobody makes a control group")


@needs_groups
def test_a_control_group_ends_what_takes_more(tmp_path):
    with crowds.held(SMALL, is_root=IS_ROOT) as hold:
        assert not hold.ran_out(os.getpid()) or not IS_ROOT
        code = "held = bytearray(b'x' * 400_000_000); input()"
        command = [*hold.words, sys.executable, "-c", code]
        environment = {**os.environ, **(hold.variables or {})}
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=environment, **pipes) as process:
            assert process.wait(60) == -9
            assert hold.ran_out(process.pid) or not IS_ROOT


@needs_groups
@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user's group ends by itself")
def test_a_control_group_is_gone_with_its_hand_in_and_all_who_are_in_it():
    with crowds.held(SMALL, is_root=True) as hold:
        command = [*hold.words, "/bin/sleep", "600"]
        process = subprocess.Popen(command)
        groups = [*hold.groups]
        assert groups
        assert all(group.is_dir() for group in groups)
        wait_until(lambda: str(process.pid) in (groups[0] / "cgroup.procs").read_text())
    assert process.wait(20) == -9
    assert not any(group.exists() for group in groups)


def wait_until(holds, rounds=2000):
    for _ in range(rounds):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


FAKE = """#!/bin/sh
echo "$@" >> {log}
while [ "$1" != -- ]; do shift; done
shift
case "$*" in
*memory.max*) printf '{told}'; exit 0 ;;
esac
exec "$@"
"""


@pytest.mark.parametrize(
    ("told", "works"), [("1234\\n264\\n", True), ("max\\nmax\\n", False), ("", False)]
)
def test_for_an_ordinary_user_systemd_holds_memory_if_it_really_does(
    tmp_path, monkeypatch, told, works
):
    log, program = tmp_path / "log", tmp_path / "systemd-run"
    program.write_text(FAKE.format(log=log, told=told))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    crowds._works.cache_clear()
    with crowds.held(SMALL, is_root=False) as hold:
        assert hold.has_memory is works
        assert bool(hold.words) is works
    said = log.read_text()
    for word in (
        "--user --scope",
        f"--property=MemoryMax={SMALL.firm}",
        "--property=MemorySwapMax=0",
        f"--property=TasksMax={SMALL.threads}",
    ):
        assert word in said
    crowds._works.cache_clear()


def test_nothing_that_systemd_needs_gets_into_the_box(tmp_path, monkeypatch):
    variables = {"XDG_RUNTIME_DIR": "/run/user/1", "DBUS_SESSION_BUS_ADDRESS": "bus"}
    hold = crowds.Hold(["/usr/bin/env"], variables, (), False)
    monkeypatch.setattr(crowds, "_scope", lambda limits: hold)
    monkeypatch.setattr(crowds, "_make", lambda limits: ())
    held = crowds.held

    monkeypatch.setattr(crowds, "held", lambda limits, is_root: held(SMALL, is_root=0))
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    assert not {*variables} & {*inside(tmp_path, code)}


SHARE = """
import os, time
held = bytearray(b"x" * 200_000_000)
for _ in range(4):
    if os.fork() == 0:
        time.sleep(100)
print("1", flush=True)
time.sleep({seconds})
"""


def test_pages_that_processes_share_count_once(monkeypatch):
    # As the workers of a DataLoader, who see the data that their parent has read.
    seen = []
    memory = usage.memory

    def noted(family, limit):
        simple = sum(map(usage._held, family))
        seen.append((simple, memory(family, limit)))
        return seen[-1][1]

    monkeypatch.setattr(usage, "memory", noted)
    reason = stopped(SHARE.format(seconds=2), monkeypatch)
    assert "memory" not in reason
    assert max(simple for simple, _ in seen) > LIMITS.memory
    assert max(counted for _, counted in seen) < LIMITS.memory


HIDDEN = """
import ctypes, threading, time
def hold():
    global held
    time.sleep(1)  # until the first thread has ended
    held = bytearray(b"x" * 500_000_000)
    time.sleep(100)
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_is_still_seen(monkeypatch):
    # Its own limit is in the way only where nothing raises it.
    monkeypatch.setattr(crowds, "_make", lambda limits: ())
    assert "400 MB of memory" in stopped(HIDDEN, monkeypatch)


def test_page_tables_and_what_is_swapped_out_count(tmp_path):
    (tmp_path / "status").write_text(
        "Name:\\tx\nVmRSS:\t 10 kB\nVmSwap:\t 20 kB\nVmPTE:\t 30 kB\nVmData:\t 1 kB\n"
    )
    assert usage._of_status(tmp_path) == 60 * 1024
    ours = psutil.Process()
    assert usage._held(ours) > 0.9 * ours.memory_info().rss


FILES = """
import os
for number in range(200_000):
    os.close(os.open(f"{place}/{number}", os.O_CREAT))
"""


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_very_many_empty_files_stop_a_hand_in(monkeypatch, place):
    limits = Limits(seconds=60, files=2000)
    code = FILES.replace("{place}", place) + "\nimport time; time.sleep(100)"
    assert "more than 2,000 files" in stopped(code, monkeypatch, limits=limits)


SOCKETS = """
import socket, time
held = [socket.socketpair() for _ in range(100)]
time.sleep(100)
"""


def test_very_many_sockets_stop_a_hand_in(monkeypatch):
    limits = Limits(seconds=60, sockets=150)
    assert "more than 150 sockets" in stopped(SOCKETS, monkeypatch, limits=limits)


PIPES = """
import os, time
for _ in range(3):
    os.fork()
held = [os.pipe() for _ in range(100)]
time.sleep(100)
"""


def test_very_many_pipes_stop_a_hand_in(monkeypatch):
    limits = Limits(seconds=60, descriptors=1000)
    assert "more than 1,000 descriptors" in stopped(PIPES, monkeypatch, limits=limits)


def test_a_machine_keeps_a_reserve(monkeypatch):
    monkeypatch.setattr(usage, "left", lambda: usage.reserve() - 1)
    reason = stopped("import time; time.sleep(100)", monkeypatch)
    assert "the machine had less than" in reason
    assert "--jobs 1" in reason


def test_a_hand_in_is_the_first_to_go_and_cannot_change_that(monkeypatch):
    code = RESTRICTED + (
        "for _ in range(300):\n"
        "    mark = open('/proc/self/oom_score_adj').read().strip()\n"
        "    if mark == '1000': break\n"
        "    time.sleep(0.1)\n"
        "try:\n"
        "    open('/proc/self/oom_score_adj', 'w').write('0')\n"
        "except OSError:\n"
        "    sys.exit('kept ' + mark)\n"
    )
    assert "kept 1000" in stopped(code, monkeypatch)


def test_a_hand_in_takes_no_user_wide_share_of_what_watches_folders(tmp_path):
    code = ATTEMPTS + (
        "import ctypes, os\n"
        "print(json.dumps([ctypes.CDLL(None).inotify_init1(0),"
        " attempt(lambda: os.listdir('/proc/self/fdinfo') and True)]))"
    )
    assert inside(tmp_path, code) == [-1, True]


def test_signals_and_messages_that_wait_have_limits():
    given = {"file": MB, "threads": 60, "memory": 300 * MB, "cell_seconds": 1}
    code = RESTRICTED + (
        "import resource\n"
        "print(resource.getrlimit(resource.RLIMIT_SIGPENDING)[1],"
        " resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1])"
    )
    command = [sys.executable, "-c", code]
    text = {"text": True, "capture_output": True}
    done = subprocess.run(command, input=json.dumps(given), **text)
    assert done.stdout.split() == ["1024", "0"], done.stderr
