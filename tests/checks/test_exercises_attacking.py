"""Typical wrong answers about attacks on PRECODE, and what each is told."""

from dataclasses import replace

import pytest
import torch
from marking import assert_refused, assert_right
from torch.nn import functional as F

from precode_lib.attacks import Search, fresh, given, searched, still
from precode_lib.checks import attacking as check

RIGHT = (0.64, 0.2, 0.36, 13 / 17)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 0, "client's own draw alone"),
        (0, 1.28, "other draw alone|sum of both"),
        (0, 0.36, "mean cosine"),
        (0, 0.4, "noise was averaged first"),
        (1, 0.4, "other draw alone"),
        (1, 0.8, "mean cosine"),
        (1, 0.3, "for each of both draws"),
        (2, 0.64, "share of the noise"),
        (2, 3 / 7, "add their squares"),
        (3, 52 / 16, "share of both"),
        (3, 0.5, r"\|mean\|² over"),
        (3, "loud", "should be a number"),
    ],
)
def test_a_wrong_distance_by_hand_is_told_which_step_failed(place, wrong, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], wrong, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def flat(gradients, names):
    return torch.cat([gradients[name].flatten() for name in names])


def one(guess, target, names):
    return 1 - F.cosine_similarity(flat(guess, names), flat(target, names), dim=0)


def over_draws(distance):
    return lambda guesses, target, keep: torch.stack(
        [torch.as_tensor(distance(guess, target, keep)) for guess in guesses]
    ).mean()


def averaged_first(guesses, target, keep):
    mean = {name: sum(g[name] for g in guesses) / len(guesses) for name in keep}
    return one(mean, target, keep)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (over_draws(lambda g, t, keep: one(g, t, list(t))), "only those in keep"),
        (
            over_draws(lambda g, t, keep: one(g, t, [n for n in t if n not in keep])),
            "were to be left out",
        ),
        (
            over_draws(lambda g, t, keep: sum(one(g, t, [n]) for n in keep) / 4),
            "one cosine over all",
        ),
        (over_draws(lambda g, t, keep: 1 - one(g, t, keep)), "this is the similarity"),
        (averaged_first, "gradients were averaged first"),
        (lambda g, t, keep: one(g[0], t, keep), "the first draw alone"),
        (lambda g, t, keep: sum(one(d, t, keep) for d in g), "the sum over the draws"),
        (lambda g, t, keep: 0.0, "one cosine over all kept entries"),
    ],
)
def test_a_wrong_objective_is_told_what_it_compared(learner, hint):
    assert_right(check.objective, over_draws(one))
    assert_refused(check.objective, learner, hint=hint)


def slope(mu, s, epsilon, heard):
    code = mu + s * epsilon
    direction, target = code / code.norm(), heard / heard.norm()
    return s * (direction * (direction @ target) - target) / code.norm()


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda mu, s, e, h: slope(mu, s, e, h) / s, "s is missing"),
        (lambda mu, s, e, h: -slope(mu, s, e, h), "the sign"),
        (
            lambda mu, s, e, h: 2 * s * (mu + s * e - h),
            "belongs to the squared distance",
        ),
        (lambda mu, s, e, h: s * (mu + s * e - h), "half the squared"),
        (
            lambda mu, s, e, h: slope(h, torch.ones_like(h), 0, mu + s * e),
            "with respect to what was heard",
        ),
        (lambda mu, s, e, h: e, "let autograd do it"),
        (lambda mu, s, e, h: e[None], "should be a tensor of shape"),
    ],
)
def test_a_wrong_slope_is_told_whose_it_is(learner, hint):
    assert_right(check.noise_gradient, slope)
    assert_refused(check.noise_gradient, learner, hint=hint)


def test_a_slope_of_other_units_is_named_by_its_shape():
    assert_refused(
        check.noise_gradient, lambda *inputs: torch.zeros(3), hint="got a tensor"
    )


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (1, "one step back"),
        (0.3, "at the next step"),
        (3, "not known at all"),
        (0, "move the slider"),
    ],
)
def test_a_wrong_error_of_the_noise_is_told_where_to_go(error, hint):
    assert_right(check.known_noise, 0.5)
    assert_refused(check.known_noise, error, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.success_rate_zero, "I believe it.", hint="words are few")
    assert_right(check.success_rate_zero, " ".join(f"reason{i}" for i in range(30)))


def unknowns(A, B, noise):
    return A if noise is not None else torch.cat([A, B], 1)


def solved_for(A, B, rest, noise):
    found = torch.linalg.lstsq(unknowns(A, B, noise), rest[:, None]).solution[:, 0]
    return found[: A.shape[1]]


def deaf(A, B, heard, noise=None):
    """An attacker who ignores the noise."""
    return solved_for(A, B, heard, 0)


def adding(A, B, heard, noise=None):
    return solved_for(A, B, heard if noise is None else heard + B @ noise, noise)


def both_together(A, B, heard, noise=None):
    known = torch.zeros(B.shape[1]) if noise is None else noise
    whole = unknowns(A, B, noise)
    found = torch.linalg.lstsq(whole, (heard - B @ known)[:, None]).solution[:, 0]
    return found if noise is None else torch.cat([found, noise])


def never_an_oracle(A, B, heard, noise=None):
    both = torch.linalg.pinv(torch.cat([A, B], 1)) @ heard
    return both[: A.shape[1]]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (deaf, "ignores the noise"),
        (adding, "noise's part was added"),
        (both_together, "return the picture alone|should be a tensor of shape"),
        (never_an_oracle, "searches for the noise although it was given"),
        (lambda A, B, heard, noise=None: torch.zeros(A.shape[1]), "one linear system"),
    ],
)
def test_a_wrong_match_is_told_what_it_does_with_the_noise(learner, hint):
    assert_refused(check.match, learner, hint=hint)


def attacker(choose, *, steps=True, answer=lambda result: result.images):
    """A search whose `hidden` is chosen from the noise, or None."""

    def find(heard, labels, noise=None):
        recipe = replace(check.SMALL_SEARCH, hidden=choose(noise))
        seen = check.overheard(heard, labels)
        search = Search(seen, recipe, generator=torch.Generator().manual_seed(0))
        for _ in search if steps else ():
            pass
        return answer(search.result)

    return find


def joint_or_told(noise):
    return searched() if noise is None else given([noise])


def begun_at(noise):
    """A search that begins at the noise which it is told, and goes on."""
    return searched(start=lambda *_, **__: noise[:, None])


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (attacker(lambda noise: fresh), "drawn anew at every step"),
        (attacker(lambda noise: still), "drawn anew at every step"),
        (
            attacker(lambda noise: fresh if noise is None else given([noise])),
            "It has to be searched for",
        ),
        (
            attacker(lambda noise: searched() if noise is None else still),
            "a list with the noise of the one bottleneck",
        ),
        (attacker(lambda noise: searched()), "although it was given"),
        (
            attacker(lambda noise: searched() if noise is None else begun_at(noise)),
            "although it was given",
        ),
        (attacker(joint_or_told, answer=lambda r: r.objective), "of the shape"),
    ],
)
def test_a_wrong_search_is_told_what_it_does_with_the_noise(learner, hint):
    assert_refused(check.find, learner, hint=hint)


def test_a_search_that_makes_no_step_says_so_itself():
    learner = attacker(joint_or_told, steps=False)
    assert_refused(check.find, learner, hint="make a step", state="raised")


def test_noise_that_is_not_in_a_list_is_the_library_s_to_refuse():
    told = attacker(lambda noise: searched() if noise is None else given(noise))
    assert_refused(check.find, told, hint=r"given\(\[noise\]\)", state="raised")


@pytest.mark.parametrize(
    ("row", "word", "hint"),
    [
        (0, "open", "with the secret"),
        (0, "safe", "a proof would"),
        (1, "misled", "last column"),
        (2, "weak", "first column"),
        (2, "safe", "no table of attacks"),
        (3, "misled", "last column"),
        (3, "strong", 'should be one of "leaks", "misled", "open", "safe", "weak"'),
    ],
)
def test_a_wrong_verdict_is_told_which_column_to_read(row, word, hint):
    right = ["misled", "weak", "open", "leaks"]
    assert_right(check.verdicts, *right)
    right[row] = word
    assert_refused(check.verdicts, *right, hint=hint)
