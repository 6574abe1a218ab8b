"""The bottleneck modules: what they compute, cost, refuse, and do not protect."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from precode_lib.bottleneck import (
    Bottleneck,
    ConvolutionalBottleneck,
    VariationalBottleneck,
    kl_terms,
    loss,
    noise_from,
    recorded_noise,
    with_precode,
)
from precode_lib.models import smlp


@pytest.fixture
def flat(generator):
    return VariationalBottleneck(6, k=4, beta=0.5, generator=generator).double()


@pytest.fixture
def conv(generator):
    return ConvolutionalBottleneck(3, k=2, beta=0.25, generator=generator).double()


@pytest.fixture
def maps(generator):
    return torch.randn(5, 3, 4, 6, generator=generator).double()


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("num_features", "k", "expected"),
    [
        (1024, 64, 197_760),
        (1024, 128, 394_496),
        (1024, 256, 787_968),
        (1024, 512, 1_574_912),
        (768, 256, 591_104),
    ],
)
def test_parameter_counts_are_the_published_ones(num_features, k, expected):
    assert num_parameters(VariationalBottleneck(num_features, k)) == expected


def test_the_papers_values_are_the_defaults():
    bottleneck = VariationalBottleneck(3)
    assert bottleneck.encoder.weight.shape == (512, 3)
    assert bottleneck.decoder.weight.shape == (3, 256)
    assert bottleneck.beta == 1e-3


def test_the_code_is_mean_plus_spread_times_noise(flat, generator):
    features = torch.randn(7, 6, generator=generator).double()
    mean, raw = flat.encoder(features).chunk(2, dim=1)
    noise = torch.randn(7, 4, generator=generator).double()
    with noise_from([noise]):
        decoded = flat(features)
    torch.testing.assert_close(
        decoded, flat.decoder(mean + raw.exp().log1p() * noise), rtol=1e-12, atol=1e-14
    )


def test_the_term_is_beta_times_the_divergence_of_each_example(flat, generator):
    features = torch.randn(7, 6, generator=generator).double()
    with kl_terms() as terms:
        flat(features)
    mean, raw = flat.encoder(features).chunk(2, dim=1)
    expected = kl_divergence(Normal(mean, raw.exp().log1p()), Normal(0.0, 1.0))
    assert len(terms) == 1
    torch.testing.assert_close(terms[0], 0.5 * expected.sum(dim=1))


def test_without_beta_the_term_is_zero_but_the_sampling_stays(generator):
    bottleneck = VariationalBottleneck(6, k=4, beta=0, generator=generator)
    features = torch.randn(2, 6, generator=generator)
    with kl_terms() as terms:
        assert not torch.equal(bottleneck(features), bottleneck(features))
    assert terms[0].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["flat", "conv"])
@pytest.mark.parametrize("is_training", [True, False])
def test_every_call_samples_anew_in_training_and_in_evaluation(
    name, is_training, maps, request
):
    bottleneck = request.getfixturevalue(name).train(is_training)
    features = maps if name == "conv" else maps.flatten(1)[:, :6]
    first, second = bottleneck(features), bottleneck(features)
    assert (first != second).all()


def test_samples_have_the_mean_and_spread_that_the_encoder_says(flat):
    features = torch.ones(20_000, 6).double()
    with noise_from(torch.Generator().manual_seed(4)), recorded_noise() as noises:
        mean, raw = flat.encoder(features).chunk(2, dim=1)
        code = flat.sample(mean, raw)
    assert noises[0].mean().item() == pytest.approx(0, abs=0.02)
    torch.testing.assert_close(code.mean(0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(code.std(0), raw[0].exp().log1p(), atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", [(6,), (1, 2, 3), (3, 2), (6, 1, 1)])
def test_features_of_any_shape_are_flattened_and_restored(flat, shape, generator):
    features = torch.randn(5, *shape, generator=generator).double()
    with noise_from(torch.zeros_like):
        decoded, from_flat = flat(features), flat(features.reshape(5, 6))
    assert decoded.shape == features.shape
    assert torch.equal(decoded.reshape(5, 6), from_flat)


def test_an_extremely_small_spread_still_has_finite_gradients(flat):
    with torch.no_grad():
        flat.encoder.bias[4:] = torch.tensor([-1e4, -800.0, -100.0, 1e3])
    for module in (flat, copy.deepcopy(flat).float()):
        features = torch.zeros(2, 6, dtype=module.encoder.weight.dtype)
        with kl_terms() as terms:
            decoded = module(features)
        (terms[0].sum() + decoded.sum()).backward()
        for parameter in module.parameters():
            assert parameter.grad.isfinite().all()


def test_a_generator_alone_decides_the_weights():
    makers = (
        lambda g: VariationalBottleneck(6, k=4, generator=g),
        lambda g: ConvolutionalBottleneck(6, k=4, generator=g),
    )
    for make in makers:
        before = torch.get_rng_state()
        first, second = (make(torch.Generator().manual_seed(2)) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)
        assert all(p.isfinite().all() and p.any() for p in make(None).parameters())


def test_the_weights_start_as_pytorchs_own():
    bottleneck = VariationalBottleneck(
        6, k=4, generator=torch.Generator().manual_seed(2)
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        encoder, decoder = nn.Linear(6, 8), nn.Linear(4, 6)
    assert torch.equal(bottleneck.encoder.weight, encoder.weight)
    assert torch.equal(bottleneck.encoder.bias, encoder.bias)
    assert torch.equal(bottleneck.decoder.weight, decoder.weight)
    assert torch.equal(bottleneck.decoder.bias, decoder.bias)


@pytest.mark.parametrize("name", ["flat", "conv"])
def test_modules_keep_no_state_and_survive_copying_and_pickling(name, request, maps):
    bottleneck = request.getfixturevalue(name)
    features = maps if name == "conv" else maps.flatten(1)[:, :6]
    attributes = set(vars(bottleneck))
    bottleneck(features).sum().backward()
    assert set(vars(bottleneck)) == attributes
    for copied in (
        copy.deepcopy(bottleneck),
        pickle.loads(pickle.dumps(bottleneck)),
    ):
        with noise_from(torch.ones_like):
            assert torch.equal(copied(features), bottleneck(features))
    assert all("." in key for key in bottleneck.state_dict())


def test_printing_shows_the_size_of_the_code_and_beta(flat, conv):
    assert "k=4, beta=0.5" in repr(flat)
    assert "k=2, beta=0.25" in repr(conv)


def test_the_convolutional_bottleneck_written_out(conv, maps, generator):
    noise = torch.randn(5, 2, 4, 6, generator=generator).double()
    mean, std = conv.mean(maps), conv.spread(maps).clamp(-5, 5).exp().log1p()
    with noise_from([noise]), kl_terms() as terms:
        decoded = conv(maps)
    torch.testing.assert_close(decoded, conv.decoder(mean + std * noise))
    assert decoded.shape == maps.shape
    kl = kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
    torch.testing.assert_close(terms[0], 0.25 * kl.sum(dim=1).mean(dim=(1, 2)))


def test_the_convolutional_divergence_is_not_the_references(conv, maps):
    """The reference reads softplus as a log-variance in the KL only."""
    mean, std = conv.mean(maps), conv.spread(maps).clamp(-5, 5).exp().log1p()
    reference = -0.5 * (1 + std - mean.square() - std.exp()).sum(1).mean((1, 2))
    with kl_terms() as terms:
        conv(maps)
    assert (terms[0] / 0.25 - reference).abs().min() > 1e-3


def test_convolutional_spreads_are_limited(conv, maps):
    with torch.no_grad():
        conv.spread.weight.mul_(1e6)
    mean, raw = conv.mean(maps), conv.spread(maps)
    assert raw.abs().min() > 5
    with noise_from(torch.ones_like):
        code_maps = conv(maps)
    limit = torch.tensor([-5.0, 5.0]).double().exp().log1p()
    std = torch.where(raw > 0, limit[1], limit[0])
    torch.testing.assert_close(code_maps, conv.decoder(mean + std))


def test_the_convolutional_layers_have_the_references_shapes():
    for channels, k in [(3, 8), (16, 8), (17, 8), (18, 9), (64, 32)]:
        bottleneck = ConvolutionalBottleneck(channels)
        assert bottleneck.mean.weight.shape == (k, channels, 5, 5)
        assert bottleneck.spread.weight.shape == (k, channels, 5, 5)
        assert bottleneck.decoder.weight.shape == (channels, k, 1, 1)
        assert num_parameters(bottleneck) == 51 * k * channels  # no biases
    small = ConvolutionalBottleneck(3, k=2, kernel_size=3)
    assert small.mean.weight.shape == (2, 3, 3, 3)
    assert small(torch.zeros(1, 3, 5, 7)).shape == (1, 3, 5, 7)
    assert ConvolutionalBottleneck(3).beta == 0.1


def test_layers_are_called_so_that_hooks_see_them(flat, conv, maps):
    seen = []
    for bottleneck in (flat, conv):
        for name, layer in bottleneck.named_children():
            layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    flat(maps.flatten(1)[:, :6])
    conv(maps)
    assert seen == ["encoder", "decoder", "spread", "mean", "decoder"]
    kinds = {type(m) for b in (flat, conv) for m in b.children()}
    assert kinds == {nn.Linear, nn.Conv2d}


def test_both_are_bottlenecks(flat, conv):
    assert isinstance(flat, Bottleneck) and isinstance(conv, Bottleneck)


@pytest.fixture
def protected(generator):
    model = smlp((1, 4, 4), 3, width=32, generator=generator)
    return with_precode(model, before="fc", k=64, generator=generator).double()


@pytest.fixture
def image(generator):
    return torch.rand(1, 1, 4, 4, generator=generator).double()


def test_precode_behind_a_linear_layer_still_reveals_the_image(protected, image):
    """The noise changes one factor per unit, which cancels in weight / bias."""
    value = loss(protected, image, torch.tensor([1]))
    first = protected.features.hidden1
    weight, bias = torch.autograd.grad(value, [first.weight, first.bias])
    unit = bias.abs().argmax()
    torch.testing.assert_close(weight[unit] / bias[unit], image.flatten())


def test_fresh_noise_turns_the_gradient_behind_the_bottleneck(protected, image):
    """What makes matching fail: the true image, replayed, gives another gradient."""

    def gradient():
        value = loss(protected, image, torch.tensor([1]))
        return torch.autograd.grad(value, protected.fc.layer.weight)[0].flatten()

    with noise_from(torch.Generator().manual_seed(0)):
        assert torch.cosine_similarity(gradient(), gradient(), dim=0) < 0.5
    with noise_from(torch.ones_like):
        same = torch.cosine_similarity(gradient(), gradient(), dim=0)
    assert same.item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: VariationalBottleneck(0), ValueError, "num_features must be at least"),
        (lambda: VariationalBottleneck(6.0), TypeError, "num_features must be a whole"),
        (lambda: VariationalBottleneck(6, k=0), ValueError, "k must be at least 1"),
        (lambda: VariationalBottleneck(6, k=True), TypeError, "k must be a whole"),
        (lambda: VariationalBottleneck(6, beta=-1), ValueError, r"beta .* \[0, inf\)"),
        (lambda: VariationalBottleneck(6, beta=float("nan")), ValueError, "got nan"),
        (lambda: VariationalBottleneck(6, beta="1"), TypeError, "beta must be a num"),
        (lambda: ConvolutionalBottleneck(0), ValueError, "num_channels must be"),
        (lambda: ConvolutionalBottleneck(3, k=0), ValueError, "k must be at least 1"),
        (lambda: ConvolutionalBottleneck(3, beta=-1), ValueError, "beta must be in"),
        (lambda: ConvolutionalBottleneck(3, kernel_size=4), ValueError, "odd, got 4"),
        (lambda: ConvolutionalBottleneck(3, kernel_size=0), ValueError, "at least 1"),
    ],
)
def test_bad_choices_are_refused_with_the_reason(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", [(6,), ()])
def test_features_without_a_batch_are_refused(flat, shape):
    with pytest.raises(ValueError, match=r"batch dimension, \(B, 6\), got \("):
        flat(torch.zeros(shape).double())


def test_features_of_another_size_are_refused(flat, conv):
    with pytest.raises(ValueError, match=r"takes 6 features .* got 8 in .*\(5, 2, 4\)"):
        flat(torch.zeros(5, 2, 4).double())
    for shape in [(3, 4, 6), (5, 2, 4, 6), (5, 3, 4)]:
        with pytest.raises(ValueError, match=r"feature maps \(B, 3, H, W\), got \("):
            conv(torch.zeros(shape).double())
