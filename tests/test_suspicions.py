"""What a client could notice in a model: who is suspected, who not, who slips by."""

from dataclasses import replace

import pytest
import torch

from precode_lib.attacks import imprint, imprint_slices, read_bins, set_traps, slope
from precode_lib.bottleneck import with_precode
from precode_lib.data import photos
from precode_lib.federated import observe, signs
from precode_lib.models import convnet, dmlp, lenet, smlp
from precode_lib.training import PAPER, Randomness, fit

PICTURES = photos(16, num_train=400, num_test=100)
NORMAL = PICTURES.train.normalisation
PUBLIC = NORMAL.normalise(PICTURES.train.pixels)
OWN = NORMAL.normalise(PICTURES.test.pixels[:64])
SHAPE = (3, 16, 16)
FIRST = "features.hidden1"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def suspected(model, images=OWN):
    """Which layers are suspected, and of how many signs."""
    found = {each.layer: len(each.suspicions) for each in signs(model, images)}
    return {layer: count for layer, count in found.items() if count}


@pytest.mark.parametrize("make", (smlp, dmlp))
def test_models_as_they_begin_are_not_suspected(make):
    for seed in range(20):
        model = make(SHAPE, width=128, generator=seeded(seed))
        assert suspected(model) == {}
        assert suspected(with_precode(model, before="fc", generator=seeded())) == {}


@pytest.mark.parametrize("make", (smlp, dmlp))
def test_models_that_were_trained_are_not_suspected(make):
    protocol = replace(PAPER, epochs=6)
    for seed in range(3):
        model = make(SHAPE, width=128, generator=seeded(seed))
        *_, last = fit(model, PICTURES, protocol, random=Randomness.seeded(seed))
        assert last.test_accuracy > 0.25
        assert suspected(model) == {}


@pytest.mark.parametrize("make", (lenet, convnet))
def test_of_convolutions_nothing_is_said(make):
    assert signs(make(SHAPE, generator=seeded()), OWN) == []


def sorting(**options):
    model = lenet(SHAPE, generator=seeded())
    return imprint(model, PUBLIC, generator=seeded(3), **options)


def test_an_imprint_is_suspected_of_parallel_rows_and_nested_sets():
    for functional in (None, slope):
        options = {} if functional is None else {"functional": functional}
        (found,) = signs(sorting(**options), OWN)
        assert found.layer == "rows"
        assert found.parallel > 0.999 and found.nested > 0.999
        assert [s.split(" (")[0] for s in found.suspicions[:2]] == [
            "most rows are parallel to another",
            "units fire in nested sets",
        ]


def test_a_disguise_hides_the_rows_and_not_what_they_do():
    (found,) = signs(sorting(disguise=10.0), OWN)
    assert found.parallel < 0.5
    assert found.nested > 0.9
    assert len(found.suspicions) == 1


def test_a_server_that_knows_these_signs_slips_by_and_still_reads_pictures():
    model = lenet(SHAPE, generator=seeded())
    model = imprint_slices(model, PUBLIC[:300], generator=seeded(5))
    assert suspected(model) == {}
    victims = PICTURES.test[36:]
    images, labels = victims.images[None], victims.labels[None]
    seen = observe(model, images, labels, normalisation=NORMAL)
    found = read_bins(seen, group=2).of(0)
    away = torch.cdist(images[0].flatten(1), found.flatten(1)).amin(1)
    count = int((away < 0.01 * images[0].flatten(1).norm(dim=1)).sum())
    assert count >= 10  # of 64


@pytest.mark.parametrize("shrink", (0.9, 0.95))
def test_traps_are_suspected_of_their_mirrored_numbers_and_their_silence(shrink):
    model = smlp(SHAPE, width=256, generator=seeded())
    black = NORMAL.box[0]
    options = {"shrink": shrink, "darkest": black, "generator": seeded(1)}
    trapped = set_traps(model, layer=FIRST, **options)
    found, *_ = signs(trapped, OWN)
    assert found.layer == FIRST
    assert "negative numbers are the positive ones over again" in found.suspicions
    with torch.no_grad():  # the slightest noise undoes the first sign
        weight = trapped.get_parameter(f"{FIRST}.weight")
        weight += 1e-3 * weight.std() * torch.randn(weight.shape, generator=seeded(2))
    found, *_ = signs(trapped, OWN)
    assert "negative numbers are the positive ones over again" not in found.suspicions
    assert found.fires == pytest.approx(
        float((trapped.features.hidden1(OWN.flatten(1)) > 0).double().mean(0).median())
    )
    assert bool(found.suspicions) == (found.fires < 0.15)


def test_looking_changes_nothing_and_leaves_no_hook():
    model = smlp(SHAPE, width=32, generator=seeded()).eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    signs(model, OWN)
    assert not model.training
    assert all(not layer._forward_hooks for layer in model.modules())
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) and p.grad is None


def test_too_few_pictures_say_nothing():
    with pytest.raises(ValueError, match="give 16 images at least, got 3"):
        signs(smlp(SHAPE, width=32), OWN[:3])


def test_what_is_no_picture_is_refused():
    with pytest.raises(TypeError, match=r"images must be a torch\.Tensor"):
        signs(lenet(generator=seeded()), [1.0])
