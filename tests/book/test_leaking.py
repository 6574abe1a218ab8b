"""A reader's own picture in Chromium: what comes in, what comes back, what leaves."""

import base64
import io
from functools import partial

import pytest
import torch
from PIL import Image
from readers import (
    HIDDEN,
    HOSTILE,
    LEVELS,
    PHONE,
    document_of,
    faults,
    file,
    halves,
    png,
    reached_and_spoken,
    sent,
    shown_again,
    times_shown,
    visitors,
)

from precode_lib.attacks.closed_form import total_least_squares
from precode_lib.data import victims
from precode_lib.defenses import prune
from precode_lib.federated import observe
from precode_lib.gradients import Gradients
from precode_lib.metrics import score
from precode_lib.models import mlp
from precode_lib.plots import to_image
from precode_lib.widgets import leak_your_own
from precode_lib.widgets.numbers import PageNumbers, filled

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SIZE, WIDTH = 48, 64
PHOTOS = victims("photos", 4, size=SIZE)
# A camera made of a red canvas, that tells who asks for it and whether it still runs.
CAMERA = """
window.asked = 0;
Object.defineProperty(navigator, 'mediaDevices', { value: { async getUserMedia() {
  window.asked += 1;
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 64;
  const pen = canvas.getContext('2d');
  const paint = () => { pen.fillStyle = '#e01010'; pen.fillRect(0, 0, 64, 64); };
  paint();
  setInterval(paint, 30);
  return window.given = canvas.captureStream(30);
} } });
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    figure = leak_your_own(PHOTOS, question="Leak your own picture?", caption="c")
    path = tmp_path_factory.mktemp("leak") / "page.html"
    path.write_text(document_of(figure), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def figure(browser, address):
    """Opens the page once it has answered; a script may run before it."""
    with visitors(browser) as visit:

        def opened(script: str = "", *, waits: bool = True, **options):
            page = visit(address, script, **options)
            if waits:
                answered(page)
            return page

        yield opened


count = partial(times_shown, kind="leak")
answered = partial(shown_again, kind="leak")


def move(page, name: str, key: str, times: int = 1) -> None:
    for _ in range(times):
        before = count(page)
        page.locator(f"input[id$=-{name}]").press(key)
        answered(page, before)


def levels(page, place: int) -> list[int]:
    return page.locator(".precode-trio canvas").nth(place).evaluate(LEVELS)


def said(page) -> str:
    return page.locator("[data-part=notice]").inner_text()


def similarity(page) -> float:
    return float(page.locator("dd").inner_text())


def library(sigma: float, pruned: float) -> float:
    """The SSIM that the library reaches on the page's own noise."""
    pixels = (PHOTOS.pixels[:1] * 255).round() / 255
    model = filled(mlp((3, SIZE, SIZE), depth=1, width=WIDTH), PageNumbers(0))
    images = PHOTOS.normalisation.normalise(pixels.double())[None]
    shared = observe(model, images, PHOTOS.labels[:1, None]).shared.dense()
    layer = {n: shared[f"features.hidden1.{n}"] for n in ("weight", "bias")}
    noise = torch.from_numpy(PageNumbers(1).normal(WIDTH * (3 * SIZE**2 + 1)))
    parts = noise.split([layer["weight"].numel(), WIDTH])
    noisy = {
        name: term + sigma * part.view_as(term)
        for (name, term), part in zip(layer.items(), parts, strict=True)
    }
    sent = prune(Gradients(noisy), pruned)
    found = total_least_squares(sent["weight"], sent["bias"])
    leaked = PHOTOS.normalisation.denormalise(found.view(1, 3, SIZE, SIZE))
    return score(pixels.double(), leaked.clamp(0, 1)).ssim.item()


def test_python_and_the_page_draw_the_same_first_picture(figure):
    still = figure(java_script_enabled=False, waits=False)
    pictures = still.locator(".precode-trio img").all()
    texts = still.locator("dd").inner_text(), said(still)
    live = figure()
    for place, picture in enumerate(pictures):
        encoded = picture.get_attribute("src").partition(",")[2]
        image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        theirs = [*image.tobytes()]
        away = [abs(a - b) for a, b in zip(levels(live, place), theirs, strict=True)]
        assert max(away) <= 1  # rounding
    assert (live.locator("dd").inner_text(), said(live)) == texts
    assert live.complaints == []


@pytest.mark.parametrize(("steps", "sigma"), [(3, 1e-2), (7, 0.1), (8, 0.2)])
def test_noise_does_what_it_does_in_the_library(figure, steps, sigma):
    page = figure()
    move(page, "sigma", "ArrowRight", steps)
    assert similarity(page) == pytest.approx(library(sigma, 0), abs=0.0051)


def test_pruning_does_what_it_does_in_the_library(figure):
    page = figure()
    page.locator("summary").click()
    move(page, "pruned", "ArrowRight", 3)
    assert similarity(page) == pytest.approx(library(0, 0.97), abs=0.0051)
    assert "97 %" in said(page)


def test_every_state_says_what_to_notice(figure):
    page = figure()
    seen = [said(page)]
    page.locator("summary").click()
    for steps in (1, 6, 1):
        move(page, "sigma", "ArrowRight", steps)
        seen.append(said(page))
    move(page, "sigma", "Home")
    move(page, "pruned", "ArrowRight", 2)
    seen.append(said(page))
    move(page, "pruned", "Home")
    before = count(page)
    page.locator("[data-part=precode]").check()
    answered(page, before)
    seen.append(said(page))
    assert "KL" in page.locator("[data-part=kl]").inner_text()
    move(page, "batch", "ArrowRight", 2)
    seen.append(said(page))
    assert len(set(seen)) == len(seen)
    assert similarity(page) > 0.99  # four pictures, each from units that saw it alone


def test_precode_changes_the_rows_and_not_the_picture(figure):
    page = figure()
    page.locator("summary").click()
    before, shown = levels(page, 2), count(page)
    page.locator("[data-part=precode]").check()
    answered(page, shown)
    after = levels(page, 2)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= 1
    first = page.locator("[data-part=kl]").inner_text()
    for name in ("k", "beta"):
        move(page, name, "ArrowRight")
    assert page.locator("[data-part=kl]").inner_text() != first


def test_a_chosen_file_comes_back(figure):
    page = figure()
    before = count(page)
    page.locator("[data-part=file]").set_input_files(png(halves(300, 200)))
    answered(page, before)
    for place in (0, 2):
        pixels = levels(page, place)
        assert pixels[:3] == pytest.approx([30, 60, 200], abs=2)
        assert pixels[-3:] == pytest.approx([230, 200, 40], abs=2)
    assert page.locator("select").input_value() == "own"


def test_a_dropped_file_comes_back(figure):
    page = figure()
    before = count(page)
    encoded = base64.b64encode(png(halves(64, 64))["buffer"]).decode()
    page.evaluate(
        """encoded => {
          const bytes = Uint8Array.from(atob(encoded), c => c.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], "mine.png"));
          const root = document.querySelector("[data-leak]");
          for (const kind of ["dragenter", "dragover", "drop"])
            root.dispatchEvent(new DragEvent(kind,
              { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        encoded,
    )
    answered(page, before)
    assert levels(page, 2)[:3] == pytest.approx([30, 60, 200], abs=2)


def test_a_photograph_of_fifty_megapixels_is_scaled(figure):
    page = figure()
    before = count(page)
    large = png(halves(10_000, 5_000), "JPEG")
    page.locator("[data-part=file]").set_input_files(large)
    answered(page, before)
    assert levels(page, 0)[:3] == pytest.approx([30, 60, 200], abs=8)


@pytest.mark.parametrize("words", HOSTILE)
def test_what_is_no_photograph_is_refused_in_a_sentence(figure, words):
    page = figure()
    before = levels(page, 0)
    page.locator("[data-part=file]").set_input_files(file(HOSTILE[words]))
    page.wait_for_function(
        "document.querySelector('[data-part=notice]').textContent.includes('Nothing')"
    )
    assert words in said(page)
    assert page.locator("[role=status]").inner_text() == said(page)
    assert levels(page, 0) == before
    assert page.evaluate("window.hurt") is None
    move(page, "sigma", "ArrowRight")  # and all goes on


def dark(page) -> int:
    return sum(v < 90 for v in levels(page, 0)[::3])


def wait_for_ink(page, more_than: int) -> None:
    """Until the answers have caught up with the pen."""
    for _ in range(100):
        if dark(page) > more_than:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"only {dark(page)} dark pixels")


def test_a_finger_and_a_mouse_draw(figure):
    page = figure(has_touch=True, viewport=PHONE)
    page.locator("[data-part=draw]").tap()
    page.wait_for_function("document.querySelector('.precode-paper')")
    box = page.locator(".precode-paper").bounding_box()
    before = count(page)
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 60, steps=5)
    page.mouse.up()
    answered(page, before)
    wait_for_ink(page, 20)
    page.wait_for_timeout(300)
    by_mouse = dark(page)
    page.touchscreen.tap(box["x"] + 20, box["y"] + 90)
    wait_for_ink(page, by_mouse)
    assert "drawing" in page.locator(".precode-paper").get_attribute("aria-label")


def test_empty_paper_says_how_to_draw_until_there_is_ink(figure):
    page = figure(has_touch=True, viewport=PHONE)
    before = count(page)
    page.locator("[data-part=draw]").tap()
    answered(page, before)
    page.wait_for_timeout(700)  # when a slider that rests is spoken
    assert "with a finger" in said(page)
    assert page.locator("[role=status]").inner_text() == said(page)
    box = page.locator(".precode-paper").bounding_box()
    assert box["width"] > 250  # a finger needs room
    before = count(page)
    page.touchscreen.tap(box["x"] + 90, box["y"] + 90)
    answered(page, before)
    assert "with a finger" not in said(page)
    assert page.locator(".precode-empty").count() == 0


def test_the_arrow_keys_draw(figure):
    page = figure()
    page.locator("[data-part=draw]").press("Enter")
    paper = page.locator(".precode-paper")
    assert paper.evaluate("node => node === document.activeElement")
    paper.press("ArrowRight")
    page.keyboard.press(" ")
    for _ in range(8):
        page.keyboard.press("ArrowDown")
    wait_for_ink(page, 20)
    page.keyboard.press(" ")
    assert page.locator("[role=status]").inner_text() == "The pen is up."


def test_the_camera_is_asked_on_a_click_only_and_switched_off(figure):
    page = figure(CAMERA)
    move(page, "sigma", "ArrowRight")
    assert page.evaluate("window.asked") == 0
    page.locator("[data-part=camera]").click()
    page.locator("[data-part=take]").wait_for()
    page.wait_for_function("document.querySelector('video').videoWidth > 0")
    before = count(page)
    page.locator("[data-part=take]").click()
    answered(page, before)
    assert levels(page, 0)[:3] == pytest.approx([224, 16, 16], abs=12)
    states = "given.getTracks().map(track => track.readyState)"
    assert page.evaluate(states) == ["ended"]
    assert not page.locator("video").is_visible()


def test_without_a_camera_a_sentence_says_so(figure):
    page = figure("Object.defineProperty(navigator, 'mediaDevices', { value: {} })")
    page.locator("[data-part=camera]").click()
    page.wait_for_function(
        "document.querySelector('[data-part=notice]').textContent.includes('camera')"
    )


def test_nothing_leaves_the_page_and_nothing_is_stored(figure, address):
    page = figure(CAMERA)
    before = count(page)
    page.locator("[data-part=file]").set_input_files(png(halves(300, 200)))
    answered(page, before)
    page.locator("[data-part=draw]").click()
    page.locator("[data-part=camera]").click()
    page.locator("[data-part=cancel]").click()
    move(page, "sigma", "End")
    assert sent(page, address) == []
    stored = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert page.evaluate(stored) == [0, 0, ""]
    assert page.evaluate("indexedDB.databases()") == []


def test_a_worker_computes_from_a_file_without_a_network(figure):
    page = figure(offline=True)
    assert len(page.workers) == 1


def test_where_no_worker_may_be_made_the_page_computes_the_same(figure):
    page, other = figure("delete window.Worker"), figure()
    assert page.workers == []
    for each in (page, other):
        move(each, "sigma", "ArrowRight", 3)
    assert levels(page, 2) == levels(other, 2)
    assert page.complaints == []


def test_a_worker_that_is_forbidden_is_replaced(figure):
    forbid = """window.Worker = class {
      constructor() { setTimeout(() => this.onerror(new Event('error'))); }
      postMessage() {}
      terminate() {}
    }"""
    page = figure(forbid)
    move(page, "sigma", "ArrowRight")


@pytest.mark.parametrize("script", ["", "delete window.Worker;"])
def test_a_hidden_tab_computes_nothing(figure, script):
    page = figure(script + HIDDEN)
    page.wait_for_timeout(500)  # the noise is drawn ahead
    page.evaluate("turn(true)")
    before = count(page)
    page.locator("input[id$=-sigma]").press("End")
    page.wait_for_timeout(500)
    assert count(page) == before
    page.evaluate("turn(false)")
    answered(page, before)


def test_every_control_has_a_name_a_value_and_the_keyboard(figure):
    page = figure()
    page.locator("summary").click()
    page.locator("[data-part=precode]").check()
    controls = page.locator(
        "[data-leak] :is(button, select, input, summary):visible"
    ).all()
    assert len(controls) == 11
    reached_and_spoken(page, controls)


def test_a_resting_slider_is_read_out(figure):
    page = figure()
    move(page, "sigma", "End")
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent.includes('SSIM')"
    )
    assert said(page) in page.locator("[role=status]").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(figure, theme):
    page = figure(viewport=PHONE)
    page.locator("summary").click()
    assert faults(page, theme) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_nothing_moves_by_itself(figure):
    page = figure(reduced_motion="reduce")
    assert page.evaluate("document.getAnimations().length") == 0
    shown = count(page)
    page.wait_for_timeout(400)
    assert count(page) == shown


def test_without_scripts_and_on_paper_the_pictures_are_there(figure):
    still = figure(java_script_enabled=False, waits=False)
    assert "turn on JavaScript" in still.locator("noscript").inner_text()
    assert still.locator("[data-part=choose]").is_disabled()
    assert still.locator(".precode-trio img").count() == 3
    page = figure()
    page.emulate_media(media="print")
    assert not page.locator(".precode-tools").first.is_visible()
    assert page.locator(".precode-trio canvas").last.is_visible()


def test_two_figures_on_a_page_do_not_disturb_each_other(figure):
    page = figure()
    page.evaluate(
        """() => {
          const root = document.querySelector("[data-leak]");
          const other = root.cloneNode(true);
          delete other.dataset.ready;
          delete other.dataset.shown;
          document.querySelector("main").append(other);
          const script = document.createElement("script");
          script.textContent = document.querySelector("main script").textContent;
          document.body.append(script);
        }"""
    )
    page.wait_for_function("document.querySelectorAll('[data-ready]').length === 2")
    assert page.complaints == []


def test_pictures_that_cannot_be_leaked_are_refused():
    with pytest.raises(ValueError, match=r"at least 4 square pictures"):
        leak_your_own(PHOTOS[[0, 1]], question="q", caption="c")


def test_a_figure_grows_a_page_by_little():
    page = leak_your_own(PHOTOS, question="q", caption="c")._repr_html_()
    assert len(page.encode()) < 150_000


def test_the_photographs_are_the_library_s(figure):
    page = figure()
    assert levels(page, 0) == [*to_image(PHOTOS.pixels[0]).tobytes()]
