"""The page's numbers are the code's, and the commands it shows are the tested ones."""

from pathlib import Path

import pytest
from hand_ins import handed_in

from precode_lib.grading import (
    calls,
    containers,
    inside,
    limits,
    marks,
    running,
    sandbox,
    store,
    usage,
)

ROOT = Path(sandbox.__file__).parents[2]
PAGE = (ROOT / "book" / "teaching_grading.md").read_text(encoding="utf-8")
DEFAULT = limits.Limits()


def row(words):
    """The line of the page's table that begins so."""
    (line,) = [x for x in PAGE.splitlines() if x.startswith(f"| {words}")]
    return line


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("private memory", [DEFAULT.memory // limits.MB]),
        ("memory of all its processes", [DEFAULT.memory // limits.MB]),
        ("memory of all kinds", [(DEFAULT.firm - DEFAULT.memory) // limits.MB]),
        ("processes; threads", [DEFAULT.processes, DEFAULT.threads]),
        ("files; sockets", [DEFAULT.files, DEFAULT.sockets, DEFAULT.descriptors]),
        ("time (", [int(DEFAULT.seconds), int(DEFAULT.cell_seconds)]),
        (
            "output; one file",
            [
                DEFAULT.output // limits.MB,
                inside.MOST_PRINTED // limits.MB,
                DEFAULT.file // limits.MB,
            ],
        ),
    ],
)
def test_the_table_of_limits_has_the_limits(words, numbers):
    for number in numbers:
        assert f" {number:,}" in row(words)


def test_the_reserve_is_what_the_page_says(monkeypatch):
    line = row("memory that the machine has left")

    class Psutil:
        total = 0

        @classmethod
        def virtual_memory(cls):
            return cls

    monkeypatch.setattr(usage, "_psutil", lambda: Psutil)
    for total, reserve in [(1 << 30, 268), (10**10, 500), (1 << 40, 1074)]:
        Psutil.total = total
        assert round(usage.reserve() / 1e6) == reserve
    assert "5 %" in line
    assert "268 MB" in line
    assert "1,074 MB" in line


@pytest.mark.parametrize("cause", ["examiner", "machine"])
def test_what_ends_without_fault_is_stopped_and_run_again(cause, tmp_path):
    text = " ".join(PAGE.split())
    assert "Should the examiner itself end, or the machine's memory, all that" in text
    one = handed_in()
    number = one.assembled.exercise_of.index("label")
    cells = {number: {"error": "OSError: gone", "seconds": 1.0, "how": "raised"}}
    run = running.Run(stopped="why", cause=cause, cells=cells)
    assert {row.state for row in marks.mark(one, run).rows} == {"stopped"}
    kept = store.Store(tmp_path, "bwrap", DEFAULT)
    kept.save(one, run)
    assert kept.load(one) is None


def test_other_numbers_of_the_page_are_the_code_s():
    text = " ".join(PAGE.split())
    firm = DEFAULT.firm // limits.MB
    for sentence in (
        f"writes {DEFAULT.scratch // limits.MB} MB in a folder",
        f"and {limits.SHARED // limits.MB} MB of shared memory",
        f"for memory of all kinds ({firm:,} MB)",
        f"processes and threads ({DEFAULT.threads})",
        "some sixty system calls",
        "five times that",
    ):
        assert sentence in text
    assert 50 <= len(calls.REFUSED) <= 70
    assert DEFAULT.clock == 5 * DEFAULT.seconds


def test_the_command_that_builds_the_image_is_the_one_the_message_says():
    assert f"podman {containers.BUILD}" in PAGE
    for option in ("--sandbox container", "--sandbox none", "--timeout", "--memory"):
        assert option in PAGE
