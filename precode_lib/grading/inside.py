"""What runs in the box: nbval, under limits that it cannot raise again.

A first line of JSON with the limits and then a notebook come on standard input; a line
of JSON for each cell goes to standard output as soon as it is known, so that something
is known of a notebook that is stopped. Nothing here is trusted afterwards: a notebook
may write such lines itself. They explain a mark and never make one.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any

LONGEST = 600  # characters of an error
MOST_PRINTED = 50_000_000  # characters of one notebook's output
PATIENCE = 20  # seconds for output to arrive; nbval's own 5 are few
STARTING = 900  # by the clock, for a kernel to start on a busy machine
_OFTEN = 0.2  # seconds between two looks at what a notebook uses
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class KernelDiedError(RuntimeError):
    """The kernel's process has ended."""


class FloodError(RuntimeError):
    """The notebook printed more than anybody would read."""


def main() -> None:
    """Run the notebook on standard input."""
    limits = json.loads(sys.stdin.buffer.readline())
    notebook = sys.stdin.buffer.read()
    tell = _line_writer()
    restrict(limits)
    work = Path.home() / "work"
    work.mkdir(parents=True, exist_ok=True)
    (work / "notebook.ipynb").write_bytes(notebook)
    _forget_history()
    os.chdir(work)
    # No plugins but nbval: others only take time.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest

    now = _own_time()
    kernels = Kernels(now)
    kernels.watch()
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    nbval = ["-p", "nbval.plugin", "--nbval-lax", "--nbval-current-env"]
    nbval += [f"--nbval-cell-timeout={limits['cell_seconds']}"]
    nbval += [f"--nbval-kernel-startup-timeout={STARTING}"]
    pytest.main([*options, *nbval, "notebook.ipynb"], plugins=[Log(tell, now, kernels)])
    tell({"finished": True})
    os._exit(0)  # whatever threads or exit handlers are left


def restrict(limits: dict[str, Any]) -> None:
    """Set limits on this process and those it starts; they can only be lowered again.

    Each holds for one process, so they are the second line: the grader watches the sum.
    """
    import resource

    def lower(name: str, value: int) -> None:
        kind = getattr(resource, name, None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))

    lower("RLIMIT_CORE", 0)
    lower("RLIMIT_FSIZE", limits["file"])
    lower("RLIMIT_NPROC", limits["threads"])
    lower("RLIMIT_NOFILE", 1024)
    lower("RLIMIT_SIGPENDING", 1024)  # timers are among them
    lower("RLIMIT_MSGQUEUE", 0)
    # Private memory. Not RLIMIT_AS: torch alone maps several gigabytes of libraries.
    lower("RLIMIT_DATA", limits["memory"])
    os.nice(5)  # the grader and its examiners go first


def _forget_history() -> None:
    """Tell IPython to keep none: its data base needs locks that a box refuses."""
    profile = Path(os.environ["IPYTHONDIR"]) / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    text = "get_config().HistoryManager.enabled = False\n"
    (profile / "ipython_kernel_config.py").write_text(text, encoding="ascii")


def _own_time() -> Callable[[], float]:
    """Counts the notebook's seconds as the grader does, beside all that happens."""
    from .usage import Clock, family

    clock = Clock()

    def count() -> None:
        while True:
            clock.look(family(os.getpid()))
            time.sleep(_OFTEN)

    threading.Thread(target=count, daemon=True).start()
    return lambda: clock.seconds


def _line_writer() -> Callable[[dict], None]:
    """Writes to what was standard output, which the kernel does not inherit."""
    output = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)

    def tell(message: dict) -> None:
        os.write(output, json.dumps(message).encode("ascii") + b"\n")

    return tell


class Log:
    """A plugin of pytest that tells of each cell."""

    def __init__(
        self,
        tell: Callable[[dict], None],
        now: Callable[[], float],
        kernels: "Kernels",
    ):
        self.tell, self.now, self.kernels, self.began = tell, now, kernels, 0.0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Give each cell more time for its output."""
        for item in items:
            item.output_timeout = PATIENCE

    def pytest_runtest_call(self, item: Any) -> None:
        """Say which cell begins."""
        self.began = self.now()
        self.kernels.ending = "raised" if item.parent.kernel.is_alive() else "died"
        self.tell({"cell": item.cell_num, "event": "begins"})

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """Say how a cell ended."""
        if call.when == "teardown" or (call.when == "setup" and not call.excinfo):
            return
        error = _described(call.excinfo.value) if call.excinfo else ""
        self.tell(
            {
                "cell": item.cell_num,
                "event": "ends",
                "error": error,
                "how": self.kernels.ending if error else "well",
                "seconds": round(self.now() - self.began, 3),
            }
        )


def _described(error: BaseException) -> str:
    """The last line of the error in the cell, or else what nbval says of it."""
    traceback = _COLOURS.sub("", str(getattr(error, "inner_traceback", "") or ""))
    lines = traceback.strip().splitlines()
    message = str(error.args[1] if len(error.args) > 1 else error)
    # nbval's own words where it stopped the cell, Python's where the cell stopped.
    if not lines or message.startswith("Timeout of "):
        return f"{message}"[:LONGEST]
    return lines[-1][:LONGEST]


class Kernels:
    """Lets nbval see at once that a kernel has ended or prints without end.

    It would wait for the one the whole time, and keep all that comes from the other;
    and its limits of time would be by the clock.

    Attributes:
        ending: how a cell will have ended, if it ends with an error.
    """

    def __init__(self, now: Callable[[], float]):
        self.now, self.printed, self.ending = now, 0, "raised"

    def watch(self) -> None:
        """Look at all that nbval gets from a kernel."""
        from nbval.kernel import RunningKernel

        wait = RunningKernel.get_message

        def get_message(kernel: Any, stream: str, timeout: float | None = None) -> Any:
            until = self.now() + (timeout or 1e9)
            while True:
                left = until - self.now()
                try:
                    message = wait(kernel, stream, timeout=max(0, min(left, _OFTEN)))
                    return self._checked(kernel, message)
                except Empty:
                    self._look(kernel)
                    if left <= 0:
                        self.ending = "late"
                        raise

        RunningKernel.get_message = get_message

    def _checked(self, kernel: Any, message: dict) -> dict:
        self.printed += len(str(message["content"].get("text", "")))
        if self.printed > MOST_PRINTED:
            kernel.stop()
            self.ending = "flood"
            raise FloodError(f"it printed more than {MOST_PRINTED / 1e6:.0f} MB")
        return message

    def _look(self, kernel: Any) -> None:
        if not kernel.is_alive():
            self.ending = "died"
            raise KernelDiedError("the kernel died") from None


if __name__ == "__main__":
    main()
