"""The command line: what it prints, what it runs, and how it ends."""

import csv
import errno
import io
import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import precode_lib
from precode_lib import cli, data, experiments
from precode_lib.experiments import (
    SCALES,
    TABLES,
    Gallery,
    Progress,
    Store,
    device_named,
    queue,
)

SETTINGS = ("--quiet",)


@pytest.fixture(scope="module")
def photographs():
    return data.photos()


@pytest.fixture
def folders(tmp_path, monkeypatch, photographs):
    """Options that keep everything in a folder of this test."""
    monkeypatch.setattr(data, "photos", lambda: photographs)  # cut once, not each time
    monkeypatch.setenv("PRECODE_DATA", str(tmp_path / "cache"))
    return ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]


@pytest.fixture
def instant(monkeypatch):
    """Cells take no time; the list of what was run."""
    ran = []

    def run(cell, lab, key, *, marks=()):
        ran.append(cell)
        yield Progress(1, 1)
        paper = {"mse": 1.0, "psnr": 2.0, "ssim": 0.5, "asr": 0.25}
        accuracies = {"train_accuracy": [0.5], "test_accuracy": [0.25]}
        searches = {"iterations": [3, 4], "outcomes": ["plateau"] * 2}
        result = {"last": {"paper": paper}, "ssim": [0.5, 0.4], **searches}
        losses = {"train_loss": [2.0], "test_loss": [2.0]}
        return {**accuracies, **losses} if cell.kind == "training" else result

    monkeypatch.setattr(queue, "run", run)
    return ran


def reproduce(*arguments):
    return cli.main(["reproduce", *arguments, *SETTINGS])


def test_a_table_is_run_printed_and_written(folders, tmp_path, instant, capsys):
    assert reproduce("table4", *folders) == cli.OK
    out, err = capsys.readouterr()
    assert out.startswith(f"\ntable4 (smoke): {TABLES['table4'].title}\n")
    assert "0 finished, 8 to run, about" in err
    assert len(instant) == 8
    written = (tmp_path / "results" / "table4-smoke.csv").read_text().splitlines()
    assert len(written) == 1 + 8 * 4
    assert len(list((tmp_path / "results" / "smoke").glob("*.json"))) == 8


def test_the_second_time_nothing_is_run(folders, instant, capsys):
    reproduce("table4", *folders)
    assert reproduce("table4", *folders) == cli.OK
    assert len(instant) == 8
    assert "8 cells, 8 finished, 0 to run.\n" in capsys.readouterr().err


def test_json_is_all_that_stands_on_stdout(folders, instant, capsys):
    assert reproduce("table4", "--json", *folders) == cli.OK
    records = json.loads(capsys.readouterr().out)
    assert len(records) == 32
    assert records[0]["ours"] == 1.0
    assert cli.main(["results", "table4", "--json", *folders[:2]]) == cli.OK
    assert json.loads(capsys.readouterr().out) == records


def test_a_dry_run_says_the_cost_and_runs_nothing(folders, tmp_path, instant, capsys):
    # It needs no data either.
    assert reproduce("all", "--scale", "paper", "--dry-run", *folders) == cli.OK
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("all at scale paper: ")
    assert err.rstrip().endswith("hours of one core.")
    assert instant == []
    assert not (tmp_path / "results").exists()


def test_trainings_that_have_to_come_first_are_announced(folders, capsys):
    reproduce("fig7", "--dry-run", *folders)
    assert "12 to run after 4 trainings, about" in capsys.readouterr().err


def test_only_the_asked_seeds_are_run_and_all_are_written(
    folders, tmp_path, instant, capsys, monkeypatch
):
    three = replace(SCALES["smoke"], seeds=(0, 1, 2))
    monkeypatch.setitem(SCALES, "smoke", three)
    assert reproduce("table4", "--seeds", "1,2,1", *folders) == cli.OK
    assert {cell.setup.seed for cell in instant} == {1, 2}
    assert len(instant) == 16
    assert " 2/2\n" in capsys.readouterr().out
    with open(tmp_path / "results" / "table4-smoke.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 32
    for line in lines:
        assert (line["seeds"], line["of_seeds"]) == ("2", "3")
        assert len(line["cells"].split()) == 2


def test_missing_data_is_named_once_with_how_to_get_it(folders, capsys):
    assert reproduce("table3a", "--scale", "lite", *folders) == cli.INCOMPLETE
    out, err = capsys.readouterr()
    assert err.count("CIFAR-100 is not here") == 1
    assert "and 47 more: CIFAR-100" in err
    assert "cifar100(download=True)" in err
    assert "--data FOLDER" in err
    assert "not run" in out


def test_a_folder_of_data_reaches_the_lab(folders, tmp_path, monkeypatch):
    seen = []
    original = Gallery.path_of

    def path_of(self, name):
        seen.append((self.data, name))
        return original(self, name)

    monkeypatch.setattr(Gallery, "path_of", path_of)
    reproduce("table3a", "--scale", "lite", "--data", str(tmp_path), *folders)
    assert set(seen) == {(tmp_path, "cifar100")}


def test_failures_are_told_and_exit_with_1(folders, monkeypatch, capsys):
    def run(cell, lab, key, *, marks=()):
        raise RuntimeError("out of memory")
        yield

    monkeypatch.setattr(queue, "run", run)
    assert reproduce("table4", *folders) == cli.INCOMPLETE
    err = capsys.readouterr().err
    assert "and 7 more: RuntimeError: out of memory" in err


def test_ctrl_c_exits_with_3_and_keeps_what_was_finished(
    folders, tmp_path, instant, monkeypatch, capsys
):
    done = queue.run

    def run(cell, lab, key, *, marks=()):
        if len(instant) == 3:
            raise KeyboardInterrupt
        return (yield from done(cell, lab, key, marks=marks))

    monkeypatch.setattr(queue, "run", run)
    assert reproduce("table4", *folders) == cli.STOPPED
    assert "the same command goes on from here" in capsys.readouterr().err
    assert len([*Store(tmp_path / "results" / "smoke")]) == 3
    monkeypatch.setattr(queue, "run", done)
    assert reproduce("table4", *folders) == cli.OK
    assert len(instant) == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table9"], "invalid choice: 'table9'"),
        (["table1", "--scale", "huge"], "invalid choice: 'huge'"),
        (["table1", "--seeds", "one"], "such as 0,1,2; got 'one'"),
        (["table1", "--seeds", "-1"], "such as 0,1,2; got '-1'"),
        (["table1", "--workers", "0"], "a number from 1 on is wanted, got '0'"),
        ([], "TABLE"),
    ],
)
def test_what_is_not_understood_exits_with_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["reproduce", *arguments])
    assert end.value.code == cli.MISUSED
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "toaster"], "--device toaster cannot be used here"),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used here"),
        (["--data", "/no/such/folder"], "/no/such/folder, which is no folder"),
    ],
)
def test_what_is_not_there_exits_with_2(arguments, words, folders, instant, capsys):
    assert reproduce("table4", *arguments, *folders) == cli.MISUSED
    err = capsys.readouterr().err
    assert err.startswith("precode: ")
    assert words in err
    assert instant == []


@pytest.mark.parametrize("option", ["--results", "--work"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_run(
    option, folders, tmp_path, instant, capsys
):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for folder in (taken, taken / "below"):
        assert reproduce("table4", *folders, option, str(folder)) == cli.MISUSED
        err = capsys.readouterr().err
        assert f"precode: {option} {folder} cannot be written to" in err
    assert instant == []


def test_a_dry_run_makes_no_folder(folders, tmp_path):
    assert reproduce("table4", "--dry-run", *folders) == cli.OK
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "work").exists()


def test_where_the_results_are_is_said(folders, tmp_path, instant, capsys):
    reproduce("table4", *folders)
    assert f"in {tmp_path / 'results' / 'smoke'}" in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_named(
    folders, monkeypatch, instant, capsys
):
    distributed = pytest.importorskip("distributed")

    def nobody(address, **options):
        raise OSError(f"Timed out trying to connect to {address} after 30 s")

    monkeypatch.setattr(distributed, "Client", nobody)
    options = ["--scheduler", "tcp://nobody:1", *folders]
    assert reproduce("table4", *options) == cli.MISUSED
    assert "no scheduler at tcp://nobody:1: Timed out" in capsys.readouterr().err


def test_a_scheduler_without_workers_is_told(folders, monkeypatch, instant, capsys):
    distributed = pytest.importorskip("distributed")

    class Idle(nullcontext):
        def scheduler_info(self):
            return {"workers": {}}

    monkeypatch.setattr(distributed, "Client", lambda address, **_: Idle())
    monkeypatch.setattr(experiments, "run_on", lambda *_: [])
    reproduce("table4", "--scheduler", "tcp://host:8786", *folders)
    assert "No workers are there yet" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["nonsense", "tcp://host", "http://host:8786"])
def test_what_is_no_address_of_a_scheduler_is_refused_at_once(
    address, folders, monkeypatch, instant, capsys
):
    distributed = pytest.importorskip("distributed")

    def hangs(address, **options):
        raise AssertionError("a client would now wait for a minute")

    monkeypatch.setattr(distributed, "Client", hangs)
    assert reproduce("table4", "--scheduler", address, *folders) == cli.MISUSED
    assert "--scheduler wants an address such as tcp" in capsys.readouterr().err


def test_a_full_disk_is_told_in_words_with_what_failed_for_it(
    folders, monkeypatch, capsys
):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    monkeypatch.setattr(cli, "write_tables", full)
    monkeypatch.setattr(queue, "run", lambda *_, **__: iter(()))
    assert reproduce("table4", *folders) == cli.MISUSED
    err = capsys.readouterr().err
    assert "and 7 more: OSError: [Errno" in err
    assert err.endswith("] No space left on device\n")


def test_ctrl_c_while_torch_is_imported_is_no_traceback(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_parser", interrupted)
    assert cli.main(["results"]) == cli.STOPPED
    assert "Stopped." in capsys.readouterr().err


def test_a_device_of_other_machines_is_not_tried_here():
    assert str(device_named("cuda:99", is_here=False)) == "cuda:99"


def test_a_damaged_result_is_named_and_exits_with_2(folders, tmp_path, capsys):
    (tmp_path / "results" / "smoke").mkdir(parents=True)
    (tmp_path / "results" / "smoke" / "broken.json").write_text("{")
    for command in (["reproduce", "table4", *folders], ["results", *folders[:2]]):
        assert cli.main(command) == cli.MISUSED
        assert "broken.json is not a result" in capsys.readouterr().err


def test_a_folder_of_results_that_is_none_exits_with_2(tmp_path, capsys):
    file = tmp_path / "taken"
    file.write_text("a file")
    for folder in (tmp_path / "misspelt", file):
        assert cli.main(["results", "--results", str(folder)]) == cli.MISUSED
        assert f"names {folder}, which is no folder" in capsys.readouterr().err


def test_results_of_an_empty_folder_are_none(folders, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    assert cli.main(["results", *folders[:2]]) == cli.OK
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines()] == [
        *["paper", "lite", "smoke"]
    ]
    assert out.count("0 of ") == 3
    assert cli.main(["results", "--json", *folders[:2]]) == cli.OK
    assert json.loads(capsys.readouterr().out) == []
    assert not list((tmp_path / "results").iterdir())


def test_csv_is_printed_as_it_is_kept(folders, tmp_path, instant, capsys):
    reproduce("table4", *folders, "--csv")
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "results" / "table4-smoke.csv").read_text()
    command = ["results", "table4", "--scale", "smoke", *folders[:2]]
    assert cli.main([*command, "--csv"]) == cli.OK
    assert capsys.readouterr().out == printed
    with pytest.raises(SystemExit):
        cli.main([*command, "--csv", "--json"])


def test_every_cell_and_every_victim_is_a_row_on_demand(
    folders, tmp_path, instant, capsys
):
    reproduce("table4", *folders)
    reproduce("table1", *folders)
    capsys.readouterr()
    command = ["results", "table4", "--scale", "smoke", *folders[:2]]
    assert cli.main([*command, "--cells"]) == cli.OK
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    files = (tmp_path / "results" / "smoke").glob("*.json")
    wanted = {file.stem for file in files if "cpl" in file.read_text()}
    assert {row["key"] for row in rows} == wanted
    assert {row["tables"] for row in rows} == {"table4"}
    assert cli.main([*command, "--victims"]) == cli.OK
    victims = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [v["ssim"] for v in victims if v["key"] == rows[0]["key"]] == ["0.5", "0.4"]


def test_sheets_of_all_cells_are_written_with_the_tables(
    folders, tmp_path, instant, capsys, monkeypatch
):
    real = replace(SCALES["smoke"], name="lite")  # pictures are those of smoke
    monkeypatch.setitem(SCALES, "lite", real)
    reproduce("table4", *folders)
    assert not (tmp_path / "results" / "cells.csv").exists()  # they mean nothing
    reproduce("table4", "--scale", "lite", *folders)
    capsys.readouterr()
    for name in ("cells", "victims"):
        assert cli.main(["results", *folders[:2], f"--{name}"]) == cli.OK
        written = (tmp_path / "results" / f"{name}.csv").read_text()
        assert capsys.readouterr().out == written
        assert len(written.splitlines()) == 1 + {"cells": 8, "victims": 16}[name]
    sheet = tmp_path / "results" / "cells.csv"
    sheet.write_text("not written anew")
    reproduce("table4", *folders)
    assert sheet.read_text() == "not written anew"


# --- cells that came with the repository ----------------------------------------------


@pytest.fixture
def clone(tmp_path, monkeypatch, folders, instant):
    """A repository in which table4 lies finished; its folder of results."""
    results = tmp_path / "clone" / "data" / "results"
    (tmp_path / "clone" / "pyproject.toml").parent.mkdir()
    (tmp_path / "clone" / "pyproject.toml").write_text("")
    reproduce("table4", "--results", str(results), *folders[2:])
    instant.clear()
    library = tmp_path / "clone" / "precode_lib" / "__init__.py"
    monkeypatch.setattr(precode_lib, "__file__", str(library))
    return results


def as_it_is(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_cells_that_came_with_the_repository_are_told_in_a_line(
    clone, folders, instant, capsys
):
    capsys.readouterr()
    assert reproduce("table4", *folders[2:]) == cli.OK
    err = capsys.readouterr().err
    (line,) = (line for line in err.splitlines() if "came with" in line)
    dates = {finished.made["date"] for finished in Store(clone / "smoke")}
    assert line.startswith(
        f"These 8 cells came with the repository (dated {min(dates)}"
    )
    assert line.endswith("run them anew with --fresh.")
    assert instant == []


def test_cells_of_one_s_own_folder_did_not_come_with_the_repository(
    clone, folders, capsys
):
    reproduce("table4", *folders)
    capsys.readouterr()
    reproduce("table4", *folders)
    err = capsys.readouterr().err
    assert "8 finished" in err and "came with" not in err


def test_fresh_runs_anew_and_leaves_what_came_as_it_was(
    clone, folders, tmp_path, instant, capsys
):
    before = as_it_is(clone)
    assert reproduce("table4", "--fresh", *folders[2:]) == cli.OK
    out, err = capsys.readouterr()
    assert len(instant) == 8
    fresh = tmp_path / "work" / "fresh"
    assert f"kept in {fresh / 'smoke'}" in err and "came with" not in err
    assert out.count(" 1/1") == 32
    assert (fresh / "table4-smoke.csv").exists()
    assert len(before) == 8 + 1 and as_it_is(clone) == before


def test_fresh_goes_on_where_it_was_stopped(clone, folders, instant, capsys):
    for _ in range(2):
        assert reproduce("table4", "--fresh", *folders[2:]) == cli.OK
    assert len(instant) == 8
    assert "8 cells, 8 finished, 0 to run" in capsys.readouterr().err


def test_fresh_keeps_results_in_a_folder_of_one_s_choice(
    clone, folders, tmp_path, instant
):
    before = as_it_is(clone)
    assert reproduce("table4", "--fresh", *folders) == cli.OK
    assert len([*Store(tmp_path / "results" / "smoke")]) == len(instant) == 8
    assert as_it_is(clone) == before


def test_fresh_refuses_the_folder_that_it_must_not_touch(
    clone, folders, instant, capsys
):
    by_another_way = clone / ".." / "results"
    arguments = ["--fresh", "--results", str(by_another_way), *folders[2:]]
    assert reproduce("table4", *arguments) == cli.MISUSED
    assert "name another folder with --results, or none" in capsys.readouterr().err
    assert instant == []


def test_a_dry_run_of_fresh_says_the_whole_cost_and_makes_nothing(
    clone, folders, tmp_path, instant, capsys
):
    reproduce("table4", "--fresh", "--dry-run", *folders[2:])
    assert "0 finished, 8 to run, about" in capsys.readouterr().err
    assert not (tmp_path / "work" / "fresh").exists()
    assert instant == []


def test_a_smoke_test_says_that_its_numbers_mean_nothing(folders, instant, capsys):
    reproduce("table4", *folders)
    assert "on other pictures (photos)" in capsys.readouterr().out
    cli.main(["results", "table4", "--scale", "lite", *folders[:2]])
    assert "mean nothing" not in capsys.readouterr().out


def test_results_of_one_scale_show_what_is_missing(folders, instant, capsys):
    reproduce("table4", *folders)
    capsys.readouterr()
    assert cli.main(["results", "table4", "--scale", "lite", *folders[:2]]) == cli.OK
    assert capsys.readouterr().out.count("not run") == 32
    assert cli.main(["results", "table4", *folders[:2]]) == cli.OK
    out = capsys.readouterr().out
    assert "smoke: 8 of 8 cells are there." in out
    assert "not run" not in out


def test_the_bar_fits_its_line_and_reaches_its_end(
    folders, instant, monkeypatch, capsys
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    # What tqdm asks a terminal; the captured one cannot answer.
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (60, 30))
    cli.main(["reproduce", "fig7", *folders])
    drawn = capsys.readouterr().err.split("\r")
    assert max(map(len, drawn[1:])) <= 60
    assert any(line.startswith("16/16 cells |") for line in drawn)


def test_results_are_looked_for_in_the_repository():
    options = cli._parser().parse_args(["results"])
    root = Path(cli.__file__).parents[1]
    assert cli._folder(options) == root / "data" / "results"


def test_help_says_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == cli.OK
    out = " ".join(capsys.readouterr().out.split())
    assert "3 stopped" in out
    assert "precode_lib" not in out  # what it is made of is nobody's concern
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "default smoke" in out
    assert str(Path("data") / "results") in out


def test_several_workers_without_dask_are_explained(folders, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert reproduce("table4", "--workers", "2", *folders) == cli.MISUSED
    assert "pip install 'precode-lib[cluster]'" in capsys.readouterr().err


def in_a_process(*arguments):
    """The command in a new process, which says last whether it imported torch."""
    code = (
        "import sys\n"
        "from precode_lib import cli\n"
        "try:\n"
        f"    code = cli.main({list(arguments)!r})\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "print(code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["results", "--cells"],
        ["results", "table1", "--victims"],
        ["--version"],
        ["reproduce", "--help"],
        ["grade", "--help"],
        ["results", "table1"],
        ["results", "--scale", "lite", "--csv"],
        ["results", "units", "--json"],
    ],
    ids=" ".join,
)
def test_help_and_results_come_without_torch(arguments):
    out = in_a_process(*arguments)
    assert len(out) > 20
    assert out.splitlines()[-1] == "0 False"


def test_a_command_that_runs_cells_has_torch():
    out = in_a_process("reproduce", "table4", "--dry-run")
    assert out.splitlines()[-1] == "0 True"


def test_the_command_works_without_its_docstrings():
    # `python -OO` takes them away, and with them a help that was cut out of one.
    command = [sys.executable, "-OO", "-m", "precode_lib.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 stopped" in " ".join(done.stdout.split())
