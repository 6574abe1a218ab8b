"""Noise and divergence against torch.distributions and exact formulas."""

import math
import threading

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from precode_lib.bottleneck import (
    BITS_BETA,
    NATS_PER_BIT,
    VariationalBottleneck,
    draw_noise,
    kl_terms,
    kl_to_standard_normal,
    noise_from,
    num_classes,
    quiet,
    recorded_noise,
    softplus,
)
from precode_lib.bottleneck.sampling import log_softplus, record_kl
from precode_lib.federated import Client

MEAN = torch.zeros(2, 3)


@pytest.fixture
def two_bottlenecks(generator):
    return nn.Sequential(
        VariationalBottleneck(6, k=2, beta=0.5, generator=generator),
        VariationalBottleneck(6, k=3, beta=0.25, generator=generator),
    )


def test_kl_agrees_with_torch_distributions(generator):
    mean = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    std = torch.rand(5, 7, generator=generator, dtype=torch.float64) + 0.1
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl_to_standard_normal(mean, std), expected)
    torch.testing.assert_close(kl_to_standard_normal(mean, std, std.log()), expected)


def test_kl_vanishes_for_a_standard_normal_only():
    zeros, ones = torch.zeros(1, 4), torch.ones(1, 4)
    assert kl_to_standard_normal(zeros, ones).item() == 0
    assert kl_to_standard_normal(zeros, 0.9 * ones).item() > 0
    assert kl_to_standard_normal(zeros + 0.1, ones).item() == pytest.approx(0.02)


def test_kl_at_the_usual_start_costs_what_the_reference_reports():
    # softplus(0) = ln 2: 0.1067 nats or 0.1540 bits a dimension (Scheliga's code).
    per_dimension = kl_to_standard_normal(
        torch.zeros(1, 1).double(), torch.full((1, 1), math.log(2)).double()
    ).item()
    assert per_dimension == pytest.approx(0.1067, abs=5e-5)
    assert per_dimension / NATS_PER_BIT == pytest.approx(0.1540, abs=5e-5)


def test_bits_beta_makes_nats_and_the_references_bits_agree():
    kl_in_nats = 3.7
    kl_in_bits = kl_in_nats / math.log(2)
    assert BITS_BETA * kl_in_nats == pytest.approx(1e-3 * kl_in_bits)
    assert pytest.approx(1.443e-3, abs=5e-7) == BITS_BETA


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [softplus, log_softplus])
def test_values_and_two_derivatives_are_finite_from_minus_to_plus_10000(
    function, dtype
):
    raw = torch.cat(
        [torch.linspace(-1e4, 1e4, 2001), torch.linspace(-120, 120, 4801)]
    ).to(dtype)
    raw = torch.cat([raw, torch.tensor([-1e4, 0.0, 1e4], dtype=dtype)])
    raw.requires_grad_()
    value = function(raw)
    (slope,) = torch.autograd.grad(value.sum(), raw, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), raw)
    for tensor in (value, slope, curvature):
        assert tensor.isfinite().all()
    assert ((slope >= 0) & (slope <= 1 + 1e-6)).all()


def test_the_plain_formula_is_not_finite_which_is_why_ours_exists():
    raw = torch.tensor([-120.0], requires_grad=True)
    (slope,) = torch.autograd.grad(nn.functional.softplus(raw).log().sum(), raw)
    assert not slope.isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14)]
)
def test_softplus_and_its_logarithm_are_exact_where_float64_holds_them(
    dtype, tolerance
):
    raw = torch.linspace(-700, 700, 28001, dtype=torch.float64).to(dtype)
    # From Python's math, not from torch: ln(1 + e^x) as a float64 number.
    exact = [max(x, 0) + math.log1p(math.exp(-abs(x))) for x in raw.tolist()]
    got, logarithm = softplus(raw).double(), log_softplus(raw).double()
    exact = torch.tensor(exact, dtype=torch.float64)
    held = exact > torch.finfo(dtype).tiny
    assert held.sum() > 15000
    torch.testing.assert_close(got[held], exact[held], rtol=tolerance, atol=0)
    torch.testing.assert_close(logarithm, exact.log(), rtol=tolerance, atol=tolerance)


def test_the_slope_of_the_logarithm_is_exact_in_float64():
    raw = torch.linspace(-300, 300, 12001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_softplus(raw).sum(), raw)
    exact = raw.sigmoid() / nn.functional.softplus(raw, threshold=500)
    torch.testing.assert_close(slope, exact.detach(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_and_its_gradient_are_finite_where_the_spread_underflows(dtype):
    raw = torch.tensor([[-1e4, -104.0, -50.0, 0.0, 1e4]], dtype=dtype)
    raw.requires_grad_()
    kl = kl_to_standard_normal(torch.zeros_like(raw), softplus(raw), log_softplus(raw))
    (slope,) = torch.autograd.grad(kl.sum(), raw)
    assert kl.isfinite().all()
    torch.testing.assert_close(
        slope[0, [0, 1, 2, 4]], torch.tensor([-1.0, -1.0, -1.0, 1e4], dtype=dtype)
    )


def test_half_precision_stays_finite_too():
    for dtype in (torch.float16, torch.bfloat16):
        raw = torch.linspace(-200, 200, 401, dtype=dtype)
        assert log_softplus(raw).isfinite().all()
        reference = nn.functional.softplus(raw.double(), threshold=300).log()
        difference = (log_softplus(raw).double() - reference).abs()
        assert (difference / reference.abs().clamp(min=1)).max() < 0.01


def test_without_a_context_the_global_generator_decides():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        noise = draw_noise(MEAN)
        torch.manual_seed(3)
        assert torch.equal(noise, torch.randn(2, 3))


def test_a_generator_gives_its_own_noise_and_leaves_the_global_one_alone(generator):
    before = torch.get_rng_state()
    with noise_from(generator):
        first, second = draw_noise(MEAN), draw_noise(MEAN)
    assert torch.equal(torch.get_rng_state(), before)
    generator.manual_seed(0)
    assert torch.equal(first, torch.randn(2, 3, generator=generator))
    assert torch.equal(second, torch.randn(2, 3, generator=generator))
    assert not torch.equal(first, second)


def test_given_noise_is_used_in_order_of_execution(two_bottlenecks, generator):
    given = [torch.full((4, 2), 1.5), torch.full((4, 3), -2.5)]
    features = torch.randn(4, 6, generator=generator)
    with noise_from(given), recorded_noise() as noises:
        two_bottlenecks(features)
    assert len(noises) == 2
    assert all(torch.equal(a, b) for a, b in zip(noises, given, strict=True))


def test_a_function_may_make_the_noise(two_bottlenecks, generator):
    features = torch.randn(4, 6, generator=generator)
    with noise_from(torch.zeros_like):
        code = two_bottlenecks[0](features)
    mean = two_bottlenecks[0].encoder(features)[:, :2]
    torch.testing.assert_close(code, two_bottlenecks[0].decoder(mean))


def test_noise_takes_dtype_of_the_features():
    with noise_from([torch.ones(2, 3)]):
        noise = draw_noise(MEAN.double())
    assert noise.dtype == torch.float64
    with noise_from(torch.Generator().manual_seed(0)):
        assert draw_noise(MEAN.double()).dtype == torch.float64


def test_given_noise_stays_in_the_graph():
    given = torch.ones(2, 3, requires_grad=True)
    with noise_from([given]):
        draw_noise(MEAN).sum().backward()
    assert torch.equal(given.grad, torch.ones(2, 3))


def test_recorded_noise_replays_to_the_same_output(two_bottlenecks, generator):
    features = torch.randn(4, 6, generator=generator)
    with noise_from(generator), recorded_noise() as noises:
        first = two_bottlenecks(features)
    with noise_from(noises):
        again = two_bottlenecks(features)
    assert [tuple(n.shape) for n in noises] == [(4, 2), (4, 3)]
    assert torch.equal(first, again)
    assert not torch.equal(two_bottlenecks(features), first)


def test_every_open_list_is_filled_and_a_closed_one_no_more(two_bottlenecks):
    features = torch.zeros(4, 6)
    with kl_terms() as outer, recorded_noise() as outer_noise:
        two_bottlenecks[0](features)
        with kl_terms() as inner, recorded_noise() as inner_noise:
            two_bottlenecks[1](features)
    two_bottlenecks(features)
    assert (len(outer), len(inner)) == (2, 1)
    assert outer[1] is inner[0]
    assert (len(outer_noise), len(inner_noise)) == (2, 1)
    assert outer_noise[1] is inner_noise[0]


def test_kl_terms_arrive_as_they_were_recorded():
    term = torch.arange(3.0)
    record_kl(term)
    with kl_terms() as terms:
        record_kl(term)
    assert len(terms) == 1
    assert terms[0] is term


def test_the_inner_source_wins_and_the_outer_one_returns(generator):
    with noise_from(torch.zeros_like):
        with noise_from(torch.ones_like):
            assert (draw_noise(MEAN) == 1).all()
        assert (draw_noise(MEAN) == 0).all()
    assert draw_noise(MEAN).unique().numel() > 1


def test_contexts_close_after_an_exception():
    fail = pytest.raises(RuntimeError, match="mine")
    with fail, noise_from([MEAN]), recorded_noise() as noises, kl_terms() as terms:
        raise RuntimeError("mine")
    draw_noise(MEAN)
    record_kl(MEAN)
    assert noises == [] and terms == []


def test_another_thread_has_its_own_contexts():
    noises_there = []
    with noise_from(torch.zeros_like), recorded_noise() as noises:
        thread = threading.Thread(target=lambda: noises_there.append(draw_noise(MEAN)))
        thread.start()
        thread.join()
    assert noises == []
    assert noises_there[0].abs().sum() > 0


def test_too_few_noise_tensors_are_refused():
    refused = pytest.raises(ValueError, match=r"given 1 noise tensors, but another")
    with refused, noise_from([MEAN]):
        draw_noise(MEAN)
        draw_noise(MEAN)


def test_too_many_noise_tensors_are_refused():
    refused = pytest.raises(ValueError, match=r"given 2 .* but only 1 were used")
    with refused, noise_from([MEAN, MEAN]):
        draw_noise(MEAN)
    with pytest.raises(ValueError, match="but only 0 were used"), noise_from((MEAN,)):
        pass


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 4), (2, 3, 1)])
def test_noise_of_another_shape_is_refused(shape):
    refused = pytest.raises(ValueError, match=r"mean, \(2, 3\), got \(")
    with refused, noise_from([torch.zeros(shape)]):
        draw_noise(MEAN)


def test_a_function_has_to_return_a_tensor():
    refused = pytest.raises(TypeError, match=r"return a tensor .* got float")
    with refused, noise_from(lambda mean: 0.0):
        draw_noise(MEAN)


@pytest.mark.parametrize("source", [None, 3, MEAN, [MEAN, 1.0], "global"])
def test_what_is_no_source_of_noise_is_refused(source):
    refused = pytest.raises(TypeError, match=r"noise must come from a torch\.Generator")
    with refused, noise_from(source):
        pass


def test_a_quiet_run_gives_the_mean_and_leaves_no_trace():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 4), VariationalBottleneck(4, 2), nn.Dropout(0.5))
    x, state = torch.randn(5, 4), torch.get_rng_state()
    with recorded_noise() as noises, kl_terms() as terms, quiet(model):
        found = model(x)
    assert (noises, terms) == ([], [])
    assert torch.equal(torch.get_rng_state(), state)
    with noise_from(torch.zeros_like):
        torch.set_rng_state(state)
        assert torch.equal(found, model(x))
    assert found.requires_grad  # as outside


@pytest.mark.parametrize("look", ["victims_within", "num_classes"])
def test_looking_at_a_model_draws_nothing_from_the_global_generator(look):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3)).train()
    images, state = torch.randn(1, 2, 3, 2, 2), torch.get_rng_state()
    if look == "victims_within":
        labels = torch.zeros(1, 2, dtype=torch.int64)
        Client(model).victims_within(2**20, images, labels)
    else:
        assert num_classes(model, images[0]) == 3
    assert torch.equal(torch.get_rng_state(), state)
