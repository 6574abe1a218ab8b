"""The script with the trade-off between privacy and accuracy, in its quick mode."""

from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "privacy_accuracy.py"


@pytest.fixture
def script(script_at):
    if not SCRIPT.exists():
        pytest.skip("the examples are not here; they come with the repository")
    return script_at("examples/privacy_accuracy.py")


def test_the_script_prints_a_row_for_each_defense_and_draws_them(
    script, tmp_path, capsys
):
    plot = tmp_path / "plot.png"
    rows = {row.name: row for row in script.main(["--quick", "--plot", str(plot)])}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == script.HEAD
    assert printed[1:-1] == [script.line(row) for row in rows.values()]
    with Image.open(plot) as drawn:
        assert drawn.size[0] > 500
    for row in rows.values():
        assert row.accuracy * 20 == pytest.approx(round(row.accuracy * 20))
        assert -1 <= row.iga_ssim <= 1
    plain, noisy = rows["no defense"], rows["Gaussian noise 1e-2"]
    # 16x16 photographs of 768 numbers, 2 hidden layers of 16, 10 classes: 32 bits each.
    assert plain.num_bytes == noisy.num_bytes == 4 * (769 * 16 + 17 * 16 + 17 * 10)
    assert rows["fp16"].num_bytes == plain.num_bytes / 2
    assert plain.division_asr == rows["PRECODE"].division_asr == 1.0
    assert rows["DP-SGD, clip 1, noise 0.5"].division_asr == 0.0


def test_one_seed_gives_one_table(script):
    tiny = script.photos(size=16, num_train=32, num_test=10)
    setting = script.Setting(tiny, width=8, epochs=1, num_victims=2, iterations=2)
    tables = [list(script.measure(setting, seed)) for seed in (0, 0, 1)]
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]
