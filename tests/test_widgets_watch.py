"""A film of an attack shows the attack's own guesses and objectives."""

import dataclasses
import itertools
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_widgets import config, tile
from test_widgets_live import foreign_widgets

from precode_lib.attacks import IGA, AttackStep, Search
from precode_lib.data import Normalisation
from precode_lib.federated import observe
from precode_lib.metrics import psnr, ssim
from precode_lib.models import mlp
from precode_lib.plots import to_image
from precode_lib.widgets import SliderFigure, watch
from precode_lib.widgets.film import Film, log_spaced
from precode_lib.widgets.projector import Projector

SHAPE = (3, 8, 8)
NORMAL = Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3)
TEXT = {"question": "When?", "caption": "c"}


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, *SHAPE, generator=torch.Generator().manual_seed(1))


class Script:
    """An attack that has been written down: step t shows its originals times t / n."""

    def __init__(self, originals, length, *, bound=None, objective=None):
        self.originals, self.length = originals, length
        self.observation = SimpleNamespace(
            num_victims=originals.shape[0], num_examples=originals.shape[1],
            image_shape=SHAPE, normalisation=NORMAL,
        )  # fmt: skip
        self.recipe = SimpleNamespace(iterations=bound or length)
        self.objective = objective or (lambda t: 1 / (1 + t))
        self._steps = iter(range(length))

    def guess(self, t: int) -> torch.Tensor:
        return self.originals * t / max(self.length - 1, 1)

    def __iter__(self):
        return self

    def __next__(self) -> AttackStep:
        t = next(self._steps)
        victims = torch.arange(1, len(self.originals) + 1)
        images = NORMAL.normalise(self.guess(t))
        return AttackStep(t, self.objective(t) * victims.double(), images, 1)


def filmed(script, **options) -> Film:
    film = Film(script, script.originals, **{"frames": 6, **options})
    for step in script:
        film.add(step)
    return film


def page(script, originals=None, **options) -> str:
    originals = script.originals if originals is None else originals
    figure = watch(script, originals, static=True, **TEXT, **options)
    assert isinstance(figure, SliderFigure)
    return figure._repr_html_()


@given(st.integers(1, 3000), st.integers(2, 60))
def test_log_spaced_numbers_are_exactly_as_many_as_asked_and_grow_sparser(length, n):
    chosen = log_spaced(length, n)
    assert len(chosen) == min(length, n)
    assert (chosen[0], chosen[-1]) == (0, length - 1)
    gaps = [high - low for low, high in itertools.pairwise(chosen)]
    assert all(gap >= 1 for gap in gaps)
    assert all(late >= early - 1 for early, late in itertools.pairwise(gaps))


def test_each_frame_of_the_page_shows_its_own_iteration():
    script = Script(pixels(1, 1), 100)
    html = page(script, frames=5)
    shown = [int(text) for text in config(html)["axes"][0]["texts"]]
    assert (len(shown), shown[0], shown[-1]) == (5, 0, 99)
    for t, (original, guess) in zip(shown, config(html)["tiles"], strict=True):
        assert tile(html, original).tobytes() == to_image(pixels(1)[0]).tobytes()
        expected = to_image(script.guess(t)[0, 0])
        difference = torch.tensor(list(tile(html, guess).tobytes()), dtype=int)
        difference -= torch.tensor(list(expected.tobytes()))
        assert difference.abs().max() <= 1  # float32 between normalise and back


def test_values_are_the_metrics_in_pixels_and_the_objective():
    script = Script(pixels(1, 1), 100)
    film = filmed(script)
    _, guess = film.panels(film.kept[2])
    found = script.guess(film.kept[2])[0]
    assert guess.values["SSIM"] == f"{ssim(pixels(1), found, data_range=1).item():.2f}"
    assert guess.values["PSNR"] == f"{psnr(pixels(1), found).item():.1f} dB"
    assert guess.values["objective"] == f"{1 / (1 + film.kept[2]):.2g}"
    assert float(film.panels(99)[1].values["PSNR"].split()[0]) > 100


def test_the_curve_has_every_iteration_and_the_marks_of_the_frames():
    film = filmed(Script(pixels(1, 1), 50))
    role, places, heights = film.curve(film.chosen()).lines["guess"]
    assert (role, list(places)) == ("leaked", list(range(50)))
    assert list(heights) == [1 / (1 + t) for t in range(50)]
    html = page(Script(pixels(1, 1), 50), frames=6)
    assert len(config(html)["marks"]) == 6
    assert 'class="precode-curve"' in html
    assert "precode-play" in html


def test_an_attack_that_ends_early_still_fills_its_frames():
    film = filmed(Script(pixels(1, 1), 41, bound=100_000), frames=12)
    assert film.chosen()[0] == 0
    assert film.chosen()[-1] == 40
    assert len(film.chosen()) >= 9
    assert len(film.kept) <= 4 * 12 + 1


@pytest.mark.parametrize(
    ("v", "b", "shown"), [(2, 1, 2), (6, 1, 4), (1, 3, 3), (3, 2, 4)]
)
def test_at_most_four_pictures_are_shown(v, b, shown):
    film = filmed(Script(pixels(v, b), 5))
    panels = film.panels(4)
    assert len(panels) == 2 * shown
    for index, original in enumerate(pixels(v, b).flatten(0, 1)[:shown]):
        assert torch.equal(panels[2 * index].pixels, original)
        torch.testing.assert_close(panels[2 * index + 1].pixels, original)
        victim = index // b + 1
        assert panels[2 * index + 1].values["objective"] == f"{victim / 5:.2g}"
    assert len(film.curve([0]).lines) == -(-shown // b)


def test_a_batch_found_in_another_order_is_paired_by_the_newest_step():
    script = Script(pixels(1, 3), 5)
    upside_down = script.originals.flip(1)
    film = Film(script, upside_down, frames=5)
    for step in script:
        film.add(step)
        film.panels(step.iteration)  # looking at it on the way changes nothing
    for t in film.kept:
        for index in range(3):
            guess = film.panels(t)[2 * index + 1].pixels
            torch.testing.assert_close(guess, upside_down[0, index] * t / 4)


def test_pictures_have_the_names_they_are_given():
    labels = [panel.label for panel in filmed(Script(pixels(1, 1), 3)).panels(0)]
    assert labels == ["original", "guess"]
    named = filmed(Script(pixels(2, 1), 3), labels=["cat", "dog"]).panels(0)
    assert [panel.label for panel in named][::2] == ["original: cat", "original: dog"]
    with pytest.raises(ValueError, match="1 labels for 2 pictures"):
        filmed(Script(pixels(2, 1), 3), labels=["cat"])


def test_originals_of_single_pictures_need_no_axis_for_the_batch():
    single = page(Script(pixels(2, 1), 4), pixels(2))
    assert config(single) == config(page(Script(pixels(2, 1), 4)))


def test_steps_without_finite_pictures_are_no_frames():
    script = Script(pixels(1, 1), 9)
    usual = script.guess
    script.guess = lambda t: usual(t) * (torch.nan if t > 4 else 1)
    film = filmed(script)
    assert film.chosen()[-1] == 4
    assert len(film.objectives) == 9
    script = Script(pixels(1, 1), 2)
    script.guess = lambda t: usual(t) * torch.nan
    with pytest.raises(ValueError, match="no step with finite pictures"):
        page(script)


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (2,), ()])
def test_originals_that_are_not_the_victims_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(V, B, C, H, W\) = \(1, 1, 3, 8, 8\)"):
        watch(Script(pixels(1, 1), 3), pixels(*shape), **TEXT)


def test_one_frame_is_no_film():
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        watch(Script(pixels(1, 1), 3), pixels(1, 1), frames=1, **TEXT)


def real_search(generator, iterations: int = 8) -> tuple[Search, torch.Tensor]:
    originals = pixels(2, 1)
    model = mlp(SHAPE, 4, width=16, depth=1, generator=generator)
    labels = torch.zeros(2, 1, dtype=torch.int64)
    images = NORMAL.normalise(originals)
    seen = observe(model, images, labels, normalisation=NORMAL)
    recipe = dataclasses.replace(IGA, iterations=iterations)
    return Search(seen, recipe, generator=generator), originals


def test_a_real_search_is_filmed_to_its_end(generator):
    search, originals = real_search(generator)
    figure = watch(search, originals, static=True, **TEXT)
    assert search.iteration == 8
    assert repr(figure) == "<sliders: Iteration (8); 8 frames>"
    last = figure.frames[-1][1].pixels
    end = NORMAL.denormalise(search.result.last_images)[0, 0]
    torch.testing.assert_close(last, end.clamp(0, 1))


# --- live -----------------------------------------------------------------------------


def projector(script, question="Q?", **options) -> Projector:
    film = Film(script, script.originals, frames=6)
    return Projector(script, film, question=question, caption="c", **options)


class Held(Script):
    """A script that makes each step only when it is let."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps = threading.Semaphore(1)

    def __next__(self):
        assert self.steps.acquire(timeout=60)
        return super().__next__()


def test_the_first_step_is_shown_at_once_and_the_rest_follows():
    script = Held(pixels(1, 1), 5)
    shown = projector(script)
    shown.show()
    assert "precode-curve" in shown.view.value
    assert (shown.slider.max, shown.progress.max) == (0, 5)
    script.steps.release(10)
    assert shown.background.wait(60)
    assert shown.slider.value == shown.slider.max == shown.play.max == 4
    assert shown.progress.value == 5
    assert "done after 5 iterations" in shown.status.value
    assert shown.stop.disabled


def test_stopping_ends_the_search_and_keeps_its_frames():
    script = Held(pixels(1, 1), 1000)
    shown = projector(script)
    shown.show()
    shown.stop.click()
    script.steps.release(5)
    assert shown.background.wait(60)
    assert "stopped after 1 iterations" in shown.status.value
    assert shown.stop.disabled
    assert "<dd>" in shown.view.value


def test_scrubbing_shows_the_chosen_iteration():
    shown = projector(Script(pixels(1, 1), 5))
    shown.show()
    assert shown.background.wait(60)
    shown.slider.value = 2
    assert "<dd>0.33</dd>" in shown.view.value  # the objective, 1 / 3
    assert "2</output>" in shown.reading.value


def test_who_looks_at_an_old_frame_is_not_taken_away_from_it():
    script = Held(pixels(1, 1), 5)
    shown = projector(script)
    shown.show()
    shown._film.add(Script.__next__(script))
    shown._grow()
    assert shown.slider.value == 1
    shown.slider.value = 0
    script.steps.release(10)
    assert shown.background.wait(60)
    assert (shown.slider.value, shown.slider.max) == (0, 4)


def test_an_attack_that_fails_says_so():
    def fail(t):
        if t == 2:
            raise RuntimeError("no more <memory>")
        return 1.0

    shown = projector(Script(pixels(1, 1), 5, objective=fail))
    shown.show()
    assert shown.background.wait(60)
    assert "The attack failed." in shown.status.value
    assert "RuntimeError: no more &lt;memory&gt;" in shown.status.value


def test_the_same_question_asked_again_stops_the_earlier_attack():
    first, second = (Held(pixels(1, 1), 1000) for _ in range(2))
    earlier, later = projector(first, "same?"), projector(second, "same?")
    kept = earlier.show(), later.show()
    first.steps.release(5)
    assert earlier.background.wait(60)
    assert not later.background.wait(0)
    later.stop.click()
    second.steps.release(5)
    assert later.background.wait(60)
    assert len(kept) == 2


def test_a_search_that_is_over_is_refused():
    script = Script(pixels(1, 1), 3)
    list(script)
    with pytest.raises(ValueError, match="this search is over"):
        watch(script, pixels(1, 1), static=False, **TEXT)


def test_the_live_search_shares_no_model_with_the_notebook(generator):
    search, originals = real_search(generator)
    box = watch(search, originals, static=False, **TEXT)
    assert box.projector.background.wait(60)
    assert search.iteration == 0
    assert "done after 8 iterations" in box.projector.status.value
    running = box.projector._search.observation
    assert running.model is not search.observation.model


def test_a_live_search_finds_what_the_page_shows(generator):
    search, originals = real_search(generator)
    box = watch(search, originals, static=False, **TEXT)
    assert box.projector.background.wait(60)
    again, _ = real_search(torch.Generator().manual_seed(0))
    figure = watch(again, originals, static=True, **TEXT)
    shown = box.projector._film.panels(7)
    for live, page in zip(shown, figure.frames[-1], strict=True):
        assert torch.equal(live.pixels, page.pixels)
        assert live.values == page.values


def test_colab_needs_no_permission_for_the_film():
    shown = projector(Script(pixels(1, 1), 5))
    assert foreign_widgets(shown.show()) == []
    assert shown.background.wait(60)
