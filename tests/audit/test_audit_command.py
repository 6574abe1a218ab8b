"""`precode audit` as an engineer gives it: its exit codes, files, and refusals."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from precode_lib.audit import schema as audit_schema
from precode_lib.cli import main

MODULE = """
    import torch
    from torch import nn
    from precode_lib.models import lenet, smlp

    def dense():
        return smlp((3, 8, 8), 4, width=16)

    def convolutions():
        return lenet((3, 8, 8), 4)

    def rows():
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))

    def ages():
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(6, 5, generator=generator)
        return inputs, torch.rand(6, 1, generator=generator)

    def squared(model, inputs, labels):
        return (model(inputs) - labels).square().sum(1)

    def drop(gradients):
        return gradients.map(torch.zeros_like)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a module, pictures and weights of one's own."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "audited_app.py").write_text(textwrap.dedent(MODULE))
    for number in range(6):
        place = folder / "pictures" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(place / f"{number}.png")
    return folder


@pytest.fixture
def audit(home, monkeypatch, capsys):
    """Give the command in that folder; its exit code, output, and messages."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("PRECODE_DATA", str(home / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(["audit", *map(str, arguments)])
        except SystemExit as ended:  # of the parser
            code = ended.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


SOON = ("--effort", "0")
ROOT = Path(__file__).resolve().parents[2]
WORKS = ("undisturbed", "killed")
DENSE = ("audited_app:dense", "--pictures", "pictures")


def test_a_leak_fails_the_build_and_both_files_are_there(audit, home):
    out = home / "out"
    code, printed, _ = audit(
        "audited_app:dense", "--pictures", "pictures", *SOON,
        "--json", out / "a.json", "--html", out / "a.html",
    )  # fmt: skip
    assert code == 1 and printed.startswith("LEAKS: These gradients leak: 6 of 6")
    report = json.loads((out / "a.json").read_text())
    assert report["verdict"] == "leaks" and report["exit_code"] == 1
    assert report["cases"][0]["figures"]["certified"] == 6
    page = (out / "a.html").read_text()
    assert "Audit of audited_app:dense" in page and "<script" not in page
    assert sorted(f.name for f in out.iterdir()) == ["a.html", "a.json"]


def test_the_json_is_what_the_schema_says(audit, home):
    from jsonschema import Draft202012Validator

    schema = audit_schema()
    Draft202012Validator.check_schema(schema)
    file = home / "schema.json"
    for extra in ((), ("--defense", "dp-sgd:1:1", "--batch", "1,2", "--mode", "both")):
        audit(
            "audited_app:dense", "--pictures", "pictures", *SOON, "--json", file, *extra
        )
        Draft202012Validator(schema).validate(json.loads(file.read_text()))
    report = json.loads(file.read_text())
    del report["cases"][0]["figures"]["asr"]
    assert list(Draft202012Validator(schema).iter_errors(report))


def test_a_rule_of_ones_own_decides(audit):
    pictures = (*DENSE, *SOON)
    code, printed, _ = audit(*pictures, "--fail-if", "silent > 0.5")
    assert code == 0 and printed.startswith("WITHIN THE RULE: The rule did not fire")
    assert "6 of 6 examples came back" in printed


def test_what_cannot_be_judged_is_exit_code_2(audit):
    code, printed, _ = audit(
        "audited_app:convolutions", "--pictures", "pictures", *SOON
    )
    assert code == 2 and printed.startswith("NO VERDICT")


def test_ctrl_c_is_exit_code_3_with_a_report(audit, home, monkeypatch):
    def stop(turn, *rest):
        raise KeyboardInterrupt

    monkeypatch.setattr("precode_lib.audit.running._searched", stop)
    code, printed, _ = audit(
        "audited_app:convolutions", "--pictures", "pictures", "--effort", "1",
        "--json", home / "stopped.json",
    )  # fmt: skip
    assert code == 3 and printed.startswith("STOPPED")
    assert json.loads((home / "stopped.json").read_text())["verdict"] == "stopped"


def test_data_loss_and_defense_of_ones_own(audit):
    rows = ("audited_app:rows", "--data", "audited_app:ages", *SOON)
    own = ("--loss", "audited_app:squared")
    code, printed, _ = audit(*rows, *own)
    assert code == 1 and "6 with proof" in printed
    code, printed, _ = audit(*rows, *own, "--defense", "audited_app:drop")
    assert code == 2 and "control: fresh weights" in printed


def test_given_weights_stand_beside_fresh_ones(audit, home):
    from precode_lib.models import smlp

    torch.save(smlp((3, 8, 8), 4, width=16).state_dict(), home / "weights.pt")
    code, printed, _ = audit(
        "audited_app:dense", "--pictures", "pictures", *SOON, "--weights", "weights.pt"
    )
    assert code == 1
    assert "given weights, training" in printed and "fresh weights" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("audited_app:nothing", "--pictures", "pictures"), "has no 'nothing'"),
        (("audited_app", "--pictures", "pictures"), "my_app.model:make_model"),
        (("audited_app:dense", "--pictures", "nowhere"), "nothing at"),
        (("audited_app:dense", "--data", "audited_app:dense"), "(inputs, labels)"),
        ((*DENSE, "--size", "9"), "not take"),
        (("audited_app:dense",), "one of the arguments --pictures --data"),
        ((*DENSE, "--threat", "F"), "manipulat"),
        ((*DENSE, "--batch", "0"), "from 1 on"),
        ((*DENSE, "--batch", "7"), "needs as"),
        ((*DENSE, "--budget", "soon"), "90s"),
        ((*DENSE, "--fail-if", "x"), "asr > 0"),
        ((*DENSE, "--steps", "2"), "--lr"),
        ((*DENSE, "--lr", "1"), "--steps"),
        ((*DENSE, "--defense", "x"), "no def"),
        ((*DENSE, "--json", "."), "a folder"),
        ((*DENSE, "--effort", "2"), "effort"),
        ((*DENSE, "--defense", "noise:nan"), "std must be"),
        ((*DENSE, "--size", "99999"), "at most 2048"),
        (("torchvision:resnet81", "--pictures", "pictures"), "resnet18"),
    ],
)
def test_bad_input_is_a_line_that_says_what_to_do(audit, arguments, says):
    code, printed, told = audit(*arguments)
    assert code == 2 and printed == ""
    assert says in told and "Traceback" not in told


@pytest.mark.parametrize("place", ["forward", "loss"])
@pytest.mark.parametrize(
    ("raised", "says"),
    [
        ("SystemExit(0)", "ended the program (0)"),
        ("BaseException('odd')", "BaseException: odd"),
        ("AssertionError('Expected 224')", "Expected 224"),
    ],
)
def test_code_of_ones_own_cannot_end_in_a_verdict(audit, home, place, raised, says):
    name = f"ending_{place}_{abs(hash(raised))}"
    forward = f"raise {raised}" if place == "forward" else "return super().forward(x)"
    (home / f"{name}.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self): super().__init__(5, 1)\n"
        f"    def forward(self, x): {forward}\n"
        f"def loss(model, x, y): raise {raised}\n"
    )
    own = () if place == "forward" else ("--loss", f"{name}:loss")
    rows = (f"{name}:Net", "--data", "audited_app:ages", *own, *SOON)
    code, printed, told = audit(*rows)
    assert code == 2 and printed == "" and says in told


def test_one_file_for_two_reports_is_refused_and_a_link_stays_one(audit, home):
    code, _, told = audit(*DENSE, *SOON, "--json", "both", "--html", "./both")
    assert code == 2 and "name one file" in told
    (home / "real").mkdir(exist_ok=True)
    link = home / "link.json"
    link.symlink_to(home / "real" / "report.json")
    assert audit(*DENSE, *SOON, "--json", link)[0] == 1
    assert link.is_symlink() and (home / "real" / "report.json").is_file()


def test_help_needs_no_torch():
    program = (
        "import sys; from precode_lib.cli import main\n"
        "try: main(['audit', '--help'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout


def test_a_process_killed_in_a_search_goes_on_to_the_same_report(audit, home):
    def command(work: str) -> list[str]:
        return [
            "audited_app:convolutions", "--pictures", "pictures", "--effort", "1",
            "--clients", "2", "--work", work, "--json", f"{work}.json",
        ]  # fmt: skip

    audit(*command("undisturbed"))
    program = (
        "import precode_lib.audit.running as running; running._SAVED_EVERY = 0\n"
        "import sys; from precode_lib.cli import main; main(sys.argv[1:])"
    )
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", program, "audit", *command("killed")],
        cwd=home,
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list((home / "killed").rglob("*under-way*")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (home / "killed.json").exists()
    assert list((home / "killed").rglob("*under-way*"))
    audit(*command("killed"))
    reports = [json.loads((home / f"{w}.json").read_text()) for w in WORKS]
    for report in reports:
        del report["settings"]["command"]
        for finding in report["cases"][0]["findings"]:
            del finding["seconds"]
    assert reports[0] == reports[1]
    assert not (home / "killed").exists()
