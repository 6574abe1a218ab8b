"""The search engine: what it yields, when it stops, what it leaves untouched."""

import copy
import io
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from math import inf

import pytest
import torch
from scenes import make_net, make_scene
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Adam, AdamW
from torch.testing import assert_close

from precode_lib.attacks import (
    Recipe,
    Search,
    VictimLBFGS,
    dlg,
    iga,
    progress,
    step_decay,
)
from precode_lib.attacks.labels import known_labels
from precode_lib.attacks.objectives import (
    cosine_distance,
    linear_weights,
    squared_distance,
    total_variation,
)
from precode_lib.attacks.starts import zeros
from precode_lib.bottleneck import per_example_loss
from precode_lib.data import PHOTOS
from precode_lib.federated import LocalTraining, observe
from precode_lib.gradients import Gradients

SHORT = Recipe(labels=known_labels, iterations=5, distance=squared_distance)
OPTIMIZERS = {
    "Adam": partial(Adam, lr=0.05),
    "AdamW": partial(AdamW, lr=0.05),
    "SGD": partial(SGD, lr=0.05, momentum=0.9, nesterov=True),
    "VictimLBFGS": partial(VictimLBFGS, lr=0.1, max_iter=3),
    "L-BFGS": partial(LBFGS, lr=0.1, max_iter=3),
    "strong Wolfe": partial(LBFGS, max_iter=3, line_search_fn="strong_wolfe"),
}
if hasattr(torch.optim, "Adafactor"):  # from torch 2.5 on
    OPTIMIZERS["Adafactor"] = partial(torch.optim.Adafactor, lr=0.05)


@pytest.fixture
def scene():
    return make_scene()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def near(scene):
    """Starts from which L-BFGS without line search does not run away."""
    shape = scene.images.shape
    return scene.images + 0.2 * torch.randn(shape, generator=seeded()).double()


def search(scene, recipe=SHORT, **changes):
    return Search(scene.seen, replace(recipe, **changes), generator=seeded())


def dense_objective(scene, images, labels):
    """Squared distance by plain autograd, one victim at a time."""
    values = []
    for v in range(len(images)):
        model = scene.model
        mean = per_example_loss(model, images[v], labels[v]).mean()
        found = torch.autograd.grad(mean, list(model.parameters()))
        target = [t[v] for t in scene.seen.shared.dense().values()]
        pairs = zip(found, target, strict=True)
        values.append(sum((a - b).square().sum() for a, b in pairs))
    return torch.stack(values)


# --- steps ------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_step_carries_the_objective_of_its_own_images(scene, optimizer):
    for number, step in enumerate(search(scene, optimizer=optimizer)):
        assert step.iteration == number
        expected = dense_objective(scene, step.images, scene.labels)
        assert_close(step.objective, expected, rtol=1e-7, atol=1e-12)
    assert number == 4


def test_the_prior_and_the_label_term_are_part_of_the_objective(scene):
    plain = next(search(scene))
    prior = next(search(scene, prior_weight=0.5)).objective
    assert_close(prior, plain.objective + 0.5 * total_variation(plain.images))
    labelled = next(search(scene, label_weight=2.0)).objective
    logits = scene.model(plain.images.flatten(0, 1))
    error = (logits - F.one_hot(scene.labels.flatten(), 4)).square().sum(1)
    assert_close(labelled, plain.objective + 2 * error.detach())


def test_the_first_step_is_where_the_search_begins(scene):
    step = next(search(scene, start=zeros))
    assert not step.images.any()
    given = torch.full_like(scene.images, 0.25)
    begun = Search(scene.seen, SHORT, generator=seeded(), start=given)
    assert torch.equal(next(begun).images, given)
    assert_close(given, torch.full_like(given, 0.25))


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_many_victims_at_once_are_attacked_as_each_would_be_alone(optimizer):
    scene = make_scene(victims=3)
    start = near(scene)
    recipe = replace(SHORT, optimizer=optimizer)
    together = Search(scene.seen, recipe, generator=seeded(), start=start)
    last = list(together)[-1]
    for v in range(3):
        part = slice(v, v + 1)
        seen = scene.seen.take(part)
        alone = Search(seen, recipe, generator=seeded(), start=start[part])
        step = list(alone)[-1]
        assert_close(step.images, last.images[part], rtol=1e-6, atol=1e-9)
        assert_close(step.objective, last.objective[part], rtol=1e-6, atol=1e-9)


def test_a_search_is_its_seed(scene):
    a, b = (list(search(scene))[-1].images for _ in range(2))
    assert torch.equal(a, b)
    other = Search(scene.seen, SHORT, generator=seeded(1))
    assert not torch.equal(list(other)[-1].images, a)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_the_chunk_size_changes_nothing(bottleneck):
    scene = make_scene(victims=5, bottleneck=bottleneck)
    recipe = replace(SHORT, prior_weight=0.1, label_weight=0.1)
    whole = list(Search(scene.seen, recipe, generator=seeded()))[-1]
    for size in (1, 2**18):
        cut = Search(scene.seen, recipe, generator=seeded(), chunk_bytes=size)
        assert len(cut._targets) > 1
        step = list(cut)[-1]
        assert_close(step.images, whole.images)
        assert_close(step.objective, whole.objective)


def test_only_the_chosen_layers_are_matched(scene):
    def first(gradients):
        return gradients.select("0.*")

    step = next(search(scene, layers=first))
    guess = scene.seen.client()(step.images, scene.labels)
    expected = squared_distance(guess.select("0.*"), scene.seen.shared.select("0.*"))
    assert_close(step.objective, expected)
    weighed = next(search(scene, layer_weights=linear_weights))
    weights = linear_weights(scene.seen.shared)
    expected = squared_distance(guess, scene.seen.shared, weights=weights)
    assert_close(weighed.objective, expected)


def test_signed_steps_move_every_pixel_alike(scene):
    first, second = islice(
        search(scene, optimizer=partial(SGD, lr=0.125), signed=True), 2
    )
    moves = (second.images - first.images).abs()
    assert_close(moves, torch.full_like(moves, 0.125))


@pytest.mark.parametrize(
    ("optimizer", "signed"),
    [(partial(SGD, lr=5.0), True), (partial(LBFGS, lr=5.0, max_iter=2), False)],
    ids=["SGD", "L-BFGS"],
)
def test_boxed_steps_stay_inside_the_box(scene, optimizer, signed):
    steps = list(search(scene, optimizer=optimizer, signed=signed, boxed=True))
    lower, upper = (side.double() for side in PHOTOS.box)
    assert (steps[0].images > upper).any()  # the start may lie outside
    for step in steps[1:]:
        assert (step.images >= lower).all()
        assert (step.images <= upper).all()
    assert (steps[-1].images == upper).any()


def test_the_learning_rate_falls_at_the_published_iterations():
    rates = [step_decay(i, 7000) for i in range(7000)]
    falls = [i for i in range(1, 7000) if rates[i] < rates[i - 1]]
    assert falls == [2624, 4374, 6129]
    assert rates[0] == 1
    assert rates[-1] == pytest.approx(1e-3)
    assert next(i for i in range(4800) if step_decay(i, 4800) == 0.1) == 1799


def test_the_schedule_scales_the_steps(scene):
    def halves(iteration, iterations):
        return 0.5**iteration

    steps = [s.images for s in search(
        scene, optimizer=partial(SGD, lr=1.0), signed=True, schedule=halves
    )]  # fmt: skip
    sizes = [(b - a).abs().max().item() for a, b in pairwise(steps)]
    assert sizes == pytest.approx([1, 0.5, 0.25, 0.125])


def test_dlg_searches_for_probabilities_of_the_labels_too(scene):
    joint = search(scene, labels=None, optimizer=partial(Adam, lr=0.5), iterations=60)
    steps = list(joint)
    assert steps[-1].objective.max() < steps[0].objective.min()
    assert joint.result.labels.shape == (2, 1)


# --- the end ----------------------------------------------------------------------


def test_the_result_is_the_best_iterate_and_the_last_is_kept_too(scene):
    wild = search(scene, optimizer=partial(SGD, lr=0.6), signed=True, iterations=12)
    steps = list(wild)
    table = torch.stack([s.objective for s in steps])
    best = table.argmin(0)
    assert (best < 11).any()  # the search did get worse again
    result = wild.result
    assert_close(result.objective, table.amin(0))
    assert_close(result.last_objective, table[-1])
    for v in range(2):
        assert torch.equal(result.images[v], steps[best[v]].images[v])
    assert torch.equal(result.last_images, steps[-1].images)
    assert result.outcome == ("exhausted", "exhausted")
    assert result.iterations.tolist() == [12, 12]
    assert_close(result.pixels, PHOTOS.denormalise(result.images).clamp(0, 1))


def test_restarts_compete_and_the_best_of_each_victim_is_kept():
    scene = make_scene(victims=3)
    several = replace(SHORT, restarts=4)
    together = Search(scene.seen, several, generator=seeded())
    steps = list(together)
    assert steps[0].num_active == 12
    starts = torch.randn(4, 3, 1, 3, 8, 8, generator=seeded()).double()
    single = [Search(scene.seen, SHORT, generator=seeded(), start=s) for s in starts]
    results = [list(s) and s.result for s in single]
    table = torch.stack([r.objective for r in results])
    assert_close(together.result.objective, table.amin(0))
    assert len(set(table.argmin(0).tolist())) > 1
    for v, r in enumerate(table.argmin(0).tolist()):
        assert_close(together.result.images[v], results[r].images[v])


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_victim_on_a_plateau_leaves_and_the_others_go_on_unchanged(optimizer):
    scene = make_scene(victims=3)
    start = near(scene)

    def distance(guess, target, *, weights=None):
        # Victim 1's target is replaced by a marker; its objective never moves.
        value = squared_distance(guess, target)
        stuck = target["0.bias"][:, 0] == 77
        return torch.where(stuck, torch.ones_like(value), value)

    shared = {n: t.clone() for n, t in scene.seen.shared.dense().items()}
    shared["0.bias"][1] = 77
    seen = replace(scene.seen, shared=Gradients(shared))
    recipe = replace(
        SHORT, distance=distance, optimizer=optimizer, iterations=9, patience=3
    )
    together = Search(seen, recipe, generator=seeded(), start=start)
    steps = list(together)
    assert [s.num_active for s in steps[:4]] == [3, 3, 3, 2]
    result = together.result
    assert result.outcome[1] == "plateau"
    assert result.iterations[1] == 4
    others = torch.tensor([0, 2])
    alone = Search(seen.take(others), recipe, generator=seeded(), start=start[others])
    list(alone)
    assert_close(result.images[others], alone.result.images, rtol=1e-6, atol=1e-9)


def test_a_victim_below_the_tolerance_has_converged(scene):
    wide = search(scene, tolerance=1e9)
    assert len(list(wide)) == 1
    assert wide.result.outcome == ("converged", "converged")
    assert len(wide) == 0
    assert wide


def test_nan_stops_that_victim_and_says_so(scene):
    def distance(guess, target, *, weights=None):
        value = squared_distance(guess, target)
        distance.calls += 1
        broken = torch.tensor([distance.calls == 3] + [False] * (len(value) - 1))
        return torch.where(broken, torch.nan, value)

    distance.calls = 0
    ill = search(scene, distance=distance)
    steps = list(ill)
    assert len(steps) == 5
    assert ill.result.outcome == ("diverged", "exhausted")
    assert ill.result.iterations.tolist() == [3, 5]
    assert ill.result.objective.isfinite().all()
    assert ill.result.images.isfinite().all()
    assert steps[2].objective[0].isnan()
    assert "1 diverged" in repr(ill.result)


def test_a_search_that_never_was_finite_says_infinity(scene):
    def distance(guess, target, *, weights=None):
        return squared_distance(guess, target) * torch.nan

    ill = search(scene, distance=distance)
    assert len(list(ill)) == 1
    assert ill.result.objective.tolist() == [inf, inf]
    assert ill.result.outcome == ("diverged", "diverged")


# --- resuming ---------------------------------------------------------------------


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_interrupted_search_goes_on_bit_by_bit(optimizer, joint):
    scene = make_scene(victims=3, bottleneck=True)
    recipe = replace(
        SHORT, optimizer=optimizer, iterations=8, patience=2, restarts=2,
        labels=None if joint else known_labels, schedule=step_decay,
    )  # fmt: skip
    undisturbed = Search(scene.seen, recipe, generator=seeded())
    expected = list(undisturbed)
    first = Search(scene.seen, recipe, generator=seeded())
    list(islice(first, 4))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    next(first)  # what the saved search does next must not matter
    file.seek(0)
    second = Search(scene.seen, recipe, generator=seeded(99))
    second.load_state_dict(torch.load(file, weights_only=True))
    rest = list(second)
    assert [s.iteration for s in rest] == [s.iteration for s in expected[4:]]
    for got, wanted in zip(rest, expected[4:], strict=True):
        assert torch.equal(got.images, wanted.images)
        assert torch.equal(got.objective, wanted.objective)
    assert torch.equal(second.result.images, undisturbed.result.images)
    assert torch.equal(second.result.labels, undisturbed.result.labels)


def test_a_finished_search_can_be_saved_and_stays_finished(scene):
    done = search(scene)
    list(done)
    again = search(scene)
    again.load_state_dict(done.state_dict())
    assert list(again) == []
    assert torch.equal(again.result.images, done.result.images)


def test_the_state_of_another_search_is_refused(scene):
    state = search(scene, name="other").state_dict()
    with pytest.raises(ValueError, match="'other'.*'search'"):
        search(scene).load_state_dict(state)
    with pytest.raises(ValueError, match="of 'search' over images"):
        search(make_scene(victims=3)).load_state_dict(search(scene).state_dict())
    joint = search(scene, labels=None)
    with pytest.raises(ValueError, match="the same `labels`"):
        joint.load_state_dict(search(scene).state_dict())
    with pytest.raises(ValueError, match="the same `labels`"):
        search(scene).load_state_dict(joint.state_dict())


@pytest.mark.parametrize("distance", [squared_distance, cosine_distance])
def test_a_victim_that_sent_nan_diverges_and_the_others_go_on(scene, distance):
    shared = scene.seen.shared.dense().map(lambda g: g.clone())
    shared["3.weight"][0, 0, 0] = float("nan")
    seen = replace(scene.seen, shared=shared)
    broken = Search(seen, replace(SHORT, distance=distance), generator=seeded())
    list(broken)
    assert broken.result.outcome == ("diverged", "exhausted")


def test_a_search_refuses_bare_gradients(scene):
    with pytest.raises(TypeError, match="takes an Observation, got Gradients"):
        Search(scene.seen.shared, SHORT, generator=seeded())


# --- observations of every kind ---------------------------------------------------


def test_a_defended_observation_is_attacked_as_it_is(scene, generator):
    def noisy(gradients):
        return gradients.map(
            lambda t: t + 0.1 * torch.randn(t.shape, generator=generator).to(t)
        )

    seen = observe(
        scene.model, scene.images, scene.labels, defense=noisy, normalisation=None
    )
    step = next(Search(seen, SHORT, generator=seeded()))
    guess = seen.client()(step.images, scene.labels).dense()
    expected = squared_distance(guess, seen.shared.dense())
    assert_close(step.objective, expected)
    exact = squared_distance(guess, scene.seen.shared.dense())
    assert not torch.allclose(step.objective, exact)


def test_a_weight_update_is_matched_by_unrolling_the_local_steps(scene):
    local = LocalTraining(steps=3, lr=0.1)
    seen = observe(scene.model, scene.images, scene.labels, local=local)
    wolfe = partial(LBFGS, line_search_fn="strong_wolfe")
    recipe = replace(SHORT, optimizer=wolfe, iterations=20)
    nearby = scene.images + 0.3 * torch.randn(scene.images.shape, generator=seeded())
    steps = list(Search(seen, recipe, generator=seeded(), start=nearby))
    assert steps[-1].objective.max() < 1e-3 * steps[0].objective.min()
    guess = seen.client()(steps[0].images, scene.labels)
    assert_close(steps[0].objective, squared_distance(guess, seen.shared))


def test_train_mode_statistics_are_replayed_victim_by_victim():
    torch.manual_seed(0)
    model = make_net()
    model.insert(1, torch.nn.BatchNorm2d(8))
    model = model.double().train()
    scene = make_scene(victims=2, batch=2)
    seen = observe(model, scene.images, scene.labels, normalisation=None)
    before = copy.deepcopy(seen.model.state_dict())
    recipe = replace(SHORT, label_weight=0.1)
    step = next(Search(seen, recipe, generator=seeded(), start=scene.images))
    plain = next(Search(seen, SHORT, generator=seeded(), start=scene.images))
    assert_close(plain.objective, torch.zeros(2).double(), atol=1e-12, rtol=0)
    assert (step.objective > 0.01).all()
    after = seen.model.state_dict()
    assert all(torch.equal(before[k], v) for k, v in after.items())


def test_a_bottleneck_gets_fresh_noise_at_every_step_but_one_within_it():
    scene = make_scene(bottleneck=True)
    still = partial(SGD, lr=0.0)
    values = [s.objective for s in search(scene, optimizer=still)]
    assert len({v[0].item() for v in values}) == 5
    drawn = []

    def label_term(logits, labels):
        drawn.append(logits.detach().clone())
        return logits.sum((1, 2)) * 0

    wolfe = partial(LBFGS, lr=0.0, max_iter=4, tolerance_change=-1.0)
    list(search(scene, optimizer=wolfe, label_weight=1.0, label_term=label_term,
                iterations=1))  # fmt: skip
    assert len(drawn) > 2  # several evaluations of victim 0, then of victim 1
    assert torch.equal(drawn[0], drawn[1])


def test_the_observation_and_its_model_stay_as_they_were(scene):
    before = copy.deepcopy(scene.seen.model.state_dict())
    shared = {n: t.clone() for n, t in scene.seen.shared.dense().items()}
    rng = torch.get_rng_state()
    list(search(scene))
    assert all(
        torch.equal(before[k], v) for k, v in scene.seen.model.state_dict().items()
    )
    assert all(p.grad is None for p in scene.seen.model.parameters())
    assert all(torch.equal(t, shared[n]) for n, t in scene.seen.shared.dense().items())
    assert torch.equal(torch.get_rng_state(), rng)


# --- progress and bad input -------------------------------------------------------


def test_any_progress_bar_knows_the_length(scene):
    attack = search(scene)
    assert len(attack) == 5
    next(attack)
    assert len(attack) == 4


def test_a_search_and_its_steps_say_in_one_line_where_they_are(scene):
    attack = search(scene)
    step = next(attack)
    assert repr(attack) == "Search(search, 2 victims, 1 of 5 steps made, 2 searching)"
    middle = step.objective.median().item()
    images = tuple(step.images.shape)
    assert repr(step) == (
        f"AttackStep(0, objective {middle:.3g} in the median, images {images}, "
        "2 searching)"
    )


def test_the_standard_bar_passes_the_steps_on_and_shows_the_objective(scene):
    file = io.StringIO()
    steps = list(progress(search(scene), every=1, file=file, mininterval=0))
    assert [s.iteration for s in steps] == [0, 1, 2, 3, 4]
    text = file.getvalue()
    assert "search: 100%" in text
    assert "objective" in text
    assert "2 searching" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"prior_weight": -1.0}, "prior_weight must be in"),
        ({"label_weight": -1.0}, "label_weight must be in"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"tolerance": -1.0}, "tolerance must be in"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distance": "cosine"}, "distance must be a function such as cosine_distance"),
        ({"optimizer": Adam([torch.zeros(1)])}, r"partial\(torch.optim.Adam, lr=0.1\)"),
        ({"start": torch.zeros(1)}, "start must be a function such as normal, got Ten"),
        ({"labels": torch.zeros(2, 1)}, "labels must .* such as bias_sign_labels"),
        ({"prior": "tv"}, "prior must be a function such as total_variation"),
        ({"label_term": 0}, "label_term must be a function"),
        ({"layers": ["fc"]}, r"layers must .*gradients.select\('fc.\*'\), got list"),
        ({"layer_weights": [1.0]}, "layer_weights must .* such as linear_weights"),
        ({"schedule": 0.1}, "schedule must be a function such as step_decay"),
    ],
)
def test_a_name_or_a_tensor_in_place_of_a_function_is_refused(changes, message):
    with pytest.raises(TypeError, match=message):
        Recipe(**changes)


def test_an_option_that_a_search_does_not_have_is_refused_with_the_nearest(scene):
    with pytest.raises(TypeError, match="no option 'iteration'.*mean 'iterations'"):
        iga(scene.seen, generator=seeded(), iteration=3)
    with pytest.raises(TypeError, match=r"no option 'lr'.*partial\(torch.optim.Adam, "):
        dlg(scene.seen, generator=seeded(), lr=0.1)


@pytest.mark.parametrize("bad", [0, None], ids=repr)
def test_a_seed_in_place_of_a_generator_is_refused(scene, bad):
    with pytest.raises(TypeError, match=r"torch.Generator\(\).manual_seed\(0\) makes"):
        Search(scene.seen, SHORT, generator=bad)


def test_what_is_no_recipe_start_or_state_is_refused(scene):
    with pytest.raises(TypeError, match="recipe must be a Recipe such as IGA, got str"):
        Search(scene.seen, "iga", generator=seeded())
    with pytest.raises(TypeError, match="start must be a Tensor .*, got ndarray"):
        Search(scene.seen, SHORT, generator=seeded(), start=scene.images.numpy())
    for state in (None, scene.model.state_dict()):
        with pytest.raises(ValueError, match="no state of a search"):
            search(scene).load_state_dict(state)


def test_a_distance_of_two_arguments_will_do(scene):
    plain = search(scene, distance=lambda a, b: squared_distance(a, b))
    expected = [step.objective for step in search(scene)]
    assert_close([step.objective for step in plain], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"distance": lambda a, b: squared_distance(a, b).mean()},
            r"distance must return one number for each of 2 .*got shape \(\)\.",
        ),
        (
            {"distance": lambda a, b: 0.0},
            "distance must return one number .*; got float",
        ),
        (
            {"distance": lambda a, b: torch.zeros(2)},
            "distance does not depend on the images",
        ),
        (
            {"prior": lambda x: x.abs().mean(), "prior_weight": 1.0},
            "prior must return one number for each of 2 victims",
        ),
        (
            {"label_term": lambda p, y: p.mean(), "label_weight": 1.0},
            "label_term must return one number for each of 2 victims",
        ),
        ({"layers": list}, "layers must return Gradients, got list"),
    ],
)
def test_functions_that_return_something_else_are_refused(scene, changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        next(search(scene, **changes))


def test_a_search_matches_what_was_shared_where_a_layer_was_withheld(scene):
    withheld = observe(
        scene.model,
        scene.images,
        scene.labels,
        normalisation=PHOTOS,
        defense=lambda gradients: gradients.drop("5.*"),
    )
    found = list(Search(withheld, SHORT, generator=seeded()))
    kept = search(scene, layers=lambda gradients: gradients.drop("5.*"))
    for step, expected in zip(found, kept, strict=True):
        assert_close(step.objective, expected.objective)


def test_searches_that_cannot_begin_say_why(scene):
    unnormalised = replace(scene.seen, normalisation=None)
    boxed = replace(SHORT, boxed=True)
    with pytest.raises(ValueError, match="boxed search needs"):
        Search(unnormalised, boxed, generator=seeded())
    with pytest.raises(ValueError, match="pixels are unknown"):
        blind = Search(unnormalised, SHORT, generator=seeded())
        next(blind)
        _ = blind.result.pixels
    with pytest.raises(ValueError, match=r"start must be images \(2, 1, 3, 8, 8\)"):
        Search(scene.seen, SHORT, generator=seeded(), start=scene.images[:1])
    several = replace(SHORT, restarts=2)
    with pytest.raises(ValueError, match="for 2 restarts"):
        Search(scene.seen, several, generator=seeded(), start=scene.images)
    wrong = replace(SHORT, labels=lambda seen: seen.labels[:1])
    with pytest.raises(ValueError, match=r"labels must be \(V, B\) = \(2, 1\)"):
        Search(scene.seen, wrong, generator=seeded())


def test_the_cosine_of_the_true_pictures_is_one(scene):
    recipe = replace(SHORT, distance=cosine_distance)
    step = next(Search(scene.seen, recipe, generator=seeded(), start=scene.images))
    assert_close(step.objective, torch.zeros(2).double(), atol=1e-12, rtol=0)
