"""How a slider looks is said in one file, for the page's and for the notebook's."""

import re
from pathlib import Path

import pytest
from test_widgets import AXES, render
from test_widgets_live import TEXT, explorer, panels

from precode_lib import plots
from precode_lib.plots import ASSETS
from precode_lib.widgets import explore

ROOT = Path(__file__).resolve().parents[1]
HOME = ASSETS / "figure.css"
LOOK = ("--accent", "--slider-height")
# What says how a slider looks, wherever it stands.
SAYS = re.compile(r"accent-color|--slider-height|--jp-widgets-|type=.?range.?\]\s*\{")


def own_files() -> list[Path]:
    folders = [ROOT / "precode_lib", ROOT / "book" / "_ext", ROOT / "book" / "_static"]
    kinds = {".py", ".css", ".js", ".j2"}
    files = [p for f in folders for p in f.rglob("*") if p.suffix in kinds]
    return [path for path in files if "vendor" not in path.parts]


def test_a_slider_s_look_has_one_home():
    files = own_files()
    assert len(files) > 50
    telling = [p for p in files if SAYS.search(p.read_text(encoding="utf-8"))]
    assert telling == [HOME]
    text = HOME.read_text(encoding="utf-8")
    for name in LOOK:
        assert len(re.findall(rf"{name}:", text)) == 1, name
    (home,) = re.findall(r"--accent: *([^;]+);", text)
    assert text.count(home) == 1  # the colour is nowhere written again


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """A newcomer's one file: other colour, other height."""
    text = HOME.read_text(encoding="utf-8")
    for name, value in zip(LOOK, ("rebeccapurple", "44px"), strict=True):
        text, count = re.subn(rf"{name}: *[^;]+;", f"{name}: {value};", text)
        assert count == 1
    (tmp_path / HOME.name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(plots.figures, "ASSETS", tmp_path)


def test_a_change_there_reaches_the_slider_of_a_page(changed):
    page = explore(render, AXES, static=True, **TEXT)._repr_html_()
    assert "--accent: rebeccapurple;" in page and "--slider-height: 44px;" in page


def test_a_change_there_reaches_the_slider_of_a_running_notebook(changed):
    live = explorer(lambda step: panels(step, "s"))
    figure = live.show()
    assert "precode-live" in figure._dom_classes
    style = live.view.value  # the picture below the sliders brings it
    assert re.search(r"\.precode-live \{[^}]*rebeccapurple", style)
    assert re.search(r"--jp-widgets-slider-[a-z-]+color: var\(--accent\)", style)
    assert "--jp-widgets-inline-height: var(--slider-height)" in style
