"""Noise, clipping and how defenses combine, against torch's own and by moments."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.testing import assert_close

from precode_lib.defenses import (
    add_laplace_noise,
    add_noise,
    bytes_on_wire,
    chain,
    clip,
    ignoring,
    only,
    prune,
    prune_globally,
    quantise,
    round_to,
)
from precode_lib.defenses.entries import draw_laplace, draw_normal, draw_uniform
from precode_lib.gradients import Gradients, Outer, dense


def gradients(victims=3, seed=0, dtype=torch.float32, factored=True):
    """One factored matrix, one dense kernel, one bias, one scalar."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    outer = Outer(draw(victims, 2, 9), draw(victims, 2, 12), torch.Size((9, 12)))
    return Gradients(
        {
            "features.weight": outer if factored else outer.dense(),
            "features.conv": draw(victims, 4, 3, 2, 2),
            "fc.bias": draw(victims, 5),
            "fc.gain": draw(victims),
        }
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tensors(gradients):
    """Every tensor of the gradients, factors included."""
    pairs = [
        (t.left, t.right) if isinstance(t, Outer) else (t,) for t in gradients.values()
    ]
    return [tensor for pair in pairs for tensor in pair]


def norms(gradients):
    """Over all parameters, by numpy's own: (V,)."""
    terms = [dense(t).reshape(gradients.num_victims, -1) for t in gradients.values()]
    return torch.from_numpy(np.linalg.norm(torch.cat(terms, 1).numpy(), axis=1))


def assert_same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert_close(dense(a[name]), dense(b[name]), rtol=0, atol=0)


DEFENSES = {
    "noise": lambda: partial(add_noise, std=0.1, generator=seeded()),
    "laplace": lambda: partial(add_laplace_noise, scale=0.1, generator=seeded()),
    "prune": lambda: partial(prune, ratio=0.5),
    "prune globally": lambda: partial(prune_globally, ratio=0.5),
    "half": lambda: round_to,
    "int8": lambda: quantise,
    "affine": lambda: partial(quantise, bits=3, symmetric=False),
    "stochastic": lambda: partial(quantise, bits=4, generator=seeded()),
    "clip": lambda: partial(clip, max_norm=0.3),
}
RANDOM = {"noise", "laplace", "stochastic"}


@pytest.fixture(params=DEFENSES)
def make_defense(request):
    return DEFENSES[request.param]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_defense_changes_the_values_but_never_its_input(make_defense, dtype):
    given_ones = gradients(dtype=dtype)
    before = [tensor.clone() for tensor in tensors(given_ones)]
    defended = make_defense()(given_ones)
    for tensor, copy in zip(tensors(given_ones), before, strict=True):
        assert torch.equal(tensor, copy)
    assert list(defended) == list(given_ones)
    assert defended.shapes == given_ones.shapes
    assert all(tensor.dtype == dtype for tensor in tensors(defended))
    if dtype != torch.bfloat16:  # float16 holds these bfloat16 numbers
        for name in ("features.weight", "features.conv"):
            assert not torch.equal(dense(defended[name]), dense(given_ones[name]))


def test_factored_and_dense_gradients_are_defended_alike(make_defense):
    both = [make_defense()(gradients(factored=f)) for f in (True, False)]
    for name in both[0]:
        assert_close(dense(both[0][name]), dense(both[1][name]))


def test_a_victims_defense_does_not_depend_on_the_other_victims(make_defense):
    together = make_defense()(gradients(victims=5))
    defense = make_defense()  # its generator goes on from chunk to chunk
    parts = [gradients(victims=5).take(slice(*p)) for p in ((0, 2), (2, 5))]
    apart = [defense(part) for part in parts]
    assert_same(together.take(slice(0, 2)), apart[0])
    assert_same(together.take(slice(2, 5)), apart[1])


def test_only_clipping_keeps_factors(make_defense, request):
    defended = make_defense()(gradients())
    is_clip = "[clip]" in request.node.name
    assert isinstance(defended["features.weight"], Outer) == is_clip


@pytest.mark.parametrize("kind", sorted(RANDOM))
def test_the_seed_decides_the_noise_and_the_global_generator_does_not(kind):
    state = torch.get_rng_state()
    first, again = (DEFENSES[kind]()(gradients()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(first, again)
    options = {**DEFENSES[kind]().keywords, "generator": seeded(1)}
    other = DEFENSES[kind]().func(gradients(), **options)
    assert not torch.equal(other["features.conv"], first["features.conv"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_seed_means_the_same_on_a_gpu(make_defense):
    there = make_defense()(gradients().to("cuda"))
    for name, term in make_defense()(gradients()).items():
        assert_close(dense(there[name]).cpu(), dense(term))


# --- noise ----------------------------------------------------------------------------


def noise_of(defense, num=4_000, victims=5):
    shapes = {"a": (num // 2,), "b": (3, num // 6)}
    zeros = Gradients({n: torch.zeros(victims, *s) for n, s in shapes.items()})
    noisy = defense(zeros)
    return torch.cat([t.flatten() for t in noisy.values()]).double().numpy()


@pytest.mark.parametrize(
    ("defense", "expected"),
    [
        (partial(add_noise, std=0.3), stats.norm(scale=0.3)),
        (partial(add_laplace_noise, scale=0.3), stats.laplace(scale=0.3)),
        (partial(add_laplace_noise, std=0.3), stats.laplace(scale=0.3 / 2**0.5)),
    ],
)
def test_noise_has_the_stated_distribution(defense, expected):
    noise = noise_of(partial(defense, generator=seeded()))
    assert len(noise) > 19_000
    assert stats.kstest(noise, expected.cdf).pvalue > 0.01
    # Four standard errors of mean and variance.
    mean, variance, kurtosis = expected.stats(moments="mvk")
    assert abs(noise.mean() - mean) < 4 * (variance / len(noise)) ** 0.5
    spread = variance * ((2 + kurtosis) / len(noise)) ** 0.5
    assert abs(noise.var() - variance) < 4 * spread


def test_laplace_noise_of_one_scale_is_wider_than_gaussian_of_that_std():
    by_scale, by_std = (
        noise_of(partial(add_laplace_noise, generator=seeded(), **option))
        for option in ({"scale": 0.1}, {"std": 0.1})
    )
    assert by_scale.std() / by_std.std() == pytest.approx(2**0.5, rel=1e-4)


def test_noise_differs_between_victims_and_parameters():
    noise = add_noise(
        Gradients({"a": torch.zeros(2, 50), "b": torch.zeros(2, 50)}),
        1.0,
        generator=seeded(),
    )
    rows = torch.cat([noise["a"], noise["b"]])
    correlation = torch.corrcoef(rows) - torch.eye(4)
    assert correlation.abs().max() < 0.5
    assert rows.unique().numel() == rows.numel()


def test_noise_adds_to_the_gradient_and_single_precision_gets_single_noise():
    exact = gradients(dtype=torch.float64)
    noisy = add_noise(exact, 0.5, generator=seeded())
    zeros = exact.dense().map(torch.zeros_like)
    noise = add_noise(zeros, 0.5, generator=seeded())
    for name in exact:
        assert_close(noisy[name], dense(exact[name]) + noise[name])
    assert (noise["features.conv"] != noise["features.conv"].float()).any()


def test_the_noise_of_a_victim_is_one_draw_in_the_widest_dtype_present():
    mixed = Gradients({"a": torch.zeros(2, 3), "b": torch.zeros(2, 4).double()})
    source = seeded()
    rows = [torch.randn(7, generator=source, dtype=torch.float64) for _ in range(2)]
    noise, expected = add_noise(mixed, 0.5, generator=seeded()), torch.stack(rows) / 2
    assert_close(noise["a"], expected[:, :3].float(), rtol=0, atol=0)
    assert_close(noise["b"], expected[:, 3:], rtol=0, atol=0)


@pytest.mark.parametrize("draw", [draw_normal, draw_laplace, draw_uniform])
def test_every_kind_of_noise_is_as_fine_as_the_numbers_it_is_for(draw):
    coarse, fine = (draw(99, seeded(), t) for t in (torch.float32, torch.float64))
    assert (coarse.dtype, fine.dtype) == (torch.float32, torch.float64)
    assert (fine != fine.float()).any()


@pytest.mark.parametrize(
    "defense",
    [
        partial(add_noise, std=0, generator=seeded()),
        partial(add_laplace_noise, std=0.0, generator=seeded()),
        partial(add_laplace_noise, scale=0, generator=seeded()),
        partial(prune, ratio=0),
        partial(prune_globally, ratio=0.0),
        partial(round_to, dtype=torch.float32),
        partial(round_to, dtype=torch.float64),
        partial(clip, max_norm=1e6),
        chain(),
    ],
)
def test_a_defense_at_zero_strength_is_the_identity(defense):
    assert_same(defense(gradients()), gradients())


# --- clipping -------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_clipping_agrees_with_torch(seed, max_norm):
    exact = gradients(seed=seed, dtype=torch.float64)
    clipped = clip(exact, max_norm)
    for v in range(3):
        parameters = [torch.nn.Parameter(torch.zeros(s)) for s in exact.shapes.values()]
        for parameter, term in zip(parameters, exact.values(), strict=True):
            parameter.grad = dense(term)[v].clone().to(parameter)
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        for parameter, term in zip(parameters, clipped.values(), strict=True):
            assert_close(dense(term)[v].float(), parameter.grad, rtol=1e-4, atol=1e-6)


def test_clipping_shortens_long_gradients_and_leaves_short_ones_exactly():
    exact = gradients(victims=2)
    lengths = norms(exact)
    limit = lengths.mean().item()
    clipped = clip(exact, limit)
    long = int(lengths.argmax())
    new = norms(clipped)[long].item()
    assert new == pytest.approx(limit, rel=1e-5)
    short = slice(1 - long, 2 - long)
    assert_same(clipped.take(short), exact.take(short))


def test_clipping_knows_no_unit_of_length():
    exact = gradients(dtype=torch.float64).dense()
    limit = norms(exact).min().item() / 3
    small = clip(exact.map(lambda term: term / 1024), limit / 1024)
    assert_same(small.map(lambda term: term * 1024), clip(exact, limit))


def test_clipping_a_gradient_of_zeros_gives_zeros():
    zeros = gradients().map(torch.zeros_like)
    assert_same(clip(zeros, 0.1), zeros)


def test_clipping_survives_factors_that_cancel():
    left = torch.tensor([[[1.0, 3.1], [-1.0, -3.1]]])
    right = torch.tensor([[[1.7e3, 0.3], [1.7e3, 0.3]]])
    cancelling = Gradients({"w": Outer(left, right, torch.Size((2, 2)))})
    assert dense(clip(cancelling, 1.0)["w"]).isfinite().all()


# --- combining ------------------------------------------------------------------------


def test_chain_applies_from_left_to_right():
    exact = gradients()
    noisy = partial(add_noise, std=0.3, generator=seeded())
    sparse = chain(noisy, partial(prune, ratio=0.5))(exact)
    noise_last = chain(partial(prune, ratio=0.5), DEFENSES["noise"]())(exact)
    expected = prune(add_noise(exact, 0.3, generator=seeded()), 0.5)
    assert_same(sparse, expected)
    assert (sparse["features.conv"] == 0).sum() == 3 * 24
    assert (noise_last["features.conv"] != 0).all()


def test_an_empty_chain_hands_back_what_it_was_given():
    exact = gradients()
    assert chain()(exact) is exact


def test_only_and_ignoring_split_the_parameters():
    exact, pruned = gradients(), partial(prune, ratio=0.5)
    chosen, rest = only(pruned, "features.*")(exact), ignoring(pruned, "fc.*")(exact)
    assert_same(chosen, rest)
    assert_same(chosen.select("features.*"), pruned(exact.select("features.*")))
    assert chosen["fc.bias"] is exact["fc.bias"]
    assert list(chosen) == list(exact)


def test_only_shows_a_defense_nothing_but_the_chosen():
    clipped = only(partial(clip, max_norm=0.1), "fc.*")(gradients())
    assert_close(norms(clipped.select("fc.*")), torch.full((3,), 0.1))
    assert_same(clipped.select("features.*"), gradients().select("features.*"))
    assert isinstance(clipped["features.weight"], Outer)


def test_a_defense_may_withhold_parameters():
    withheld = only(lambda g: g.drop("fc.gain"), "fc.*")(gradients())
    assert list(withheld) == ["features.weight", "features.conv", "fc.bias"]


small = partial(clip, max_norm=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: add_noise(g, -1, generator=seeded()), ValueError, "std"),
        (lambda g: add_noise(g, "1", generator=seeded()), TypeError, "std"),
        (lambda g: add_noise(g, 1, generator=0), TypeError, "torch.Generator"),
        (lambda g: add_laplace_noise(g, generator=seeded()), ValueError, "either"),
        (
            lambda g: add_laplace_noise(g, scale=1, std=1, generator=seeded()),
            ValueError,
            "either scale or std",
        ),
        (
            lambda g: add_laplace_noise(g, std=-1, generator=seeded()),
            ValueError,
            "std must be",
        ),
        (
            lambda g: add_laplace_noise(g, scale=-1, generator=seeded()),
            ValueError,
            "scale must be",
        ),
        (lambda g: prune(g, 90), ValueError, "^ratio must be .*: 0.9 keeps a tenth"),
        (lambda g: prune_globally(g, 1.0), ValueError, r"\[0, 1\)"),
        (lambda g: quantise(g, 1), ValueError, "bits must be at least 2"),
        (lambda g: quantise(g, 0, symmetric=False), ValueError, "at least 1"),
        (lambda g: quantise(g, 17), ValueError, "^bits must be .* round_to"),
        (lambda g: quantise(g, 8.0), TypeError, "whole number"),
        (lambda g: round_to(g, torch.int8), TypeError, "quantise"),
        (lambda g: round_to(g, "fp16"), TypeError, "torch.float16"),
        (lambda g: clip(g, 0), ValueError, "max_norm"),
        (
            lambda g: chain(prune, 0.9),
            TypeError,
            r"^a defense .* \(gradients\).* partial",
        ),
        (lambda g: only(small)(g), TypeError, "pattern"),
        (lambda g: ignoring(small, 3)(g), TypeError, "pattern"),
        (lambda g: only("clip", "fc.*"), TypeError, "must be a function"),
        (lambda g: ignoring(None, "fc.*"), TypeError, "must be a function"),
        (lambda g: only(small, "fd.bias")(g), ValueError, "fc.bias"),
        (lambda g: ignoring(small, "*")(g), ValueError, "none left"),
        (lambda g: prune(dict(g), 0.5), TypeError, "Gradients, got dict.*from_list"),
        (lambda g: prune_globally([], 0.5), TypeError, "got list.*from_list"),
        (lambda g: quantise([]), TypeError, "got list.*from_list"),
        (lambda g: round_to([]), TypeError, "got list.*from_list"),
        (lambda g: clip(torch.zeros(2), 1), TypeError, "got Tensor.*from_list"),
        (
            lambda g: add_noise([], std=1, generator=seeded()),
            TypeError,
            "got list.*from_list",
        ),
        (
            lambda g: add_laplace_noise([], std=1, generator=seeded()),
            TypeError,
            "got list.*from_list",
        ),
        (lambda g: bytes_on_wire([]), TypeError, "got list.*from_list"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(gradients())
