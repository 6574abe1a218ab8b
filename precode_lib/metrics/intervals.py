"""What a count of successes says about the rate behind it."""


def exact_interval(
    successes: int, trials: int, level: float = 0.95
) -> tuple[float, float]:
    """The rates, from and to, that a count does not exclude (Clopper and Pearson 1934).

    Exact for independent trials: it holds the true rate with at least this probability,
    whatever that rate is. Two attacks on one picture, with two seeds, are not
    independent: give each seed an interval of its own.

    Args:
        successes: of the trials.
        trials: at least one.
        level: of confidence, between 0 and 1.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"of {trials} trials {successes} cannot succeed: expected at least one "
            "trial, and no more successes than trials."
        )
    if not 0 < level < 1:
        raise ValueError(f"level is between 0 and 1, such as 0.95, got {level}.")
    from scipy.special import betaincinv  # heavy, and only needed here

    out = (1 - level) / 2
    failures = trials - successes
    low = betaincinv(successes, failures + 1, out) if successes else 0.0
    high = betaincinv(successes + 1, failures, 1 - out) if failures else 1.0
    return float(low), float(high)
