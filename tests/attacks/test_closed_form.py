"""The closed forms: what the first linear layer gives away, exactly, and what not."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from precode_lib.attacks.batches import Span
from precode_lib.attacks.closed_form import (
    ClosedForm,
    direction_of_input,
    first_linear,
    invert_linear,
    isolated_inputs,
    largest_row,
    least_squares,
    span,
    total_least_squares,
)
from precode_lib.bottleneck import with_precode
from precode_lib.data import PHOTOS
from precode_lib.federated import LocalTraining, observe
from precode_lib.gradients import Gradients, Outer
from precode_lib.metrics import ssim
from precode_lib.models import dmlp, lenet, mlp, smlp

SHAPE = (3, 8, 8)
ESTIMATES = (largest_row, least_squares, total_least_squares)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def net(make=smlp, width=32, seed=0, shape=SHAPE, **options):
    return make(shape, width=width, generator=seeded(seed), **options).double()


def victims(batch=1, count=4, seed=1, shape=SHAPE, classes=10):
    """Pixels of every kind, normalised as PHOTOS says, in float64."""
    generator = seeded(seed)
    pixels = torch.rand(count, batch, *shape, generator=generator).double()
    labels = torch.randint(classes, (count, batch), generator=generator)
    return PHOTOS.normalise(pixels), labels


def seen_of(model, pair, **options):
    return observe(model, *pair, noise=seeded(2), normalisation=PHOTOS, **options)


def noise(std, seed=3):
    def defend(gradients):
        generator = seeded(seed)
        return gradients.map(
            lambda t: t + std * torch.randn(t.shape, generator=generator).to(t)
        )

    return defend


def dense(seen):
    return replace(seen, shared=seen.shared.dense())


def worst_ssim(images, found):
    return ssim(PHOTOS.denormalise(images), PHOTOS.denormalise(found)).min()


# --- one picture --------------------------------------------------------------------


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("make", (smlp, dmlp))
def test_one_picture_comes_back_exactly(make, estimate):
    images, labels = victims()
    seen = seen_of(net(make), (images, labels))
    for observation in (seen, dense(seen)):
        found = invert_linear(observation, estimate=estimate)
        assert_close(found.images, images[:, 0], rtol=0, atol=1e-10)
        assert found.exact.all()


def test_one_picture_comes_back_in_single_precision():
    model = net(width=128).float()
    images, labels = (t.float() if t.is_floating_point() else t for t in victims())
    seen = seen_of(model, (images, labels))
    for estimate in ESTIMATES:
        found = invert_linear(seen, estimate=estimate)
        assert_close(found.images, images[:, 0], rtol=0, atol=1e-4)
        assert found.exact.all()


@pytest.mark.parametrize("make", (smlp, dmlp))
def test_the_input_of_the_first_layer_leaks_through_precode_whatever_its_noise(make):
    images, labels = victims(count=1)
    many = images.expand(24, *images.shape[1:]), labels.expand(24, -1)
    model = with_precode(net(make), before="fc", k=16, generator=seeded(4))
    for seed in range(5):
        seen = observe(model, *many, noise=seeded(seed))
        found = invert_linear(seen)
        assert found.exact.all()
        assert worst_ssim(many[0][:, 0], found.images) > 0.999
        # The noise did differ: it only scaled the gradient that carries the picture.
        assert found.bias_gradient_norm.std() > 1e-4


def test_precode_in_front_of_the_first_layer_leaks_through_its_own_encoder():
    images, labels = victims()
    model = with_precode(net(), before="features.hidden1", k=16, generator=seeded(4))
    seen = seen_of(model, (images, labels))
    encoder = "features.hidden1.bottleneck.encoder"
    assert first_linear(seen) == (f"{encoder}.weight", f"{encoder}.bias")
    found = invert_linear(seen)
    assert found.exact.all()
    assert worst_ssim(images[:, 0], found.images) > 0.999


def test_behind_such_a_precode_the_old_first_layer_gives_only_the_decoded_sample():
    images, labels = victims()
    model = with_precode(net(), before="features.hidden1", k=16, generator=seeded(4))
    seen = seen_of(model, (images, labels))
    found = invert_linear(seen, layer="features.hidden1.layer")
    assert found.exact.all()  # exact of its input, which is not the picture
    assert worst_ssim(images[:, 0], found.images) < 0.3


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid]))
def test_any_first_layer_gives_its_picture_back(seed, activation):
    generator = seeded(seed)
    images = torch.randn(2, 1, 1, 3, 5, generator=generator).double()
    labels = torch.randint(10, (2, 1), generator=generator)
    model = net(width=12, seed=seed, shape=(1, 3, 5), activation=activation)
    found = invert_linear(observe(model, images, labels))
    assert_close(found.images, images[:, 0], rtol=0, atol=1e-8)


def test_a_victim_of_silent_units_is_flagged_and_free_of_nan():
    images, labels = victims(count=3)
    model = net()
    seen = seen_of(model, (images, labels))
    with torch.no_grad():
        model.features.hidden1.bias.fill_(-1e3)  # no unit fires any more
    silent = seen_of(model, (images, labels))
    for estimate in ESTIMATES:
        found = invert_linear(silent, estimate=estimate)
        assert (found.images == 0).all()
        assert (found.bias_gradient_norm == 0).all()
        assert not found.exact.any()
    names = first_linear(seen)
    bias = seen.shared[names.bias].clone()
    bias[1] = torch.nan
    weight = seen.shared[names.weight].dense()
    weight[1] = torch.nan
    for name, spoilt in zip(names, (weight, bias), strict=True):
        broken = replace(seen, shared=Gradients({**seen.shared, name: spoilt}))
        found = invert_linear(broken)
        assert found.images.isfinite().all()
        assert found.exact.tolist() == [True, False, True]


def test_a_batch_gives_a_mixture_and_says_so():
    images, labels = victims(batch=2)
    found = invert_linear(seen_of(net(), (images, labels)), estimate=least_squares)
    assert not found.exact.any()
    seen = seen_of(net(), (images, labels))
    for unit in (1e-6, 1e6):  # whatever the learning rate made of the gradient
        shared = seen.shared.map(lambda term, unit=unit: term * unit)
        assert not invert_linear(replace(seen, shared=shared)).exact.any()
    assert span(seen).distance(found.images[:, None]).max() < 1e-10
    assert (found.images[:, None] - images).abs().amax((2, 3, 4)).min() > 0.1


# --- noise --------------------------------------------------------------------------


def test_under_noise_one_row_errs_as_the_ratio_of_two_noisy_numbers():
    images, labels = victims()
    model, std = net(), 1e-4
    clean = dense(seen_of(model, (images, labels))).shared
    noisy = seen_of(model, (images, labels), defense=noise(std))
    found = invert_linear(noisy)
    assert not found.exact.any()
    names = first_linear(noisy)
    for v in range(4):
        unit = noisy.shared[names.bias][v].abs().argmax()
        b, blurred = clean[names.bias][v, unit], noisy.shared[names.bias][v, unit]
        rows = [g[names.weight][v, unit] for g in (clean, noisy.shared)]
        x = images[v, 0].flatten()
        error = (rows[1] - rows[0] - x * (blurred - b)) / blurred
        assert_close(found.images[v].flatten() - x, error, rtol=0, atol=1e-9)
        # The row's noise, and the bias entry's as a wrong scale of the whole picture.
        scale = (blurred - b) / blurred
        predicted = std**2 / b**2 + x.square().mean() * scale**2
        assert 0.7 < error.square().mean() / predicted < 1.4


def test_the_least_noise_is_noticed():
    seen = seen_of(net(), victims(), defense=noise(1e-6))
    assert not invert_linear(seen).exact.any()
    assert_close(invert_linear(seen).images, victims()[0][:, 0], rtol=0, atol=1e-3)


def errors(std, width=128):
    images, labels = victims(count=16)
    seen = seen_of(net(width=width), (images, labels), defense=noise(std))
    return [
        (invert_linear(seen, estimate=e).images - images[:, 0]).square().mean().item()
        for e in ESTIMATES
    ]


def test_more_noise_means_more_error_for_every_estimate():
    ladder = [errors(std) for std in (1e-5, 1e-4, 1e-3, 1e-2)]
    for weaker, stronger in pairwise(ladder):
        assert all(a < b for a, b in zip(weaker, stronger, strict=True))


def test_all_rows_together_err_less_than_one_row_under_little_noise():
    one_row, fitted, total = errors(1e-4)
    assert fitted < 0.3 * one_row
    assert total < 0.3 * one_row


def test_noise_in_the_bias_shrinks_least_squares_but_not_total_least_squares():
    images, labels = victims(count=16)
    seen = seen_of(net(width=128), (images, labels), defense=noise(2e-2))
    flat = images.flatten(1)

    def size(estimate):
        found = invert_linear(seen, estimate=estimate).images.flatten(1)
        return ((found * flat).sum(1) / flat.square().sum(1)).mean().item()

    assert size(least_squares) < 0.9
    assert abs(size(total_least_squares) - 1) < 0.05
    one_row, fitted, total = errors(2e-2)
    assert total < 0.5 * min(one_row, fitted)


def test_total_least_squares_is_the_best_rank_one_of_weight_and_bias_together():
    seen = seen_of(net(), victims(), defense=noise(1e-3))
    names = first_linear(seen)
    weight, bias = seen.shared[names.weight], seen.shared[names.bias]
    leading = torch.linalg.svd(torch.cat([weight, bias[..., None]], 2)).Vh[:, 0]
    expected = leading[:, :-1] / leading[:, -1:]
    assert_close(total_least_squares(weight, bias), expected, rtol=1e-8, atol=1e-8)


# --- local training -----------------------------------------------------------------


@pytest.mark.parametrize("steps", (1, 5))
def test_one_picture_survives_any_number_of_local_steps(steps):
    # Every step adds a multiple of the same picture to each row.
    images, labels = victims()
    local = LocalTraining(steps=steps, lr=0.1)
    found = invert_linear(seen_of(net(), (images, labels), local=local))
    assert found.exact.all()
    assert_close(found.images, images[:, 0], rtol=0, atol=1e-8)


def test_of_a_batch_trained_on_one_by_one_the_first_step_shows_the_first_picture():
    images, labels = victims(batch=2)
    one = LocalTraining(steps=1, lr=0.1, batch_size=1)
    found = invert_linear(seen_of(net(), (images, labels), local=one))
    assert found.exact.all()
    assert_close(found.images, images[:, 0], rtol=0, atol=1e-8)
    both = LocalTraining(steps=2, lr=0.1, batch_size=1)
    seen = seen_of(net(), (images, labels), local=both)
    assert not invert_linear(seen).exact.any()
    assert span(seen).distance(images).max() < 1e-8


def test_isolated_pictures_survive_local_steps():
    images, labels = victims(batch=2)
    local = LocalTraining(steps=4, lr=0.05, batch_size=1)
    results = isolated_inputs(seen_of(net(width=64), (images, labels), local=local))
    for found, own in zip(results, images, strict=True):
        assert len(found) == 2
        assert nearest(found, own).max() < 1e-6


def test_an_update_shows_each_picture_once_and_nearly_all_that_a_gradient_shows():
    # In single precision a small difference of weights is rounded as the weights are.
    model = net(width=256).float()
    images, labels = victims(batch=5, count=8)
    pair = images.float(), labels
    step = LocalTraining(steps=1, lr=0.02)
    updates = isolated_inputs(seen_of(model, pair, local=step))
    for found, own in zip(updates, pair[0], strict=True):
        deviations = (found.images[:, None] - own).abs().amax((2, 3, 4))
        assert len(set(deviations.argmin(1).tolist())) == len(found)
        assert nearest(found, own).max() < 1e-2
    gradients = isolated_inputs(seen_of(model, pair))
    assert sum(map(len, updates)) >= 0.9 * sum(map(len, gradients))


# --- up to a factor -----------------------------------------------------------------


def without_bias():
    model = net()
    model.features.hidden1.bias = None
    return model


def test_without_a_bias_a_picture_is_known_up_to_a_factor_and_no_better():
    images, labels = victims()
    seen = seen_of(without_bias(), (images, labels))
    with pytest.raises(ValueError, match="no bias.*direction_of_input"):
        invert_linear(seen)
    with pytest.raises(ValueError, match="no bias"):
        isolated_inputs(seen)
    for observation in (seen, dense(seen)):
        found = direction_of_input(observation)
        cosines = nn.functional.cosine_similarity(
            found.flatten(1), images[:, 0].flatten(1)
        )
        assert_close(cosines.abs(), torch.ones(4).double())
        assert_close(found.flatten(1).norm(dim=1), torch.ones(4).double())


def test_a_picture_and_its_double_have_the_same_direction():
    images, labels = victims()
    single = direction_of_input(seen_of(without_bias(), (images, labels)))
    twice = direction_of_input(seen_of(without_bias(), (2 * images, labels)))
    overlap = (single * twice).flatten(1).sum(1).abs()
    assert_close(overlap, torch.ones(4).double())


def test_the_direction_of_a_batch_is_refused():
    with pytest.raises(ValueError, match="has 2 pictures.*span"):
        direction_of_input(seen_of(net(), victims(batch=2)))


# --- batches ------------------------------------------------------------------------


@pytest.mark.parametrize("batch", (1, 4, 8))
@pytest.mark.parametrize("layout", (lambda seen: seen, dense))
def test_every_picture_of_a_batch_lies_in_the_span(batch, layout):
    images, labels = victims(batch)
    found = span(layout(seen_of(net(width=64), (images, labels))))
    assert found.distance(images).max() < 1e-9
    assert found.rank.tolist() == [batch] * 4
    assert found.singular_values.shape == (4, batch)
    grams = found.basis @ found.basis.mT
    assert_close(grams, torch.eye(batch).double().expand(4, -1, -1))
    strangers, _ = victims(3, seed=9)
    outside = strangers - strangers.mean()  # all pixels share a mean, as pictures do
    assert found.distance(outside).min() > 0.5


def test_the_span_agrees_with_the_singular_vectors_of_the_dense_gradient():
    seen = seen_of(net(width=64), victims(4))
    names = first_linear(seen)
    assert isinstance(seen.shared[names.weight], Outer)
    _, strengths, vectors = torch.linalg.svd(seen.shared[names.weight].dense())
    found = span(seen)
    assert_close(found.singular_values, strengths[:, :4])
    overlap = (found.basis * vectors[:, :4]).sum(2).abs()
    assert_close(overlap, torch.ones(4, 4).double())
    # However the matrix is split into factors.
    term, scale = seen.shared[names.weight], torch.tensor([1.0, 9.0, 0.1, 5.0])
    scale = scale.double()[:, None]
    other = Outer(term.left * scale, term.right / scale, term.shape)
    split = replace(seen, shared=Gradients({**seen.shared, names.weight: other}))
    assert_close(span(split).singular_values, strengths[:, :4])


def test_under_noise_the_span_is_that_of_the_strongest_directions():
    images, labels = victims(4)
    seen = seen_of(net(width=64), (images, labels), defense=noise(1e-3))
    names = first_linear(seen)
    _, strengths, vectors = torch.linalg.svd(seen.shared[names.weight])
    found = span(seen)
    assert_close(found.singular_values, strengths[:, :4], rtol=1e-8, atol=0)
    both = vectors[:, :4] @ found.basis.mT
    assert_close(
        torch.linalg.svdvals(both), torch.ones(4, 4).double(), rtol=1e-8, atol=0
    )
    assert 0 < found.distance(images).mean() < 1


def test_equal_pictures_take_one_direction_of_the_span():
    images, labels = victims(3)
    images[:, 2] = images[:, 0]
    found = span(seen_of(net(width=64), (images, labels)))
    assert found.rank.tolist() == [2] * 4
    assert (found.basis[:, 2] == 0).all()
    assert found.distance(images).max() < 1e-9


def test_the_span_of_a_narrow_layer_is_as_wide_as_the_layer():
    found = span(seen_of(net(width=3), victims(8)))
    assert (found.rank <= 3).all()
    assert found.distance(victims(8)[0]).max() > 0.01


def test_projecting_leaves_pictures_of_the_span_alone_and_cuts_others_off():
    images, labels = victims(4)
    found = span(seen_of(net(width=64), (images, labels)))
    assert_close(found.project(images), images)
    strangers = torch.randn(images.shape, generator=seeded(9)).double()
    inside = found.project(strangers)
    assert_close(found.project(inside), inside)
    left = (strangers - inside).flatten(2)
    assert (left @ found.basis.mT).abs().max() < 1e-10
    assert (found.distance(torch.zeros_like(images)) == 0).all()


def nearest(found, own):
    """The largest deviation of each found picture from the nearest own one: (N,)."""
    deviations = (found.images[:, None] - own).abs().amax((2, 3, 4))
    return deviations.amin(1)


@pytest.mark.parametrize("layout", (lambda seen: seen, dense))
def test_units_that_saw_one_picture_of_four_give_it_away(layout):
    images, labels = victims(4)
    seen = layout(seen_of(net(width=256), (images, labels)))
    results = isolated_inputs(seen)
    assert sum(len(found) for found in results) == 16
    for found, own in zip(results, images, strict=True):
        assert nearest(found, own).max() < 1e-6
        deviations = (found.images[:, None] - own).abs().amax((2, 3, 4))
        assert sorted(deviations.argmin(1).tolist()) == [0, 1, 2, 3]
        assert found.num_units.tolist() == sorted(found.num_units.tolist())[::-1]


def isolated_counts(model, images):
    """How many units of the first layer fire for each picture and no other."""
    layer = model.features.hidden1
    active = layer(images.flatten(1)) > 0
    return (active & (active.sum(0) == 1)).sum(1)


def test_the_number_of_units_is_that_of_the_activation_pattern():
    model, (images, labels) = net(width=256), victims(4)
    results = isolated_inputs(seen_of(model, (images, labels)))
    for found, own in zip(results, images, strict=True):
        expected = isolated_counts(model, own).sort(descending=True).values
        # A unit may be too quiet to be read, never the other way round.
        assert (found.num_units <= expected[: len(found)]).all()
        assert found.num_units.sum() >= 0.9 * expected.sum()


def test_isolated_pictures_come_back_in_single_precision():
    images, labels = victims(3)
    seen = seen_of(net(width=256).float(), (images.float(), labels))
    for found, own in zip(isolated_inputs(seen), images.float(), strict=True):
        assert len(found) == 3
        assert nearest(found, own).max() < 1e-3


def test_two_pictures_are_found_and_no_chance_mixture_of_them():
    images, labels = victims(2, count=8)
    seen = seen_of(net(width=256).float(), (images.float(), labels))
    for found, own in zip(isolated_inputs(seen), images.float(), strict=True):
        assert len(found) == 2
        assert nearest(found, own).max() < 1e-3


def test_one_picture_is_what_all_units_agree_on():
    images, labels = victims(1)
    for found, own in zip(
        isolated_inputs(seen_of(net(), (images, labels))), images, strict=True
    ):
        assert len(found) == 1
        assert nearest(found, own).max() < 1e-8


@pytest.mark.parametrize(
    "model",
    [
        net(activation=nn.Sigmoid),
        with_precode(net(), before="features.hidden1", k=16, generator=seeded(4)),
    ],
    ids=["sigmoid", "PRECODE's encoder"],
)
def test_nothing_is_isolated_where_every_unit_is_always_active(model):
    for found in isolated_inputs(seen_of(model, victims(4))):
        assert len(found) == 0
        assert found.images.shape == (0, *SHAPE)
        assert found.num_units.dtype == torch.int64


def test_isolated_pictures_leak_through_a_precode_further_on():
    images, labels = victims(3)
    model = with_precode(net(width=128), before="fc", k=16, generator=seeded(4))
    for found, own in zip(
        isolated_inputs(seen_of(model, (images, labels))), images, strict=True
    ):
        assert len(found) == 3
        assert nearest(found, own).max() < 1e-6


def test_with_two_classes_and_one_hidden_layer_mixtures_agree_too():
    # Each unit weighs the pictures it saw by the same two-class errors.
    images, labels = victims(3, classes=2)
    model = mlp(SHAPE, 2, depth=1, width=256, generator=seeded()).double()
    seen = replace(seen_of(model, (images, labels)), normalisation=None)
    deceived = [
        nearest(found, own).max() > 0.1
        for found, own in zip(isolated_inputs(seen), images, strict=True)
    ]
    assert any(deceived)
    deeper = seen_of(
        smlp(SHAPE, 2, width=256, generator=seeded()).double(), (images, labels)
    )
    for found, own in zip(isolated_inputs(deeper), images, strict=True):
        assert nearest(found, own).max() < 1e-6


def test_noise_makes_the_units_disagree():
    seen = seen_of(net(width=128), victims(3), defense=noise(1e-5))
    assert not any(len(found) for found in isolated_inputs(seen))
    # Who knows the noise can allow for it.
    tolerant = isolated_inputs(seen, tolerance=0.02, min_units=4)
    assert sum(len(found) for found in tolerant) > 0
    for found, own in zip(tolerant, victims(3)[0], strict=True):
        assert not len(found) or nearest(found, own).max() < 0.2


def test_candidates_outside_the_box_are_no_pictures():
    images, labels = victims(3)
    bright = images.clone()
    bright[:, 0] += 3  # beyond white
    model = net(width=256)
    seen = seen_of(model, (bright, labels))
    for found, own in zip(isolated_inputs(seen), images, strict=True):
        assert len(found) == 2
        assert nearest(found, own[1:]).max() < 1e-6
    unknown = isolated_inputs(replace(seen, normalisation=None))
    assert all(len(found) == 3 for found in unknown)


def test_silent_victims_have_no_isolated_pictures():
    model = net()
    with torch.no_grad():
        model.features.hidden1.bias.fill_(-1e3)
    seen = seen_of(model, victims(2))
    assert span(seen).rank.tolist() == [0] * 4
    assert all(len(found) == 0 for found in isolated_inputs(seen))


def test_more_support_can_be_asked_for():
    seen = seen_of(net(width=256), victims(4))
    strict = isolated_inputs(seen, min_units=17)
    for few, all_of_them in zip(strict, isolated_inputs(seen), strict=True):
        assert len(few) == int((all_of_them.num_units >= 17).sum())
    assert sum(map(len, strict)) < 16
    with pytest.raises(ValueError, match="min_units must be at least 2"):
        isolated_inputs(seen, min_units=1)
    with pytest.raises(ValueError, match="tolerance must be in"):
        isolated_inputs(seen, tolerance=0.0)


# --- which layer --------------------------------------------------------------------


def test_the_first_linear_layer_is_found_by_what_goes_into_it():
    # As wide as the picture: the sizes alone would not tell hidden1 from hidden2.
    wide = net(dmlp, width=192)
    names = first_linear(seen_of(wide, victims(count=1)))
    assert names == ("features.hidden1.weight", "features.hidden1.bias")


def test_a_linear_layer_behind_convolutions_is_no_first_layer():
    # Its input has as many entries as the picture, but is not the picture.
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(192, 10)).double()
    with pytest.raises(ValueError, match="first layer that runs: '0', Conv2d"):
        invert_linear(seen_of(model, victims()))
    with pytest.raises(ValueError, match="no Linear layer.*features.conv1"):
        span(seen_of(lenet(SHAPE, generator=seeded()).double(), victims()))


def test_a_layer_can_be_named_where_the_picture_changes_before_it():
    class Scaled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model((images - 0.5) / 2)

    images, labels = victims()
    seen = seen_of(Scaled(net()), (images, labels))
    with pytest.raises(ValueError, match="no Linear layer"):
        invert_linear(seen)
    found = invert_linear(seen, layer="model.features.hidden1")
    assert_close(found.images * 2 + 0.5, images[:, 0])
    for call in (first_linear, span, isolated_inputs, direction_of_input):
        with pytest.raises(ValueError, match="Did you mean 'model.features.hidden1'"):
            call(seen, layer="model.features.hiden1")
    with pytest.raises(ValueError, match="no layer 'model.fc' fits"):
        invert_linear(seen, layer="model.fc")


@pytest.mark.parametrize("role", ("weight", "bias"))
def test_a_frozen_first_layer_shares_nothing(role):
    model = net()
    getattr(model.features.hidden1, role).requires_grad_(False)
    with pytest.raises(ValueError, match=f"no gradient of 'features.hidden1.{role}'"):
        invert_linear(seen_of(model, victims()))


def test_gradients_that_were_not_sent_are_missed_by_name():
    seen = seen_of(net(), victims())
    kept = replace(seen, shared=seen.shared.drop("features.hidden1.*"))
    with pytest.raises(ValueError, match="it is frozen, or was dropped"):
        span(kept)


def test_looking_for_the_layer_leaves_the_model_and_the_random_numbers_alone():
    model = with_precode(net(), k=16, generator=seeded(4)).train()
    seen = seen_of(model, victims())
    before, state = torch.get_rng_state(), dict(seen.model.named_modules())
    invert_linear(seen)
    assert torch.equal(before, torch.get_rng_state())
    assert seen.model.training
    assert not any(module._forward_hooks for module in state.values())


def test_bare_gradients_and_broken_ones_are_refused():
    seen = seen_of(net(), victims())
    for call in (first_linear, invert_linear, span, isolated_inputs):
        with pytest.raises(TypeError, match="takes an Observation, got Gradients"):
            call(seen.shared)
    for observation in (seen, dense(seen)):
        broken = replace(
            observation, shared=observation.shared.map(lambda t: t * torch.nan)
        )
        with pytest.raises(ValueError, match="hidden1.weight' holds NaN"):
            span(broken)


def test_the_name_of_an_estimate_is_refused():
    with pytest.raises(TypeError, match="estimate must .* as total_least_squares, got"):
        invert_linear(seen_of(net(), victims()), estimate="tls")


def test_the_span_refuses_pictures_of_another_kind():
    found = span(seen_of(net(), victims(2)))
    with pytest.raises(ValueError, match=r"images must be \(V, B, C, H, W\) with 192"):
        found.distance(torch.zeros(2, 3, 8, 8).double())
    with pytest.raises(ValueError, match=r"images must be \(V, B, C, H, W\) with 192"):
        found.project(torch.zeros(4, 2, 3, 8, 7).double())
    with pytest.raises(ValueError, match="got 3 victims, the span has 4"):
        found.distance(torch.zeros(3, 2, *SHAPE).double())


def test_what_needs_no_search_says_in_one_line_what_it_found():
    found = ClosedForm(torch.zeros(3, 1, 2, 2), torch.ones(3), torch.arange(3) > 0)
    assert repr(found) == "ClosedForm(images (3, 1, 2, 2), 2 of 3 exact)"
    values = torch.tensor([[2.0, 1.0], [1.0, 0.0]])
    spans = Span(torch.zeros(2, 2, 12), values)
    assert repr(spans) == "Span(2 victims, ranks 1 to 2, 12 numbers)"
