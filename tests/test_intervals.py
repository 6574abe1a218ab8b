"""What a count says about a rate: against tails of the binomial, and known values."""

import pytest
from scipy.stats import binom, binomtest

from precode_lib.metrics import exact_interval


@pytest.mark.parametrize("trials", [1, 3, 16, 128])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_interval_is_scipys_exact_one(trials, level):
    for successes in range(trials + 1):
        theirs = binomtest(successes, trials).proportion_ci(level, method="exact")
        assert exact_interval(successes, trials, level) == pytest.approx([*theirs])


@pytest.mark.parametrize("successes", [1, 8, 15])
def test_at_its_ends_a_tail_of_the_binomial_has_half_of_what_is_left(successes):
    low, high = exact_interval(successes, 16)
    assert binom.sf(successes - 1, 16, low) == pytest.approx(0.025)
    assert binom.cdf(successes, 16, high) == pytest.approx(0.025)


def test_none_and_all_have_an_end_of_their_own():
    assert exact_interval(0, 16) == (0, pytest.approx(1 - 0.025 ** (1 / 16)))
    assert exact_interval(16, 16) == (pytest.approx(0.025 ** (1 / 16)), 1)


def test_it_holds_the_true_rate_often_enough():
    for rate in (0.01, 0.3, 0.5, 0.97):
        held = [k for k in range(17) if exact_interval(k, 16)[0] <= rate]
        held = [k for k in held if rate <= exact_interval(k, 16)[1]]
        assert sum(binom.pmf(k, 16, rate) for k in held) >= 0.95


@pytest.mark.parametrize(
    ("successes", "trials", "level", "said"),
    [
        (17, 16, 0.95, "of 16 trials 17 cannot succeed"),
        (-1, 16, 0.95, "of 16 trials -1 cannot succeed"),
        (0, 0, 0.95, "at least one trial"),
        (8, 16, 95, "between 0 and 1, such as 0.95, got 95"),
    ],
)
def test_it_refuses_what_is_no_count_or_no_level(successes, trials, level, said):
    with pytest.raises(ValueError, match=said):
        exact_interval(successes, trials, level)
