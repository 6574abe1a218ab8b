"""Distances that belong to a noise, against densities written by others."""

from functools import partial
from math import log, sqrt

import pytest
import torch
from scenes import make_scene
from scipy.optimize import minimize_scalar
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Laplace,
    MixtureSameFamily,
    Normal,
)
from torch.testing import assert_close

from precode_lib.attacks import Recipe, Search, VictimLBFGS, known_labels
from precode_lib.attacks import likelihoods as L
from precode_lib.attacks.objectives import absolute_distance, squared_distance
from precode_lib.basics.schedules import step_decay
from precode_lib.defenses import (
    add_laplace_noise,
    add_noise,
    chain,
    clip,
    prune,
    prune_at_random,
    prune_globally,
    quantise,
)
from precode_lib.federated import observe
from precode_lib.gradients import Gradients, ranks

SHAPES = {"w": (2, 4, 3), "b": (2, 4)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(seed, size=1.0):
    generator = seeded(seed)
    return Gradients(
        {
            n: size * torch.randn(s, generator=generator, dtype=torch.float64)
            for n, s in SHAPES.items()
        }
    )


def rows(gradients):
    """All entries of each victim: (V, N)."""
    return torch.cat([t.flatten(1) for t in gradients.dense().values()], 1)


def mixture(ratio):
    def density(guess):
        means = torch.stack([torch.zeros_like(guess), guess], -1)
        kinds = Categorical(torch.tensor([ratio, 1 - ratio], dtype=guess.dtype))
        parts = Normal(means, 0.3)
        return MixtureSameFamily(Categorical(kinds.probs.expand(*means.shape)), parts)

    return density


# name: (its distance, the density of what is shared, given the guess)
DENSITIES = {
    "gaussian": (L.gaussian_likelihood(0.3), lambda g: Normal(g, 0.3)),
    "laplace by scale": (
        L.laplace_likelihood(scale=0.3), lambda g: Laplace(g, 0.3)
    ),
    "laplace by std": (
        L.laplace_likelihood(std=0.3), lambda g: Laplace(g, 0.3 / sqrt(2))
    ),
    "random pruning": (L.random_pruning_likelihood(0.4, 0.3), mixture(0.4)),
    "no pruning": (
        L.random_pruning_likelihood(0.0, 0.3), lambda g: Normal(g, 0.3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DENSITIES)
def test_a_likelihood_differs_between_guesses_as_the_density_does(name):
    distance, density = DENSITIES[name]
    shared, a, b = drawn(0), drawn(1), drawn(2)
    came = distance(a, shared) - distance(b, shared)
    of_a, of_b = (density(rows(g)).log_prob(rows(shared)).sum(1) for g in (a, b))
    assert_close(came, of_b - of_a)


def up_or_down(shared, guess, step):
    """-log of the probability that guesses were rounded to what was shared, (V,)."""
    below = (guess / step).floor() * step
    went_up = ((shared - below) / step).round()
    return -Bernoulli((guess - below) / step).log_prob(went_up).sum(1)


def test_stochastic_rounding_is_a_coin_for_each_entry():
    true = drawn(0)
    shared = quantise(true, 4, generator=seeded(1))
    off, oracle = {}, 0
    for name, term in true.items():
        step = term.flatten(1).abs().amax(1, keepdim=True) / 7
        kept = shared[name].flatten(1)
        # Off the grid by a part of a step, less than where the tangent begins.
        shift = torch.rand(kept.shape, generator=seeded(2), dtype=kept.dtype) - 0.5
        moved = kept + 1.7 * shift * step
        off[name] = moved.view(term.shape)
        oracle = oracle + up_or_down(kept, moved, step)
    distance = L.stochastic_rounding_likelihood(4)
    assert_close(distance(Gradients(off), shared), oracle)


def test_a_guess_that_could_not_be_rounded_so_goes_on_along_the_tangent():
    distance = L.stochastic_rounding_likelihood(2)  # the grid is -1, 0, 1
    shared = Gradients({"w": torch.tensor([[1.0, 0.0]], dtype=torch.float64)})
    at = [
        distance(Gradients({"w": torch.tensor([[1.0, x]]).double()}), shared).item()
        for x in (0.9, 1.0, 3.0)
    ]
    assert_close(at, [log(10), log(10) + 1, log(10) + 21])


# --- slopes ---------------------------------------------------------------------------

DISTANCES = {
    "absolute": absolute_distance,
    "gaussian": L.gaussian_likelihood(0.3),
    "laplace": L.laplace_likelihood(scale=0.3),
    "random pruning": L.random_pruning_likelihood(0.4, 0.3),
    "rounding": L.rounding_distance(4),
    "affine rounding": L.rounding_distance(4, symmetric=False),
    "stochastic rounding": L.stochastic_rounding_likelihood(4),
    "pruning": L.pruning_distance,
    "direction": L.direction_likelihood(0.3),
    "after clipping": L.after(partial(clip, max_norm=0.5), squared_distance),
}


def shared_like(gradients):
    """As a client sends it: coarse, some entries gone, and the scale of the guess."""
    return quantise(prune(gradients, 0.5), 4)


@pytest.mark.parametrize("name", DISTANCES)
def test_slopes_in_the_pictures_are_those_of_small_moves(name):
    scene = make_scene(victims=2)
    client, labels = scene.seen.client(), scene.labels
    target = shared_like(client(scene.images, labels).detach())
    distance = DISTANCES[name]

    def objective(images):
        guess = client(images, labels)
        assert ranks(guess)  # the engine's own layout, not dense
        return distance(guess, target)

    start = 0.5 * scene.images + 0.1
    images = start.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(objective(images).sum(), images)
    move = torch.randn(start.shape, generator=seeded(3), dtype=start.dtype)
    small = 1e-6 * move
    with torch.no_grad():
        rise = objective(start + small) - objective(start - small)
    assert_close((slopes * move).flatten(1).sum(1), rise / 2e-6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DISTANCES)
def test_factored_and_dense_guesses_are_equally_far(name):
    scene = make_scene(victims=3)
    guess = scene.seen.client()(scene.images, scene.labels).detach()
    target = shared_like(guess)
    assert ranks(guess)
    distance = DISTANCES[name]
    assert_close(distance(guess, target), distance(guess.dense(), target))
    one = distance(guess.take(1), target.take(1))
    assert_close(one, distance(guess, target)[1:2])


# --- what they are good for -----------------------------------------------------------

NOISES = {
    "gaussian": (partial(add_noise, std=0.7), L.gaussian_likelihood(0.7)),
    "laplace": (partial(add_laplace_noise, scale=0.7), L.laplace_likelihood(scale=0.7)),
    "stochastic rounding": (
        partial(quantise, bits=3), L.stochastic_rounding_likelihood(3)
    ),
    "random pruning": (
        lambda g, generator: add_noise(
            prune_at_random(g, 0.4, generator=generator), 0.7, generator=generator
        ),
        L.random_pruning_likelihood(0.4, 0.7),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOISES)
def test_on_average_over_the_noise_nothing_is_nearer_than_the_true_gradient(name):
    defense, distance = NOISES[name]
    row = torch.randn(1, 40, generator=seeded(), dtype=torch.float64)
    row[0, :2] = torch.tensor([2.0, -2.0])  # the ends of the grid stay where they are
    true = Gradients({"w": row.expand(4000, -1)})
    shared = defense(true, generator=seeded(1))
    at_true = distance(true, shared)
    for seed in range(5):
        move = 0.2 * torch.randn(1, 40, generator=seeded(10 + seed)).double()
        move[0, :2] = 0
        other = Gradients({"w": true["w"] + move})
        gain = distance(other, shared) - at_true
        assert gain.mean() > 4 * gain.std() / sqrt(4000)


@pytest.mark.parametrize("name", NOISES)
def test_the_unit_of_the_gradient_does_not_matter(name):
    factor = 1e3
    in_units = {
        "gaussian": L.gaussian_likelihood(0.7 * factor),
        "laplace": L.laplace_likelihood(scale=0.7 * factor),
        "stochastic rounding": L.stochastic_rounding_likelihood(3),
        "random pruning": L.random_pruning_likelihood(0.4, 0.7 * factor),
    }
    guess, shared = drawn(1), drawn(0)
    assert_close(
        in_units[name](*(g.map(lambda t: t * factor) for g in (guess, shared))),
        NOISES[name][1](guess, shared),
    )


def test_the_rounding_distance_has_no_unit_either():
    guess, shared = drawn(1), quantise(drawn(0), 3)
    for distance in (L.rounding_distance(3), L.rounding_distance(3, symmetric=False)):
        larger = [g.map(lambda t: t * 1e3) for g in (guess, shared)]
        assert_close(distance(*larger), distance(guess, shared))
        assert (distance(guess, shared) > 0.1).all()


def test_a_likelihood_of_the_direction_is_the_best_over_all_lengths():
    guess, shared = drawn(1), drawn(0)
    came = L.direction_likelihood(0.3)(guess, shared)
    for v in range(2):
        g, s = rows(guess)[v], rows(shared)[v]

        def misfit(length, g=g, s=s):
            return ((s - length * g).square().sum() / (2 * 0.3**2)).item()

        best = minimize_scalar(misfit, bounds=(0, 10), method="bounded")
        assert came[v].item() == pytest.approx(best.fun, rel=1e-5)
    assert_close(L.direction_likelihood(0.3)(guess.map(lambda t: 7 * t), shared), came)
    turned = guess.map(lambda t: -t)
    best = torch.minimum(came, L.direction_likelihood(0.3)(turned, shared))
    assert (best < L.gaussian_likelihood(0.3)(guess.nothing(), shared)).all()


def test_who_clips_the_guess_too_is_not_misled_by_the_length():
    true = drawn(0)
    shared = clip(true, 0.5)
    assert (squared_distance(true, shared) > 1).all()
    known = L.likelihood_of(partial(clip, max_norm=0.5))
    assert_close(known(true, shared), torch.zeros(2).double())


# --- attacks --------------------------------------------------------------------------


def linear_scene(defense):
    """A layer whose gradient has the picture once in each of 15 rows."""
    pixels = torch.rand(1, 1, 1, 4, 4, generator=seeded(5), dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 15, bias=False)).double()

    def sum_of_outputs(model, images, labels):
        return model(images).sum(1)

    seen = observe(
        model,
        pixels,
        torch.zeros(1, 1, dtype=torch.long),
        defense=defense,
        loss=sum_of_outputs,
    )
    return pixels, seen


def impulses(gradients):
    """Six of the fifteen entries that each pixel has are hit, hard and to one side."""

    def hit(term):
        order = torch.rand(term.shape, generator=seeded(6)).argsort(1)
        return term + 10 * (order < 6)

    return gradients.map(hit)


def searched(seen, distance):
    recipe = Recipe(
        distance=distance,
        optimizer=partial(torch.optim.Adam, lr=0.1),
        iterations=300,
        labels=known_labels,
        schedule=step_decay,
    )
    search = Search(seen, recipe, generator=seeded(7))
    for _ in search:
        pass
    return search.result.images


def test_absolute_differences_find_the_picture_under_impulses_and_squares_do_not():
    pixels, seen = linear_scene(impulses)
    found = searched(seen, absolute_distance)
    assert_close(found, pixels, atol=1e-3, rtol=0)
    by_squares = searched(seen, squared_distance)
    # The mean over rows: six of fifteen off by ten.
    assert_close(by_squares, pixels + 4, atol=0.05, rtol=0)


def test_nobody_tells_two_pictures_apart_whose_gradients_round_to_the_same():
    pixels, seen = linear_scene(partial(quantise, bits=4))
    step = pixels.max() / 7
    other = pixels.clone()
    # Every pixel to the middle of its cell, but the brightest, which sets the step.
    other = torch.where(pixels < pixels.max(), (pixels / step).round() * step, pixels)
    assert (other - pixels).abs().max() > step / 4
    images = torch.stack([pixels[0], other[0]])
    labels = torch.zeros(2, 1, dtype=torch.long)
    same = seen.client()(images, labels)
    both = Gradients({n: t.dense().detach() for n, t in same.items()})
    rounded = quantise(both, 4)
    first, second = rounded.take(0), rounded.take(1)
    assert all(torch.allclose(first[n], second[n]) for n in first)
    distance = L.likelihood_of(partial(quantise, bits=4))
    images.requires_grad_()
    values = distance(seen.client()(images, labels), rounded)
    (slopes,) = torch.autograd.grad(values.sum(), images)
    assert_close(values, torch.zeros(2).double(), atol=1e-20, rtol=0)
    assert slopes.abs().max() < 1e-9
    assert (distance(both.map(lambda t: t + step), rounded) > 1).all()


@pytest.mark.parametrize("sign", [-1, 0, 1], ids=["all below 0", "both", "all above"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_cell_of_rounding_is_one_step_wide(symmetric, sign):
    entries = torch.linspace(-3, 5, 30).double()
    entries = sign * entries.abs() if sign else entries
    low, high = entries.clamp(max=0).min(), entries.clamp(min=0).max()
    step = entries.abs().max() / 3 if symmetric else (high - low) / 7
    shared = quantise(Gradients({"w": entries[None]}), 3, symmetric=symmetric)
    distance = L.rounding_distance(3, symmetric=symmetric)
    for steps, expected in ((0.499, 0), (0.6, 30 * 0.1**2), (-0.6, 30 * 0.1**2)):
        moved = shared.map(lambda t, steps=steps: t + steps * step)
        assert distance(moved, shared).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("defense", [prune, prune_globally])
def test_what_pruning_dropped_is_no_larger_than_what_it_kept(defense):
    true = drawn(0)
    shared = defense(true, 0.5)
    distance = L.likelihood_of(partial(defense, ratio=0.5))
    assert_close(distance(true, shared), torch.zeros(2).double())
    largest = max(t.abs().max() for t in true.values())
    grown = Gradients(
        {n: torch.where(shared[n] == 0, 2 * largest, true[n]) for n in true}
    )
    assert (distance(grown, shared) > largest**2).all()
    # Who only looks at the entries that came would not have noticed.
    blind = L.likelihood_of(partial(prune_at_random, ratio=0.5, generator=None))
    assert_close(blind(grown, shared), torch.zeros(2).double())


def test_an_entry_that_counts_as_dropped_pulls_no_more():
    distance = L.random_pruning_likelihood(0.5, 0.1)
    shared = Gradients({"w": torch.zeros(1, 1)})
    guess = torch.tensor([[5.0]], requires_grad=True)  # fifty stds away
    distance(Gradients({"w": guess}), shared).sum().backward()
    assert guess.grad.item() == 0


# --- from a defense to its distance ---------------------------------------------------

GENERATOR = torch.Generator()
OF_DEFENSES = {
    "noise": (partial(add_noise, std=0.2), L.gaussian_likelihood(0.2)),
    "laplace": (
        partial(add_laplace_noise, std=0.2), L.laplace_likelihood(std=0.2)
    ),
    "rounding": (
        partial(quantise, bits=3, symmetric=False),
        L.rounding_distance(3, symmetric=False),
    ),
    "stochastic": (
        partial(quantise, bits=3, generator=GENERATOR),
        L.stochastic_rounding_likelihood(3),
    ),
    "default bits": (partial(quantise), L.rounding_distance(8)),
    "pruning": (partial(prune, ratio=0.2), L.pruning_distance),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_DEFENSES)
def test_a_defense_with_its_settings_says_which_distance(name):
    defense, distance = OF_DEFENSES[name]
    guess, shared = drawn(1), drawn(0)
    came = L.likelihood_of(defense)(guess, shared)
    assert_close(came, distance(guess, shared))
    assert (came > 0).all()


def test_an_affine_grid_that_rounds_at_random_hides_its_step():
    with pytest.raises(ValueError, match="doesn't give away its step"):
        L.likelihood_of(partial(quantise, symmetric=False, generator=GENERATOR))


@pytest.mark.parametrize("defense", [add_noise, chain(), partial(chain), "add_noise"])
def test_a_defense_of_which_nothing_is_known_is_refused(defense):
    with pytest.raises(ValueError, match=r"no likelihood of .* one of add_noise, "):
        L.likelihood_of(defense)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L.gaussian_likelihood(0), "std must be"),
        (lambda: L.laplace_likelihood(), "either scale or std"),
        (lambda: L.laplace_likelihood(scale=1, std=1), "either scale or std"),
        (lambda: L.laplace_likelihood(scale=-1), "scale must be"),
        (lambda: L.random_pruning_likelihood(1, 0.1), "ratio must be"),
        (lambda: L.random_pruning_likelihood(0.5, 0), "std must be"),
        (lambda: L.rounding_distance(1), "bits must be"),
        (lambda: L.stochastic_rounding_likelihood(17), "bits must be"),
        (lambda: L.direction_likelihood(0), "std must be"),
    ],
)
def test_settings_that_no_noise_has_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parameters_can_weigh_differently():
    a, b = drawn(0), drawn(1)
    weights = torch.tensor([2.0, 0.0])
    assert_close(
        absolute_distance(a, b, weights=weights),
        2 * (a["w"] - b["w"]).abs().flatten(1).sum(1),
    )


def test_gradients_can_be_searched_for_under_a_likelihood():
    noise = partial(add_noise, std=1e-3)
    scene = make_scene(victims=2)
    seen = observe(
        scene.model,
        scene.images,
        scene.labels,
        defense=partial(noise, generator=seeded(9)),
    )
    recipe = Recipe(
        distance=L.likelihood_of(noise),
        optimizer=partial(VictimLBFGS, lr=1.0),
        iterations=30,
        labels=known_labels,
    )
    begin = scene.images + 0.1 * torch.randn(scene.images.shape, generator=seeded(1))
    search = Search(seen, recipe, generator=seeded(1), start=begin)
    for _ in search:
        pass
    n = sum(s.numel() for s in seen.shared.shapes.values())
    # Half a nat for each number that the noise has to itself; 192 followed the noise.
    expected = torch.full((2,), (n - 192) / 2, dtype=torch.float64)
    assert_close(search.result.objective, expected, atol=4 * sqrt(n / 2), rtol=0)
