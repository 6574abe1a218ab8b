"""PRECODE goes into any model, and nothing else about the model changes."""

import copy
import io
import pickle
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from precode_lib.bottleneck import (
    Bottleneck,
    ConvolutionalBottleneck,
    VariationalBottleneck,
    kl_terms,
    loss,
    noise_from,
    per_example_loss,
    recorded_noise,
    with_cvb,
    with_precode,
)
from precode_lib.models import convnet, dmlp, lenet, resnet20_4, smlp

SHAPE = (3, 32, 32)


def tiny_vit():
    vit = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
        num_classes=10,
    )
    nn.init.xavier_uniform_(
        vit.heads.head.weight
    )  # starts at zero, which blocks gradients
    return vit


MODELS = {
    "smlp": (lambda: smlp(width=16), "fc", "features.hidden1"),
    "dmlp": (lambda: dmlp(width=16), "fc", "features.activation3"),
    "lenet": (lenet, "fc", "features.conv2"),
    "convnet": (lambda: convnet(width=4), "fc", "features.pool6"),
    "resnet20_4": (resnet20_4, "fc", "features.stage3.2"),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), "fc", "layer3"),
    "vit": (tiny_vit, "heads.head", "encoder.layers.encoder_layer_0"),
}
every_model = pytest.mark.parametrize(
    ("make", "last", "inner"), MODELS.values(), ids=MODELS.keys()
)


@pytest.fixture
def images(generator):
    return torch.randn(2, *SHAPE, generator=generator)


@pytest.fixture
def small(generator):
    return smlp((1, 2, 3), 4, width=5, generator=generator)


def bottlenecks(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, Bottleneck)}


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@every_model
def test_it_fits_before_the_last_layer_of_every_model(make, last, inner, images):
    model = make()
    before = state(model)
    protected = with_precode(model, before=last, k=3, beta=0.5)
    assert list(bottlenecks(protected)) == [f"{last}.bottleneck"]
    assert same(before, model.state_dict())
    assert not bottlenecks(model)
    with noise_from([torch.zeros(2, 3)]), kl_terms() as terms:
        logits = protected.eval()(images)
    assert logits.shape == (2, 10)
    assert [tuple(term.shape) for term in terms] == [(2,)]


@every_model
def test_it_fits_after_an_inner_layer_of_every_model(make, last, inner, images):
    protected = with_precode(make(), after=inner, k=3, example=SHAPE).eval()
    assert list(bottlenecks(protected)) == [f"{inner}.bottleneck"]
    value = loss(protected, images, torch.tensor([1, 2]))
    value.backward()
    bottleneck = protected.get_submodule(f"{inner}.bottleneck")
    assert all(p.grad.abs().sum() > 0 for p in bottleneck.parameters())


@every_model
def test_without_a_name_it_goes_before_the_last_linear_layer(make, last, inner):
    assert list(bottlenecks(with_precode(make(), k=2))) == [f"{last}.bottleneck"]


@every_model
def test_a_bottleneck_that_returns_its_input_changes_no_output(
    make, last, inner, images
):
    model = make().eval()
    for places in ({"before": last}, {"after": inner}, {"before": inner}):
        protected = with_precode(model, **places, k=1)
        for name in bottlenecks(protected):
            parent = protected.get_submodule(name.rpartition(".")[0])
            parent.bottleneck = nn.Identity()
        torch.testing.assert_close(protected(images), model(images), rtol=0, atol=0)


@pytest.mark.slow
def test_it_fits_into_the_full_vit_b_16():
    model = torchvision.models.vit_b_16(image_size=32, num_classes=10)
    protected = with_precode(model, before="heads.head", k=256)
    assert protected.heads.head.bottleneck.encoder.in_features == 768
    assert loss(protected, torch.zeros(1, *SHAPE), torch.tensor([3])).isfinite()


def test_the_published_parameter_counts_come_out():
    def count(model):
        return sum(p.numel() for p in model.parameters())

    assert count(with_precode(smlp())) == 4_994_570
    assert count(with_precode(dmlp())) == 7_093_770
    assert count(with_precode(lenet())) == 606_930


def test_the_state_dict_keeps_the_old_parameters_under_layer(small):
    protected = with_precode(small, before="fc", k=2)
    inserted = {
        f"fc.bottleneck.{part}.{kind}"
        for part in ("encoder", "decoder")
        for kind in ("weight", "bias")
    }
    renamed = {
        name.replace("fc.", "fc.layer."): value
        for name, value in small.state_dict().items()
    }
    assert set(protected.state_dict()) == inserted | set(renamed)
    for name, value in renamed.items():
        assert torch.equal(protected.state_dict()[name], value)


def test_order_within_the_wrapper_is_order_of_execution(small):
    before = with_precode(small, before="fc", k=2).fc
    after = with_precode(small, after="fc", k=2).fc
    assert [name for name, _ in before.named_children()] == ["bottleneck", "layer"]
    assert [name for name, _ in after.named_children()] == ["layer", "bottleneck"]
    assert before.bottleneck.encoder.in_features == 5
    assert after.bottleneck.encoder.in_features == 4


def test_convolutional_features_are_flattened_whole():
    protected = with_precode(lenet(), after="features.conv1", k=7)
    bottleneck = protected.features.conv1.bottleneck
    assert bottleneck.encoder.weight.shape == (14, 12 * 16 * 16)


def test_several_at_once_have_their_own_k_and_beta(small):
    protected = with_precode(
        small,
        before=["fc", "features.hidden2"],
        after="features.activation2",
        k=[2, 3, 4],
        beta=(0.1, 0.2, 0.3),
    )
    found = {
        name: (module.decoder.in_features, module.beta)
        for name, module in bottlenecks(protected).items()
    }
    assert found == {
        "fc.bottleneck": (2, 0.1),
        "features.hidden2.bottleneck": (3, 0.2),
        "features.activation2.bottleneck": (4, 0.3),
    }


def test_several_at_once_run_in_the_order_of_the_model(small):
    protected = with_precode(
        small, before=["fc", "features.hidden2"], k=[2, 3], beta=[0.5, 0.25]
    )
    images, labels = torch.zeros(6, 1, 2, 3), torch.zeros(6).long()
    with recorded_noise() as noises, kl_terms() as terms:
        losses = per_example_loss(protected, images, labels)
    assert [tuple(noise.shape) for noise in noises] == [(6, 3), (6, 2)]
    with noise_from(noises):
        cross_entropy = F.cross_entropy(protected(images), labels, reduction="none")
    torch.testing.assert_close(losses, cross_entropy + terms[0] + terms[1])


def test_before_and_after_one_layer_and_around_its_parent(small):
    protected = with_precode(
        small,
        before=["features", "fc"],
        after=["features.hidden1", "fc"],
        k=[2, 3, 4, 5],
    )
    with recorded_noise() as noises:
        protected(torch.zeros(2, 1, 2, 3))
    assert [noise.shape[1] for noise in noises] == [2, 4, 3, 5]
    assert list(bottlenecks(protected)) == [
        "features.bottleneck",
        "features.layer.hidden1.bottleneck",
        "fc.layer.bottleneck",
        "fc.bottleneck",
    ]


def test_one_value_serves_all_places(small):
    protected = with_precode(small, before=("fc", "features.hidden2"), k=2, beta=0.5)
    found = [(m.decoder.in_features, m.beta) for m in bottlenecks(protected).values()]
    assert found == [(2, 0.5), (2, 0.5)]


def test_the_papers_values_are_the_defaults(small):
    bottleneck = with_precode(small).fc.bottleneck
    assert isinstance(bottleneck, VariationalBottleneck)
    assert (bottleneck.decoder.in_features, bottleneck.beta) == (256, 1e-3)


def test_inserting_twice_in_a_row_works(small):
    once = with_precode(small, before="fc", k=2)
    twice = with_precode(once, before="features.hidden2", k=3)
    assert list(bottlenecks(twice)) == [
        "features.hidden2.bottleneck",
        "fc.bottleneck",
    ]
    assert len(bottlenecks(once)) == 1


def test_a_generator_alone_decides_the_new_weights(small):
    options = {"before": ["fc", "features.hidden2"], "k": 2}
    before = torch.get_rng_state()
    first, second = (
        with_precode(small, **options, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first.state_dict(), second.state_dict())
    generator = torch.Generator().manual_seed(7)
    expected = VariationalBottleneck(5, k=2, generator=generator)
    assert same(first.fc.bottleneck.state_dict(), expected.state_dict())


def test_convolutional_ones_too_obey_the_generator():
    model = lenet((1, 8, 8), generator=torch.Generator().manual_seed(0))
    first, second = (
        with_cvb(
            model,
            after="features.conv1",
            generator=torch.Generator().manual_seed(7),
        )
        for _ in range(2)
    )
    assert same(first.state_dict(), second.state_dict())


class Watchful(nn.Module):
    """Counts its calls in a buffer and draws random numbers even in evaluation."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("num_calls", torch.tensor(0))

    def forward(self, images):
        self.num_calls += 1
        maps = self.drop(self.norm(images)) + torch.randn_like(images)
        return self.fc(maps.flatten(1))


def traces(model):
    """All that a forward pass could change: state, modes, numbers of hooks, grads."""
    return {
        name: (
            module.training,
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            [(p.tolist(), p.grad) for p in module.parameters(recurse=False)],
            [b.tolist() for b in module.buffers(recurse=False)],
        )
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize("is_training", [True, False])
def test_the_dry_run_leaves_no_trace(is_training, generator):
    model = Watchful().train(is_training)
    model.norm.eval()
    model.fc.register_forward_hook(lambda *_: None)
    model = with_precode(model, k=2, example=(1, 2, 2))
    before, rng = traces(model), torch.get_rng_state()
    with kl_terms() as terms, recorded_noise() as noises, noise_from([]):
        protected = with_precode(
            model, before="fc", k=2, example=torch.ones(4, 1, 2, 2), generator=generator
        )
    assert torch.equal(torch.get_rng_state(), rng)
    assert terms == [] and noises == []
    assert traces(model) == before
    after = traces(protected)
    for name, trace in before.items():
        assert after[name.replace("fc", "fc.layer")] == trace
    for name in ("", "fc", "fc.bottleneck", "fc.bottleneck.encoder"):
        assert after[name][0] == is_training


def test_dtype_and_device_are_the_models_own(small):
    protected = with_precode(small.double(), k=2)
    assert {p.dtype for p in protected.parameters()} == {torch.float64}
    assert protected(torch.zeros(1, 1, 2, 3).double()).dtype == torch.float64
    on_meta = with_precode(copy.deepcopy(small).to("meta"), k=2)
    assert {p.device.type for p in on_meta.parameters()} == {"meta"}


def test_the_protected_model_can_be_copied_pickled_saved_and_loaded(small):
    protected = with_precode(small, before="fc", k=2)
    images = torch.ones(3, 1, 2, 3)
    with noise_from(torch.ones_like):
        expected = protected(images)
    buffer = io.BytesIO()
    torch.save(protected.state_dict(), buffer)
    buffer.seek(0)
    loaded = with_precode(small, before="fc", k=2)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    shell = with_precode(small, before="fc", k=2)
    for model in (
        copy.deepcopy(protected),
        pickle.loads(pickle.dumps(protected)),
        loaded,
        partial(functional_call, shell, protected.state_dict()),
    ):
        with noise_from(torch.ones_like):
            assert torch.equal(model(images), expected)


@pytest.mark.slow
# torch's own compiler looks at .grad of inner tensors and warns itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_the_protected_model_can_be_compiled(small):
    protected = with_precode(small, before="fc", k=2)
    images = torch.ones(3, 1, 2, 3)
    compiled = torch.compile(protected, backend="eager")
    for noise in (torch.zeros_like, torch.ones_like):
        with noise_from(noise):
            torch.testing.assert_close(compiled(images), protected(images))


def test_a_layer_with_two_names_is_replaced_under_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
            self.head = self.features[1]

        def forward(self, images):
            return self.head(self.features[0](images))

    for name in ("head", "features.1"):
        model = with_precode(Twice(), before=name, k=2, example=(1, 2, 2))
        assert model.head is model.features[1]
        with kl_terms() as terms:
            model(torch.zeros(1, 1, 2, 2))
        assert len(terms) == 1


def test_the_example_may_be_images_a_shape_or_left_out():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3))
    net(torch.zeros(1, 1, 8, 8))
    for example in (
        (1, 8, 8),
        [1, 8, 8],
        torch.zeros(1, 1, 8, 8),
        torch.zeros(3, 1, 8, 8),
    ):
        bottleneck = with_precode(net, after="0", k=2, example=example)[0].bottleneck
        assert bottleneck.encoder.in_features == 2 * 6 * 6
    assert with_precode(smlp((1, 2, 3), width=4), after="features.flatten", k=2)


def test_a_model_without_parameters_can_be_protected_too():
    model = with_precode(nn.Sequential(nn.Flatten()), after="0", k=2, example=(1, 2, 2))
    assert model(torch.zeros(3, 1, 2, 2)).shape == (3, 4)


def test_the_convolutional_bottleneck_goes_in_likewise():
    model = resnet20_4()
    protected = with_cvb(model, after="features.activation", beta=5e-5)
    bottleneck = protected.features.activation.bottleneck
    assert isinstance(bottleneck, ConvolutionalBottleneck)
    assert bottleneck.decoder.in_channels == 32
    assert bottleneck.beta == 5e-5
    small = with_cvb(
        lenet(), "features.conv2", after="features.conv3", k=[2, None], beta=[1, 2]
    )
    found = [(m.decoder.in_channels, m.beta) for m in bottlenecks(small).values()]
    assert found == [(2, 1), (8, 2)]
    assert with_cvb(lenet(), "features.conv2").features.conv2.bottleneck.beta == 0.1
    assert loss(small, torch.zeros(2, *SHAPE), torch.tensor([0, 1])).isfinite()


class Odd(nn.Module):
    """Layers beside which no bottleneck fits."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Tanh()
        self.never = nn.Linear(4, 4)
        self.two_inputs = nn.Bilinear(4, 4, 4)
        self.by_keyword = nn.Linear(4, 4)
        self.tuple_out = nn.LSTM(4, 4)
        self.folds = nn.Flatten(0, 1)
        self.whole = nn.Identity()
        self.total = nn.Identity()
        self.fc = nn.Linear(4, 4)

    def forward(self, images):
        maps = self.twice(self.twice(images.flatten(1)))
        maps = self.by_keyword(input=self.two_inputs(maps, maps))
        maps, _ = self.tuple_out(maps)
        self.folds(maps[:, None].expand(-1, 3, -1))
        self.total(maps.sum())
        self.whole(torch.arange(2)[:, None])
        return self.fc(maps)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"before": "fcc"}, r"no layer 'fcc'\. Did you mean 'fc'\?"),
        ({"after": "zzz"}, r"no layer 'zzz'\.$"),
        ({"after": ""}, r"no layer ''\.$"),
        ({"before": "twice"}, "'twice' is called 2 times"),
        ({"before": "never"}, "'never' is called 0 times"),
        ({"before": "two_inputs"}, "'two_inputs' takes more than one argument"),
        ({"before": "by_keyword"}, "'by_keyword' takes more than one argument"),
        ({"after": "tuple_out"}, "'tuple_out' there is tuple"),
        ({"after": "folds"}, r"'folds' .* shape \(6, 4\) for 2 images"),
        ({"after": "total"}, r"'total' .* shape \(\) for 2 images"),
        ({"before": "whole"}, r"'whole' there is torch\.int64"),
        ({"before": ["fc", "fc"]}, r"each place once.*before=\['fc', 'fc'\]"),
        ({"before": []}, "at least one"),
        ({"before": "fc", "k": [1, 2]}, "k must be one value or 1, .* got 2"),
        ({"before": "fc", "beta": []}, "beta must be one value or 1, .* got 0"),
        ({"before": "fc", "k": 0}, "k must be at least 1"),
        ({"before": "fc", "beta": -1.0}, "beta must be in"),
    ],
)
def test_a_place_where_none_fits_is_refused_with_the_reason(places, message):
    with pytest.raises(ValueError, match=message):
        with_precode(Odd(), **places, example=(1, 2, 2))


@pytest.mark.parametrize(
    ("example", "error", "message"),
    [
        ((), ValueError, r"example must be images .* got \(\)"),
        ((3, 32), ValueError, r"images of shape \(2, 3, 32\) failed .* give `example`"),
        (32, ValueError, r"example must be images .* got 32"),
        ((3, 32, 0), ValueError, "each entry of example's shape .* at least 1"),
        ((3, 32, 31), ValueError, r"images of shape \(2, 3, 32, 31\) failed \(.*give"),
        (torch.zeros(3, 32, 32), ValueError, r"shape \(3, 32, 32\) failed"),
        (torch.zeros(3), ValueError, r"example must have shape \(N, \.\.\.\)"),
        (torch.zeros(1, 3, 32, 32).byte(), TypeError, "example must be floating"),
        (
            torch.zeros(1, 3, 8, 8).numpy(),
            ValueError,
            r"\(C, H, W\), .* got ndarray\.$",
        ),
    ],
)
def test_a_bad_example_is_refused_with_the_reason(example, error, message):
    with pytest.raises(error, match=message):
        with_precode(smlp(width=2), example=example)


@pytest.mark.parametrize("place", [3, nn.Linear(2, 2), [3]])
def test_a_place_is_a_name_not_a_layer(place):
    with pytest.raises(
        TypeError, match=r"after names layers, as in model\.named_modul"
    ):
        with_precode(smlp(width=2), after=place)


def test_the_class_of_a_model_has_no_places():
    with pytest.raises(TypeError, match="got the class Odd"):
        with_precode(Odd)


def test_a_model_without_a_linear_layer_needs_a_name():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"runs no nn\.Linear; name a layer"):
        with_precode(model)


def test_flat_features_are_refused_by_the_convolutional_bottleneck(small):
    with pytest.raises(ValueError, match=r"'fc' .* \(5,\), not \(C, H, W\)"):
        with_cvb(small, before="fc")
