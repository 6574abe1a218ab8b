"""A server that changes the model: what its bins and traps give, and what not."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from plain import drawn, fresh, seeded
from torch import nn
from torch.testing import assert_close

from precode_lib.attacks import (
    Imprint,
    brightness,
    expected_hits,
    imprint,
    isolated_inputs,
    read_bins,
    set_traps,
    slope,
)
from precode_lib.bottleneck import with_precode
from precode_lib.data import PHOTOS, photos
from precode_lib.defenses import dp_sgd_step
from precode_lib.federated import observe
from precode_lib.models import lenet, mlp, smlp

SHAPE = (3, 8, 8)
KINDS = {
    "lenet": lambda: lenet(SHAPE, generator=seeded()),
    "precode": lambda: with_precode(
        smlp(SHAPE, width=16, generator=seeded()), before="fc", generator=seeded()
    ),
    "dropout": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 10)
    ),
}


def public(count=400, seed=9):
    """Pictures whose mean is spread evenly, with much of their own on top."""
    bright = drawn(count, 1, 1, 1, seed=seed)
    own = drawn(count, *SHAPE, seed=seed + 1)
    own = own - own.mean((1, 2, 3), keepdim=True)
    return 0.25 + 0.5 * bright + 0.4 * own


def at(levels, seed=3):
    """Pictures whose means are these."""
    pictures = public(len(levels), seed)
    return pictures + (levels - pictures.mean((1, 2, 3))).view(-1, 1, 1, 1)


def middles(model):
    """A brightness in the middle of each bin."""
    edges = -model.rows.bias.detach()
    return torch.cat([(edges[:-1] + edges[1:]) / 2, edges[-1:] + 0.01])


def seen_of(model, pictures, batch=None, **options):
    """What (V, B) clients send, of pictures one after the other."""
    x = pictures.unflatten(0, (-1, batch or len(pictures)))
    labels = torch.arange(len(pictures)).view(x.shape[:2]) % 10
    return observe(model, x, labels, noise=seeded(2), **options)


def hits(pictures, images, tolerance=1e-6):
    """How many of the pictures are among these images."""
    if not len(images):
        return 0
    away = torch.cdist(pictures.flatten(1), images.flatten(1)).amin(1)
    return int((away < tolerance * pictures.flatten(1).norm(dim=1)).sum())


@pytest.mark.parametrize("functional", (brightness, slope))
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_alone_in_its_bin_comes_back_whatever_the_model_behind(
    kind, functional
):
    model = imprint(fresh(KINDS[kind]), public(), rows=8, functional=functional)
    values = public(60, 5).flatten(1) @ functional(SHAPE).double().flatten()
    bins = (values[:, None] > -model.rows.bias.detach()).sum(1) - 1
    chosen = [int((bins == k).nonzero()[0]) for k in range(8)]
    pictures = public(60, 5)[chosen]
    found = read_bins(seen_of(model, pictures))
    assert_close(found.images[0], pictures, rtol=0, atol=1e-8)
    assert found.plausible.all()
    assert len(found.of(0)) == 8


def test_single_precision_is_enough():
    model = imprint(KINDS["lenet"](), public().float(), rows=8)
    pictures = at(middles(model).double())
    found = read_bins(seen_of(model, pictures.float()))
    assert found.images.dtype == torch.float32
    assert_close(found.images[0], pictures.float(), rtol=0, atol=1e-3)


def test_two_pictures_in_each_bin_stay_mixed():
    model = imprint(fresh(KINDS["lenet"]), public(), rows=8)
    first, second = at(middles(model)), at(middles(model), 4)
    found = read_bins(seen_of(model, torch.cat([first, second])))
    assert hits(torch.cat([first, second]), found.images[0], 1e-2) == 0
    # What is read lies on the line through the two.
    way, to = (second - first).flatten(1), (found.images[0] - first).flatten(1)
    share = (to * way).sum(1, keepdim=True) / (way * way).sum(1, keepdim=True)
    assert_close(to, share * way, rtol=0, atol=1e-7)


def test_who_comes_back_is_who_is_alone_and_as_many_as_the_law_says():
    count, rows, counts = 12, 16, []
    model = imprint(fresh(KINDS["lenet"]), public(4000), rows=rows)
    edges = -model.rows.bias.detach()
    for seed in range(40):
        pictures = public(count, 100 + 2 * seed)
        bins = (pictures.mean((1, 2, 3))[:, None] > edges).sum(1)
        alone = (bins[:, None] == bins).sum(1) == 1
        found = read_bins(seen_of(model, pictures)).of(0)
        assert hits(pictures, found) == int(alone.sum())
        counts.append(float(alone.sum()))
    counts = torch.tensor(counts)
    error = float(counts.std() / len(counts) ** 0.5)
    assert abs(float(counts.mean()) - expected_hits(count, rows)) < 3 * error


def test_the_law_is_that_of_balls_in_boxes():
    boxes = torch.randint(32, (20000, 16), generator=seeded(1))
    alone = (boxes.unsqueeze(2) == boxes.unsqueeze(1)).sum(2) == 1
    assert abs(float(alone.double().sum(1).mean()) - expected_hits(16, 32)) < 0.05
    assert expected_hits(1, 5) == 1
    assert expected_hits(3, 1) == 0


def test_nothing_comes_back_of_many_more_pictures_than_bins():
    model = imprint(fresh(KINDS["lenet"]), public(), rows=4)
    pictures = public(80, 5)
    assert hits(pictures, read_bins(seen_of(model, pictures)).images[0], 1e-2) == 0


def test_the_sum_of_eight_clients_is_as_good_as_one_of_them():
    model = imprint(fresh(KINDS["lenet"]), public(), rows=32)
    pictures = at(middles(model))
    clients = seen_of(model, pictures, batch=4)
    assert clients.num_victims == 8
    summed = clients.shared.dense().map(lambda g: g.sum(0, keepdim=True))
    found = read_bins(replace(clients, shared=summed, num_examples=32))
    assert hits(pictures, found.of(0)) == 32


def test_clipping_helps_nothing_and_noise_helps():
    model = imprint(KINDS["lenet"]().double(), public(), rows=8)
    pictures, options = at(middles(model)), {"clip_norm": 1.0}
    for noise_multiplier, expected in ((0.0, 8), (0.5, 0)):
        step = partial(
            dp_sgd_step,
            **options,
            noise_multiplier=noise_multiplier,
            generator=seeded(4),
        )
        found = read_bins(seen_of(model, pictures, client_step=step)).images[0]
        assert hits(pictures, found, 0.2) == expected


def test_a_disguise_changes_the_rows_and_not_what_comes_back():
    plain, masked = (
        imprint(
            fresh(KINDS["lenet"]), public(100), rows=8, disguise=d, generator=seeded(5)
        )
        for d in (0, 10)
    )
    rows = nn.functional.normalize(masked.rows.weight.detach(), dim=1)
    assert (rows @ rows.mT).fill_diagonal_(0).abs().max() < 0.4
    pictures = public(100)[:: 100 // 8][:6]
    counts = [
        hits(pictures, read_bins(seen_of(m, pictures)).images[0])
        for m in (plain, masked)
    ]
    assert counts[0] == counts[1] > 0


def test_an_imprint_hardly_changes_what_the_model_says_and_copies_it():
    model = fresh(KINDS["lenet"])
    before = {name: p.clone() for name, p in model.named_parameters()}
    put = imprint(model, public(), push=1e-3)
    assert isinstance(put, Imprint)
    assert_close(put(public(5)), model(public(5)), rtol=0, atol=1e-2)
    put.model.fc.weight.data.zero_()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])


def test_empty_bins_and_what_is_no_picture_are_left_out():
    model = imprint(fresh(KINDS["lenet"]), PHOTOS.normalise(public()), rows=8)
    pictures = PHOTOS.normalise(public(2, 5))
    found = read_bins(seen_of(model, pictures, normalisation=PHOTOS))
    assert int((found.strength != 0).sum()) <= 2
    empty = found.strength == 0
    assert (found.images[empty] == 0).all()
    assert not found.plausible[empty].any()
    assert "of 8 bins" in repr(found)


def test_what_is_no_picture_is_not_plausible():
    model = imprint(fresh(KINDS["lenet"]), PHOTOS.normalise(public()), rows=4)
    pictures = PHOTOS.normalise(public(80, 5))
    found = read_bins(seen_of(model, pictures, normalisation=PHOTOS))
    pixels = PHOTOS.denormalise(found.images[0]).flatten(1)
    real = (pixels.amin(1) > -0.01) & (pixels.amax(1) < 1.01)
    assert torch.equal(found.plausible[0], real)
    assert not real.all()


def trapped(activation=nn.ReLU, shrink=0.97, size=32):
    model = mlp(
        (3, size, size), depth=1, activation=activation, generator=seeded()
    ).double()
    options = {"shrink": shrink, "generator": seeded(1)}
    return model, set_traps(model, layer="features.hidden1", **options)


def photographs(count=20, size=32):
    return photos(size, num_train=10, num_test=count).test.pixels.double()


def test_whoever_fires_two_trapped_units_alone_comes_back():
    plain, model = trapped()
    pictures = photographs()
    fires = model.features.hidden1(pictures.flatten(1)) > 0
    alone = fires[:, fires.sum(0) == 1].sum(1)
    found = isolated_inputs(seen_of(model, pictures))[0]
    assert hits(pictures[alone >= 2], found.images) == int((alone >= 2).sum()) > 10
    assert len(found) == int((alone >= 2).sum())
    untouched = isolated_inputs(seen_of(plain, pictures))[0]
    assert len(untouched) < len(found)


def test_traps_are_half_negative_and_fire_the_less_the_smaller_the_rest():
    pictures, shares = photographs(size=8), []
    for shrink in (1, 0.9, 0.5):
        model = trapped(shrink=shrink, size=8)[1]
        weight = model.features.hidden1.weight
        assert ((weight < 0).sum(1) == 96).all()
        above, below = weight.clamp(min=0).sum(1), weight.clamp(max=0).sum(1)
        assert_close(above, -shrink * below)
        fires = model.features.hidden1(pictures.flatten(1)) > 0
        shares.append(float(fires.double().mean()))
    assert shares[0] > 0.4 > shares[1] > shares[2]


def test_traps_on_normalised_pictures_start_from_black():
    plain, black = trapped(size=8)[0], PHOTOS.box[0].double()
    options = {"layer": "features.hidden1", "shrink": 0.9, "generator": seeded(1)}
    model = set_traps(plain, darkest=black, **options)
    images = PHOTOS.normalise(photographs(size=8))
    above_black = (images - black).flatten(1)
    expected = above_black @ model.features.hidden1.weight.mT
    assert_close(model.features.hidden1(images.flatten(1)), expected)


def test_a_sigmoid_is_never_silent_and_nobody_is_trapped():
    model = trapped(nn.Sigmoid)[1]
    assert len(isolated_inputs(seen_of(model, photographs()))[0]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda m: imprint(m, torch.rand(8)), "public must have shape"),
        (lambda m: imprint(m, public(), rows=1), "rows must be at least 2"),
        (
            lambda m: imprint(m, public(), disguise=1, generator=seeded()),
            "leave no direction of 192",
        ),
        (
            lambda m: set_traps(m, layer="features.conv1", generator=seeded()),
            "must be a Linear layer with a bias, got Conv2d",
        ),
        (
            lambda m: set_traps(
                m, layer="fc", darkest=torch.zeros(7), generator=seeded()
            ),
            "darkest has 7 numbers",
        ),
        (
            lambda m: set_traps(m, layer="fc", darkest=torch.nan, generator=seeded()),
            "darkest holds NaN",
        ),
        (lambda m: set_traps(m, layer="fx", generator=seeded()), "Did you mean 'fc'"),
        (lambda m: imprint(m, public(), push=torch.nan), "push must be"),
    ),
)
def test_what_cannot_be_built_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(KINDS["lenet"]())


def test_bins_of_a_broken_gradient_are_refused_and_not_empty():
    model = smlp(SHAPE, width=32, generator=seeded())
    seen = observe(model, torch.rand(1, 2, *SHAPE), torch.tensor([[0, 1]]))
    broken = replace(seen, shared=seen.shared.dense().map(lambda t: t * torch.nan))
    with pytest.raises(ValueError, match="holds NaN"):
        read_bins(broken)


def test_pictures_of_whole_numbers_are_refused():
    model = smlp(SHAPE, width=32, generator=seeded())
    with pytest.raises(TypeError, match="floating point"):
        imprint(model, torch.randint(255, (10, *SHAPE), generator=seeded()))


def test_an_imprint_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    imprint(smlp(SHAPE, width=32, generator=seeded()), public(), rows=4)
    assert torch.equal(torch.get_rng_state(), before)
