"""Clients added up in the page: what the server still sees, beside the library."""

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
    sent,
    shown_again,
    times_shown,
    visitors,
)

from precode_lib.attacks.closed_form import isolated_inputs, largest_row
from precode_lib.data import photos
from precode_lib.federated import observe
from precode_lib.metrics import score
from precode_lib.models import mlp
from precode_lib.widgets import sum_of_clients
from precode_lib.widgets.numbers import PageNumbers, filled

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SIZE, WIDTH, STEPS, START = 16, 128, 60, 6
ORDER = torch.randperm(64, generator=torch.Generator().manual_seed(0))
CROWD = photos(SIZE, num_train=64, num_test=10).train[ORDER]
WORDS = {"question": "How many hide one?", "caption": "c"}
PAPER = 237


@pytest.fixture(scope="module")
def figure():
    return sum_of_clients(CROWD, start=START, width=WIDTH, steps=STEPS, **WORDS)


@pytest.fixture(scope="module")
def address(figure, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("sum") / "page.html"
    path.write_text(document_of(figure), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    with visitors(browser) as visit:

        def open_figure(script: str = "", *, waits: bool = True, **options):
            page = visit(address, script, **options)
            if waits:
                answered(page)
            return page

        yield open_figure


count = partial(times_shown, kind="sum")
answered = partial(shown_again, kind="sum")


def add_up(page, clients: int) -> None:
    """Move the slider, as a drag to that place does."""
    before = count(page)
    page.locator("input[type=range]").evaluate(
        """(slider, place) => {
          slider.value = place;
          slider.dispatchEvent(new Event('input', { bubbles: true }));
        }""",
        clients - 1,
    )
    answered(page, before)


def search(page) -> None:
    page.locator("[data-part=run]").click()
    wait_for_the_end(page)


def wait_for_the_end(page) -> None:
    page.wait_for_function(
        "steps => document.querySelector('[data-part=run]').textContent === 'Search'"
        " && document.querySelector('[data-part=reached]').textContent"
        " === `Step ${steps} of ${steps}`",
        arg=STEPS,
    )


def values(page) -> list[str]:
    return [node.inner_text() for node in page.locator("dd").all()]


def said(page) -> str:
    return page.locator("[data-part=notice]").inner_text()


def cells(page, place: int, clients: int) -> list[torch.Tensor]:
    """The pictures of a panel, each (SIZE, SIZE, 3), from 0 to 255."""
    canvas = page.locator(".precode-trio canvas").nth(place)
    across = next(n for n in range(1, 9) if n * n >= clients)
    levels = torch.tensor(canvas.evaluate(LEVELS))
    square = levels.view(across * SIZE, across * SIZE, 3)
    down = -(-clients // across)
    top = (across - down) * SIZE // 2
    rows = square[top : top + down * SIZE].split(SIZE)
    tiles = [tile for row in rows for tile in row.split(SIZE, dim=1)]
    return tiles[:clients]


def by_library(clients: int):
    """What isolated rows and one division give away of the sum."""
    pixels = ((CROWD.pixels[:clients] * 255).round() / 255).double()
    images = CROWD.normalisation.normalise(pixels)
    seen = observe(
        filled(mlp((3, SIZE, SIZE), depth=1, width=WIDTH), PageNumbers(0)),
        images[None],
        CROWD.labels[None, :clients],
        normalisation=CROWD.normalisation,
    )
    rows = isolated_inputs(seen)[0].images.flatten(1)
    shared = seen.shared.dense()
    divided = largest_row(
        shared["features.hidden1.weight"], shared["features.hidden1.bias"]
    )
    mixture = CROWD.normalisation.denormalise(divided.view(1, *pixels.shape[1:]))
    mixture = mixture.clamp(0, 1)
    closest = int((pixels - mixture).square().mean((1, 2, 3)).argmin())
    similar = score(pixels[[closest]], mixture).ssim.item()
    nearest = torch.cdist(rows, images.flatten(1)).argmin(1).tolist()
    return sorted(nearest), similar


def test_python_and_the_page_draw_the_same_first_picture(opened):
    still = opened(java_script_enabled=False, waits=False)
    pictures = still.locator(".precode-trio img").all()
    texts, sentence = values(still), said(still)
    page = opened()
    for place, picture in enumerate(pictures[:3]):
        encoded = picture.get_attribute("src").partition(",")[2]
        image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        canvas = page.locator(".precode-trio canvas").nth(place)
        # Where Python has white paper, the page has none at all.
        pairs = zip(canvas.evaluate(LEVELS), image.tobytes(), strict=True)
        away = [abs(a - b) for a, b in pairs if (a, b) != (0, 255)]
        assert max(away) <= 1  # rounding
    assert (values(page), said(page)) == (texts, sentence)
    assert page.complaints == []


@pytest.mark.parametrize("clients", [1, 2, 3, 4, 5, 6, 8, 16, 64])
def test_the_page_finds_the_pictures_that_the_library_finds(opened, clients):
    page = opened()
    add_up(page, 7)  # from where the others are reached by more and by fewer
    add_up(page, clients)
    found, similar = by_library(clients)
    assert values(page)[1] == f"{len(found)} of {clients}"
    assert float(values(page)[0]) == pytest.approx(similar, abs=0.0051)
    mine, theirs = cells(page, 0, clients), cells(page, 2, clients)
    shown = [i for i, tile in enumerate(theirs) if not (tile == PAPER).all()]
    assert shown == found
    for i in shown:
        assert (mine[i] - theirs[i]).abs().max() <= 1


def test_the_states_meet_all_some_and_nobody():
    found = {clients: len(by_library(clients)[0]) for clients in (1, 3, 5, 6, 16)}
    assert found[1] == 1 and found[16] == 0
    assert any(0 < found[clients] < clients for clients in found)


def test_every_state_says_what_to_notice(opened):
    page, seen = opened(), set()
    for clients in (1, 3, 5, 16):
        add_up(page, clients)
        seen.add(said(page).replace(str(clients), "n"))
    search(page)
    seen.add(said(page))
    assert len(seen) >= 4


def test_the_search_sees_where_rows_see_nobody(opened, figure):
    page = opened()
    search(page)
    theirs = int(figure.panels[3].values["seen"].split()[0])
    # Signs of slopes near 0 turn with the last digit: a picture more or less.
    assert abs(int(values(page)[2].split()[0]) - theirs) <= 1
    add_up(page, 12)  # goes on by itself, for the new sum
    wait_for_the_end(page)
    assert values(page)[1] == "0 of 12"
    assert int(values(page)[2].split()[0]) >= 2
    assert "The search" in said(page)


def test_nothing_searches_before_it_is_asked_and_stop_stops(opened):
    page = opened(reduced_motion="reduce")
    page.wait_for_timeout(300)
    root = page.locator("[data-sum]")
    assert root.get_attribute("data-step") is None
    assert page.evaluate("document.getAnimations().length") == 0
    add_up(page, 24)
    page.locator("[data-part=run]").press("Enter")
    page.wait_for_function("document.querySelector('[data-sum]').dataset.step")
    page.locator("[data-part=run]").press("Enter")
    page.wait_for_timeout(200)
    at = root.get_attribute("data-step")
    page.wait_for_timeout(2000)
    assert int(at) < STEPS
    assert root.get_attribute("data-step") == at
    assert said(page) == "Stopped."


def test_a_photograph_takes_the_first_client_s_place(opened):
    page, before = opened(), 1
    page.locator("[data-part=file]").set_input_files(png(halves(300, 200)))
    answered(page, before)
    add_up(page, 3)
    for place in (0, 2):
        pixels = cells(page, place, 3)[0]
        assert pixels[0, 0].tolist() == pytest.approx([30, 60, 200], abs=2)
        assert pixels[-1, -1].tolist() == pytest.approx([230, 200, 40], abs=2)


def test_a_photograph_of_fifty_megapixels_is_scaled(opened):
    page = opened()
    large = png(halves(10_000, 5_000), "JPEG")
    page.locator("[data-part=file]").set_input_files(large)
    answered(page, 1)
    first = cells(page, 0, START)[0][0, 0].tolist()
    assert first == pytest.approx([30, 60, 200], abs=8)


@pytest.mark.parametrize("words", HOSTILE)
def test_what_is_no_photograph_is_refused_in_a_sentence(opened, words):
    page = opened()
    page.locator("[data-part=file]").set_input_files(file(HOSTILE[words]))
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent.includes('Nothing was')"
    )
    assert words in said(page)
    assert page.evaluate("window.hurt") is None
    add_up(page, 3)  # and all goes on


def test_the_keyboard_alone_adds_clients_and_hears_what_is_seen(opened):
    page = opened()
    controls = page.locator("[data-sum] :is(button, input):visible").all()
    assert len(controls) == 3
    controls[0].focus()
    for control in controls[1:]:
        page.keyboard.press("Tab")
        assert control.evaluate("node => node === document.activeElement")
    slider, before = controls[0], count(page)
    slider.press("ArrowRight")
    answered(page, before)
    assert slider.get_attribute("aria-valuetext") == str(START + 1)
    assert page.get_by_label("Clients in the sum").count() == 1
    names = page.locator(".precode-trio canvas")
    assert f"{START + 1} pictures" in names.first.get_attribute("aria-label")
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent.length > 20"
    )
    assert page.locator("[role=status]").inner_text() == said(page)


def test_a_finger_moves_the_slider(opened):
    page = opened(has_touch=True, viewport=PHONE)
    box, before = page.locator("input[type=range]").bounding_box(), count(page)
    page.touchscreen.tap(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
    answered(page, before)
    assert int(values(page)[1].split()[-1]) > 55


@pytest.mark.parametrize("script", ["", "delete window.Worker;"])
def test_a_hidden_tab_computes_nothing(opened, script):
    page = opened(script + HIDDEN)
    page.evaluate("turn(true)")
    before = count(page)
    page.locator("input[type=range]").press("End")
    page.wait_for_timeout(500)
    assert count(page) == before
    page.evaluate("turn(false)")
    answered(page, before)


def test_without_workers_the_page_finds_the_same(opened):
    alone, other = opened("delete window.Worker"), opened()
    for page in (alone, other):
        add_up(page, 5)
    assert alone.workers == [] and len(other.workers) == 1
    assert values(alone) == values(other)
    assert alone.complaints == []


def test_nothing_is_asked_of_the_network(opened, address):
    page = opened(offline=True)
    page.locator("[data-part=file]").set_input_files(png(halves(30, 20)))
    answered(page, 1)
    search(page)
    assert sent(page, address) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, theme):
    page = opened(viewport=PHONE)
    search(page)
    assert faults(page, theme) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_without_scripts_and_on_paper_the_pictures_are_there(opened):
    still = opened(java_script_enabled=False, waits=False)
    assert still.locator(".precode-trio img").count() == 4
    assert still.locator("[data-part=run]").is_disabled()
    page = opened()
    page.emulate_media(media="print")
    assert not page.locator(".precode-tools").is_visible()
    assert page.locator(".precode-trio canvas").first.is_visible()


def test_a_figure_grows_a_page_by_little(figure):
    assert len(figure._repr_html_().encode()) < 150_000


def test_crowds_that_cannot_be_added_up_are_refused():
    with pytest.raises(ValueError, match=r"2 to 64 square pictures"):
        sum_of_clients(CROWD[:1], **WORDS)
    with pytest.raises(ValueError, match="from 1 to 64 clients, got 65"):
        sum_of_clients(CROWD, start=65, **WORDS)
