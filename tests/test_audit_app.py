"""The app to audit: the commands that are shown run as they stand, on GitHub too."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from precode_lib.cli import main

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "examples" / "audit_app"

pytestmark = pytest.mark.skipif(
    not APP.exists(), reason="the examples come with the repository"
)


def shown(page: str) -> list[list[str]]:
    """The audits of the app that a page shows, without what runs them elsewhere."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^precode (audit my_app:.*)$", text, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def on_github() -> dict:
    """The job of the worked example."""
    text = (APP / "audit.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["jobs"].values()
    return job


def audit_on_github() -> list[str]:
    runs = [step.get("run", "") for step in on_github()["steps"]]
    (command,) = (run for run in runs if run.startswith("precode "))
    return shlex.split(command)[1:]


def commands() -> list[list[str]]:
    return [*shown("README.md"), *shown("book/how_to_use.md"), audit_on_github()]


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A copy of the app, to work in; nothing of it is left for another test."""
    folder = tmp_path / "app"
    shutil.copytree(APP, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PRECODE_DATA", str(tmp_path / "cache"))
    yield folder
    sys.modules.pop("my_app", None)


def test_two_pages_show_commands():
    assert len(shown("README.md")) == 2
    assert len(shown("book/how_to_use.md")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_command_that_is_shown_runs_and_says_how_it_ended(app, arguments, capsys):
    quick = [] if "--quick" in arguments else ["--quick"]
    report = app / "asked.json"
    code = main([*arguments, *quick, "--json", str(report)])
    said = json.loads(report.read_text(encoding="utf-8"))
    assert code == said["exit_code"] in (0, 1, 2)
    assert said["sentence"] in capsys.readouterr().out
    if "--html" in arguments:
        page = app / arguments[arguments.index("--html") + 1]
        assert said["sentence"].split(":")[0] in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_command_that_is_shown_is_understood(app, arguments, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "precode_lib.audit.command._audited", lambda options: asked.append(options)
    )
    monkeypatch.setattr("precode_lib.audit.command.summary", lambda report: [])
    with pytest.raises(AttributeError):  # of the report that was not made
        main(arguments)
    (options,) = asked
    assert options.model == "my_app:make_model"
    assert options.data == "my_app:make_examples"


def test_what_the_app_names_is_there_and_fits(app):
    from precode_lib.audit import audit, loading

    model = loading.model("my_app:make_model", seed=0)
    loss = loading.function("my_app:per_example", "--loss", "(model, inputs, labels)")
    rounded = loading.named("my_app:rounded", "a defense")
    examples = loading.data("my_app:make_examples")
    assert examples.kind == "picture" and len(examples) == 8
    report = audit(model, examples, loss=loss, defense=rounded, effort=0, clients=2)
    defended, control = report.cases
    assert defended.name.endswith("rounded") and control.is_control


def test_on_github_a_leak_fails_the_job_and_the_report_is_kept_all_the_same():
    steps = on_github()["steps"]
    names = [step.get("name") or step["uses"].partition("@")[0] for step in steps]
    assert names[:2] == ["actions/checkout", "actions/setup-python"]
    audit, keep = steps[-2:]
    assert "continue-on-error" not in audit and "||" not in audit["run"]
    assert keep["if"] == "always()"
    arguments = audit_on_github()
    for option in ("--json", "--html"):
        file = Path(arguments[arguments.index(option) + 1])
        assert file.match(keep["with"]["path"])
