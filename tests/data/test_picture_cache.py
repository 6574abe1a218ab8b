import hashlib
from pathlib import Path

import numpy as np
import pooch
import pytest
from picture_files import files_below

from precode_lib.basics.files import atomic_file
from precode_lib.data import cache_folder
from precode_lib.data.cache import cached, sha256


def test_the_variable_names_the_cache_folder(monkeypatch):
    monkeypatch.setenv("PRECODE_DATA", "~/pictures")
    assert cache_folder() == Path.home() / "pictures"


@pytest.mark.parametrize("value", [None, ""])
def test_the_default_is_the_users_own_cache(monkeypatch, value):
    monkeypatch.delenv("PRECODE_DATA")
    if value is not None:
        monkeypatch.setenv("PRECODE_DATA", value)
    assert cache_folder() == Path(pooch.os_cache("precode"))


def test_a_finished_file_appears_whole(tmp_path):
    with atomic_file(tmp_path / "new" / "file.txt") as partial:
        partial.write_text("done")
        assert not (tmp_path / "new" / "file.txt").exists()
    assert (tmp_path / "new" / "file.txt").read_text() == "done"
    assert files_below(tmp_path / "new") == ["file.txt"]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_one_and_nothing_else(tmp_path, problem):
    file = tmp_path / "file.txt"
    file.write_text("old")
    with pytest.raises(problem), atomic_file(file) as partial:
        partial.write_text("half")
        raise problem
    assert file.read_text() == "old"
    assert files_below(tmp_path) == ["file.txt"]


def test_what_is_cached_is_built_once(cache):
    calls = []

    def build():
        calls.append(1)
        return {"a": np.arange(3), "b": np.array("text")}

    first, again = cached("key", build), cached("key", build)
    assert len(calls) == 1
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_damaged_copy_is_built_anew(cache, content):
    (cache / "decoded").mkdir(parents=True)
    (cache / "decoded" / "key.npz").write_bytes(content)
    assert cached("key", lambda: {"a": np.arange(3)})["a"].tolist() == [0, 1, 2]
    assert cached("key", lambda: {})["a"].tolist() == [0, 1, 2]


def test_pickles_in_the_cache_are_never_loaded(cache):
    (cache / "decoded").mkdir(parents=True)
    np.savez(cache / "decoded" / "key.npz", a=np.array([print], dtype=object))
    assert cached("key", lambda: {"a": np.arange(1)})["a"].tolist() == [0]


def test_a_cache_that_cannot_be_written_is_a_warning(cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="PRECODE_DATA names another folder"):
        kept = cached("key", lambda: {"a": np.arange(2)})
    assert kept["a"].tolist() == [0, 1]


def test_the_checksum_is_that_of_hashlib(tmp_path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
