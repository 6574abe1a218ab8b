"""Searches that run in the page: what they find, and that they obey."""

from dataclasses import replace
from functools import partial

import pytest
import torch
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
    visitors,
)
from torch import nn
from torch.optim import SGD, Adam

from precode_lib.attacks.objectives import (
    cosine_distance,
    layerwise_cosine_distance,
    squared_distance,
)
from precode_lib.attacks.recipe import Recipe
from precode_lib.basics.schedules import step_decay
from precode_lib.bottleneck import with_precode
from precode_lib.data import victims
from precode_lib.models import lenet, mlp, resnet20_4
from precode_lib.widgets import Axis, Lane, Noise, race
from precode_lib.widgets.racing import words_of

pytestmark = [pytest.mark.slow, pytest.mark.browser]

STEPS = 25
PHOTOS = victims("photos", 3, size=16)
SHAPE = (3, 16, 16)
PLAIN = Recipe(
    distance=squared_distance,
    optimizer=partial(Adam, lr=0.05),
    labels=lambda seen: seen.labels,
    boxed=True,
)
SIGNED = replace(
    PLAIN,
    distance=cosine_distance,
    signed=True,
    prior_weight=1e-4,
    schedule=step_decay,
)
AXES = [
    Axis("distance", ["squared", "cosine"], "D", text="{}", choice=True),
    Axis("scale", [1, 1e-14], "times"),
    Axis("sigma", [0, 0.1], "σ"),
    Axis("factor", [1, 0.1], "factor"),
]
WORDS = {"question": "What is found?", "caption": "c"}
LANES = {
    "two": [
        Lane("MLP", mlp(SHAPE, depth=1, width=24, activation=nn.Sigmoid), PLAIN),
        Lane("LeNet", lenet(SHAPE), SIGNED, bound=0.5),
    ],
    "precode": [
        Lane("searched", with_precode(lenet(SHAPE), k=8), SIGNED, Noise.SEARCHED),
        Lane("oracle", with_precode(lenet(SHAPE), k=8), SIGNED, Noise.ORACLE),
        Lane("left", with_precode(lenet(SHAPE), k=8), SIGNED, Noise.LEFT_OUT),
        Lane("fresh", with_precode(lenet(SHAPE), k=8), SIGNED),
    ],
}
PRECODE_AXES = [
    Axis("k", [4, 8], "k", text=str, start=1),
    Axis("beta", [1e-3, 10], "β"),
    Axis("sigma", [0, 0.1], "σ"),
]


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> dict:
    """Addresses of a page with each set of lanes; the last one never ends."""
    folder, made = tmp_path_factory.mktemp("race"), {}
    figures = {
        "two": race(PHOTOS, LANES["two"], steps=STEPS, **WORDS),
        "sliders": race(PHOTOS, LANES["two"][:1], AXES, steps=STEPS, **WORDS),
        "precode": race(PHOTOS, LANES["precode"], PRECODE_AXES, steps=STEPS, **WORDS),
    }
    for name, figure in figures.items():
        html = document_of(figure)
        if name == "two":
            endless = html.replace(f"steps&quot;: {STEPS}", "steps&quot;: 1000000")
            assert endless != html
            figures_of = {"endless": endless, name: html}
        else:
            figures_of = {name: html}
        for key, body in figures_of.items():
            path = folder / f"{key}.html"
            path.write_text(body, encoding="utf-8")
            made[key] = path.as_uri()
    return made


@pytest.fixture
def opened(browser, figures):
    with visitors(browser) as visit:

        def open_figure(name: str, script: str = "", **options):
            page = visit(figures[name], script, **options)
            if options.get("java_script_enabled", True):
                page.wait_for_selector("[data-part=run]:enabled")
            return page

        yield open_figure


def numbers(page) -> list[str]:
    return [node.inner_text() for node in page.locator("dd").all()]


def to_the_end(page) -> list[str]:
    page.locator("[data-part=run]").click()
    wait_for_the_end(page)
    return numbers(page)


def wait_for_the_end(page) -> None:
    page.wait_for_function(
        "text => document.querySelector('[role=status]').textContent.includes(text)",
        arg=f"Step {STEPS} of",
    )


def step(page) -> int:
    return int(page.locator("[data-search]").get_attribute("data-shown") or 0)


def wait_for_steps(page, more_than: int) -> None:
    page.wait_for_function(
        "n => Number(document.querySelector('[data-search]').dataset.shown) > n",
        arg=more_than,
    )


@pytest.mark.parametrize(("name", "alike"), [("two", 4), ("precode", 4)])
def test_the_page_finds_what_the_library_finds(opened, name, alike):
    page = opened(name)
    expected = numbers(page)  # as Python drew them
    page.locator(".precode-trio img").last.wait_for()
    assert to_the_end(page)[:alike] == expected[:alike]
    assert page.complaints == []
    lanes = LANES[name]
    assert len(page.workers) == len(lanes)
    assert page.locator(".precode-curve polyline").count() == len(lanes)


def test_fresh_noise_and_none_differ(opened):
    found = to_the_end(opened("precode"))
    objectives = dict(
        zip(("searched", "oracle", "left", "fresh"), found[1::2], strict=True)
    )
    ranked = sorted(objectives, key=lambda name: float(objectives[name]))
    assert (ranked[0], ranked[-1]) == ("oracle", "fresh")


def test_pause_go_on_and_from_the_start(opened):
    page = opened("endless")
    run = page.locator("[data-part=run]")
    run.press("Enter")
    wait_for_steps(page, 5)
    assert run.inner_text() == "Pause"
    run.press("Enter")
    page.wait_for_timeout(300)  # what was on its way arrives
    at = step(page)
    assert str(at) in page.locator("[role=status]").inner_text()
    page.wait_for_timeout(400)
    assert step(page) == at
    assert run.inner_text() == "Go on"
    run.press("Enter")
    wait_for_steps(page, at)
    run.press("Enter")
    at = step(page)
    page.locator("[data-part=again]").click()
    page.wait_for_function(
        "n => Number(document.querySelector('[data-search]').dataset.shown) < n",
        arg=at,
    )


def test_another_start_ends_elsewhere_and_the_same_start_at_the_same(opened):
    page = opened("two")
    first = to_the_end(page)
    page.locator("[data-part=seed]").click()
    wait_for_the_end(page)
    assert numbers(page) != first
    assert to_the_end(opened("two")) == first


@pytest.mark.parametrize("script", ["", "delete window.Worker;"])
def test_a_hidden_tab_makes_no_step(opened, script):
    page = opened("endless", script + HIDDEN)
    page.locator("[data-part=run]").click()
    wait_for_steps(page, 3)
    page.evaluate("turn(true)")
    page.wait_for_timeout(300)
    at = step(page)
    page.wait_for_timeout(400)
    assert step(page) == at
    page.evaluate("turn(false)")
    wait_for_steps(page, at)


def test_without_workers_the_page_finds_the_same(opened):
    alone = opened("two", "delete window.Worker")
    assert to_the_end(alone) == to_the_end(opened("two"))


def test_every_slider_changes_what_is_found(opened):
    page = opened("sliders")
    seen = {tuple(to_the_end(page))}
    page.locator("select[id$=-distance]").select_option(index=1)
    wait_for_the_end(page)
    seen.add(tuple(numbers(page)))
    page.locator("select[id$=-distance]").select_option(index=0)
    for name in ("scale", "sigma", "factor"):
        page.locator(f"[id$=-{name}]").press("End")
        wait_for_the_end(page)
        seen.add(tuple(numbers(page)))
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("name", "key", "moved"),
    [
        ("k", "Home", {"k": 4, "beta": 1e-3}),
        ("beta", "End", {"k": 8, "beta": 10.0}),
    ],
)
def test_the_sliders_of_precode_find_what_the_library_finds(opened, name, key, moved):
    page = opened("precode")
    page.locator("[data-part=run]").click()
    page.locator(f"[id$=-{name}]").press(key)
    wait_for_the_end(page)
    model = with_precode(lenet(SHAPE), **moved)
    lanes = [replace(lane, model=model) for lane in LANES["precode"]]
    panels = race(PHOTOS, lanes, steps=STEPS, **WORDS).panels[1:]
    expected = [value for panel in panels for value in panel.values.values()]
    assert numbers(page)[:4] == expected[:4]  # the others draw as they go


def test_noise_on_the_gradient_reaches_precode_s_searches(opened):
    page = opened("precode")
    before = to_the_end(page)
    page.locator("[id$=-sigma]").press("End")
    wait_for_the_end(page)
    objectives = zip(numbers(page)[1::2], before[1::2], strict=True)
    assert all(a != b for a, b in objectives)


def test_adam_stands_still_where_the_distance_has_tiny_units(opened):
    page = opened("sliders")
    found = float(to_the_end(page)[0])
    page.locator("[id$=-scale]").press("End")
    wait_for_the_end(page)
    assert float(numbers(page)[0]) < 0.2 < found


def test_another_picture_is_searched_for(opened):
    page = opened("two")
    page.locator("select[id$=-photo]").select_option(index=1)
    wait_for_the_end(page)
    first = numbers(page)
    page.locator("select[id$=-photo]").select_option(index=0)
    wait_for_the_end(page)
    assert numbers(page) != first


@pytest.mark.parametrize("words", HOSTILE)
def test_what_is_no_photograph_is_refused_in_a_sentence(opened, words):
    page = opened("two")
    page.locator("[data-part=file]").set_input_files(file(HOSTILE[words]))
    page.wait_for_function(
        "word => document.querySelector('[role=status]').textContent.includes(word)",
        arg=words,
    )
    assert page.evaluate("window.hurt") is None
    assert step(page) == 0


def test_a_photograph_of_fifty_megapixels_is_scaled_and_searched_for(opened):
    page = opened("two")
    large = png(halves(10_000, 5_000), "JPEG")
    page.locator("[data-part=file]").set_input_files(large)
    wait_for_the_end(page)
    first = page.locator(".precode-trio canvas").first.evaluate(LEVELS)
    assert first[:3] == pytest.approx([30, 60, 200], abs=8)


def test_the_keyboard_alone_searches_and_every_value_has_its_text(opened):
    page = opened("precode")
    controls = page.locator("[data-search] :is(button, select, input):visible").all()
    assert len(controls) == 8
    reached_and_spoken(page, controls)
    controls[0].press(" ")
    wait_for_the_end(page)
    assert "searched: SSIM" in page.locator("[role=status]").inner_text()


def test_a_finger_starts_and_pauses(opened):
    page = opened("endless", has_touch=True, viewport=PHONE)
    run = page.locator("[data-part=run]")
    run.tap()
    wait_for_steps(page, 2)
    run.tap()
    assert run.inner_text() == "Go on"


def test_on_paper_the_pictures_and_the_curve_stay(opened):
    page = opened("two")
    to_the_end(page)
    page.emulate_media(media="print")
    assert not page.locator(".precode-tools").is_visible()
    assert page.locator(".precode-trio canvas").last.is_visible()
    assert page.locator(".precode-curve").is_visible()


def test_nothing_is_asked_of_the_network(opened, figures):
    page = opened("two", offline=True)
    to_the_end(page)
    assert sent(page, figures["two"]) == []


def test_nothing_moves_before_it_is_asked_and_less_for_who_wants_less(opened):
    page = opened("endless", reduced_motion="reduce")
    page.wait_for_timeout(300)
    assert step(page) == 0
    page.evaluate(
        """() => {
          window.drawn = 0;
          new MutationObserver(() => { drawn += 1; }).observe(
            document.querySelector("[data-search]"),
            { attributes: true, attributeFilter: ["data-shown"] });
        }"""
    )
    page.locator("[data-part=run]").click()
    page.wait_for_function("window.drawn >= 1")
    page.wait_for_timeout(1500)
    assert page.evaluate("drawn") <= 3  # about one picture a second


def test_without_scripts_there_is_what_the_library_found(opened):
    page = opened("two", java_script_enabled=False)
    assert page.locator(".precode-trio img").count() == 3
    assert page.locator(".precode-curve polyline").count() == 2
    assert page.locator("[data-part=run]").is_disabled()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, theme):
    page = opened("sliders", viewport=PHONE)
    to_the_end(page)
    assert faults(page, theme) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_layers_are_told_in_the_page_s_words():
    assert words_of(with_precode(lenet(), k=8, beta=0.01)) == [
        "conv 12 5 2 2", "sigmoid", "conv 12 5 2 2", "sigmoid", "conv 12 5 1 2",
        "sigmoid", "precode 8 0.01", "linear 10",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no layer BatchNorm2d"):
        words_of(resnet20_4())


MLP = LANES["two"][0]


@pytest.mark.parametrize(
    ("lanes", "axes", "message"),
    [
        ([], [], "1 to 4 lanes, got 0"),
        ([MLP], [Axis("width", [1, 2])], "one of sigma, .* got 'width'"),
        ([MLP], [Axis("k", [1, 2])], "begins at 1; .* drawn at none"),
        (LANES["precode"], [Axis("k", [4, 8])], "begins at 4; .* drawn at 8"),
        ([MLP], [Axis("sigma", [0, 1], start=1)], "begins at 1; .* drawn at 0"),
        (
            [replace(MLP, recipe=replace(PLAIN, distance=layerwise_cosine_distance))],
            [],
            "squared and the cosine",
        ),
        (
            [replace(MLP, recipe=replace(PLAIN, optimizer=partial(SGD, lr=1.0)))],
            [],
            r"partial\(Adam, lr",
        ),
        (
            [replace(MLP, recipe=replace(PLAIN, prior=torch.norm, prior_weight=1.0))],
            [],
            "total variation",
        ),
    ],
)
def test_what_the_page_cannot_do_is_refused(lanes, axes, message):
    with pytest.raises(ValueError, match=message):
        race(PHOTOS, lanes, axes, steps=2, **WORDS)
