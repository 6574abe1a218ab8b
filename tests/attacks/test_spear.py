"""SPEAR takes whole batches apart, says which of it is confirmed, and what stops it."""

from dataclasses import replace
from functools import partial
from statistics import mean

import pytest
import torch
from torch import nn

from precode_lib.attacks import Unmixed, spear
from precode_lib.attacks.mixtures import unmix
from precode_lib.bottleneck import with_precode
from precode_lib.data import PHOTOS
from precode_lib.defenses import dp_sgd_step
from precode_lib.federated import LocalTraining, aggregated, observe
from precode_lib.gradients import Capture
from precode_lib.models import lenet, mlp, smlp

SHAPE = (3, 8, 8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def net(width=128, seed=0, make=smlp, **options):
    return make(SHAPE, width=width, generator=seeded(seed), **options).double()


def victims(batch, count=1, seed=1, classes=10):
    """Random pictures in float64, each of another brightness."""
    generator = seeded(seed)
    pixels = torch.rand(count, batch, *SHAPE, generator=generator)
    gain = torch.rand(count, batch, 1, 1, 1, generator=generator)
    labels = torch.randint(classes, (count, batch), generator=generator)
    return PHOTOS.normalise((pixels * (0.5 + gain / 2)).double()), labels


def seen_of(model, pair, **options):
    return observe(model, *pair, noise=seeded(2), normalisation=PHOTOS, **options)


def errors(found, own):
    """Of each own picture, how far the nearest found one is, relative to its norm."""
    assert len(found) > 0
    found, own = found.images.flatten(1).double(), own.flatten(1).double()
    return torch.cdist(own, found).amin(1) / own.norm(dim=1)


def gaussian(std):
    def blur(gradients):
        generator = seeded(7)
        return gradients.map(
            lambda t: t + std * torch.randn(t.shape, generator=generator, dtype=t.dtype)
        )

    return blur


# Where it provably succeeds.


@pytest.mark.parametrize("batch", range(1, 9))
def test_every_picture_of_a_batch_comes_back_exactly_with_twenty_seeds(batch):
    for seed in range(20):
        pair = victims(batch, seed=seed)
        (found,) = spear(seen_of(net(seed=seed), pair), generator=seeded(seed))
        assert len(found) == found.rank == found.num_found == batch
        assert found.certified.all() and found.why == ""
        assert errors(found, pair[0][0]).max() < 1e-10


@pytest.mark.parametrize("batch", (2, 4, 8))
def test_late_noise_changes_the_shares_and_stops_nothing(batch):
    for seed in range(5):
        model = with_precode(net(seed=seed), before="fc", k=16, generator=seeded(seed))
        pair = victims(batch, seed=seed)
        (found,) = spear(seen_of(model, pair), generator=seeded(seed))
        assert found.certified.sum() == batch
        assert errors(found, pair[0][0]).max() < 1e-10


def test_single_precision_is_good_to_a_thousandth():
    for seed in range(10):
        images, labels = victims(8, seed=seed)
        seen = seen_of(net(seed=seed).float(), (images.float(), labels))
        (found,) = spear(seen, generator=seeded(seed))
        assert found.images.dtype == found.shares.dtype == torch.float32
        assert found.certified.all()
        assert errors(found, images[0]).max() < 1e-3


def test_a_dense_message_is_as_good_as_a_factored_one():
    pair = victims(4, count=3)
    seen = seen_of(net(), pair)
    dense = replace(seen, shared=seen.shared.dense())
    for found, own in zip(spear(dense, generator=seeded()), pair[0], strict=True):
        assert len(found) == 4 and found.certified.all()
        assert errors(found, own).max() < 1e-8


def test_the_same_seed_takes_the_same_tries():
    seen = seen_of(net(), victims(6))
    one, two = (spear(seen, generator=seeded(3))[0] for _ in range(2))
    assert one.num_tries == two.num_tries > 0
    assert torch.equal(one.images, two.images)


def test_the_found_batch_has_the_gradient_of_the_observation():
    # The oracle knows the shares' labels only through the pictures it finds.
    images, labels = victims(6)
    model = net()
    seen = seen_of(model, (images, labels))
    (found,) = spear(seen, generator=seeded())
    order = torch.cdist(found.images.flatten(1), images[0].flatten(1)).argmin(1)
    again = Capture(model)(found.images[None], labels[:, order])
    for name, term in again.dense().items():
        torch.testing.assert_close(term, seen.shared.dense()[name])


def test_shares_are_what_each_picture_adds_to_the_bias_gradient():
    images, labels = victims(5)
    model = net()
    (found,) = spear(seen_of(model, (images, labels)), generator=seeded())
    order = torch.cdist(found.images.flatten(1), images[0].flatten(1)).argmin(1)
    alone = seen_of(model, (images[0, order, None], labels[0, order, None]))
    own = alone.shared.dense()["features.hidden1.bias"] / 5  # the loss is a mean
    torch.testing.assert_close(found.shares, own)
    silent = model.features.hidden1(found.images.flatten(1)) < 0
    assert found.shares[silent].abs().max() < 1e-12


def test_rows_of_a_table_come_apart_though_mixtures_of_three_classes_have_zeros_too():
    rows = torch.randn(1, 6, 20, generator=seeded()).double()
    for seed in range(12):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 3)).double()
        seen = observe(model, rows, torch.tensor([[0, 1, 2, 0, 1, 2]]))
        (found,) = spear(seen, generator=seeded())
        assert found.images.shape == (6, 20) and found.certified.all()
        assert errors(found, rows[0]).max() < 1e-10


def test_what_goes_into_a_later_layer_comes_apart_by_the_name_of_its_weight():
    pair = victims(4)
    model = smlp(SHAPE, width=128, generator=seeded()).double()
    seen = seen_of(model, pair)
    (found,) = spear(seen, generator=seeded(), parameter="features.hidden2.weight")
    inputs = model.features.hidden1(pair[0][0].flatten(1)).relu()
    assert found.certified.all()
    assert errors(found, inputs).max() < 1e-8


def test_the_sum_of_eight_clients_comes_apart():
    images, labels = victims(1, count=8)
    model = with_precode(net(), before="fc", k=16, generator=seeded(4))
    each = seen_of(model, (images, labels), labels_known=False)
    (found,) = spear(aggregated(each), generator=seeded())
    assert found.certified.sum() == 8
    assert errors(found, images[:, 0]).max() < 1e-10


@pytest.mark.parametrize("local", (LocalTraining(5, 0.05), LocalTraining(6, 0.05, 2)))
def test_after_local_steps_the_pictures_come_back_and_no_certificate(local):
    pair = victims(4)
    (found,) = spear(seen_of(net(), pair, local=local), generator=seeded())
    assert errors(found, pair[0][0]).max() < 1e-6
    assert not found.certified.any()
    assert "moved between the steps" in found.why


def test_dropout_makes_more_zeros_and_it_easier():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(192, 512), nn.ReLU(), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))
    tries = {}
    for mode in (True, False):
        model = model.double().train(mode)
        runs = []
        for seed in range(6):
            pair = victims(8, seed=seed)
            (found,) = spear(seen_of(model, pair), generator=seeded(seed))
            assert errors(found, pair[0][0]).max() < 1e-8
            runs.append(found.num_tries)
        tries[mode] = mean(runs)
    assert 2 * tries[True] < tries[False]


# Where it provably cannot, and what it says then.


@pytest.mark.parametrize("activation", (nn.Sigmoid, nn.GELU, nn.LeakyReLU))
def test_nothing_is_found_where_no_unit_falls_silent(activation):
    seen = seen_of(net(activation=activation), victims(4))
    (found,) = spear(seen, generator=seeded(), tries=3000)
    assert len(found) == len(found.certified) == found.num_found == 0
    assert found.images.shape == (0, *SHAPE) and found.shares.shape == (0, 128)
    assert found.num_tries == 3000
    assert "0 inputs found of 4" in found.why and "no ReLU" in found.why


def test_of_two_equal_pictures_one_comes_back():
    images, labels = victims(5)
    images[0, 1] = images[0, 0]
    (found,) = spear(seen_of(net(), (images, labels)), generator=seeded())
    assert len(found) == found.rank == 4
    assert errors(found, images[0]).max() < 1e-10
    assert not found.certified.any()  # a mixture of two would look the same
    assert found.why == (
        "4 directions for 5 inputs: equal ones come once, silent ones not at all; nor "
        "would a mixture show"
    )


def test_mixtures_of_pictures_that_fire_the_same_units_are_not_certified():
    deceived = 0
    for seed in range(8):
        generator = seeded(seed)
        first = torch.rand(1, 1, *SHAPE, generator=generator).double()
        near = first + 0.02 * torch.rand(1, 3, *SHAPE, generator=generator)
        model = mlp(SHAPE, 2, depth=1, width=64, generator=seeded(seed)).double()
        with torch.no_grad():
            model.features.hidden1.bias.add_(1.0)
        seen = observe(model, near, torch.full((1, 3), 1))
        (found,) = spear(seen, generator=seeded(), tries=500)
        away = torch.cdist(found.images.flatten(1), near[0].flatten(1))
        wrong = away.amin(1) > 1e-6 if len(found) else away.sum(1) > 0
        deceived += int(wrong.any())
        assert not found.certified[wrong].any()
    assert deceived


@pytest.mark.parametrize("width", (3, 5))
def test_fewer_units_than_pictures_hold_too_little(width):
    (found,) = spear(seen_of(net(width), victims(6)), generator=seeded())
    assert len(found) == found.num_tries == 0
    assert "too few for 6 inputs" in found.why


def test_with_few_spare_units_nothing_wrong_is_certified():
    for seed in range(12):
        pair = victims(5, seed=seed)
        seen = seen_of(net(10, seed=seed), pair)
        (found,) = spear(seen, generator=seeded(seed), tries=2000)
        if found.certified.any():
            sure = replace(found, images=found.images[found.certified])
            own = pair[0][0]
            away = torch.cdist(sure.images.flatten(1), own.flatten(1)).amin(1)
            assert (away < 1e-6 * own.flatten(1).norm(dim=1).max()).all()


@pytest.mark.parametrize("std", (1e-6, 1e-3))
def test_behind_noise_nothing_is_certified(std):
    seen = seen_of(net(), victims(4), defense=gaussian(std))
    (found,) = spear(seen, generator=seeded())
    assert len(found) == found.num_tries == 0
    assert "noise, or another defense" in found.why
    (tolerant,) = spear(seen, generator=seeded(), tolerance=0.01, tries=2000)
    assert not tolerant.certified.any()


def test_noise_as_faint_as_many_roundings_is_no_rounding():
    images, labels = victims(8)
    for std in (1e-6, 1e-5):
        pair = images.float(), labels
        seen = seen_of(net(256).float(), pair, defense=gaussian(std))
        (found,) = spear(seen, generator=seeded())
        assert "noise, or another defense" in found.why
        (tolerant,) = spear(seen, generator=seeded(), tolerance=0.003, tries=3000)
        assert not tolerant.certified.any()


def test_who_allows_for_faint_noise_gets_close():
    pair = victims(4)
    seen = seen_of(net(256), pair, defense=gaussian(1e-6))
    (found,) = spear(seen, generator=seeded(), tolerance=3e-3)
    assert errors(found, pair[0][0]).max() < 0.05


def test_behind_dp_sgd_nothing_is_certified():
    step = partial(
        dp_sgd_step, clip_norm=1.0, noise_multiplier=0.1, generator=seeded(5)
    )
    seen = seen_of(net(), victims(4), client_step=step)
    (found,) = spear(seen, generator=seeded(), tolerance=0.05, tries=2000)
    assert not found.certified.any()


def test_mixtures_that_two_classes_allow_are_not_certified():
    # Each unit weighs the pictures by the same two errors, which then cancel.
    deceived = 0
    for seed in range(4):
        pair = victims(6, seed=seed, classes=2)
        model = mlp(SHAPE, 2, depth=1, width=256, generator=seeded(seed)).double()
        (found,) = spear(seen_of(model, pair), generator=seeded(), tries=500)
        wrong = torch.cdist(found.images.flatten(1), pair[0][0].flatten(1)).amin(1)
        assert (wrong[found.certified] < 1e-8).all()
        if wrong.max() > 1:
            deceived += 1
            assert "not confirmed" in found.why
    assert deceived


def test_too_few_tries_give_nothing_and_say_so():
    (found,) = spear(seen_of(net(), victims(8)), generator=seeded(), tries=5)
    assert len(found) == 0 and found.num_tries == 5
    assert "more tries" in found.why


def test_a_silent_layer_has_nothing_to_take_apart():
    model = net()
    with torch.no_grad():
        model.features.hidden1.bias.fill_(-1e3)
    (found,) = spear(seen_of(model, victims(2)), generator=seeded())
    assert len(found) == found.rank == 0
    assert found.why == "the layer's gradient is zero"


def test_without_a_bias_the_scale_is_unknown_and_it_is_refused():
    model = net()
    model.features.hidden1.bias = None
    with pytest.raises(ValueError, match="no bias"):
        spear(seen_of(model, victims(2)), generator=seeded())


def test_a_convolution_is_no_first_linear_layer():
    seen = seen_of(lenet(SHAPE, generator=seeded()).double(), victims(2))
    with pytest.raises(ValueError, match="no Linear layer"):
        spear(seen, generator=seeded())


def test_what_it_is_given_is_checked():
    seen = seen_of(net(), victims(2))
    with pytest.raises(TypeError, match="generator must be"):
        spear(seen, generator=0)
    with pytest.raises(ValueError, match="tries"):
        spear(seen, generator=seeded(), tries=0)
    with pytest.raises(ValueError, match="tolerance"):
        spear(seen, generator=seeded(), tolerance=0.0)
    with pytest.raises(TypeError, match="takes an Observation"):
        spear(seen.shared, generator=seeded())


# What it costs.


def coins_until_all(batch, seed):
    """Tries of somebody who tosses a coin for each unit and picture, and sees them."""
    generator, missing, count = seeded(seed), set(range(batch)), 0
    while missing:
        count += 1
        shape = (batch - 1, batch)
        shares = torch.rand(shape, generator=generator).double()
        shares[torch.rand(shape, generator=generator) < 0.5] = 0
        # One picture is silent on all of them, and nothing else fits.
        silent = (shares == 0).all(0).nonzero().flatten().tolist()
        if len(silent) == 1 and torch.linalg.matrix_rank(shares) == batch - 1:
            missing -= {*silent}
    return count


def test_tries_follow_the_law_of_coins():
    batch, runs, tossed = 5, [], []
    for seed in range(60):
        images = torch.randn(1, batch, *SHAPE, generator=seeded(seed)).double()
        model = net(256, seed=seed)
        with torch.no_grad():  # then each picture silences half of the units
            model.features.hidden1.bias.zero_()
        seen = observe(model, images, torch.arange(batch)[None])
        runs.append(spear(seen, generator=seeded(seed))[0].num_tries)
        tossed.append(coins_until_all(batch, seed))
    assert mean(tossed) > 2 ** (batch - 1)
    assert 0.75 < mean(runs) / mean(tossed) < 1.35


def test_a_result_says_in_one_line_what_it_found():
    images, flags = torch.zeros(2, 1, 2, 2), torch.tensor([True, False])
    found = Unmixed(images, flags, torch.zeros(2, 5), 2, 2, 1234, "one is a guess")
    assert repr(found) == (
        "Unmixed(2 images, 1 certified, 1,234 tries; one is a guess)"
    )


def test_a_direction_that_the_bias_knows_nothing_of_is_no_end():
    for bias in (torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3)):
        shares, inputs = unmix(torch.eye(3), torch.eye(3), bias)
        assert shares.isfinite().all() and inputs.isfinite().all()
