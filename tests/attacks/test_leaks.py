"""Every closed form that applies to a model, found without a name of a layer."""

import pytest
import torch
from plain import (
    Recurrent,
    Twice,
    TwoInputs,
    Writer,
    drawn,
    fresh,
    lora,
    seeded,
    vit,
    watched,
    words,
)
from torch import nn
from torch.testing import assert_close
from torchvision.models import mobilenet_v3_small, resnet18

from precode_lib.attacks import Tokens, closed_forms
from precode_lib.bottleneck import with_precode
from precode_lib.models import lenet, smlp

SMALL, LARGE = drawn(2, 1, 3, 8, 8), drawn(2, 1, 3, 32, 32)
LABELS = words(2, 1, size=10)


def listed(seen):
    return [(leak.name, leak.parameter, leak.gives) for leak in closed_forms(seen)]


def regression():
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 1))


# What is known of each model beforehand: who leaks what, and what proves it.
MODELS = {
    "perceptron": (
        lambda: watched(fresh(smlp, (3, 8, 8), width=24), SMALL, LABELS),
        [
            ("division", "features.hidden1.weight", "picture"),
            ("division", "fc.weight", "features"),
        ],
    ),
    "LoRA": (
        lambda: watched(fresh(lora), SMALL, LABELS),
        [("direction", "1.A", "picture"), ("division", "3.weight", "features")],
    ),
    "two inputs": (
        lambda: watched(fresh(TwoInputs), drawn(2, 1, 197), LABELS),
        [("division", "table.weight", "part"), ("division", "head.weight", "features")],
    ),
    "last layer only": (
        lambda: watched(only_the_last(), LARGE, LABELS),
        [("division", "fc.weight", "features")],
    ),
    "first weight used twice": (
        lambda: watched(fresh(Twice), SMALL, LABELS),
        [("division", "head.weight", "features")],
    ),
    "transformer": (
        lambda: watched(fresh(vit), LARGE, LABELS),
        [
            ("patches", "conv_proj.weight", "picture"),
            ("division", "heads.head.weight", "features"),
        ],
    ),
    "LSTM": (
        lambda: watched(fresh(Recurrent), words(2, 1, 7), words(2, 1, size=4)),
        [
            ("rows", "table.weight", "tokens"),
            ("span", "lstm.weight_ih_l0", "tokens"),
            ("division", "head.weight", "features"),
        ],
    ),
    "tied": (
        lambda: watched(fresh(Writer, tied=True), words(2, 1, 9), words(2, 1, 9)),
        [("span", "blocks.layers.0.self_attn.in_proj_weight", "tokens")],
    ),
    "regression": (
        lambda: watched(fresh(regression), drawn(2, 1, 20), LABELS * 0),
        [("division", "0.weight", "picture"), ("division", "2.weight", "features")],
    ),
    "batch": (
        lambda: watched(
            fresh(smlp, (3, 8, 8), width=256),
            drawn(2, 3, 3, 8, 8),
            words(2, 3, size=10),
        ),
        [("isolated units", "features.hidden1.weight", "picture")],
    ),
    "batch of a convolutional net": (
        lambda: watched(
            fresh(lenet, (3, 32, 32)), drawn(2, 3, 3, 32, 32), words(2, 3, size=10)
        ),
        [],
    ),
}


def only_the_last():
    model = fresh(lenet, (3, 32, 32))
    model.features.requires_grad_(False)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_what_leaks_is_known_beforehand(name):
    make, expected = MODELS[name]
    assert listed(make()) == expected


@pytest.mark.parametrize("name", [n for n in MODELS if n != "regression"])
def test_all_that_is_listed_can_be_read_and_is_proven(name):
    seen = MODELS[name][0]()
    for leak in closed_forms(seen):
        found = leak.read(seen)
        assert found.certified.shape == (2,)
        assert found.certified.all(), leak
        if isinstance(found, Tokens):
            assert found.occurs.any(1).all()


def test_one_logit_has_no_cross_entropy_and_all_is_silent():
    seen = MODELS["regression"][0]()
    for leak in closed_forms(seen):
        assert leak.read(seen).silent.all()
        assert not leak.read(seen).certified.any()


def test_pictures_of_a_batch_come_back_through_the_list():
    seen, batch = MODELS["batch"][0](), drawn(2, 3, 3, 8, 8)
    found = closed_forms(seen)[0].read(seen)
    assert found.images.shape == batch.shape
    for one, own in zip(found.images, batch, strict=True):
        assert (one[:, None] - own).abs().amax((2, 3, 4)).amin(1).max() < 1e-6


def test_a_head_of_zeros_is_listed_and_silent():
    seen = watched(fresh(vit, head=0), LARGE, LABELS)
    patches, head = closed_forms(seen)
    assert patches.read(seen).silent.all()
    assert not patches.read(seen).certified.any()
    assert head.read(seen).certified.all()


def test_a_bottleneck_in_between_changes_nothing_in_front_of_it():
    model = with_precode(fresh(smlp, (3, 8, 8), width=24), k=8, generator=seeded())
    seen = watched(model, SMALL, LABELS)
    first, last = closed_forms(seen)
    assert_close(first.read(seen).images, SMALL[:, 0], rtol=0, atol=1e-9)
    assert (last.parameter, last.gives) == ("fc.layer.weight", "features")


@pytest.mark.parametrize("make", (resnet18, mobilenet_v3_small))
def test_of_a_large_convolutional_net_only_features_leak(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make(num_classes=10).eval()
    pictures = drawn(1, 1, 3, 64, 64).float()
    (leak,) = closed_forms(watched(model, pictures, LABELS[:1]))
    assert leak.gives == "features"


def test_a_batch_norm_that_refuses_one_example_does_not_mind_being_looked_at():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.BatchNorm1d(64))
    model.extend([nn.ReLU(), nn.Linear(64, 10)]).double().train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(SMALL[0])
    seen = watched(model, drawn(2, 3, 3, 8, 8), words(2, 3, size=10))
    assert listed(seen) == [("isolated units", "1.weight", "picture")]


def test_a_list_is_found_once_and_read_of_many():
    model = fresh(smlp, (3, 8, 8), width=24)
    leaks = closed_forms(watched(model, SMALL, LABELS))
    others = drawn(4, 1, 3, 8, 8, seed=8)
    seen = watched(model, others, words(4, 1, size=10))
    assert_close(leaks[0].read(seen).images, others[:, 0], rtol=0, atol=1e-9)


def test_peft_names_its_adapters_otherwise_and_they_leak_as_well():
    peft = pytest.importorskip("peft")
    base = fresh(smlp, (3, 8, 8), width=24)
    config = peft.LoraConfig(
        r=4, target_modules=["hidden1"], init_lora_weights=False, modules_to_save=["fc"]
    )
    model = peft.get_peft_model(base, config).double()
    seen = watched(model, SMALL, LABELS)
    leak = closed_forms(seen)[0]
    assert leak.name == "direction"
    assert leak.parameter.endswith("hidden1.lora_A.default.weight")
    found = leak.read(seen)
    assert found.certified.all()
    flat = SMALL.flatten(1)
    overlap = (found.values * flat).sum(1).abs() / flat.norm(dim=1)
    assert_close(overlap, torch.ones(2).double(), rtol=0, atol=1e-9)
