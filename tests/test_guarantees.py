"""What DP-SGD promises: against riskcal, Opacus, simulations, formulas and attacks."""

from functools import partial
from itertools import pairwise
from math import exp, expm1, inf, log, sqrt
from statistics import NormalDist

import pytest
import torch
from torch import nn

from precode_lib.attacks import likeliest_candidate
from precode_lib.attacks.closed_form import invert_linear, total_least_squares
from precode_lib.defenses import (
    PrivateSteps,
    dp_sgd_step,
    mse_without_prior,
    promise_of,
    promises_by_client,
    reconstruction_bound,
    substitution_bound,
)
from precode_lib.federated import observe
from precode_lib.models import smlp

NORMAL = NormalDist()
KAPPAS = [1 / 256, 0.1]
# Noise multiplier, sample rate, steps. Riskcal makes both directions one convex curve,
# which is larger where they cross, as at (0.3, 0.2, 5): there the simulation decides.
SAMPLED = [
    *[(1.0, 0.01, 1000), (0.7, 0.01, 1000), (0.5, 0.1, 10), (1.0, 0.5, 10)],
    *[(0.5, 0.01, 100), (2.0, 0.1, 500), (4.0, 0.9, 50)],
]
STEPS = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 20}


def bound(kappa, **changes):
    return reconstruction_bound(kappa, **{**STEPS, **changes})


# --- the bound with sampling ----------------------------------------------------------


@pytest.mark.parametrize(("sigma", "rate", "steps"), SAMPLED)
def test_the_bound_is_that_of_riskcal(sigma, rate, steps):
    accountants = pytest.importorskip("riskcal.accountants")
    analysis = pytest.importorskip("riskcal.analysis")
    other = accountants.CTDAccountant()
    other.history = [(sigma, rate, steps)]
    distribution = other.get_pld()
    options = {"noise_multiplier": sigma, "sample_rate": rate, "steps": steps}
    for kappa in KAPPAS:
        expected = 1 - analysis.get_beta_from_pld(distribution, alpha=kappa)
        found = reconstruction_bound(kappa, **options)
        assert found == pytest.approx(expected, abs=1e-3)
        assert found > expected - 1e-6  # never below it


@pytest.mark.parametrize("kappa", [*KAPPAS, 0.5])
@pytest.mark.parametrize(("sigma", "steps"), [(0.2, 1), (1.0, 1), (1.0, 10), (5.0, 99)])
def test_composition_meets_the_closed_form_where_hardly_a_step_is_missed(
    kappa, sigma, steps
):
    options = {"noise_multiplier": sigma, "steps": steps}
    composed = reconstruction_bound(kappa, sample_rate=1 - 1e-10, **options)
    closed = NORMAL.cdf(NORMAL.inv_cdf(kappa) + sqrt(steps) / sigma)
    assert composed == pytest.approx(closed, abs=1e-6)
    assert reconstruction_bound(kappa, **options) == pytest.approx(closed, abs=1e-12)


def losses(sigma, rate, steps, tries, seed):
    """log likelihood ratios, with over without, drawn with the example and without."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    noise = sigma * torch.randn(2, tries, steps, **options)
    noise[0] += torch.rand(tries, steps, **options) < rate
    ratios = torch.log1p(rate * torch.expm1((2 * noise - 1) / (2 * sigma**2)))
    return ratios.sum(-1)


@pytest.mark.parametrize(
    ("sigma", "rate", "steps"), [(1.0, 0.3, 10), (0.3, 0.2, 5), (2.0, 0.5, 30)]
)
def test_simulated_tests_between_the_worlds_have_this_power(sigma, rate, steps):
    """As Hayes et al. 2023 find it: the best test is a threshold on the ratio."""
    kappa, tries = 0.1, 60_000
    present, absent = losses(sigma, rate, steps, tries, seed=0)
    threshold = absent.quantile(1 - kappa)
    power = (present > threshold).double().mean().item()
    expected = reconstruction_bound(
        kappa, noise_multiplier=sigma, sample_rate=rate, steps=steps
    )
    assert power == pytest.approx(expected, abs=0.008)


@pytest.mark.parametrize("kappa", [0.001, 0.1, 0.7])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("noise_multiplier", (0.1, 0.3, 0.6, 1.0, 3.0, 10.0)),
        ("sample_rate", (1.0, 0.7, 0.3, 0.1, 0.01)),
        ("steps", (3000, 300, 20, 3, 1, 0)),
    ],
)
def test_more_noise_rarer_examples_and_fewer_steps_mean_a_lower_bound(
    kappa, name, values
):
    found = [bound(kappa, **{name: value}) for value in values]
    assert all(low < high + 1e-6 for high, low in pairwise(found))
    assert found[0] > found[-1] + 1e-3


def test_a_better_guess_before_is_a_better_guess_after():
    found = [bound(kappa) for kappa in (1e-6, 0.01, 0.1, 0.5, 0.9, 1.0)]
    assert found == sorted(found) and found[-1] == 1.0


def test_limits_of_the_bound_with_sampling():
    assert bound(0.01, steps=0) == 0.01
    assert bound(0.01, noise_multiplier=1e7) == pytest.approx(0.01, rel=1e-4)
    assert bound(0.01, noise_multiplier=0.3, sample_rate=0.999) > 1 - 1e-9
    # Without noise only an example that was in no step is left to guessing.
    never = 0.9**20
    expected = pytest.approx(1 - never * (1 - 0.01), abs=1e-4)
    assert bound(0.01, noise_multiplier=0) == expected


# --- substitution ---------------------------------------------------------------------


@pytest.mark.parametrize("kappa", KAPPAS)
def test_substitution_of_a_whole_batch_is_adding_with_half_the_noise(kappa):
    found = substitution_bound(kappa, noise_multiplier=3.0, steps=4)
    expected = NORMAL.cdf(NORMAL.inv_cdf(kappa) + 2 * 2.0 / 3.0)
    assert found == pytest.approx(expected, abs=1e-9)


def test_substitution_with_sampling_is_a_bound_for_opposite_examples():
    """Their clipped gradients are 1 and -1, each in a step with the same chance."""
    sigma, rate, steps, kappa, tries = 1.0, 0.3, 5, 0.1, 100_000
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    drawn = (torch.rand(2, tries, steps, **options) < rate).double()
    drawn[1] *= -1
    seen = drawn + sigma * torch.randn(2, tries, steps, **options)

    def log_density(sign):
        return torch.log1p(
            rate * torch.expm1((2 * sign * seen - 1) / (2 * sigma**2))
        ).sum(-1)

    this, other = log_density(1) - log_density(-1)
    power = (this > other.quantile(1 - kappa)).double().mean().item()
    options = {"noise_multiplier": sigma, "sample_rate": rate, "steps": steps}
    assert reconstruction_bound(kappa, **options) < power - 0.02  # another relation
    assert power < substitution_bound(kappa, **options) + 0.01


# --- epsilon and clients --------------------------------------------------------------


@pytest.mark.parametrize(
    "history",
    [
        [(1.0, 0.01, 1000)],
        [(0.5, 0.1, 10)],
        [(1.0, 0.01, 100), (2.0, 0.1, 50)],
        [(5.0, 1.0, 10)],
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_epsilon_is_just_below_that_of_opacus_tightest_accountant(history):
    accountants = pytest.importorskip("opacus.accountants")
    other = accountants.PRVAccountant()
    other.history = history
    found = promise_of(
        [PrivateSteps(*part) for part in history], delta=1e-5, kappa=0.1
    ).epsilon
    assert found <= other.get_epsilon(delta=1e-5) < found + 0.015


@pytest.mark.parametrize(("sigma", "epsilon"), [(1.0, 2.0), (0.5, 5.0), (3.0, 0.1)])
def test_epsilon_of_one_message_is_that_of_the_gaussian_mechanism(sigma, epsilon):
    """Balle & Wang 2018, theorem 8: its δ in closed form."""
    upper = NORMAL.cdf(0.5 / sigma - epsilon * sigma)
    lower = NORMAL.cdf(-0.5 / sigma - epsilon * sigma)
    delta = upper - exp(epsilon) * lower
    found = promise_of([PrivateSteps(sigma)], delta=delta, kappa=0.1)
    assert found.epsilon == pytest.approx(epsilon, abs=1e-3)


def test_a_promise_without_noise_is_none_and_before_the_first_step_it_is_whole():
    nothing = promise_of([PrivateSteps(0.0)], delta=1e-5, kappa=0.1)
    assert nothing.epsilon == inf and nothing.bound == 1.0
    drawn = promise_of([PrivateSteps(0.0, 0.01)], delta=1e-5, kappa=0.1)
    assert drawn.epsilon == inf and drawn.bound == pytest.approx(0.109, abs=1e-4)
    untouched = promise_of([PrivateSteps(1.0, 0.1, 0)], delta=1e-5, kappa=0.1)
    assert untouched == (0.0, 0.1)


def test_each_client_is_counted_by_its_own_rounds():
    few, many = PrivateSteps(2.0, 0.1, 5), PrivateSteps(1.0, 0.2, 3)
    rounds = [("ann", few), ("ben", few), ("ann", many), ("ann", few), (7, many)]
    options = {"delta": 1e-5, "kappa": 0.01}
    found = promises_by_client(rounds, **options)
    assert [*found] == ["ann", "ben", 7]
    ann = promise_of([PrivateSteps(2.0, 0.1, 10), many], **options)
    assert found["ann"] == pytest.approx(ann, rel=1e-9)
    assert found["ben"] == promise_of([few], **options)
    assert found["ann"].epsilon > found[7].epsilon
    # The total of a federation is its worst client's, and far below the sum.
    everyone = promise_of([part for _, part in rounds], **options)
    assert max(p.epsilon for p in found.values()) == found["ann"].epsilon
    assert everyone.epsilon > found["ann"].epsilon


def test_equal_epsilons_can_hide_unequal_bounds():
    """Hayes et al. 2023: ε and δ do not fix how likely a reconstruction is."""
    whole = promise_of([PrivateSteps(1.0)], delta=1e-5, kappa=0.01)
    rare = promise_of([PrivateSteps(0.4988, 0.01, 10)], delta=1e-5, kappa=0.01)
    assert whole.epsilon == pytest.approx(rare.epsilon, abs=0.1)
    assert whole.bound > 3 * rare.bound


# --- without a prior ------------------------------------------------------------------


def linear_scene(sigma, tries=400):
    """One linear layer without a bias: δ xᵀ is all that is sent, clipped to 0.01."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False)).double()
    x = torch.randn(1, 1, 3, 2, 2, dtype=torch.float64).expand(tries, -1, -1, -1, -1)
    labels = torch.zeros(tries, 1, dtype=torch.int64)
    step = partial(dp_sgd_step, clip_norm=0.01, generator=torch.Generator())
    noisy, clean = (
        observe(model, x, labels, client_step=partial(step, noise_multiplier=m))
        for m in (sigma, 0.0)
    )
    return x[:, 0], *(s.shared.dense()["1.weight"] for s in (noisy, clean))


def test_whoever_knows_the_rows_factors_has_this_error_and_no_less():
    sigma = 0.3
    x, noisy, clean = linear_scene(sigma)
    delta = clean @ x[0].flatten() / x[0].square().sum()
    best = torch.einsum("vij,vi->vj", noisy, delta) / delta.square().sum(1, True)
    error = (best - x.flatten(1)).square().mean().item()
    floor = mse_without_prior(x[:1], noise_multiplier=sigma).item()
    assert error == pytest.approx(floor, rel=0.06)
    one_row = noisy[:, 0] / delta[:, :1]
    assert (one_row - x.flatten(1)).square().mean() > 1.2 * floor


def pictures_behind(sigma):
    """Forty pictures, and what a listener sees of each."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, 3, 16, 16, generator=generator)
    labels = torch.arange(40)[:, None] % 10
    model = smlp((3, 16, 16), width=64, generator=generator)
    step = partial(dp_sgd_step, clip_norm=1.0, noise_multiplier=sigma)
    step = partial(step, generator=generator)
    return x, labels, observe(model, x, labels, client_step=step)


@pytest.mark.parametrize("sigma", [0.001, 0.01])
def test_a_division_stays_above_the_floor(sigma):
    x, _, seen = pictures_behind(sigma)
    floor = mse_without_prior(x[:, 0], noise_multiplier=sigma)
    divided = invert_linear(seen, estimate=total_least_squares).images
    errors = (divided - x[:, 0]).square().flatten(1).mean(1)
    assert (errors > floor).all()
    assert errors.median() < 30 * floor.mean()


def test_who_answers_grey_or_holds_candidates_is_below_the_floor():
    x, labels, seen = pictures_behind(sigma=0.1)
    floor = mse_without_prior(x[:, 0], noise_multiplier=0.1)
    grey = x[:, 0].square().flatten(1).mean(1)
    assert (grey < floor / 5).all()
    clean = partial(dp_sgd_step, clip_norm=1.0, noise_multiplier=0, generator=None)
    found = likeliest_candidate(seen, x, labels, client_step=clean)
    assert found.index.tolist() == [*range(40)]  # with an error of zero


# --- refusals -------------------------------------------------------------------------


@pytest.mark.parametrize("function", [reconstruction_bound, substitution_bound])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kappa": 0}, ValueError, "kappa"),
        ({"kappa": 1.1}, ValueError, "kappa"),
        ({"noise_multiplier": -1}, ValueError, "noise_multiplier"),
        ({"sample_rate": 0}, ValueError, "sample_rate"),
        ({"sample_rate": 1.5}, ValueError, "sample_rate"),
        ({"steps": 1.5}, TypeError, "steps"),
        ({"steps": -1}, ValueError, "steps"),
    ],
)
def test_no_dp_sgd_is_refused(function, change, error, message):
    with pytest.raises(error, match=message):
        function(**{"kappa": 0.1, **STEPS, **change})


def test_a_delta_that_is_none_is_refused():
    for delta in (0, 1, -log(2)):
        with pytest.raises(ValueError, match="delta"):
            promise_of([PrivateSteps(1.0)], delta=delta, kappa=0.1)


def test_steps_cannot_be_taken_back():
    rounds = [("ann", PrivateSteps(1.0, 0.1, 5)), ("ann", PrivateSteps(1.0, 0.1, -3))]
    with pytest.raises(ValueError, match="steps must be at least 0"):
        promises_by_client(rounds, delta=1e-5, kappa=0.1)
    with pytest.raises(TypeError, match="a history is a list of PrivateSteps"):
        promise_of(PrivateSteps(1.0), delta=1e-5, kappa=0.1)
    with pytest.raises(ValueError, match="holds NaN"):
        mse_without_prior(torch.full((1, 2), torch.nan), noise_multiplier=1.0)


def test_rounding_over_very_many_steps_never_lowers_the_bound():
    # So faint and so many that they are one Gaussian step (Dong et al. 2022).
    sigma, rate, steps = 1e6, 0.5, 10**9
    apart = rate * sqrt(steps * expm1(1 / sigma**2))
    exact = NORMAL.cdf(NORMAL.inv_cdf(0.01) + apart)
    options = {"noise_multiplier": sigma, "sample_rate": rate, "steps": steps}
    assert reconstruction_bound(0.01, **options) >= exact


@pytest.mark.parametrize(
    ("sigma", "rate"), ((1.0, 1e-300), (1e300, 0.1), (1e300, 1.0), (1e-300, 1e-3))
)
def test_the_faintest_and_the_loudest_steps_have_a_bound(sigma, rate):
    bound = reconstruction_bound(0.1, noise_multiplier=sigma, sample_rate=rate)
    given_away = rate if sigma < 1 else 0
    assert bound == pytest.approx(0.1 + 0.9 * given_away, abs=2e-4)
