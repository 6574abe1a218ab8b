"""Results on disk: whole at any moment, whoever writes and whoever is killed."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_cells import ATTACK, EVERY_KIND, TRAINED, raised

import precode_lib
from precode_lib.experiments import Finished, Store, find, reproduce
from precode_lib.experiments.cells import key_of
from precode_lib.experiments.store import (
    BusyError,
    claimed,
    commit,
    made,
    rounded,
    shipped,
)

MADE = {"date": "2026-01-02", "processor_seconds": 1.5}
HERE = Path(__file__).parent


def finished(cell=ATTACK, key="a-key", **result):
    return Finished(cell, result or {"ssim": [0.5, 0.25]}, [{"name": "x"}], MADE, key)


def run_python(code, **options):
    path = os.pathsep.join([str(HERE), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True, **options
    )


@pytest.mark.parametrize("cell", EVERY_KIND.values(), ids=EVERY_KIND)
def test_what_is_written_is_read_again(cell, store):
    store.write(finished(cell))
    assert store.read("a-key") == finished(cell)
    assert [*store] == [finished(cell)]
    assert store.read("another") is None


def test_a_folder_that_is_not_there_holds_nothing(store):
    assert [*store] == []
    assert store.read("a-key") is None
    assert not store.folder.exists()


def test_files_are_json_with_a_line_per_field(store):
    store.write(finished(TRAINED))
    text = store.file("a-key").read_text()
    assert json.loads(text)["cell"]["epoch"] == 2
    assert '\n  "ssim": [0.5, 0.25]\n' in text
    assert max(map(len, text.splitlines())) < 400


@pytest.mark.parametrize(
    "content",
    ["", "{", '{"cell": {}}', "[]", "[1, 2]", '"text"', "null", b"\xff\xfe"],
)
def test_a_damaged_file_is_named_with_what_to_do(content, store):
    store.write(finished())
    damaged = store.file("broken")
    damaged.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"broken.json is not a result.*run again"):
        list(store)
    with pytest.raises(ValueError, match="broken.json"):
        store.read("broken")


def test_cells_of_another_version_of_the_library_are_named(store):
    store.write(finished())
    file = store.file("a-key")
    file.write_text(file.read_text().replace('"patience"', '"stubbornness"'))
    with pytest.raises(ValueError, match=r"a-key.json.*\['stubbornness'\]"):
        list(store)


def test_other_files_and_unfinished_ones_are_no_results(store):
    store.write(finished())
    (store.folder / "table1-lite.csv").write_text("table,scale\n")
    (store.folder / "notes.txt").write_text("{")
    (store.folder / ".partial-0123.json").write_text('{"cell": {"ki')  # a dead writer's
    assert [*store] == [finished()]


def test_results_of_an_earlier_version_no_longer_count(store, monkeypatch):
    store.write(finished())
    raised(monkeypatch, "attack", 2)
    assert [*store] == []
    store.write(replace(finished(key="new"), version=2))
    assert [each.key for each in store] == ["new"]


def test_attacks_on_an_earlier_version_s_training_no_longer_count(store, monkeypatch):
    store.write(finished(TRAINED))
    store.write(finished(key="untrained"))
    raised(monkeypatch, "training", 2)
    assert [each.key for each in store] == ["untrained"]


def test_a_file_that_says_no_version_is_of_the_first(store):
    store.write(finished())
    file = store.file("a-key")
    entry = json.loads(file.read_text())
    del entry["version"]
    file.write_text(json.dumps(entry))
    assert [*store] == [finished()]


def test_a_failed_write_leaves_what_was_there_and_no_litter(store):
    store.write(finished())
    with pytest.raises(TypeError):
        store.write(finished(ssim={1, 2}))
    assert store.read("a-key") == finished()
    assert [file.name for file in store.folder.iterdir()] == ["a-key.json"]


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(store):
    code = f"""
from test_store import finished, Store
store = Store({str(store.folder)!r})
store.write(finished(number=0))
print("ready", flush=True)
for number in range(1, 10**9):
    store.write(finished(number=number, filler=list(range(20_000))))
"""
    process = run_python(code, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    seen = [store.read("a-key").result["number"] for _ in range(5)]
    assert seen == sorted(seen)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (left,) = store
    assert left.result["number"] >= seen[-1]


def test_a_claim_keeps_others_out_until_it_is_given_back(tmp_path):
    with claimed(tmp_path, "cell"):
        taken = pytest.raises(BusyError, match="cell is being run by another")
        with taken, claimed(tmp_path, "cell"):
            pass
        with claimed(tmp_path, "another"):
            pass
    with pytest.raises(ZeroDivisionError), claimed(tmp_path, "cell"):
        raise ZeroDivisionError
    with claimed(tmp_path, "cell"):
        pass


def other_process(folder, seconds):
    """Another process that claims the cell and dies after some time."""
    # Without the library, whose import takes seconds.
    code = (
        "import filelock, time\n"
        f"with filelock.FileLock({str(folder / 'cell.lock')!r}):\n"
        "    print('mine', flush=True)\n"
        f"    time.sleep({seconds})"
    )
    process = run_python(code, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "mine\n"
    process.stdout.close()
    return process


def test_a_killed_process_gives_its_claim_back(tmp_path):
    process = other_process(tmp_path, 60)
    with pytest.raises(BusyError), claimed(tmp_path, "cell"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with claimed(tmp_path, "cell"):
        pass


def test_who_waits_gets_the_claim_when_it_is_free(tmp_path):
    process = other_process(tmp_path, 0.3)
    with claimed(tmp_path, "cell", patience=60):
        pass
    process.wait()


def test_floats_are_rounded_wherever_they_are():
    value = {"a": [1 / 3, {"b": (2 / 3, 1e-9 / 7)}], "n": 10**9 + 1, "t": "0.33333333"}
    rounded_value = rounded(value)
    assert rounded_value == {
        "a": [0.333333, {"b": [0.666667, 1.42857e-10]}],
        "n": 10**9 + 1,
        "t": "0.33333333",
    }
    assert math.isnan(rounded(math.nan))
    assert rounded(math.inf) == math.inf
    assert rounded(True) is True


def test_provenance_says_with_what_and_when():
    how = made(torch.device("cpu"), 1.23456)
    assert how["torch"] == torch.__version__
    assert how["device"].startswith("cpu: ")
    assert how["processor_seconds"] == 1.235
    assert len(how["date"]) == len("2026-01-02")
    later = made(torch.device("cpu"), 1.234)
    assert (later["date"], later["time"]) > (how["date"], how["time"])


def test_a_file_says_what_its_values_are_and_on_which_pictures(store):
    one = finished(ssim=[0.5], objective=[0.1], mine=[1])
    pictures = [{"name": "x", "indices": [3, 1]}]
    store.write(replace(one, pictures=pictures, data="0f"))
    entry = json.loads(store.file("a-key").read_text())
    assert [*entry["units"]] == ["setup.beta", "ssim", "objective"]
    assert entry["units"]["objective"].endswith("one per gradient")
    assert entry["pictures"][0]["indices"] == [3, 1]
    assert store.read("a-key").data == entry["data"] == "0f"


@pytest.mark.parametrize("cell", EVERY_KIND.values(), ids=EVERY_KIND)
def test_every_value_of_the_library_s_own_cells_has_its_unit(cell, lab, store):
    cells = [cell] if cell.training is None else [cell.training, cell]
    assert {e.state for e in reproduce(cells, store, lab)} == {"", "finished"}
    kept = find([cell], store)[cell]
    entry = json.loads(store.file(kept.key).read_text())
    assert entry["units"].keys() - {"setup.beta"} == entry["result"].keys()


def test_the_name_of_a_new_file_follows_from_what_is_in_it(lab, store):
    cells = [TRAINED.training, TRAINED]
    assert {e.state for e in reproduce(cells, store, lab)} == {"", "finished"}
    for kept in store:
        assert key_of(kept.cell, kept.data) == kept.key


def test_seeds_on_pictures_with_another_checksum_are_not_mixed(store):
    def seed(number, data, day):
        cell = replace(ATTACK, setup=replace(ATTACK.setup, seed=number))
        made = {**MADE, "date": f"2026-01-0{day}"}
        pictures = [{"name": "x", "indices": [0]}] if data else [{"name": "x"}]
        store.write(Finished(cell, {}, pictures, made, f"key{number}", data=data))

    seed(0, "", 1)  # an early file, which says neither
    seed(1, "aa", 2)
    seed(2, "bb", 3)
    cells = [each.cell for each in store]
    assert {found.key for found in find(cells, store).values()} == {"key0", "key2"}


# --- which code it was ----------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, in which the library seems to lie."""
    folder = tmp_path / "clone"
    (folder / "precode_lib").mkdir(parents=True)
    for name in ("pyproject.toml", "precode_lib/__init__.py"):
        (folder / name).write_text("")
    monkeypatch.setattr(
        precode_lib, "__file__", str(folder / "precode_lib" / "__init__.py")
    )
    commit.cache_clear()
    yield folder
    commit.cache_clear()


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@y"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def committed(folder) -> str:
    for arguments in (["init"], ["add", "."], ["commit", "-m", "one"]):
        git(folder, *arguments)
    return git(folder, "rev-parse", "HEAD").strip()


def test_a_result_says_the_commit_of_its_code(checkout):
    head = committed(checkout)
    (checkout / "data").mkdir()
    (checkout / "data" / "new.csv").write_text("")  # results are no change of the code
    assert made(torch.device("cpu"), 1.0)["commit"] == head


def test_a_result_says_that_the_code_was_changed_since_its_commit(checkout):
    head = committed(checkout)
    (checkout / "precode_lib" / "mine.py").write_text("")
    assert commit() == f"{head} with changes"


def test_without_git_a_result_says_the_version(checkout, monkeypatch):
    assert commit() == f"precode_lib {precode_lib.__version__}"
    committed(checkout)
    commit.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert commit() == f"precode_lib {precode_lib.__version__}"


def test_a_library_inside_another_repository_does_not_take_its_commit(checkout):
    committed(checkout)
    (checkout / "pyproject.toml").unlink()  # as in a virtual environment
    assert commit() == f"precode_lib {precode_lib.__version__}"


def test_what_came_with_the_repository_is_what_git_knows(checkout):
    folder = checkout / "data" / "results" / "lite"
    theirs = Store(folder)
    theirs.write(finished(key="theirs"))
    assert shipped(folder) == {"theirs"}  # a downloaded archive
    committed(checkout)
    theirs.write(finished(key="mine"))
    assert shipped(folder) == {"theirs"}
    own = Store(checkout.parent / "own" / "lite")
    own.write(finished(key="mine"))
    assert shipped(own.folder) == set()


def test_a_store_may_be_named_by_a_string(tmp_path):
    assert Store(str(tmp_path)).folder == tmp_path
