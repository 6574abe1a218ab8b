"""The Flower app: Flower's real server and clients on this machine, as README shows.

Its functions run in one process first, where every switch is cheap. Then a SuperLink
and two SuperNodes start as processes, train, and end.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from test_flower import grid, play_server

from precode_lib.bottleneck import VariationalBottleneck
from precode_lib.data import victims

if sys.version_info < (3, 11):
    pytest.skip("Flower's tools need Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "examples" / "flower_app"
PORTS = ("8700", "8701", "8702")  # as README has them
PATIENCE = 300  # seconds; a machine may be busy

if not APP.exists():
    pytest.skip("the examples come with the repository", allow_module_level=True)


def defaults() -> dict:
    text = (APP / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tool"]["flwr"]["app"]["config"]


def blocks() -> list[list[str]]:
    """The lines of each console block of README."""
    text = (APP / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    return [block.splitlines() for block in found]


def test_the_chapter_shows_the_commands_of_readme():
    chapter = ROOT / "book" / "beyond" / "real_federation.ipynb"
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    (shown,) = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    start, run, *_ = blocks()
    assert re.sub(r" \\\n +", " ", shown).splitlines() == [*start, *run]


def picture_in(folder: Path, server_round: int) -> torch.Tensor:
    """The saved picture (3, 32, 32) in [0, 1]: it is enlarged eightfold."""
    levels = np.asarray(Image.open(folder / f"round-{server_round}.png"))
    return torch.tensor(levels[::8, ::8]).permute(2, 0, 1) / 255


def distance(picture: torch.Tensor) -> float:
    """The largest error of a pixel, against the client that is nearest."""
    originals = victims("photos", 10).pixels[:2]
    return (originals - picture).abs().amax((1, 2, 3)).min().item()


def scores_in(folder: Path) -> list[float]:
    return [*json.loads((folder / "report.json").read_text("utf-8"))["ssim"].values()]


def shows_a_photograph(folder: Path, *, rounds: int) -> bool:
    """Whether every round's picture is a client's photograph, to a level of 255."""
    scores = scores_in(folder)
    assert len(scores) == len([*folder.glob("*.png")]) == rounds
    near = [distance(picture_in(folder, r + 1)) < 1.5 / 255 for r in range(rounds)]
    assert near == [score >= 0.9 for score in scores]
    assert all(near) or max(scores) < 0.5  # nothing in between
    return all(near)


@pytest.fixture
def play(script_at, monkeypatch, tmp_path):
    """From a run's config to the folder of what the server saw; one process."""
    from flwr.app import Context, RecordDict

    play_server(monkeypatch)
    files = [f"examples/flower_app/{n}_app.py" for n in ("client", "server")]
    script_at("examples/flower_app/shared.py")  # which both import
    client, server = map(script_at, files)

    def run(**options):
        config = {**defaults(), **options, "output": str(tmp_path / "seen")}
        nodes = grid([client.app, client.app], config)
        server.main(nodes, Context(1, 1, {}, RecordDict(), config))
        return tmp_path / "seen"

    return run


@pytest.mark.parametrize("precode", [False, True], ids=["plain", "precode"])
@pytest.mark.parametrize("defense", ["none", "central-dp", "local-dp"])
def test_only_local_dp_hides_the_photograph(play, defense, precode):
    np.random.seed(0)  # Flower's noise
    seen = play(defense=defense, precode=precode)
    assert shows_a_photograph(seen, rounds=2) == (defense != "local-dp")


def test_a_client_evaluates_if_asked(play):
    assert shows_a_photograph(play(evaluate=True, **{"num-rounds": 1}), rounds=1)


def test_every_switch_switches(script_at):
    from flwr.serverapp import strategy

    shared = script_at("examples/flower_app/shared.py")
    server = script_at("examples/flower_app/server_app.py")
    for precode in (False, True):
        model = shared.make_model({**defaults(), "precode": precode})
        kinds = {type(module) for module in model.modules()}
        assert (VariationalBottleneck in kinds) == precode
    for defense, kind in (
        ("none", strategy.FedAvg),
        ("local-dp", strategy.FedAvg),
        ("central-dp", strategy.DifferentialPrivacyServerSideFixedClipping),
    ):
        made = server.make_strategy({**defaults(), "defense": defense})
        assert type(made) is kind
    assert (made.clipping_norm, made.noise_multiplier) == (0.01, 1.0)


def test_another_defense_is_refused(play):
    with pytest.raises(ValueError, match="got 'magic'"):
        play(defense="magic")


class Network:
    """A SuperLink and two SuperNodes, started by README's lines; other ports."""

    def __init__(self, folder: Path):
        self.app, self.home = folder / "app", folder / "home"
        shutil.copytree(APP, self.app, ignore=shutil.ignore_patterns("seen*", "apps"))
        self.home.mkdir()
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        config = self.app / "home" / "config.toml"
        config.write_text(self.moved(config.read_text("utf-8")), encoding="utf-8")
        (first, *starts), (self.run_line,), *_ = blocks()
        self.environment = {**os.environ, "HOME": str(self.home)}
        tools = str(Path(sys.executable).parent)
        self.environment["PATH"] = tools + os.pathsep + os.environ["PATH"]
        for name, value in re.findall(r'(\w+)="?([^"\s]+)', first):
            self.environment[name] = value.replace("$PWD", str(self.app))
        self.children: set[psutil.Process] = set()
        self.processes = [self.started(line) for line in starts]

    def moved(self, text: str) -> str:
        for port, ours in self.ports.items():
            text = text.replace(port, ours)
        return text

    def started(self, line: str) -> psutil.Popen:
        assert line.endswith("&")
        with (self.app / "log.txt").open("ab") as log:
            return psutil.Popen(
                shlex.split(self.moved(line.rstrip("&"))),
                cwd=self.app,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until the SuperLink answers."""
        address = f"http://127.0.0.1:{self.ports[PORTS[0]]}/health"
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(address, timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise TimeoutError((self.app / "log.txt").read_text("utf-8"))

    def run(self, line: str, *more: str) -> str:
        """Flower's log of a run, once it has ended."""
        done = subprocess.run(
            [*shlex.split(line), *more],
            cwd=self.app,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.look()
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def look(self) -> None:
        """Remember every process that ours have started."""
        for process in filter(is_alive, self.processes):
            self.children |= {*process.children(recursive=True)}

    def stop(self) -> list[psutil.Process]:
        """End it as README says; which of its processes are left after a while."""
        self.look()
        for process in self.processes:
            process.terminate()
            process.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while (left := [*filter(is_alive, self.children)]) and time.monotonic() < end:
            time.sleep(0.2)
        return left

    def kill(self) -> None:
        """Whatever went wrong, leave nothing behind."""
        self.look()
        for process in filter(is_alive, [*self.processes, *self.children]):
            process.kill()


def is_alive(process: psutil.Process) -> bool:
    """A process that ended and waits to be collected is none any more."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_ports(count: int) -> list[str]:
    """All of them open at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    network = Network(tmp_path_factory.mktemp("flower"))
    try:
        network.wait()
        yield network
    finally:
        network.kill()


@pytest.mark.slow
def test_the_server_sees_a_photograph_in_each_round_of_a_real_run(network):
    log = network.run(network.run_line)
    assert "aggregate_train: Received 2 results and 0 failures" in log
    assert "[ROUND 2/2]" in log
    assert shows_a_photograph(network.app / "seen", rounds=2)


@pytest.mark.slow
def test_central_dp_does_not_protect_from_the_server_and_local_dp_does(network):
    central, local, _ = blocks()[2]
    for line, is_seen in ((central, True), (local, False)):
        log = network.run(line, "--run-config", "num-rounds=1")
        assert "Received 2 results and 0 failures" in log
        output = re.search(r'output="([\w-]+)"', line)[1]
        assert shows_a_photograph(network.app / output, rounds=1) == is_seen
        assert ("central DP noise with 0.0050 stdev" in log) == (line == central)


@pytest.mark.slow
def test_it_ends_without_a_trace(network):
    assert len(network.processes) == 3 and all(map(is_alive, network.processes))
    network.look()
    assert len(network.children) >= 3  # each has a process that starts the app
    assert network.stop() == []
    assert not (network.home / ".flwr").exists()  # FLWR_HOME is in the folder
