"""The script that audits a model, on its own and on one that is known to leak."""

from pathlib import Path

import pytest

from precode_lib.models import smlp

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "audit_your_model.py"


@pytest.fixture
def script(script_at):
    if not SCRIPT.exists():
        pytest.skip("the examples are not here; they come with the repository")
    return script_at("examples/audit_your_model.py")


def test_the_script_prints_its_table_and_what_zeros_are_worth(script, capsys):
    head, *lines = script.main(["--quick"])
    printed = capsys.readouterr().out
    assert [line.split("  ")[0] for line in printed.splitlines()[:-1]] == [
        line[0] for line in (head, *lines)
    ]
    assert "0 of 2 allows a rate of up to 78%" in printed
    assert all(len(line) == len(head) for line in lines)
    table = {name: dict(zip(head[1:], cells, strict=True)) for name, *cells in lines}
    assert table["label"]["PRECODE"] == "2 of 2"  # what the bias tells, noise or not
    # A convolution comes first, and only PRECODE has layers before its noise.
    assert set(table["picture, divided"].values()) == {"-"}
    before = table["... before the noise"]
    assert [name for name, cell in before.items() if cell != "-"] == ["PRECODE"]


def test_in_the_table_of_a_leaking_model_only_dp_sgd_stops_the_division(script):
    pictures = script.make_pictures(3)
    head, *lines = script.audit(smlp(width=64), pictures, iterations=1)
    (divided,) = (cells for name, *cells in lines if name == "picture, divided")
    assert head[1:] == ["training mode", "evaluation mode", "PRECODE", "DP-SGD"]
    assert divided == ["3 of 3", "3 of 3", "3 of 3", "0 of 3"]
