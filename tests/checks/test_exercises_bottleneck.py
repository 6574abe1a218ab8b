"""Typical wrong answers, and what each is told."""

import math

import pytest
import torch
from marking import assert_refused, assert_right
from torch.nn import functional as F

from precode_lib.bottleneck import with_precode
from precode_lib.checks import bottleneck as check
from precode_lib.models import smlp

U, H_HAT, KL = [1.5, -2], [-0.5, 3], 1


@pytest.mark.parametrize(
    ("u", "h_hat", "kl", "hint"),
    [
        ([1, -1], H_HAT, KL, "noise is missing"),
        ([0.5, 0], H_HAT, KL, "added, not subtracted"),
        ([1 + (math.e - 1) / 2, -math.e], H_HAT, KL, "not eʳ"),
        ([1 + math.log(math.e - 1) / 2, -1.541325], H_HAT, KL, "not by r"),
        ([0, 0], H_HAT, KL, "first μ"),
        (U, [0, 2], KL, "decodes μ"),
        (U, [-2.5, 1.5], KL, "columns were used"),
        (U, [3, -0.5], KL, "row i of the decoder"),
        (U, H_HAT, 1 / math.log(2), "in bits"),
        (U, H_HAT, 0.5, "mean over the entries"),
        (U, H_HAT, 2, "one half"),
        (U, H_HAT, 3.125, "squares of the sample"),
        (U, H_HAT, -1, "squares of μ are left"),
        (1.5, H_HAT, KL, r"shape \(2,\), got a number"),
    ],
)
def test_a_wrong_pass_by_hand_is_told_which_step_failed(u, h_hat, kl, hint):
    assert_right(check.by_hand, U, H_HAT, KL)
    assert_refused(check.by_hand, u, h_hat, kl, hint=hint)


def halves(encoded):
    return encoded.chunk(2, dim=1)


def spread(encoded):
    return F.softplus(halves(encoded)[1])


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda e, n: halves(e)[0] + halves(e)[1].exp() * n, "not eʳ"),
        (lambda e, n: halves(e)[0] + halves(e)[1] * n, "used as it is"),
        (lambda e, n: halves(e)[0] + spread(e).sqrt() * n, "not a variance"),
        (lambda e, n: halves(e)[0] + spread(e) ** 2 * n, "squared here"),
        (lambda e, n: halves(e)[1] + F.softplus(halves(e)[0]) * n, "swapped"),
        (lambda e, n: halves(e)[0], "noise is missing"),
        (
            lambda e, n: halves(e)[0] + (1 + halves(e)[1].exp()).log() * n,
            "leaves single precision at r = 89",
        ),
        (lambda e, n: halves(e)[0] - spread(e) * n, "two halves"),
        (lambda e, n: torch.normal(halves(e)[0], spread(e)), "none of your own"),
        (lambda e, n: e, "should be a tensor of shape"),
    ],
)
def test_a_wrong_sample_is_told_what_it_computed(learner, hint):
    assert_right(check.sample, lambda e, n: halves(e)[0] + spread(e) * n)
    assert_refused(check.sample, learner, hint=hint)


def entries(mu, s):
    return (mu**2 + s**2 - 2 * s.log() - 1) / 2


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda mu, s: entries(mu, s).sum(1) / math.log(2), "in bits"),
        (lambda mu, s: entries(mu, s).mean(1), "mean over the k entries"),
        (lambda mu, s: entries(mu, s.sqrt()).sum(1), "its square belongs"),
        (lambda mu, s: 2 * entries(mu, s).sum(1), "one half is missing"),
        (lambda mu, s: entries(mu, s).sum(), "one number for the batch"),
        (lambda mu, s: entries(mu, s).sum(1).mean(), "mean over the batch"),
        (lambda mu, s: entries(mu, s), "one number per entry"),
        (lambda mu, s: entries(mu, s).sum(0), "sums over the pictures"),
        (lambda mu, s: (entries(mu, s) + 2 * s.log()).sum(1), "other sign"),
        (lambda mu, s: (entries(mu, s) + s.log() / 2).sum(1), "counts twice"),
        (lambda mu, s: (entries(mu, s) + 0.5).sum(1) - 0.5, "once for each entry"),
        (lambda mu, s: -entries(mu, s).sum(1), "the negative"),
        (
            lambda mu, s: ((1 + mu**2) / s**2 + 2 * s.log() - 1).sum(1) / 2,
            "swapped",
        ),
        (lambda mu, s: entries(mu, s).sum(1).sqrt(), "entry by entry"),
    ],
)
def test_a_wrong_price_is_told_what_it_measures(learner, hint):
    assert_right(check.kl, lambda mu, s: entries(mu, s).sum(1))
    assert_refused(check.kl, learner, hint=hint)


@pytest.mark.parametrize(
    ("shift", "hint"),
    [
        (1, "one step further"),
        (3, "not the first"),
        (6, "end of the slider"),
        (0, "hardly agree"),
        (5, "from the left"),
        ([2], "got a list|got a tensor of shape|should be a number"),
    ],
)
def test_a_wrong_shift_is_told_where_to_go(shift, hint):
    assert_refused(check.quiet_start, shift, hint=hint)


def test_a_shift_lowers_the_spread_and_nothing_else():
    model = with_precode(smlp(width=8), k=3)
    quiet = check.quieter(model, 2)
    old, new = model.state_dict(), quiet.state_dict()
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert changed == ["fc.bottleneck.encoder.bias"]
    change = (new[changed[0]] - old[changed[0]]).tolist()
    assert change == pytest.approx([0, 0, 0, -2, -2, -2])


def test_the_right_shift_is_accepted():
    assert_right(check.quiet_start, 2)


def test_an_open_question_wants_some_sentences():
    assert_refused(check.after_training, "The weights.", hint="words are few")
    verdict = check.after_training.judge("", generator=torch.Generator())
    assert verdict.state == "unanswered"
