"""Folders and groups of graders that were killed go; a living one's stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from precode_lib.grading import crowds, places

LENDS = """
import sys, time
from precode_lib.grading import places
with places.folders() as (meeting, scratch):
    print(meeting.parent, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def killed():
    """A folder of a grader that was killed in the middle."""
    with subprocess.Popen([sys.executable, "-c", LENDS], stdout=-1) as grader:
        folder = Path(grader.stdout.readline().decode().strip())
        assert folder.is_dir()
        yield folder, grader
        grader.kill()
    if folder.exists():
        (folder / "meeting").rmdir(), (folder / "scratch").rmdir(), folder.rmdir()


def make_old(folder):
    os.utime(folder, (1, 1))


def test_what_a_dead_grader_left_is_cleared_away_by_the_next(killed):
    folder, grader = killed
    make_old(folder)
    places.clear_left_over()
    assert folder.is_dir()  # it lives
    os.kill(grader.pid, signal.SIGKILL)
    grader.wait()
    with places.folder() as ours:
        assert not folder.exists()
        assert ours.is_dir()
    assert not ours.exists()


def test_what_was_made_just_now_stays(killed):
    # Its grader may not have had the time to say that it lives.
    folder, grader = killed
    grader.kill()
    grader.wait()
    places.clear_left_over()
    assert folder.is_dir()


def test_a_folder_that_goes_meanwhile_disturbs_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_where", lambda: str(tmp_path))
    (tmp_path / "precode-box-abcdefgh").mkdir()
    with os.scandir(tmp_path) as entries:
        (entry,) = entries
    (tmp_path / "precode-box-abcdefgh").rmdir()
    assert not places._is_ours(entry)
    places.clear_left_over()


def test_other_folders_and_links_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_where", lambda: str(tmp_path))
    (tmp_path / "real").mkdir()
    names = ["precode-abcdefgh", "precode-box-abc", "precode-box-abcdefghi"]
    for name in names:
        (tmp_path / name).mkdir()
        make_old(tmp_path / name)
    (tmp_path / "precode-box-abcdefgh").symlink_to(tmp_path / "real")
    (tmp_path / "precode-box-12345678").write_text("")
    before = {*tmp_path.iterdir()}
    places.clear_left_over()
    assert {*tmp_path.iterdir()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give folders away")
def test_another_user_s_folder_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_where", lambda: str(tmp_path))
    for number, user in enumerate((1234, places.USERS[5], 0)):
        folder = tmp_path / f"precode-box-{number:08}"
        folder.mkdir()
        os.chown(folder, user, user)
        make_old(folder)
    places.clear_left_over()
    assert [path.name for path in tmp_path.iterdir()] == ["precode-box-00000000"]


def test_groups_of_dead_graders_go_and_those_of_living_ones_stay(tmp_path, monkeypatch):
    # Any folder is a group here: what counts is who holds it, and its age.
    places_ = {"pids": [tmp_path]}
    monkeypatch.setattr(crowds, "_places", lambda: places_)
    for name in ("dead", "alive", "new"):
        (tmp_path / f"precode-box-{name}").mkdir()
    (tmp_path / "another").mkdir()
    for name in ("precode-box-dead", "precode-box-alive", "another"):
        make_old(tmp_path / name)
    lock = crowds.hold(tmp_path / "precode-box-alive")
    crowds.clear_left_over()
    os.close(lock)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"precode-box-alive", "precode-box-new", "another"}
