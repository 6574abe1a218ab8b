"""Whatever the attacker was not told is a variable of the search."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from scenes import make_scene
from torch import nn

from precode_lib.attacks import (
    Recipe,
    Search,
    Sites,
    Trial,
    Unknown,
    VictimLBFGS,
    drawn,
    fresh,
    given,
    kept_share,
    known_labels,
    mean_of,
    searched,
    shift,
    still,
)
from precode_lib.attacks.objectives import squared_distance
from precode_lib.attacks.starts import zeros
from precode_lib.attacks.unknowns import moved
from precode_lib.bottleneck import (
    VariationalBottleneck,
    hold_dropout,
    hold_statistics,
    noise_from,
    recorded_noise,
)
from precode_lib.data import PHOTOS
from precode_lib.federated import LocalTraining, observe
from precode_lib.gradients import victim_gradients

MATCH = Recipe(
    name="match",
    distance=squared_distance,
    optimizer=partial(VictimLBFGS, lr=1.0, longest=1.0),
    labels=known_labels,
    start=zeros,
    iterations=25,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def relative_error(found, truth):
    return ((found - truth).norm() / truth.norm()).item()


def searching(seen, recipe=MATCH, **options):
    search = Search(seen, recipe, generator=seeded(), **options)
    for _ in search:
        pass
    return search.result


def heard(model, images, labels, **options):
    """What V victims send, and what their layers drew."""
    with recorded_noise() as numbers:
        seen = observe(
            model, images, labels, noise=seeded(7), normalisation=PHOTOS, **options
        )
    return seen, numbers


@pytest.fixture
def behind_precode():
    scene = make_scene(victims=2, bottleneck=True)
    seen, numbers = heard(scene.model, scene.images, scene.labels)
    return scene, seen, numbers


def dropping(p=0.4, dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 16), nn.Sigmoid(), nn.Dropout(p), nn.Linear(16, 4)
    ).to(dtype)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model.train()


def small_pictures(victims, batch=1):
    generator = seeded(3)
    images = torch.randn(victims, batch, 3, 2, 2, generator=generator).double()
    return images, torch.arange(victims * batch).view(victims, batch) % 4


def test_a_joint_search_finds_picture_and_noise_where_fresh_noise_finds_neither(
    behind_precode,
):
    scene, seen, numbers = behind_precode
    joint = searching(seen, replace(MATCH, hidden=searched(), iterations=20))
    (noise,) = joint.found.values()
    assert relative_error(joint.images, scene.images) < 0.05
    assert relative_error(noise.flatten(0, 1), numbers[0]) < 0.05
    knows = replace(MATCH, hidden=given(numbers), iterations=15)
    oracle = searching(seen, knows)
    assert relative_error(oracle.images, scene.images) < 0.05
    assert oracle.found == {}
    for policy in (fresh, still):
        lost = searching(seen, replace(MATCH, hidden=policy, iterations=5))
        assert relative_error(lost.images, scene.images) > 0.3


def objective_at(seen, images, policy, **changes):
    recipe = replace(MATCH, hidden=policy, **changes)
    return next(Search(seen, recipe, generator=seeded(), start=images)).objective


def test_one_tensor_of_noise_is_refused_with_how_to_write_it():
    with pytest.raises(TypeError, match=r"one tensor \(2, 3\): write given\(\[noise"):
        given(torch.zeros(2, 3))


def test_at_the_truth_the_given_noise_leaves_no_distance_and_other_noise_does(
    behind_precode,
):
    scene, seen, numbers = behind_precode
    assert objective_at(seen, scene.images, given(numbers)).max() < 1e-12
    assert objective_at(seen, scene.images, fresh).min() > 1e-6
    assert objective_at(seen, scene.images, still).min() > 1e-6


def test_the_slope_for_pictures_and_noise_is_that_of_finite_differences(behind_precode):
    scene, seen, _ = behind_precode
    recipe = replace(MATCH, hidden=searched(rate=2.0), distance=squared_distance)
    search = Search(seen, recipe, generator=seeded(), start=scene.images + 0.3)
    variables = [v.detach().clone() for v in search._optimizer.variables]
    _, slopes = search._evaluate(variables, slice(None))
    step = 1e-5
    for which, slope in enumerate(slopes):
        for entry in (0, 3, 5):
            ends = []
            for sign in (1, -1):
                changed = [v.clone() for v in variables]
                changed[which].flatten(1)[:, entry] += sign * step
                ends.append(search._evaluate(changed, slice(None))[0])
            difference = (ends[0] - ends[1]) / (2 * step)
            torch.testing.assert_close(
                slope.flatten(1)[:, entry], difference, rtol=1e-4, atol=1e-9
            )


def test_the_rate_changes_the_steps_and_not_the_numbers(behind_precode):
    scene, seen, _ = behind_precode
    ends = []
    for rate in (1.0, 4.0):
        recipe = replace(
            MATCH,
            hidden=searched(rate=rate),
            optimizer=partial(torch.optim.SGD, lr=1e-3),
            iterations=2,
        )
        search = Search(seen, recipe, generator=seeded(), start=scene.images)
        first = search._ledger.best[1].clone()
        next(search)
        ends.append((first, search._values(search._optimizer.variables)[1] - first))
    torch.testing.assert_close(ends[0][0], ends[1][0])  # the same start
    torch.testing.assert_close(16 * ends[0][1], ends[1][1])  # rate squared, for SGD


def test_signs_are_taken_of_what_is_signed_only(behind_precode):
    _, seen, _ = behind_precode
    for signed in (True, False):
        recipe = replace(MATCH, hidden=searched(signed=signed), signed=not signed)
        search = Search(seen, recipe, generator=seeded())
        _, (pictures, noise) = search._evaluate(
            search._optimizer.variables, slice(None)
        )
        of_one = (noise, pictures) if signed else (pictures, noise)
        assert (of_one[0].abs() == 1).all() and not (of_one[1].abs() == 1).any()


def test_a_prior_on_the_noise_is_part_of_the_objective(behind_precode):
    _, seen, _ = behind_precode

    def size(noise):
        return noise.flatten(1).square().sum(1)

    plain = replace(MATCH, hidden=searched())
    held = replace(MATCH, hidden=searched(prior=size, prior_weight=0.5))
    first, more = (
        next(Search(seen, r, generator=seeded())).objective for r in (plain, held)
    )
    noise = Search(seen, plain, generator=seeded())._ledger.best[1]
    torch.testing.assert_close(more - first, 0.5 * size(noise))


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "torch's lbfgs"])
def test_128_victims_at_once_are_128_victims_one_by_one(optimizer):
    factory = {
        "lbfgs": partial(VictimLBFGS, longest=1.0),
        "adam": partial(torch.optim.Adam, lr=0.05),
        "torch's lbfgs": partial(torch.optim.LBFGS, lr=1.0, max_iter=5),
    }[optimizer]
    count = 128 if optimizer != "torch's lbfgs" else 6
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 16), nn.Sigmoid(),
        VariationalBottleneck(16, k=3), nn.Linear(16, 4),
    ).double().eval()  # fmt: skip
    images, labels = small_pictures(count)
    seen, _ = heard(model, images, labels)
    recipe = replace(
        MATCH, hidden=searched(start=_zeros), optimizer=factory, iterations=2
    )
    together = searching(seen, recipe)
    for v in (0, 5, count - 1):
        alone = searching(seen.take(v), recipe)
        close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-7)
        close(together.last_images[v], alone.last_images[0])
        for name, values in alone.found.items():
            close(together.found[name][v], values[0])


def _zeros(shape, *, generator, device):
    return torch.zeros(shape)


def test_labels_and_noise_may_both_be_searched_for(behind_precode):
    scene, seen, _ = behind_precode
    recipe = replace(MATCH, hidden=searched(), labels=None, restarts=3, iterations=15)
    found = searching(seen, recipe)
    assert torch.equal(found.labels, scene.labels)
    assert set(found.found) == {"5"}
    assert found.found["5"].shape == (2, 1, 8)


@pytest.mark.parametrize(
    "policy",
    [fresh, still, searched(), mean_of(3), mean_of(3, is_fixed=True)],
    ids=["fresh", "still", "searched", "mean", "fixed mean"],
)
@pytest.mark.parametrize("restarts", [1, 2])
def test_an_interrupted_search_goes_on_exactly(
    policy, restarts, behind_precode, tmp_path
):
    _, seen, _ = behind_precode
    recipe = replace(
        MATCH,
        hidden=policy,
        restarts=restarts,
        start=lambda shape, generator: torch.randn(shape, generator=generator),
        patience=2,
        iterations=8,
    )

    def begun():
        return Search(seen, recipe, generator=seeded(1))

    whole, first = begun(), begun()
    for _ in whole:
        pass
    for _ in range(3):
        next(first)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = begun()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in second:
        pass
    assert torch.equal(whole.result.images, second.result.images)
    assert torch.equal(whole.result.last_images, second.result.last_images)
    assert whole.result.outcome == second.result.outcome
    for name, values in whole.result.found.items():
        assert torch.equal(values, second.result.found[name])


def test_the_state_of_a_search_for_other_things_is_refused(behind_precode):
    _, seen, _ = behind_precode
    joint = Search(seen, replace(MATCH, hidden=searched()), generator=seeded())
    plain = Search(seen, MATCH, generator=seeded())
    with pytest.raises(ValueError, match="is of a search for pictures, 5; this one is"):
        plain.load_state_dict(joint.state_dict())


@pytest.mark.parametrize(
    "policy", [fresh, searched(), mean_of(3)], ids=["fresh", "searched", "mean"]
)
def test_results_do_not_depend_on_the_size_of_the_chunks(policy, behind_precode):
    _, seen, _ = behind_precode
    recipe = replace(MATCH, hidden=policy, iterations=1)
    small, large = (
        searching(seen, recipe, chunk_bytes=size).last_images for size in (1, 2**30)
    )
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-6)


def test_the_mean_of_n_draws_is_the_mean_of_n_gradients(behind_precode):
    scene, seen, _ = behind_precode
    recipe = replace(MATCH, hidden=mean_of(5))
    search = Search(seen, recipe, generator=seeded(4), start=scene.images)
    objective = next(search).objective
    noise = torch.randn(2, 5, 8, generator=seeded(4))
    each = [
        victim_gradients(
            scene.model, scene.images, scene.labels, noise=[noise[:, i].double()]
        ).dense()
        for i in range(5)
    ]
    total = 0
    for name, target in seen.shared.dense().items():
        mean = torch.stack([one[name] for one in each]).mean(0)
        total = total + (mean - target).flatten(1).square().sum(1)
    torch.testing.assert_close(objective, total)


def test_averaging_helps_and_saturates(behind_precode):
    """More draws bring the guess's mean closer; the victim's own draw stays away."""
    scene, seen, _ = behind_precode
    one, some, many = (
        objective_at(seen, scene.images, mean_of(n)).mean() for n in (1, 64, 1024)
    )
    assert some < one
    assert abs(many - some) < 0.2 * some
    assert many > 1e-10


def test_a_mean_over_draws_of_several_local_steps_is_refused(behind_precode):
    scene, _, _ = behind_precode
    local = LocalTraining(steps=2, lr=0.1)
    seen, _ = heard(scene.model, scene.images, scene.labels, local=local)
    with pytest.raises(ValueError, match="several local steps"):
        Search(seen, replace(MATCH, hidden=mean_of(2)), generator=seeded())


def sites_of(seen, imagined=hold_dropout):
    images = torch.zeros(1, seen.num_examples, *seen.image_shape).double()
    labels = torch.zeros(1, seen.num_examples, dtype=torch.int64)
    client = seen.client(imagined)
    return Sites(
        client, images, labels, num_searches=1, num_victims=1, generator=seeded()
    ).found


def test_sites_have_the_names_and_shapes_of_what_draws():
    scene = make_scene(victims=1, batch=2, bottleneck=True)
    model = nn.Sequential(scene.model, nn.Dropout(0.3)).train()
    seen, _ = heard(model.double(), scene.images, scene.labels)
    found = sites_of(seen)
    assert [s.name for s in found] == ["0.5", "1"]
    assert [s.law.name for s in found] == ["noise", "mask"]
    assert [s.shape for s in found] == [(2, 8), (2, 4)]
    assert found[1].law.box == (pytest.approx(-0.7), pytest.approx(0.3))


def test_a_layer_that_draws_twice_is_two_sites():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.bottleneck = VariationalBottleneck(12, k=2)
            self.fc = nn.Linear(12, 4)

        def forward(self, x):
            return self.fc(self.bottleneck(self.bottleneck(x.flatten(1))))

    images, labels = small_pictures(1)
    seen, _ = heard(Twice().double(), images, labels)
    assert [s.name for s in sites_of(seen)] == ["bottleneck", "bottleneck #2"]


def test_local_steps_draw_anew_each_time_and_the_noise_of_all_is_a_variable():
    scene = make_scene(victims=2, batch=1, bottleneck=True)
    local = LocalTraining(steps=3, lr=0.05)
    seen, numbers = heard(scene.model, scene.images, scene.labels, local=local)
    assert len(sites_of(seen)) == 3
    at_truth = objective_at(seen, scene.images, given(numbers))
    assert at_truth.max() < 1e-20
    joint = Search(seen, replace(MATCH, hidden=searched()), generator=seeded())
    first = next(joint).objective
    assert len([*joint.result.found]) == 3
    for step in joint:
        last = step.objective
    assert (last < 1e-3 * first).all()


def test_noise_that_fits_no_site_is_refused(behind_precode):
    _, seen, numbers = behind_precode
    bare = make_scene(victims=2).seen
    with pytest.raises(ValueError, match="draws 0 times, 1 tensors"):
        Search(bare, replace(MATCH, hidden=given(numbers)), generator=seeded())
    with pytest.raises(ValueError, match=r"of \[1\] victims, .* the search of 2"):
        few = [numbers[0][:1]]
        Search(seen, replace(MATCH, hidden=given(few)), generator=seeded())


def test_a_held_dropout_draws_masks_by_torchs_law():
    model = hold_dropout(dropping(p=0.25, dtype=torch.float32))
    with noise_from(seeded()), recorded_noise() as numbers:
        model(torch.ones(4000, 3, 2, 2))
    (draw,), (law,) = numbers, numbers.laws
    kept = draw + 0.75
    assert law.name == "mask"
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 1.0]))
    assert kept.mean().item() == pytest.approx(0.75, abs=0.005)


def test_a_held_dropout_computes_what_dropout_does_and_rests_in_evaluation_mode():
    features = torch.randn(6, 5, 4)
    for kind in (nn.Dropout, nn.Dropout1d):
        held = hold_dropout(nn.Sequential(kind(0.5)).train())
        with recorded_noise() as numbers:
            output = held(features)
        mask = numbers[0] + 0.5
        assert mask.shape == ((6, 5, 4) if kind is nn.Dropout else (6, 5, 1))
        torch.testing.assert_close(output, features * mask * 2)
        assert torch.equal(held.eval()(features), features)
    everything = hold_dropout(nn.Sequential(nn.Dropout(1.0)).train())
    assert torch.equal(everything(features), torch.zeros_like(features))


def test_a_model_without_dropout_is_held_as_it_is():
    model = dropping().eval()
    assert hold_dropout(model) is model


def test_holding_keeps_the_names_and_shares_no_weights():
    model = dropping()
    held = hold_dropout(model)
    assert [*held.state_dict()] == [*model.state_dict()]
    assert held[1].weight is not model[1].weight
    assert isinstance(model[3], nn.Dropout)


def test_searched_masks_find_the_picture_where_dropout_switched_off_does_not():
    """Dropout alone is no defense (Scheliga et al. 2023): its masks are variables."""
    images, labels = small_pictures(3)
    model = dropping()
    seen, numbers = heard(hold_dropout(model), images, labels)
    seen = replace(seen, model=model)  # what the server knows is plain dropout
    oracle = searching(seen, replace(MATCH, hidden=given(numbers)))
    assert relative_error(oracle.images, images) < 0.05
    share = searched(prior=kept_share, prior_weight=1e-6)
    joint = searching(seen, replace(MATCH, hidden=share, restarts=4, iterations=60))
    off = searching(seen, replace(MATCH, hidden=still, restarts=4, iterations=60))
    assert relative_error(off.images, images) > 0.2
    assert relative_error(joint.images, images) < 0.1
    (found,) = joint.found.values()
    assert ((found > -0.1 - 0.6) & (found < 0.5)).all()


def test_masks_come_from_the_searchs_generator_and_not_from_torchs():
    images, labels = small_pictures(2)
    seen, _ = heard(hold_dropout(dropping()), images, labels)
    recipe = replace(MATCH, iterations=3)
    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        ends.append(searching(seen, recipe).last_images)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*ends)


def normed():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 2), nn.BatchNorm2d(6), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(6 * 9, 8), nn.Sigmoid(), nn.Linear(8, 4),
    ).double().eval()  # fmt: skip
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def test_statistics_that_the_client_keeps_are_variables_too():
    model = normed()
    own = {n: b.clone() for n, b in model.named_buffers()}
    own["1.running_mean"] += torch.linspace(-0.4, 0.4, 6).double()
    own["1.running_var"] *= torch.linspace(0.5, 2, 6).double()
    images = torch.randn(2, 1, 3, 4, 4, generator=seeded(5)).double()
    labels = torch.tensor([[0], [1]])
    seen = observe(model, images, labels, client_buffers=own, buffers_shared=False)
    recipe = replace(MATCH, iterations=60, imagined=hold_statistics)
    wrong = searching(seen, replace(recipe, hidden=still))
    joint = searching(seen, replace(recipe, hidden=searched()))
    assert (joint.objective < 1e-2 * wrong.objective).all()
    assert relative_error(joint.images, images) < relative_error(wrong.images, images)
    assert set(joint.found) == {"1", "1 #2"}


def test_a_held_norm_computes_what_the_norm_does_when_nothing_surprises():
    model, images = normed(), torch.randn(3, 3, 4, 4).double()
    model[1].running_mean += 0.3
    model[1].running_var *= 2
    held = hold_statistics(model)
    with noise_from(torch.zeros_like):
        torch.testing.assert_close(held(images), model(images))
    off = model.double()
    with recorded_noise() as numbers, noise_from(lambda like: 0.1 + 0 * like):
        moved_output = held(images)
    deviation = (off[1].running_var + off[1].eps).sqrt()
    off[1].running_mean += 0.1 * deviation
    off[1].running_var *= torch.tensor(0.1).exp()
    torch.testing.assert_close(moved_output, off(images))
    assert [law.is_shared for law in numbers.laws] == [True, True]


def test_a_shift_moves_pictures_by_whole_pixels_exactly():
    images = torch.randn(2, 1, 3, 5, 7)
    pixels = torch.tensor([[[2.0, 0.0]], [[-1.0, 1.0]]])
    there = moved(images, pixels)
    torch.testing.assert_close(there[0, ..., 2:], images[0, ..., :-2])
    torch.testing.assert_close(there[0, ..., :2], torch.zeros(1, 3, 5, 2))
    torch.testing.assert_close(there[1, ..., 1:, :-1], images[1, ..., :-1, 1:])


def test_a_shift_is_found_together_with_the_picture():
    scene = make_scene(victims=2)
    pixels = torch.tensor([[[1.5, -0.5]], [[-1.0, 0.7]]]).double()
    frame = nn.functional.pad(scene.images[..., 2:-2, 2:-2], (2, 2, 2, 2))
    seen = observe(scene.model, moved(frame, pixels), scene.labels)
    recipe = replace(MATCH, unknowns=(shift(3.0),), iterations=40)
    found = searching(seen, recipe)
    assert set(found.found) == {"shift"}
    assert found.found["shift"].abs().max() <= 3
    # Picture and shift are found up to each other: what was sent is found exactly.
    sent = moved(found.images, found.found["shift"])
    assert relative_error(sent, moved(frame, pixels)) < 0.05


def test_an_unknown_of_ones_own_is_three_functions():
    """How bright a picture was made before its gradient: one number a victim."""

    def enter(guess: Trial, values):
        guess.images = guess.images * values.exp().view(-1, 1, 1, 1, 1)

    brightness = Unknown("brightness", drawn((1,)), enter, rate=0.5)
    scene = make_scene(victims=2)
    seen = observe(scene.model, 1.5 * scene.images, scene.labels)
    found = searching(seen, replace(MATCH, unknowns=(brightness,)))
    factor = found.found["brightness"].exp().view(-1, 1, 1, 1, 1)
    assert relative_error(factor * found.images, 1.5 * scene.images) < 0.05


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mean_of(0), ValueError, "draws must be at least 1"),
        (lambda: Recipe(hidden="fresh"), TypeError, "hidden must be a function"),
        (lambda: Recipe(unknowns=("shift",)), TypeError, "such as shift"),
        (lambda: shift(-1.0), ValueError, "most must be in"),
        (lambda: given([torch.zeros(3, 2)], num_examples=2), ValueError, r"\(V \* B"),
        (
            lambda: Unknown("a", drawn((1,)), print, rate=0.0),
            ValueError,
            "rate must be in",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_start_of_the_wrong_length_is_refused(behind_precode):
    _, seen, _ = behind_precode
    short = Unknown("short", lambda *_: torch.zeros(1, 2), lambda guess, values: None)
    with pytest.raises(ValueError, match=r"must give \(2, ...\)"):
        Search(seen, replace(MATCH, unknowns=(short,)), generator=seeded())


def counting(calls):
    def prior(images):
        calls.append(images)
        return images.flatten(1).square().sum(1)

    return prior


def test_stages_weigh_the_prior_less_and_less_and_begin_anew(behind_precode):
    _, seen, _ = behind_precode
    recipe = replace(
        MATCH,
        prior=counting([]),
        prior_weight=1.0,
        stages=(1.0, 0.0),
        optimizer=partial(torch.optim.SGD, lr=1e-2),
        start=lambda shape, generator: torch.ones(shape),
        iterations=4,
    )
    search = Search(seen, recipe, generator=seeded())
    steps = [next(search) for _ in range(4)]
    squares = [step.images.flatten(1).square().sum(1) for step in steps]
    for step, square in zip(steps[:2], squares[:2], strict=True):
        assert (step.objective >= square).all()
    for step, square in zip(steps[2:], squares[2:], strict=True):
        assert (step.objective < square).all()
    # The best of the last stage, though the first one's numbers are not comparable.
    best = torch.stack([step.objective for step in steps[2:]]).amin(0)
    torch.testing.assert_close(search.result.objective, best)


def test_the_optimizer_forgets_at_each_stage_and_at_no_other_step(behind_precode):
    _, seen, _ = behind_precode
    recipe = replace(MATCH, stages=(1.0, 1.0, 1.0), iterations=6)
    search = Search(seen, recipe, generator=seeded())
    optimizers = [search._optimizer for _ in search]
    assert [a is b for a, b in pairwise(optimizers)] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_a_search_goes_on_exactly_in_the_middle_of_its_stages(behind_precode):
    _, seen, _ = behind_precode
    recipe = replace(
        MATCH,
        hidden=searched(),
        stages=(1.0, 0.1, 0.0),
        prior=counting([]),
        prior_weight=1e-3,
        iterations=6,
    )
    for stop in (1, 2, 3):
        whole, first, second = (
            Search(seen, recipe, generator=seeded()) for _ in range(3)
        )
        for _ in whole:
            pass
        for _ in range(stop):
            next(first)
        second.load_state_dict(first.state_dict())
        for _ in second:
            pass
        assert torch.equal(whole.result.last_images, second.result.last_images)


@pytest.mark.parametrize(
    ("stages", "message"), [((), "number of stages"), ((-1.0,), "each of the stages")]
)
def test_stages_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(ValueError, match=message):
        Recipe(stages=stages)
