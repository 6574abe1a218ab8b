"""Live sliders: computed beside the notebook, cancelled in time, errors in sight."""

import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import ipywidgets
import pytest
import traitlets
from test_widgets import AXES, ORIGINAL, picture

from precode_lib import widgets
from precode_lib.plots import Panel
from precode_lib.widgets import Axis, SliderFigure, explore
from precode_lib.widgets.background import Background
from precode_lib.widgets.live import Explorer

STEP = [Axis("step", [0, 1, 2])]
TEXT = {"question": "q", "caption": "c"}


def panels(step: int, value: str) -> list[Panel]:
    return [Panel("leaked", picture("a", step), "leaked", {"SSIM": value})]


def explorer(render, **options) -> Explorer:
    return Explorer(render, STEP, **{"rest": 0, **TEXT, **options})


def settled(live: Explorer) -> str:
    assert live.background.wait(60)
    return live.view.value


class Gate:
    """Lets a drawing go on only when the test says so."""

    def __init__(self):
        self._open = threading.Semaphore(0)
        self.reached = threading.Semaphore(0)

    def wait(self) -> None:
        self.reached.release()
        assert self._open.acquire(timeout=60)

    def open(self, count: int = 1) -> None:
        self._open.release(count)

    def await_drawing(self) -> None:
        assert self.reached.acquire(timeout=60)


# --- the background -------------------------------------------------------------------


def test_a_new_job_makes_the_older_one_stale_and_waits_for_its_end():
    background, gate, seen = Background(), Gate(), []

    def first(stale):
        gate.wait()
        seen.append(("first", stale()))

    background.start(first)
    gate.await_drawing()
    background.start(lambda stale: seen.append(("second", stale())))
    gate.open()
    assert background.wait(60)
    assert seen == [("first", True), ("second", False)]


def test_a_job_that_is_stopped_while_it_pauses_never_begins():
    background, seen = Background(pause=60), []
    background.start(seen.append)
    background.stop()
    assert background.wait(60)
    assert seen == []


def test_of_many_quick_jobs_the_last_one_is_done_last():
    background, seen = Background(pause=0.05), []
    for index in range(20):
        background.start(lambda stale, index=index: seen.append(index))
    assert background.wait(60)
    assert seen[-1] == 19


def test_a_job_that_looks_up_does_not_keep_the_interpreter_alive():
    code = (
        "import time\n"
        "from background import Background\n"
        "def job(stale):\n"
        "    while not stale():\n"
        "        time.sleep(0.01)\n"
        "background = Background()\n"
        "background.start(job)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        cwd=Path(widgets.__file__).parent,  # without torch, whose import takes seconds
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_figures_draw_in_turn():
    gate, running = Gate(), []

    def render(step):
        if step:
            running.append(step)
            gate.wait()
            running.remove(step)
        return panels(step, f"s{len(running)}")

    figures = explorer(render), explorer(render)
    for live, step in zip(figures, (1, 2), strict=True):
        live.show()
        live.sliders[0].value = step
    gate.open(2)
    assert ["<dd>s0</dd>" in settled(live) for live in figures] == [True, True]


# --- explore, live --------------------------------------------------------------------


def test_the_first_setting_is_drawn_before_anything_is_shown():
    here = []

    def render(step):
        here.append(threading.current_thread() is threading.main_thread())
        return panels(step, f"s{step}")

    live = explorer(render)
    live.show()
    assert "<dd>s0</dd>" in live.view.value
    assert "computing" not in live.status.value
    live.sliders[0].value = 1
    assert "<dd>s1</dd>" in settled(live)
    assert here == [True, False]


def test_a_moved_slider_says_that_it_computes_until_the_picture_is_there():
    gate = Gate()

    def render(step):
        if step:
            gate.wait()
        return panels(step, f"s{step}")

    live = explorer(render)
    live.show()
    live.sliders[0].value = 2
    gate.await_drawing()
    assert "computing…" in live.status.value
    assert "precode-busy" in live.view._dom_classes
    assert live.stop.layout.display == "none"  # a plain function cannot be stopped
    gate.open()
    assert "<dd>s2</dd>" in settled(live)
    assert "computing" not in live.status.value
    assert "precode-busy" not in live.view._dom_classes


def test_a_picture_that_comes_too_late_is_not_shown():
    gate = Gate()

    def render(step):
        if step == 1:
            gate.wait()
        return panels(step, f"s{step}")

    live = explorer(render)
    live.show()
    seen = []
    live.view.observe(lambda change: seen.append(change["new"]), "value")
    live.sliders[0].value = 1
    gate.await_drawing()
    live.sliders[0].value = 2
    gate.open()
    assert "<dd>s2</dd>" in settled(live)
    assert len(seen) == 1


def test_moving_back_shows_what_was_drawn_and_stops_what_is_under_way():
    gate = Gate()

    def render(step):
        if step:
            gate.wait()
        return panels(step, f"s{step}")

    live = explorer(render)
    live.show()
    live.sliders[0].value = 1
    gate.await_drawing()
    live.sliders[0].value = 0
    assert "computing" not in live.status.value
    gate.open()
    assert "<dd>s0</dd>" in settled(live)


def film(gate, closed):
    def render(step):
        try:
            for index in range(4):
                if step:
                    gate.wait()
                yield panels(step, f"s{step}.{index}")
        finally:
            closed.append(step)

    return render


def test_a_generator_shows_every_frame_and_the_last_one_stays():
    gate, seen = Gate(), []
    live = explorer(film(gate, []))
    live.show()
    settled(live)
    live.view.observe(lambda change: seen.append(change["new"]), "value")
    live.sliders[0].value = 1
    gate.open(4)
    settled(live)
    assert [f"<dd>s1.{i}</dd>" in page for i, page in enumerate(seen)] == [True] * 4
    live.sliders[0].value = 0
    live.sliders[0].value = 1  # was drawn to its end: needs no gate
    assert "<dd>s1.3</dd>" in settled(live)


def test_a_generator_shows_its_first_frame_at_once():
    gate = Gate()

    def render(step):
        yield panels(step, "first")
        gate.wait()
        yield panels(step, "second")

    live = explorer(render)
    live.show()
    assert "<dd>first</dd>" in live.view.value
    assert live.stop.layout.display == ""
    gate.open()
    assert "<dd>second</dd>" in settled(live)
    assert live.stop.layout.display == "none"


def test_a_slider_that_moves_on_closes_the_generator():
    gate, closed = Gate(), []
    live = explorer(film(gate, closed))
    live.show()
    settled(live)
    live.sliders[0].value = 1
    gate.await_drawing()
    live.sliders[0].value = 0
    gate.open()
    assert "<dd>s0.3</dd>" in settled(live)
    assert closed == [0, 1]


def test_stop_keeps_the_picture_and_draws_anew_when_asked_again():
    gate, closed = Gate(), []
    live = explorer(film(gate, closed))
    live.show()
    settled(live)
    live.sliders[0].value = 1
    gate.open()
    for _ in range(2):
        gate.await_drawing()
    assert "frame 1" in live.status.value
    live.stop.click()
    gate.open()
    assert "<dd>s1.0</dd>" in settled(live)
    assert "Stopped" in live.status.value
    assert closed == [0, 1]
    live.sliders[0].value = 0
    live.sliders[0].value = 1
    gate.open(4)
    assert "<dd>s1.3</dd>" in settled(live)


@pytest.mark.parametrize("late", [False, True])
def test_an_error_is_a_sentence_in_the_figure_and_the_next_setting_works(late):
    def plain(step):
        if step == 1:
            raise RuntimeError("out of <luck>")
        return panels(step, f"s{step}")

    def generator(step):
        yield panels(step, f"s{step}")
        plain(step)

    live = explorer(generator if late else plain)
    live.show()
    live.sliders[0].value = 1
    page = settled(live)
    assert "Drawing step 1 failed." in page
    assert "RuntimeError: out of &lt;luck&gt;" in page
    assert "in plain" in page  # the traceback
    assert "computing" not in live.status.value
    live.sliders[0].value = 2
    assert "<dd>s2</dd>" in settled(live)


def test_an_error_in_the_first_setting_is_the_cells_own():
    def render(step):
        raise RuntimeError("at once")

    with pytest.raises(RuntimeError, match="at once"):
        explore(render, STEP, static=False, **TEXT)


def test_on_the_page_the_last_frame_of_a_generator_counts():
    gate = Gate()
    gate.open(100)
    figure = explore(film(gate, []), STEP, static=True, **TEXT)
    assert isinstance(figure, SliderFigure)
    shown = [frame[0].values["SSIM"] for frame in figure.frames]
    assert shown == ["s0.3", "s1.3", "s2.3"]


def no_frames(step):
    yield from ()


def single_panels(step):
    yield from panels(step, "x")


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize(
    ("render", "message"),
    [(no_frames, "yield at least"), (single_panels, "must yield lists of panels")],
)
def test_generators_that_yield_no_frames_are_refused(render, message, static):
    with pytest.raises(ValueError, match=message):
        explore(render, STEP, static=static, **TEXT)


# --- what a notebook keeps ------------------------------------------------------------


def test_a_saved_notebook_shows_the_current_picture_without_a_kernel():
    live = Explorer(
        lambda row, step: [Panel("x", ORIGINAL, values={"v": f"{row}{step}"})],
        AXES, rest=0, **TEXT,
    )  # fmt: skip
    box = live.show()
    bundle = box._repr_mimebundle_()
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == box.model_id
    assert "<dd>a1</dd>" in bundle["text/html"]
    live.sliders[0].value = 1
    settled(live)
    assert "<dd>b1</dd>" in box._repr_mimebundle_()["text/html"]


def test_jupyter_displays_the_widget_and_the_picture_together():
    from IPython.core.formatters import DisplayFormatter

    box = explore(lambda step: panels(step, "v"), STEP, static=False, **TEXT)
    data, _ = DisplayFormatter().format(box)
    assert set(data) == {
        "text/plain", "text/html", "application/vnd.jupyter.widget-view+json"
    }  # fmt: skip


def test_colab_shows_the_widget_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    box = explore(lambda step: panels(step, "v"), STEP, static=False, **TEXT)
    assert "text/html" not in box._repr_mimebundle_()


def foreign_widgets(*roots) -> list[str]:
    """Names of widgets that ipywidgets does not bring itself, in and below these."""
    own = ("@jupyter-widgets/base", "@jupyter-widgets/controls")
    found, waiting = [], list(roots)
    while waiting:
        widget = waiting.pop()
        waiting += getattr(widget, "children", ())
        looks = {"layout", "style"} & set(widget.keys)
        waiting += [getattr(widget, key) for key in looks]
        modules = {widget._model_module, widget._view_module} - {None}
        found += [widget._model_name] if modules - set(own) else []
    return found


def test_colab_needs_no_permission_for_our_widgets():
    axes = [Axis("step", [0, 1]), Axis("kind", [0, 1], choice=True)]
    box = explore(lambda step, kind: panels(step, "v"), axes, static=False, **TEXT)
    assert len(box.children) == 5
    assert foreign_widgets(box) == []


def test_a_widget_of_another_package_would_be_found():
    class Foreign(ipywidgets.HTML):
        _model_module = traitlets.Unicode("anywidget").tag(sync=True)

    assert foreign_widgets(ipywidgets.VBox([Foreign()])) == ["HTMLModel"]
