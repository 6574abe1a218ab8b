"""The environments of the scripts in tools/: made once, and anew when more is asked."""

import subprocess
import sys

import pytest


@pytest.fixture
def environment(script_at):
    """`environment` of tools/environments.py."""
    return script_at("tools/environments.py").environment


@pytest.fixture
def called(monkeypatch):
    """The commands that would have been run; one of them would fail."""
    commands = []

    def run(command, *, check):
        assert check
        commands.append(" ".join(map(str, command)))
        if "venv" in command:
            command[-1].mkdir(exist_ok=True)
        if "no-such-package" in command:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_an_environment_is_made_once(environment, called, tmp_path):
    folder = tmp_path / "made"
    asked = folder, sys.executable, ["sphinx", "--editable=."]
    python = environment(*asked, torch_index=None)
    assert python == folder / "bin" / "python"
    make, install = called
    assert make == f"{sys.executable} -m venv --clear {folder}"
    assert install == f"{python} -m pip install --quiet sphinx --editable=."
    assert environment(*asked, torch_index=None) == python
    assert len(called) == 2
    environment(folder, sys.executable, ["sphinx>=9"], torch_index=None)
    assert len(called) == 4


def test_only_torch_comes_from_its_index(environment, called, tmp_path):
    packages = ["sphinx", "torch>=2.4", "torchvision"]
    environment(tmp_path / "a", "python", packages, torch_index="https://cpu")
    _, torch, install = called
    assert torch.endswith("--quiet torch>=2.4 torchvision --index-url https://cpu")
    assert install.endswith("--quiet sphinx torch>=2.4 torchvision")


def test_an_environment_that_failed_is_made_again(environment, called, tmp_path):
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            environment(tmp_path / "a", "python", ["no-such-package"], torch_index=None)
    assert len(called) == 4
