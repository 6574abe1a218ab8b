"""How the tests of all markers ask: several times, with other inputs each time."""

import re

import torch

SEEDS = range(3)


def assert_right(check, *answers) -> None:
    for seed in SEEDS:
        verdict = check.judge(*answers, generator=torch.Generator().manual_seed(seed))
        assert verdict.is_right, verdict.message


def assert_refused(check, *answers, hint: str, state: str = "wrong") -> None:
    """Whatever the inputs, the answer is refused, and with this hint."""
    for seed in SEEDS:
        verdict = check.judge(*answers, generator=torch.Generator().manual_seed(seed))
        assert verdict.state == state, verdict
        assert re.search(hint, verdict.message), verdict.message
