"""System calls that no notebook has: refused one by one, and by their arguments."""

import struct

import pytest
from boxes import ATTEMPTS, inside, needs_bwrap

from precode_lib.grading import calls

pytestmark = needs_bwrap

CALL = (
    ATTEMPTS
    + """
import ctypes, errno, os
library = ctypes.CDLL(None, use_errno=True)
def call(*given):
    ctypes.set_errno(0)
    found = library.syscall(*(ctypes.c_long(one) for one in given))
    return errno.errorcode.get(ctypes.get_errno(), found)
"""
)


def test_system_calls_that_hide_memory_or_open_ways_out_are_refused(tmp_path):
    # With arguments that no call takes, in a child: one that is let through fails in
    # another way, or does harm to nobody but the child.
    code = CALL + (
        f"known = {calls.REFUSED!r}\n"
        "column = ['x86_64', 'aarch64'].index(os.uname().machine)\n"
        "numbers = {n: pair[column] for n, pair in known.items()}\n"
        "print(json.dumps([[n, call(k, -1, -1, -1, -1, -1, -1)]"
        " for n, k in numbers.items() if k is not None]))"
    )
    found = dict(inside(tmp_path, code))
    assert found == dict.fromkeys(found, "EPERM")
    assert {"semget", "msgget", "vmsplice", "inotify_init1", "bpf"} <= {*found}


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        ("socket.socket(socket.AF_UNIX)", True),
        ("socket.socket(socket.AF_INET)", True),
        ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", True),
        ("socket.socket(socket.AF_INET6)", True),
        ("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 6)", True),
        ("socket.socketpair()", True),
        ("socket.socket(16, socket.SOCK_RAW, 0)", True),  # which addresses there are
        ("socket.socket(40)", "PermissionError"),  # AF_VSOCK
        ("socket.socket(38, socket.SOCK_SEQPACKET)", "PermissionError"),  # AF_ALG
        ("socket.socket(17, socket.SOCK_RAW)", "PermissionError"),  # AF_PACKET
        ("socket.socket(29, socket.SOCK_RAW, 1)", "PermissionError"),  # AF_CAN
        ("socket.socket(16, socket.SOCK_RAW, 4)", "PermissionError"),  # diagnosis
        ("socket.socket(16, socket.SOCK_RAW, 9)", "PermissionError"),  # audit
        ("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)", "PermissionError"),
        ("socket.socketpair(30)", "PermissionError"),  # AF_TIPC
        ("option(socket.SO_SNDBUF)", "PermissionError"),
        ("option(socket.SO_RCVBUF)", "PermissionError"),
        ("option(33)", "PermissionError"),  # SO_RCVBUFFORCE
        ("option(socket.SO_REUSEADDR)", True),
        ("mmap.mmap(-1, 4096, mmap.MAP_PRIVATE)", True),
        ("mmap.mmap(-1, 4096)", "PermissionError"),
        ("mmap.mmap(-1, 4096, mmap.MAP_SHARED | 0x8000)", "PermissionError"),
        ("mapped_zero()", "PermissionError"),
        ("os.memfd_create('x')", "PermissionError"),
        ("fcntl.fcntl(scratch(), 1031, 1 << 20)", "PermissionError"),  # a pipe's size
        ("fcntl.fcntl(scratch(), 1024, fcntl.F_RDLCK)", "PermissionError"),  # a lease
        ("fcntl.lockf(scratch(), fcntl.LOCK_EX)", "PermissionError"),
        ("fcntl.flock(scratch(), fcntl.LOCK_EX)", True),
        ("clone(0x10000000 | 17)", "EPERM"),  # a name space of users
        ("clone(0x40000000 | 17)", "EPERM"),  # of networks
        ("clone(0x10000 | 0x800 | 0x100)", "EPERM"),  # a thread with its own files
        ("call(435, 0, 0)", "ENOSYS"),
        ("threading.Thread(target=print).start()", True),
        ("subprocess.run(['true']).returncode == 0", True),
        ("os.waitpid(os.fork() or os._exit(0), 0)[1] == 0", True),
        ("prctl(22, 2)", "EPERM"),  # a filter of its own
        ("prctl(38, 1)", 0),  # no new rights
    ],
)
def test_arguments_decide_where_a_call_is_needed(tmp_path, attempt, outcome):
    code = CALL + (
        "import fcntl, mmap, socket, subprocess, threading\n"
        "number = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]\n"
        "def clone(flags):\n"
        "    found = call(number, flags, 0, 0, 0, 0)\n"
        "    return found if found != 0 else os._exit(0)\n"
        "def option(name):\n"
        "    socket.socket().setsockopt(socket.SOL_SOCKET, name, 1)\n"
        "def scratch():\n"
        "    return os.open('/tmp/home/file', os.O_RDWR | os.O_CREAT)\n"
        "def mapped_zero():\n"
        "    return mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096)\n"
        "prctl = library.prctl\n"
        "def prctl(*given):\n"
        "    ctypes.set_errno(0)\n"
        "    found = library.prctl(*given, 0, 0, 0)\n"
        "    return errno.errorcode.get(ctypes.get_errno(), found)\n"
        "def tried():\n"
        f"    found = {attempt}\n"
        "    return found if isinstance(found, (str, int)) else True\n"
        "print(json.dumps(attempt(tried)))"
    )
    assert inside(tmp_path, code) == outcome


def test_every_jump_of_the_filter_ends_inside_it():
    program = calls.program()
    lines = [
        struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)
    ]
    for place, (code, yes, no, _) in enumerate(lines):
        if code in (calls._EQUAL, calls._AT_LEAST):
            assert place + 1 + max(yes, no) < len(lines)
    assert lines[-1] == (calls._END, 0, 0, calls._ALLOW)
