"""The papers' networks: sizes as published, initialisation as chosen."""

import copy
import pickle

import pytest
import torch
from torch import nn

from precode_lib.federated import observe
from precode_lib.models import (
    convnet,
    dmlp,
    lenet,
    mlp,
    pytorch_default,
    resnet,
    resnet20_4,
    smlp,
    uniform,
)


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


SMALL = {
    "smlp": lambda **options: smlp((2, 9, 11), 4, width=8, **options),
    "dmlp": lambda **options: dmlp((2, 9, 11), 4, width=8, **options),
    "lenet": lambda **options: lenet((2, 9, 11), 4, **options),
    "convnet": lambda **options: convnet((2, 9, 11), 4, width=4, **options),
    "resnet": lambda **options: resnet(
        (2, 9, 11), 4, blocks_per_stage=1, width=4, **options
    ),
}
every_model = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())


# Counted from the published definitions; the grey 64x64 sets have six classes.
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda **o: smlp(**o), 4_206_602),
        (lambda **o: smlp(num_classes=100, **o), 4_298_852),
        (lambda **o: smlp((1, 64, 64), 6, **o), 5_251_078),
        (lambda **o: dmlp(**o), 6_305_802),
        (lambda **o: dmlp(num_classes=100, **o), 6_398_052),
        (lambda **o: dmlp((1, 64, 64), 6, **o), 7_350_278),
        (lambda **o: mlp(depth=3, **o), 5_256_202),
        (lambda **o: lenet(**o), 15_826),
        (lambda **o: lenet(num_classes=100, **o), 85_036),
        (lambda **o: lenet((1, 28, 28), **o), 13_426),
        (lambda **o: lenet((1, 64, 64), 6, **o), 25_974),
        (lambda **o: lenet(num_classes=5749, **o), 4_429_117),
        (lambda **o: lenet(num_classes=106, num_convs=4, **o), 93_262),
        (lambda **o: convnet(**o), 2_904_970),
        (lambda **o: convnet(num_classes=100, **o), 3_112_420),
        (lambda **o: convnet(width=32, **o), 733_642),
        (lambda **o: resnet20_4(**o), 4_327_754),
        (lambda **o: resnet20_4(num_classes=100, **o), 4_350_884),
        (lambda **o: resnet(blocks_per_stage=3, width=16, **o), 272_474),
        (lambda **o: resnet(blocks_per_stage=5, width=16, **o), 466_906),
    ],
)
def test_parameter_counts_are_the_published_ones(make, expected):
    leave_empty = {"init": lambda layer, generator: None}
    assert num_parameters(make(**leave_empty)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocks_per_stage", "expected"), [(3, 27_008_810), (5, 46_371_370)]
)
def test_parameter_counts_of_the_tenfold_resnets(blocks_per_stage, expected):
    model = resnet(
        blocks_per_stage=blocks_per_stage, width=160, init=lambda layer, generator: None
    )
    assert num_parameters(model) == expected


@every_model
def test_any_image_size_channels_and_classes_give_logits(make, generator):
    logits = make(generator=generator)(torch.randn(3, 2, 9, 11, generator=generator))
    assert logits.shape == (3, 4)
    assert logits.isfinite().all()


@every_model
def test_a_generator_alone_decides_the_weights(make):
    before = torch.get_rng_state()
    first, second, other = (
        make(generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(
        first.state_dict().values(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    assert not torch.equal(first.fc.weight, other.fc.weight)


@every_model
def test_the_default_draws_what_pytorch_draws_from_the_same_seed(make, generator):
    """Oracle: reset_parameters() of PyTorch's own layers, in the order of the model."""
    ours = make(init=pytorch_default, generator=generator)
    reference = copy.deepcopy(ours)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the fixture's seed
        for layer in reference.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.reset_parameters()
        torch.manual_seed(0)
        without_generator = make(init=pytorch_default)
    for a, b, c in zip(
        ours.parameters(),
        reference.parameters(),
        without_generator.parameters(),
        strict=True,
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_weights_and_biases_of_lenet_are_uniform_within_a_half(generator):
    model = lenet(num_classes=300, generator=generator)
    for parameter in model.parameters():
        assert parameter.abs().max() <= 0.5
        assert parameter.abs().max() > 0.4
    assert model.fc.weight.std().item() == pytest.approx(1 / 12**0.5, rel=0.01)
    assert model.fc.weight.mean().item() == pytest.approx(0, abs=0.002)


def test_the_initialisation_of_lenet_is_a_choice(generator):
    model = lenet(init=uniform(0.1), generator=generator)
    assert 0.09 < max(p.abs().max() for p in model.parameters()) <= 0.1
    model = lenet(init=pytorch_default, generator=generator)
    bounds = {"features.conv1": 75**-0.5, "features.conv2": 300**-0.5, "fc": 768**-0.5}
    for name, bound in bounds.items():
        layer = model.get_submodule(name)
        for parameter in layer.parameters():
            assert bound * 0.6 < parameter.abs().max() <= bound


@pytest.mark.parametrize(("name", "num_norms"), [("convnet", 8), ("resnet", 9)])
def test_norm_layers_start_as_the_identity_in_evaluation_mode(name, num_norms):
    norms = [m for m in SMALL[name]().modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == num_norms
    for norm in norms:
        assert (norm.weight == 1).all() and (norm.bias == 0).all()
        assert (norm.running_mean == 0).all() and (norm.running_var == 1).all()
        assert norm.num_batches_tracked == 0


def test_layer_names_say_where_they_stand():
    names = dict(SMALL["smlp"]().named_modules())
    assert list(names)[1:] == [
        "features",
        "features.flatten",
        "features.hidden1",
        "features.activation1",
        "features.hidden2",
        "features.activation2",
        "fc",
    ]
    for make in SMALL.values():
        children = [name for name, _ in make().named_children()]
        assert children == ["features", "fc"]
    lenet_names = [name for name, _ in lenet().features.named_children()]
    assert lenet_names[-3:] == ["conv3", "activation3", "flatten"]


def test_a_norm_of_lenet_follows_each_convolution():
    names = [n for n, _ in lenet(norm=nn.BatchNorm2d).features.named_children()]
    assert names[:3] == ["conv1", "norm1", "activation1"]
    assert [n[:4] for n in names].count("norm") == 3


def test_norms_of_the_own_batch_hide_a_picture_s_contrast(generator):
    """All else of the gradient is that of the picture, whatever its contrast."""
    images, labels = torch.randn(2, 1, 3, 16, 16), torch.tensor([[1], [4]])
    model = lenet((3, 16, 16), norm=nn.BatchNorm2d, generator=generator)
    for is_training in (True, False):
        model.train(is_training)
        bright, faint = (
            observe(model, scale * images, labels).shared.dense() for scale in (1, 0.5)
        )
        alike = [
            torch.allclose(bright[name], faint[name], rtol=1e-2, atol=1e-4)
            for name in bright
        ]
        assert all(alike) == is_training


def test_lenet_halves_the_picture_twice():
    convs = [m for m in lenet(num_convs=5).modules() if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convs] == [2, 2, 1, 1, 1]
    assert {(c.out_channels, c.kernel_size, c.padding) for c in convs} == {
        (12, (5, 5), (2, 2))
    }


def test_resnet_halves_the_maps_between_its_stages(generator):
    model = resnet((3, 16, 16), blocks_per_stage=2, width=4, generator=generator)
    maps, shapes = torch.zeros(1, 3, 16, 16), {}
    for name, layer in model.features.named_children():
        maps = layer(maps)
        shapes[name] = tuple(maps.shape[1:])
    assert shapes["stage1"] == (4, 16, 16)
    assert shapes["stage2"] == (8, 8, 8)
    assert shapes["stage3"] == (16, 4, 4)
    assert shapes["pool"] == (16, 1, 1)


def test_a_residual_block_adds_its_input(generator):
    block = SMALL["resnet"](generator=generator).features.stage1[0].eval()
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 4, 3, 3, generator=generator)
    torch.testing.assert_close(block(maps), maps.relu())


@pytest.mark.parametrize(
    ("make", "default"),
    [(n, nn.Sigmoid if n == "lenet" else nn.ReLU) for n in SMALL],
)
def test_the_activation_is_a_choice_and_each_place_has_its_own(make, default):
    make = SMALL[make]
    assert any(isinstance(m, default) for m in make().modules())
    model = make(activation=lambda: nn.Softplus(beta=3))
    kinds = [type(m) for m in model.modules()]
    assert default not in kinds
    in_standard = sum(isinstance(m, default) for m in make().modules())
    # named_modules() lists a shared module once, so equal counts mean no sharing.
    assert kinds.count(nn.Softplus) == in_standard


def test_an_activation_with_parameters_is_filled():
    model = smlp((1, 2, 2), 2, width=3, activation=nn.PReLU)
    assert (model.features.activation1.weight == 0.25).all()


def test_a_layer_that_cannot_be_filled_is_refused():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    with pytest.raises(TypeError, match=r"Scale has parameters .* reset_parameters"):
        smlp((1, 2, 2), 2, width=3, activation=Scale)


@every_model
def test_models_survive_copying_and_pickling(make, generator):
    model = make(generator=generator).eval()
    images = torch.randn(2, 2, 9, 11, generator=generator)
    expected = model(images)
    assert torch.equal(copy.deepcopy(model)(images), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), expected)
    fresh = make().eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), expected)


@pytest.mark.parametrize(
    "shape", [(2, 3, 9, 11), (2, 9, 11), (1, 2, 11, 9), (2, 2 * 9 * 11)]
)
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"takes images of shape \(B, 2, 9, 11\), got"):
        SMALL["lenet"]()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lenet((32, 32)), ValueError, r"must be \(C, H, W\), got \(32, 32\)"),
        (lambda: smlp(32), ValueError, r"must be \(C, H, W\), got 32"),
        (lambda: smlp((3, 32, 0)), ValueError, "entry of image_shape .* at least 1"),
        (lambda: convnet((3, 32, 8)), ValueError, "9x9 at least, got 32x8"),
        (lambda: smlp(num_classes=0), ValueError, "num_classes must be at least 1"),
        (lambda: smlp(num_classes=1.5), TypeError, "num_classes must be a whole"),
        (lambda: mlp(depth=0), ValueError, "depth must be at least 1"),
        (lambda: smlp(width=0), ValueError, "width must be at least 1"),
        (lambda: convnet(width=0), ValueError, "width must be at least 1"),
        (lambda: lenet(num_convs=1), ValueError, "num_convs must be at least 2"),
        (lambda: resnet(blocks_per_stage=0, width=4), ValueError, "blocks_per_stage"),
        (lambda: resnet(blocks_per_stage=1, width=0), ValueError, "width must be"),
        (
            lambda: smlp(activation=nn.ReLU()),
            TypeError,
            r"makes a module.*got ReLU\(\)",
        ),
        (lambda: smlp(activation=lambda: torch.relu), TypeError, "makes a module"),
        (lambda: lenet(init=0.5), TypeError, r"init .* uniform\(0\.5\) .* got float"),
        (lambda: lenet(generator=0), TypeError, r"torch\.Generator, got int; .*seed"),
        (lambda: uniform(0), ValueError, r"bound must be in \(0, inf\), got 0"),
    ],
)
def test_bad_choices_are_refused_with_the_reason(call, error, message):
    with pytest.raises(error, match=message):
        call()
