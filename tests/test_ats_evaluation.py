from dataclasses import replace
from functools import partial

import pytest
import torch

from precode_lib.ats import NO_POLICY, Policy, apply_each, augment, in_turn
from precode_lib.ats.evaluation import (
    IGA_ATS,
    PolicyEvaluation,
    adaptive,
    compare,
    evaluate_policy,
    plain,
    through,
)
from precode_lib.attacks import iga
from precode_lib.data import IDENTITY, photos, victims
from precode_lib.federated import observe
from precode_lib.gradients import squared_distance
from precode_lib.metrics import score
from precode_lib.models import mlp
from precode_lib.training import ATS, fit

SHORT = replace(IGA_ATS, iterations=250)
SHIFT = Policy.parse("3")  # by 45 % of the width, to the left or to the right


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pictures():
    return victims("photos", 4, size=16)


@pytest.fixture(scope="module")
def model():
    return mlp((3, 16, 16), 10, depth=2, width=64, generator=seeded()).eval()


@pytest.fixture(scope="module")
def compared(model, pictures) -> dict[str, PolicyEvaluation]:
    return compare(model, pictures, SHIFT, generator=seeded(2), recipe=SHORT)


def observed(model, pictures, pixels):
    images = pictures.normalisation.normalise(pixels)[:, None]
    return observe(
        model,
        images,
        pictures.labels[:, None],
        normalisation=pictures.normalisation,
    )


def test_the_recipe_is_the_published_one():
    assert (IGA_ATS.iterations, IGA_ATS.prior_weight) == (4800, 1e-4)
    assert IGA_ATS.signed
    assert IGA_ATS.boxed


def test_a_policy_hides_the_original_and_not_what_the_gradient_was_taken_of(compared):
    """The limit of the defense: the published metric sees only one of the two."""
    without, under = compared["no policy"], compared["policy"]
    assert without.against_original.psnr.min() > 20
    assert under.against_original.psnr.max() < 15
    assert under.against_transformed.psnr.min() > 25


def test_an_attacker_who_knows_the_policy_finds_the_direction_and_more_of_the_original(
    compared,
):
    plainly, adapted = compared["policy"], compared["policy, adaptive attacker"]
    assert adapted.variants == plainly.variants
    assert len(set(adapted.variants)) == 2
    believed = tuple(SHIFT.variants[index] for index in adapted.guess.chosen)
    assert believed == adapted.variants
    gained = adapted.against_original.psnr - plainly.against_original.psnr
    assert gained.min() > 5


def test_an_evaluation_scores_the_guess_against_both_truths(compared, pictures):
    for found in compared.values():
        assert torch.equal(found.originals, pictures.pixels)
        after = apply_each(pictures.pixels, found.variants)
        assert torch.equal(found.transformed, after)
        original = score(pictures.pixels, found.guess.original)
        assert torch.equal(found.against_original.mse, original.mse)
        transformed = score(after, found.guess.transformed)
        assert torch.equal(found.against_transformed.ssim, transformed.ssim)


def test_without_a_policy_nothing_is_transformed(compared, pictures):
    found = compared["no policy"]
    assert found.policy == NO_POLICY
    assert torch.equal(found.transformed, pictures.pixels)
    assert torch.equal(found.guess.original, found.guess.transformed)


def test_the_plain_attack_is_iga_on_what_crossed_the_wire(model, pictures):
    seen = observed(model, pictures, pictures.pixels)
    recipe = replace(SHORT, iterations=5)
    search = iga(seen, generator=seeded(), iterations=5)
    list(search)
    found = plain(seen, seeded(), recipe=recipe)
    torch.testing.assert_close(found.original, search.result.pixels[:, 0])


def test_through_the_right_transformation_the_original_explains_the_gradient(
    model, pictures
):
    # None that rounds to levels: there a last digit can decide for another level.
    for text in ("3-1-7", "10-2-4", "0-12-20", "13-37-21"):
        variant = Policy.parse(text).variants[0]
        pixels = pictures.pixels
        seen = observed(model, pictures, variant(pixels))
        target = through(variant, seen)
        images = pictures.normalisation.normalise(pixels)[:, None]
        found = target.client()(images, pictures.labels[:, None])
        assert squared_distance(found, seen.shared).max() < 1e-6
        wrong = seen.client()(images, pictures.labels[:, None])
        assert squared_distance(wrong, seen.shared).min() > 1e-3


def test_equal_seeds_give_equal_evaluations(model, pictures):
    attack = partial(plain, recipe=replace(SHORT, iterations=3))
    first, second = (
        evaluate_policy(model, pictures, SHIFT, generator=seeded(7), attack=attack)
        for _ in range(2)
    )
    assert torch.equal(first.guess.original, second.guess.original)
    assert first.variants == second.variants


def test_any_function_of_pixels_may_be_what_the_attacker_tries(model, pictures):
    turned = pictures.pixels.flip(-1)
    found = adaptive(
        observed(model, pictures, turned), seeded(),
        transforms=[lambda pixels: pixels.flip(-1)], recipe=SHORT,
    )  # fmt: skip
    assert found.chosen.tolist() == [0, 0, 0, 0]
    assert score(pictures.pixels, found.original).psnr.min() > 18
    assert torch.equal(found.transformed, found.original.flip(-1))


def test_the_adaptive_attacker_refuses_what_it_cannot_do(model, pictures):
    seen = observed(model, pictures, pictures.pixels)
    with pytest.raises(ValueError, match="needs a transformation"):
        adaptive(seen, seeded(), transforms=[])
    with pytest.raises(ValueError, match="one picture each; got 2"):
        adaptive(replace(seen, num_examples=2), seeded(), transforms=SHIFT.variants)
    with pytest.raises(ValueError, match="scouting"):
        adaptive(seen, seeded(), transforms=SHIFT.variants, scouting=0)
    with pytest.raises(ValueError, match=r"data\.IDENTITY"):
        through(SHIFT.variants[0], replace(seen, normalisation=None))


def test_evaluations_say_what_they_found(compared):
    text = repr(compared["policy"])
    assert text.startswith("PolicyEvaluation(3: against the original PSNR ")
    assert "; against the transformed PSNR" in text


def test_a_policy_serves_the_trainer_after_the_usual_augmentation():
    splits = photos(16, num_train=80, num_test=20)
    seen = []

    def transform(pixels, generator):
        seen.append(in_turn(augment, SHIFT)(pixels, generator))
        return seen[-1]

    net = mlp((3, 16, 16), 10, depth=1, width=16, generator=seeded())
    protocol = replace(ATS, epochs=1)
    (epoch,) = fit(net, splits, protocol, augment=transform)
    assert epoch.test_accuracy >= 0
    assert sum(map(len, seen)) == 80
    # A shift by 45 % leaves 7 of 16 columns black, left or right.
    is_black = (torch.cat(seen) == 0).all(2).all(1)
    assert (is_black[:, :7].all(1) | is_black[:, -7:].all(1)).all()


def test_by_default_the_published_attack_runs(model, pictures, monkeypatch):
    called = []

    def record(observation, generator):
        called.append(observation.num_victims)
        return plain(observation, generator, recipe=replace(SHORT, iterations=1))

    monkeypatch.setattr("precode_lib.ats.evaluation.plain", record)
    evaluate_policy(
        model, replace(pictures, normalisation=IDENTITY), SHIFT, generator=seeded()
    )
    assert called == [4]
