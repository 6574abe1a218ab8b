import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from precode_lib.ats import (
    NO_POLICY,
    Candidate,
    Policy,
    PolicySearch,
    accuracy_score,
    best,
    by_mean,
    by_mean_and_variance,
    hybrid,
    privacy_scores,
    progress,
)
from precode_lib.data import victims


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 8, 5, stride=3)
    layers = [conv, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10)]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def pictures():
    return victims("photos", 30, size=16)


def make_search(pictures, seed=0, **options) -> PolicySearch:
    given = {"num_candidates": 6, "num_per_class": 2, "num_batches": 2}
    return PolicySearch(
        trained=make_net(0),
        untrained=make_net(1),
        pictures=pictures,
        generator=seeded(seed),
        **{**given, "accuracy_floor": -1e6, **options},
    )


def facts(candidates):
    return [
        (str(c.policy), c.accuracy, None if c.privacy is None else c.privacy.tolist())
        for c in candidates
    ]


def test_a_search_ends_after_its_candidates_and_says_how_many_are_left(pictures):
    search = make_search(pictures, num_candidates=2)
    assert len(search) == 2
    assert [len(search) for _ in search] == [1, 0]
    assert search
    with pytest.raises(StopIteration):
        next(search)


def test_candidates_are_policies_of_existing_operations_or_nothing(pictures):
    search = make_search(pictures, length=500)
    (alternative,) = search._draw().alternatives
    assert set(alternative) <= set(range(50))
    assert len(set(alternative)) > 40
    assert 490 - 20 < len(alternative) < 500  # -1 comes up about ten times


def test_a_rating_is_the_mean_of_the_scores_by_class_and_by_batch(pictures):
    search = make_search(pictures, num_batches=1)
    policy = Policy.parse("3-1-7")
    found = search.rate(policy)
    chosen = pictures[[r for c in range(10) for r in (c, c + 10)]]
    assert chosen.labels.tolist() == [c for c in range(10) for _ in range(2)]
    scores = privacy_scores(
        make_net(0), chosen.pixels, chosen.labels, policy,
        normalisation=pictures.normalisation, generator=search._fresh(),
    )  # fmt: skip
    torch.testing.assert_close(found.privacy, scores.view(10, 2).mean(1))
    (batch,) = search._batches
    expected = accuracy_score(
        make_net(1), batch.pixels, policy,
        normalisation=pictures.normalisation, generator=search._fresh(),
    )  # fmt: skip
    assert found.accuracy == pytest.approx(expected / 10)


def test_batches_hold_a_random_picture_of_each_class(pictures):
    batches = make_search(pictures, num_batches=20)._batches
    assert all(batch.labels.tolist() == list(range(10)) for batch in batches)
    assert len({str(batch.pixels[0].sum().item()) for batch in batches}) == 3


def test_a_rating_depends_on_the_seed_and_not_on_what_came_before(pictures):
    policy = Policy.parse("3-1-7+43-18-18")
    search = make_search(pictures)
    early = search.rate(policy)
    list(search)
    assert facts([search.rate(policy)]) == facts([early])
    assert facts([make_search(pictures, seed=1).rate(policy)]) != facts([early])


def test_policies_with_the_same_effect_get_the_same_rating(pictures):
    search = make_search(pictures)
    first, same = search.rate(NO_POLICY), search.rate(Policy.parse("28-39"))
    assert first.accuracy == same.accuracy
    assert torch.equal(first.privacy, same.privacy)


@pytest.mark.parametrize("done", [0, 1, 4, 6])
def test_a_resumed_search_finds_bit_for_bit_the_same(pictures, done):
    whole, part = make_search(pictures), make_search(pictures)
    everything = facts(whole)
    for _ in range(done):
        next(part)
    file = io.BytesIO()
    torch.save(part.state_dict(), file)
    file.seek(0)
    resumed = make_search(pictures)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert len(resumed) == 6 - done
    list(resumed)
    assert facts(resumed.candidates) == everything
    assert torch.equal(resumed._generator.get_state(), whole._generator.get_state())


def test_a_state_of_another_search_is_refused(pictures):
    state = make_search(pictures).state_dict()
    with pytest.raises(ValueError, match="length 3 ≠ 2"):
        make_search(pictures, length=2).load_state_dict(state)
    with pytest.raises(ValueError, match="pictures"):
        make_search(pictures[:20]).load_state_dict(state)
    with pytest.raises(ValueError, match="seeded alike"):
        copied = dict(state, seed=state["seed"] + 1)
        make_search(pictures).load_state_dict(copied)


def test_a_policy_below_the_floor_is_refused_without_a_privacy_score(pictures):
    search = make_search(pictures)
    middle = sorted(c.accuracy for c in search)[3]
    strict = make_search(pictures, accuracy_floor=middle)
    for candidate in strict:
        assert candidate.is_accepted == (candidate.accuracy >= middle)
        assert candidate.is_accepted == (candidate.privacy is not None)
    assert [c.is_accepted for c in strict.candidates].count(True) == 3
    assert all(c.accuracy >= middle for c in strict.best(6))
    assert "refused" in repr(min(strict.candidates, key=lambda c: c.accuracy))


def test_when_nothing_is_accepted_the_best_is_an_error(pictures):
    search = make_search(pictures, accuracy_floor=0.0, num_candidates=1)
    list(search)
    with pytest.raises(ValueError, match="none of 1 candidates"):
        search.best(1)


PRIVACY = [[0.25, 0.5], [0.0, 0.75], [0.75, 0.75], [0.375, 0.5]]


def make_candidates():
    policies = [Policy(((index,),)) for index in range(4)]
    return [
        Candidate(policy, -1.0, torch.tensor(row).double())
        for policy, row in zip(policies, PRIVACY, strict=True)
    ]


def test_the_plain_ranking_is_the_mean_over_classes():
    found = by_mean(torch.tensor(PRIVACY))
    torch.testing.assert_close(found, torch.tensor([0.375, 0.375, 0.75, 0.4375]))
    numbers = [c.policy.alternatives[0][0] for c in best(make_candidates(), 4)]
    assert numbers == [0, 1, 3, 2]  # ties keep their order


def test_the_ranking_of_the_code_adds_the_variance_over_classes():
    means, variances = np.mean(PRIVACY, 1), np.var(PRIVACY, 1)

    def scaled(values):
        return (values - values.min()) / (values.max() - values.min())

    expected = 0.7 * scaled(means) + 0.3 * scaled(variances)
    found = by_mean_and_variance(torch.tensor(PRIVACY).double())
    np.testing.assert_allclose(found.numpy(), expected)
    (first,) = best(make_candidates(), 1, ranking=by_mean_and_variance)
    assert first.policy.alternatives == ((0,),)
    assert int(expected.argmin()) == 0
    assert expected[1] > expected[3]  # its spread costs more than its mean saves


def test_candidates_that_are_all_alike_rank_alike():
    assert by_mean_and_variance(torch.full((3, 2), 0.5)).tolist() == [0, 0, 0]


def test_the_hybrid_of_candidates_draws_among_their_policies():
    assert str(hybrid(make_candidates()[:3])) == "0+1+2"


def test_the_progress_bar_yields_every_candidate_and_shows_the_best(pictures):
    search, shown = make_search(pictures, num_candidates=3), io.StringIO()
    found = list(progress(search, file=shown, mininterval=0))
    assert found == search.candidates
    (first,) = search.best(1)
    assert f"3 accepted, {first.policy}" in shown.getvalue()
    strict, shown = make_search(pictures, accuracy_floor=0.0), io.StringIO()
    list(progress(strict, file=shown, mininterval=0))
    assert "none accepted" in shown.getvalue()


def test_a_search_leaves_networks_and_the_global_generator_alone(pictures):
    search, state = make_search(pictures, num_candidates=2), None
    before = copy.deepcopy(search.trained.state_dict())
    state = torch.get_rng_state()
    list(search)
    after = search.trained.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), state)


def test_candidates_show_their_scores(pictures):
    candidate = Candidate(NO_POLICY, -1.234, torch.tensor([0.5, 0.7]))
    assert repr(candidate) == "Candidate(-1, accuracy -1.23, privacy 0.600)"


@pytest.mark.parametrize(
    "options",
    [{"num_candidates": 0}, {"length": 0}, {"num_per_class": 0}, {"num_batches": 0}],
)
def test_empty_searches_are_refused(pictures, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make_search(pictures, **options)


def test_searches_that_cannot_work_are_refused(pictures):
    with pytest.raises(ValueError, match="accuracy_floor"):
        make_search(pictures, accuracy_floor=float("nan"))
    with pytest.raises(ValueError, match="one class only"):
        make_search(pictures.of_class("cat"))
    with pytest.raises(ValueError, match="count"):
        best(make_candidates(), 0)
