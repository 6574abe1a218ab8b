"""Run notebooks as a reader does on Binder, and say what each needs of the machine.

    python tools/measure_notebooks.py                   # every chapter, every solution
    python tools/measure_notebooks.py book/leak/labels.ipynb
    python tools/measure_notebooks.py --write           # and record it

Starts JupyterLab's server, lets it start a kernel for each notebook, runs every cell,
waits for what widgets compute in the background, and adds up the memory of the server
and all its children (PSS: a page that processes share counts once). Binder stops a
machine at 2 GB. Run it with the Python of an environment like Binder's, and with
OMP_NUM_THREADS=1, as there. No notebook is changed.
"""

import argparse
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
from address import ROOT
from jupyter_client import BlockingKernelClient, find_connection_file

RECORD = ROOT / "benchmarks" / "notebooks.json"
LIMIT_MB, CLOSE_MB = 2000, 1500  # of Binder; what is worth a look
TOKEN = "measure"
PAUSE = 0.2  # seconds between two looks at the memory
PACKAGES = ("torch", "numpy", "ipykernel", "ipywidgets", "jupyterlab")


@dataclass
class Meter:
    """Watches a process and its children, in a thread of its own."""

    process: psutil.Process
    peak: float = 0  # MB, of all of them together
    _seconds: dict[tuple, float] = field(default_factory=dict)  # of each, also ended
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Meter":
        self._look()
        self._before = self.cpu_seconds
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._look()

    @property
    def cpu_seconds(self) -> float:
        """What all processes have computed so far, user and system."""
        return sum(self._seconds.values())

    @property
    def spent(self) -> float:
        """CPU seconds since the meter was started."""
        return self.cpu_seconds - self._before

    def _watch(self) -> None:
        while not self._done.wait(PAUSE):
            self._look()

    def _look(self) -> None:
        total = 0.0
        for process in _family(self.process):
            try:
                total += _memory(process)
                times = process.cpu_times()
                key = (process.pid, process.create_time())
                self._seconds[key] = times.user + times.system
            except psutil.NoSuchProcess:
                continue  # it ended while we looked
        self.peak = max(self.peak, total / 1e6)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> float:
    memory = process.memory_full_info()
    return getattr(memory, "pss", memory.rss)  # pss: Linux only


@contextmanager
def server(root: Path):
    """A running JupyterLab: its process and its address."""
    with tempfile.TemporaryDirectory() as runtime:
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        command = [sys.executable, "-m", "jupyterlab", "--no-browser"]
        command += [f"--IdentityProvider.token={TOKEN}", "--ip=127.0.0.1"]
        command += [f"--port={_free_port()}", "--allow-root"]
        command += [f"--ServerApp.root_dir={root}"]
        with open(Path(runtime, "log"), "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield psutil.Process(process.pid), _address(Path(runtime), process)
        finally:
            process.terminate()
            process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _address(runtime: Path, process: subprocess.Popen) -> str:
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        for path in runtime.glob("jpserver-*.json"):
            try:
                address = json.loads(path.read_text())["url"]
                ask(address, "GET", "status")
                return address
            except (ValueError, OSError):
                pass  # half written, or it does not listen yet
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start:\n{(runtime / 'log').read_text()}")


def ask(address: str, method: str, path: str, body: dict | None = None) -> dict:
    """What the server answers."""
    request = Request(f"{address}api/{path}", method=method)
    request.add_header("Authorization", f"token {TOKEN}")
    request.add_header("Content-Type", "application/json")
    data = None if body is None else json.dumps(body).encode()
    with urlopen(request, data, timeout=60) as answer:
        return json.loads(answer.read() or b"{}")


def run(address: str, path: str, codes: list[str]) -> None:
    """Start a notebook's kernel, run its cells, wait for threads, stop the kernel."""
    name = Path(path).name
    body = {"path": path, "name": name, "type": "notebook"}
    session = ask(address, "POST", "sessions", body | {"kernel": {"name": "python3"}})
    kernel = session["kernel"]["id"]
    client = BlockingKernelClient(connection_file=find_connection_file(kernel))
    client.load_connection_file()
    client.hb_channel.time_to_dead = 60  # a busy machine makes a kernel miss its second
    client.start_channels()
    try:
        client.wait_for_ready(timeout=300)
        for code in codes:
            _execute(client, code, path)
        _execute(client, WAIT, path)
    finally:
        client.stop_channels()
        ask(address, "DELETE", f"sessions/{session['id']}")


# Widgets draw in threads; wait until the kernel computes nothing any more.
WAIT = """
import time as _time
for _ in range(60):
    _before = _time.process_time()
    _time.sleep(1)
    if _time.process_time() - _before < 0.1:
        break
"""


def _execute(client: BlockingKernelClient, code: str, path: str) -> None:
    reply = client.execute_interactive(
        code, store_history=True, timeout=600, output_hook=lambda _: None
    )
    content = reply["content"]
    if content["status"] != "ok":
        raise RuntimeError(f"{path}: {content['ename']}: {content['evalue']}\n{code}")


def measure(path: str, process: psutil.Process, address: str) -> dict[str, float]:
    """Peak memory in MB and CPU seconds of one notebook, server included."""
    cells = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    with Meter(process) as meter:
        run(address, path, codes)
    return {"peak_mb": round(meter.peak), "cpu_s": round(meter.spent, 1)}


def notebooks() -> list[str]:
    """Every chapter of the table of contents, then every solved exercise notebook."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    named = [f"{name}.ipynb" for name in re.findall(r"file: (\S+)", toc)]
    solved = sorted((ROOT / "book" / "solutions").glob("*.ipynb"))
    return [
        name for name in named if (ROOT / name).exists() and "/exercises/" not in name
    ] + [path.relative_to(ROOT).as_posix() for path in solved]


def provenance() -> dict[str, str]:
    """When, of which state of the repository, and with what this is measured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    return {
        "made": date.today().isoformat(),
        "commit": commit.strip(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in PACKAGES},
    }


def record(measured: dict[str, dict[str, float]]) -> None:
    """Put new measurements in the place of old ones; forget notebooks that are gone."""
    old = json.loads(RECORD.read_text())["notebooks"] if RECORD.exists() else {}
    found = {path: old[path] for path in old if (ROOT / path).exists()} | measured
    content = {**provenance(), "notebooks": dict(sorted(found.items()))}
    RECORD.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and record if asked; 1 if one fails or needs too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="paths from the repository's root")
    parser.add_argument("--write", action="store_true", help=f"record in {RECORD.name}")
    options = parser.parse_args(arguments)
    measured, bad = {}, 0
    with server(ROOT) as (process, address):
        for path in options.notebooks or notebooks():
            try:
                found = measured[path] = measure(path, process, address)
            except RuntimeError as error:
                print(error)
                bad += 1
                continue
            bad += found["peak_mb"] >= LIMIT_MB
            print(f"{found['peak_mb']:6} MB {found['cpu_s']:6.1f} s  {path}", end="")
            print("  <- close to Binder's end" * (found["peak_mb"] >= CLOSE_MB))
            if options.write:
                record(measured)
    print(f"{len(measured)} measured, {bad} failed or above {LIMIT_MB} MB")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
