"""The container: what the engine is told, and that the marks are the box's.

Most of it with a program that plays the engine: it writes down what it is told, and
runs the driver itself. With a real one, where one answers.
"""

import json
import os
import sys
from pathlib import Path

import hand_ins
import pytest

from precode_lib import cli
from precode_lib.grading import containers, room, sandbox
from precode_lib.grading.limits import Limits

# The second line is a command of the shell's, and to Python a text: a first line that
# names Python itself must not have blanks in its path.
ENGINE = """#!/bin/sh
"exec" "{python}" "$0" "$@"
import json, os, subprocess, sys, tempfile
state = {state!r}
given = sys.argv[1:]
with open(state + "/log", "a") as log:
    log.write(json.dumps(given) + "\\n")
def after(word):
    return [given[i + 1] for i, one in enumerate(given) if one == word]
if given[0] == "info":
    print({rootless!r})
elif given[0] == "inspect":
    print(open(state + "/pid").read())
elif given[0] == "ps":
    print("precode-box-aaaaaaaa")
elif given[0] == "run":
    if {image!r} == "missing":
        sys.exit("no such image")
    if "--rm" in given:
        (limit,) = after("--memory")
        print({held!r}.format(limit[:-1]))
        sys.exit()
    volumes = dict(v[:-3].rsplit(":", 1)[::-1] for v in after("--volume"))
    variables = dict(v.split("=", 1) for v in after("--env"))
    home = tempfile.mkdtemp()
    for name in ("HOME", "TMPDIR"):
        variables[name] = home
    variables |= {{"IPYTHONDIR": home + "/i", "MPLCONFIGDIR": home + "/m"}}
    variables["PATH"] = os.environ["PATH"]
    variables["PYTHONPATH"] = os.path.dirname(volumes["/opt/precode/precode_lib"])
    variables["PRECODE_EXAMINER"] = volumes["/run/examiner"] + "/socket"
    command = given[given.index("{tag}") + 1 :]
    assert command[0] == "python"
    child = subprocess.Popen([sys.executable, *command[1:]], env=variables)
    with open(state + "/pid", "w") as file:
        file.write(str(child.pid))
    sys.exit(child.wait())
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Puts an engine on the path; returns what it was told."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def make(name="podman", rootless="true", image="there", held="{}\\n256"):
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        (state / "pid").write_text("0")
        text = ENGINE.format(
            python=sys.executable,
            state=str(state),
            rootless=rootless,
            image=image,
            held=held.replace("\\n", "\n"),
            tag=containers.IMAGE,
        )
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
        return state / "log"

    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(containers.shutil, "which", lambda name: which(programs, name))
    forget()
    yield make
    forget()


def which(folder, name):
    path = folder / name
    return str(path) if path.exists() else None


def forget():
    containers.engine.cache_clear()
    containers.check.cache_clear()


def told(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def option(words, name):
    return [words[i + 1] for i, word in enumerate(words) if word == name]


def test_where_no_engine_is_there_nothing_is_marked(engine):
    with pytest.raises(ValueError, match="neither `podman` nor `docker`"):
        sandbox.choose("container")


def test_an_engine_that_is_root_s_is_refused(engine):
    engine("docker", rootless="[name=seccomp,profile=builtin]")
    with pytest.raises(ValueError, match="has to be rootless"):
        sandbox.choose("container")


def test_a_rootless_docker_serves_where_there_is_no_podman(engine):
    engine("docker", rootless="[name=seccomp name=rootless]")
    assert sandbox.choose("container") == "container"
    assert containers.engine() == "docker"


def test_an_image_that_is_missing_is_built_by_the_command_that_is_said(engine):
    engine(image="missing")
    with pytest.raises(ValueError, match="podman build --tag precode-grading") as said:
        sandbox.choose("container")
    recipe = Path(sandbox.__file__).parents[2] / "tools" / "Containerfile"
    assert "--file tools/Containerfile" in str(said.value)
    assert recipe.is_file()
    assert containers.BUILD in recipe.read_text()


@pytest.mark.parametrize("held", ["max\\nmax", "99999999999999\\n256"])
def test_an_engine_that_sets_no_limits_is_refused(engine, held):
    engine(held=held)
    with pytest.raises(ValueError, match="no limits of memory"):
        sandbox.choose("container")


def test_a_container_has_no_network_no_rights_and_limits(engine, tmp_path):
    log = engine()
    meeting = tmp_path / "precode-box-12345678" / "meeting"
    meeting.mkdir(parents=True)
    (meeting / "socket").write_text("")
    limits = Limits()
    lent = {"meeting": meeting, "scratch": tmp_path, "hidden": ()}
    with sandbox.box("container", limits, **lent) as box:
        words = list(box.command)
    assert words[1:3] == ["run", "--interactive"]
    for switch in ("--read-only", "--interactive"):
        assert switch in words
    for name, value in {
        "--network": ["none"],
        "--cap-drop": ["ALL"],
        "--security-opt": ["no-new-privileges", "label=disable"],
        "--user": ["1000:1000"],
        "--pids-limit": ["256"],
        "--memory": [f"{limits.firm}b"],
        "--memory-swap": [f"{limits.firm}b"],
        "--shm-size": ["64000000b"],
        "--tmpfs": [f"/tmp:rw,nosuid,nodev,mode=1777,size={limits.scratch}"],
        "--pull": ["never"],
        "--ulimit": ["core=0", "nofile=1024:1024"],
        "--name": ["precode-box-12345678"],
    }.items():
        assert option(words, name) == value
    volumes = option(words, "--volume")
    places = {volume.split(":")[1] for volume in volumes}
    assert all(volume.endswith(":ro") for volume in volumes)
    assert places <= {
        "/run/examiner",
        "/opt/precode/precode_lib",
        "/opt/precode/precode_lib/checks",
        "/opt/precode/data/results",
    }
    assert not {"--privileged", "--cap-add", "--device", "--pid", "--ipc"} & {*words}
    variables = dict(one.split("=", 1) for one in option(words, "--env"))
    assert {*variables} == {*sandbox.environment("/", "")}
    # In the end it is gone; and so is that of a grader that was killed.
    removed = [one[2] for one in told(log) if one[0] == "rm"]
    assert removed == ["precode-box-aaaaaaaa", "precode-box-12345678"]


@pytest.mark.slow
def test_a_container_gives_the_same_marks(engine, tmp_path):
    log = engine()
    folder, names = tmp_path / "hand-ins", hand_ins.NAMES
    content = hand_ins.notebook({**hand_ins.RIGHT, **hand_ins.TYPICAL[2]})
    hand_ins.hand_in(folder, "anna", content)
    assert marks(folder) == {**dict.fromkeys(names, "right"), "closed_form": "wrong"}
    runs = [one for one in told(log) if one[0] == "run" and "--rm" not in one]
    assert len(runs) == 1
    assert told(log)[-1][:2] == ["rm", "--force"]


def marks(folder):
    graded = room.grade(
        room.Settings(
            folder=folder,
            out=folder.with_name("marks"),
            exercises=room.book_exercises(),
            kind=sandbox.choose("container"),
            limits=Limits(),
        )
    )
    (marked,) = graded.marked
    assert marked.run.memory > 50e6  # what runs in the container was seen
    return {row.exercise: row.state for row in marked.rows}


def test_the_command_says_why_there_is_no_container(engine, tmp_path, capsys):
    hand_ins.hand_in(tmp_path / "class", "anna", hand_ins.notebook())
    asked = ["grade", str(tmp_path / "class"), "--sandbox", "container", "--quiet"]
    assert cli.main(asked) == cli.MISUSED
    assert "apt-get install podman" in capsys.readouterr().err


def real_problem():
    try:
        forget()
        containers.check()
    except ValueError as problem:
        return str(problem)
    return ""


@pytest.mark.slow
def test_a_real_engine_gives_the_same_marks(tmp_path):
    if problem := real_problem():
        pytest.skip(problem)
    folder = tmp_path / "hand-ins"
    hand_ins.hand_in(folder, "anna", hand_ins.notebook())
    assert marks(folder) == dict.fromkeys(hand_ins.NAMES, "right")
    assert os.geteuid()
