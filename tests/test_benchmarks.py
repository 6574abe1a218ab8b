"""The benchmark counts and compares what it says; the README's script runs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "attack_photographs.py"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import bench

    return bench


@pytest.fixture
def measure(bench):
    import measure

    return measure


@pytest.fixture
def versions(bench):
    import versions

    return versions


def run(bench, tmp_path, *arguments):
    path = tmp_path / "report.json"
    brief = ["--rounds", "2", "--seconds", "0.001", "--size", "8", "--no-peer"]
    bench.main([*brief, "--out", str(path), *arguments])
    return json.loads(path.read_text())


def test_a_report_says_where_when_and_how_fast(bench, tmp_path, capsys):
    report = run(bench, tmp_path, "--quick", "--only", "lenet", "--parts", "cases")
    assert {"date", "processor", "threads", "versions"} <= set(report["machine"])
    assert [row["victims"] for row in report["cases"]] == [1, 128]
    for row in report["cases"]:
        assert row["ours_ms"] > 0
        share = row["gflops"] / row["matmul_gflops"]
        assert row["of_matmul"] == pytest.approx(share)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("lenet") for line in lines) == 2


def test_scaling_compares_each_number_of_victims_with_the_one_before(
    bench, tmp_path, monkeypatch
):
    monkeypatch.setattr(bench, "SCALING", [bench.Case("lenet", v) for v in (1, 2, 4)])
    rows = run(bench, tmp_path, "--parts", "scaling")["scaling"]
    assert [row["victims"] for row in rows] == [1, 2, 4]
    assert rows[0]["growth"] is None and all(row["growth"] > 0 for row in rows[1:])


def test_memory_is_that_of_a_process_of_its_own(bench, tmp_path, monkeypatch):
    small = [(bench.Case("lenet", 2), 3.0)]
    monkeypatch.setattr(bench, "MEMORY", small)
    ballast = torch.ones(2**28)  # a gigabyte here, which the child must not count
    (row,) = run(bench, tmp_path, "--parts", "memory")["memory"]
    assert 0.05 < row["imports_gb"] <= row["peak_gb"] < ballast.nbytes / 1e9


def test_a_case_behind_noise_has_a_dense_target(bench):
    from cases import make_scene

    noisy = make_scene(bench.Case("smlp", 2, noise=0.1), size=8)
    plain = make_scene(bench.Case("smlp", 2), size=8)
    name = "features.hidden2.weight"
    assert isinstance(noisy.seen.shared[name], torch.Tensor)
    assert not isinstance(plain.seen.shared[name], torch.Tensor)


def test_flops_of_products_and_of_grouped_convolutions_are_counted_by_hand(measure):
    weight, x = torch.rand(5, 7), torch.rand(3, 7)
    assert measure.count_flops(lambda: F.linear(x, weight)) == 2 * 3 * 5 * 7
    conv = nn.Conv2d(4, 6, 3, groups=2)
    maps = torch.rand(2, 4, 8, 8, requires_grad=True)
    once = 2 * (2 * 6 * 6 * 6) * (2 * 3 * 3)  # outputs, products for each
    assert measure.count_flops(lambda: conv(maps)) == once

    def both_ways():
        conv(maps).sum().backward()

    assert measure.count_flops(both_ways) == 3 * once


def test_jobs_take_turns(measure):
    calls = []
    clock = SimpleNamespace(
        repeats=lambda job, seconds: 1, seconds=lambda job, repeats: job() or 1.0
    )
    jobs = [lambda: calls.append("a"), lambda: calls.append("b")]
    table = measure.interleave(jobs, clock, rounds=3, seconds=1)
    assert calls == ["a", "b"] * 3
    assert table == [[1.0] * 3] * 2


def test_a_ratio_is_the_median_of_the_rounds(measure):
    assert measure.ratio([10, 20, 90], [1, 10, 10]) == 9


def test_a_peer_with_another_objective_is_refused(bench, monkeypatch):
    from cases import make_scene

    class Stranger:
        def __init__(self, scene):
            pass

        def run(self, iterations):
            return [0.5] * iterations

    monkeypatch.setitem(sys.modules, "peer", SimpleNamespace(Peer=Stranger))
    with pytest.raises(RuntimeError, match="minimise different things"):
        bench.agreeing_peer(make_scene(bench.Case("lenet", 1), size=8))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["smlp", "lenet"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_breaching_minimises_what_we_minimise(bench, model):
    pytest.importorskip("breaching")
    from cases import make_scene

    peer = bench.agreeing_peer(make_scene(bench.Case(model, 2), size=16))
    assert len(peer.run(4)) == 4


# --- the script of the README -------------------------------------------------------


def test_the_readme_shows_the_script_as_it_is():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Attack 16 photographs in your terminal")[1]
    shown = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)[1]
    assert shown == SCRIPT.read_text(encoding="utf-8")
    body = [line for line in shown.splitlines() if line and "import " not in line]
    assert len(body) <= 20


@pytest.mark.slow
def test_the_script_shows_originals_recovered_and_behind_precode(tmp_path):
    command = [sys.executable, str(SCRIPT), "120"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    sheet = Image.open(tmp_path / "attacked.png").resize((16 * 32, 3 * 32), resample=0)
    pixels = torch.tensor(list(sheet.tobytes())).view(3, 32, -1).double() / 255
    original, found, defended = pixels
    assert (found - original).square().mean() < 0.02
    assert (defended - original).square().mean() > 0.1


class Paced:
    """A version of the library whose turns take these seconds, one after the other."""

    def __init__(self, log, name, *paces):
        self.log, self.name, self.paces = log, name, iter(paces)

    def seconds(self, job, repeats):
        self.log.append((self.name, repeats))
        return next(self.paces)


def test_two_versions_take_turns_and_their_ratio_is_that_of_each_round(versions):
    log = []
    before = Paced(log, "before", 9, 0.1, 0.1, 0.2, 0.4, 0.1)
    after = Paced(log, "after", 9, 0.2, 0.2, 0.4, 0.3)
    row = versions.compare("a job", [before, after], rounds=4, seconds=0.3)
    assert row["ratio"] == pytest.approx(1.5)  # of 2, 1, 1 and 3
    assert row["ms"] == pytest.approx([150, 250])
    turns = [name for name, _ in log[3:]]
    assert turns == ["before", "after", "after", "before"] * 2
    assert {repeats for _, repeats in log[3:]} == {3}  # 0.3 seconds are a turn
    assert "1.500" in versions.as_line(row)


def test_a_version_beside_itself_is_run_in_processes_of_its_own(versions, capfd):
    job = "step, lenet, 1"
    brief = ["--jobs", job, "--rounds", "2", "--seconds", "0.001"]
    versions.main([str(ROOT), *brief])
    (line,) = (x for x in capfd.readouterr().out.splitlines() if x.startswith(job))
    before, after, ratio = map(float, line[28:].split()[:3])
    assert before > 0 and after > 0 and ratio > 0


def test_a_folder_without_the_library_is_refused(versions, tmp_path, capfd):
    with pytest.raises(RuntimeError, match="was asked for"):
        versions.Worker(tmp_path)
