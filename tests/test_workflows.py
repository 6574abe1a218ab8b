"""What runs on GitHub: workflows that are pinned, bounded, and may do little."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def text(request):
    return request.param.read_text(encoding="utf-8")


def test_there_are_workflows():
    assert {path.name for path in WORKFLOWS} >= {"book.yml", "tests.yml"}


def test_every_action_is_pinned_to_a_commit_and_says_its_version(text):
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    for action in uses:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_a_workflow_may_read_and_only_publishing_may_write(text):
    assert "\npermissions:\n  contents: read\n" in text
    assert "write-all" not in text
    writes = re.findall(r"(\S+): write", text)
    assert writes in ([], ["pages", "id-token"])


def test_every_job_has_an_end(text):
    assert text.count("runs-on:") == text.count("timeout-minutes:")


def test_nothing_a_stranger_can_write_becomes_a_command(text):
    for line in text.splitlines():
        if "${{" in line:
            assert not re.search(r"run:|title|body|head_ref|message", line)


@pytest.mark.parametrize(
    ("job", "command"),
    [
        ("elsewhere", "tools/colab_check.py"),
        ("plain", "tools/plain_sphinx.py"),
        ("mutants", "mutmut run"),
    ],
)
def test_what_takes_long_is_tried_every_week(job, command):
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    described = yaml.safe_load(text)["jobs"][job]
    assert "schedule" in described["if"]
    assert any(command in step.get("run", "") for step in described["steps"])
