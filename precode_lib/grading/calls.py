"""The system calls that no notebook has: a program for seccomp.

Refused is what takes memory that no process is seen to hold, what is shared with all
other processes of the same user, and what has often opened a way out of a box. It is
known for x86_64 and aarch64; on other machines everything is allowed.
"""

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# By number on x86_64 and aarch64; None where there is no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # memory that belongs to no process
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "vmsplice": (278, 75),
    "splice": (275, 76),
    "tee": (276, 77),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "seccomp": (317, 277),
    # what the system counts for a user, or for all
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "io_setup": (206, 0),
    # ways out
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "modify_ldt": (154, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
}
_AUDIT = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_LOAD, _AND, _EQUAL, _AT_LEAST, _END = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS = 0x00050001, 0x00050026
_SHARED, _ANONYMOUS = 0x01, 0x20  # of mmap
_OTHER_SPACES, _THREAD, _FILES = 0x7E020000, 0x00010000, 0x00000400  # of clone
_UNIX, _INET, _NETLINK, _INET6 = 1, 2, 16, 10
# Of setsockopt: a buffer's size, and programs that the kernel runs for a socket.
_BUFFERS, _PROGRAMS = (7, 8, 32, 33), (26, 50, 51, 52)
_SECCOMP = 22  # of prctl
# Of fcntl: locks and leases, notices of a folder, and the size of a pipe.
_KEPT = (6, 7, 37, 38, 1024, 1026, 1031)


@dataclass(frozen=True)
class Test:
    """Whether an argument of a call, its lower half, is one of some values.

    Args:
        argument: its number, from 0.
        values: one of which it is.
        mask: the bits that count.
    """

    argument: int
    values: Sequence[int]
    mask: int = 0xFFFFFFFF


# A call is refused if all tests of one line hold; `unless` if its last does not.
_ARGUMENTS: list[tuple[tuple[int, int], list[Test], bool]] = [
    # Its pages stay when no process shows them any more.
    ((9, 222), [Test(3, [_SHARED | _ANONYMOUS], _SHARED | _ANONYMOUS)], False),
    # Families that have no name space, such as virtual machines' own.
    ((41, 198), [Test(0, [_UNIX, _INET, _INET6, _NETLINK])], True),
    ((41, 198), [Test(0, [_NETLINK]), Test(2, [0])], True),
    ((41, 198), [Test(0, [_INET, _INET6]), Test(2, [0, 6, 17])], True),
    ((53, 199), [Test(0, [_UNIX])], True),
    ((54, 208), [Test(1, [1]), Test(2, [*_BUFFERS, *_PROGRAMS])], False),
    ((72, 25), [Test(1, _KEPT)], False),
    ((157, 167), [Test(0, [_SECCOMP])], False),
    # A thread with descriptors of its own would not be seen to have them.
    ((56, 220), [Test(0, [_THREAD], _THREAD | _FILES)], False),
    *(
        ((56, 220), [Test(0, [1 << bit], 1 << bit)], False)
        for bit in range(32)
        if _OTHER_SPACES >> bit & 1
    ),
]
# Its arguments lie in memory, where no filter sees them; libraries then use `clone`.
_CLONE3 = 435


def program() -> bytes:
    """The program; it refuses some system calls and allows the others."""
    known = _AUDIT.get(os.uname().machine)
    if known is None:
        return _line(_END, 0, 0, _ALLOW)
    architecture, column = known
    lines = [
        _line(_LOAD, 0, 0, 4),  # the architecture
        _line(_EQUAL, 1, 0, architecture),
        _line(_END, 0, 0, _KILL),
        _line(_LOAD, 0, 0, 0),  # the call's number
        # x32 has the same calls under other numbers.
        _line(_AT_LEAST, 0, 1, 0x40000000),
        _line(_END, 0, 0, _EPERM),
    ]
    for numbers in REFUSED.values():
        if numbers[column] is not None:
            lines += _refusal(numbers[column], _EPERM)
    lines += _refusal(_CLONE3, _ENOSYS)
    for numbers, tests, unless in _ARGUMENTS:
        lines += _rule(numbers[column], tests, unless)
    return b"".join([*lines, _line(_END, 0, 0, _ALLOW)])


def _refusal(number: int, how: int) -> list[bytes]:
    return [_line(_EQUAL, 0, 1, number), _line(_END, 0, 0, how)]


def _rule(number: int, tests: Sequence[Test], unless: bool) -> list[bytes]:
    """Lines that refuse a call by its arguments, or go on behind themselves."""
    lines: list[Callable[[int], bytes]] = [lambda _: _line(_END, 0, 0, _EPERM)]
    # From the end: each line knows how many come behind it until the rule's own end.
    for place, test in enumerate(reversed(tests)):
        inverted = unless and place == 0
        lines = _test(test, inverted, lines)
    body = [line(len(lines) - index - 1) for index, line in enumerate(lines)]
    again = _line(_LOAD, 0, 0, 0)  # the number, for the rules behind
    return [_line(_EQUAL, 0, len(body), number), *body, again]


def _test(
    test: Test, inverted: bool, then: list[Callable[[int], bytes]]
) -> list[Callable[[int], bytes]]:
    """Lines before others, which are reached only if the test holds."""
    lines: list[Callable[[int], bytes]] = [
        lambda _: _line(_LOAD, 0, 0, 16 + 8 * test.argument),
        lambda _: _line(_AND, 0, 0, test.mask),
    ]
    count = len(test.values)
    for index, value in enumerate(test.values):
        left = count - index - 1

        def compare(behind: int, value: int = value, left: int = left) -> bytes:
            met = behind if inverted else left  # to the rule's end, or to `then`
            missed = (0 if inverted else behind) if left == 0 else 0
            return _line(_EQUAL, met, missed, value)

        lines.append(compare)
    return [*lines, *then]


def _line(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
