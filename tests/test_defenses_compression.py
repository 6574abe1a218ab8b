"""Pruning, rounding and what they cost, against numpy, torch and packed bytes."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from precode_lib.defenses import (
    as_bitmap,
    as_floats,
    as_indices,
    as_steps,
    bytes_on_wire,
    prune,
    prune_at_random,
    prune_globally,
    quantise,
    round_to,
)
from precode_lib.gradients import Gradients, Outer, dense


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def one(*rows):
    return Gradients({"w": torch.tensor(rows, dtype=torch.float32)})


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def several(victims=3, seed=0):
    sizes = {"a": (7, 5), "b": (7,), "c": (4, 3, 3)}
    draws = {n: normal(victims, *s, seed=seed) for n, s in sizes.items()}
    return Gradients({n: t * 1000.0 ** -"abc".index(n) for n, t in draws.items()})


# --- pruning --------------------------------------------------------------------------


def pruned_by_sorting(row, num_dropped):
    """numpy's stable sort by magnitude, largest first: the rest is zeroed."""
    order = np.argsort(-np.abs(row), kind="stable")
    kept = row.copy()
    kept[order[len(row) - num_dropped :]] = 0
    return kept


# Few values, so that ties are common, and both zeros.
ENTRIES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.5, 1e-30, float("inf")])


@settings(max_examples=200)
@given(st.lists(ENTRIES, min_size=1, max_size=40), st.integers(0, 99))
def test_pruning_keeps_exactly_the_largest_and_the_first_of_equals(row, percent):
    num_dropped = percent * len(row) // 100
    kept = prune(one(row), percent / 100)["w"][0].numpy()
    np.testing.assert_array_equal(
        kept, pruned_by_sorting(np.array(row, np.float32), num_dropped)
    )


@pytest.mark.parametrize("ratio", [0.1, 0.29, 0.57, 0.58, 0.7, 0.9, 0.99])
def test_the_number_of_dropped_entries_is_that_of_the_decimal_as_written(ratio):
    # 0.29 * 100, 0.57 * 100 and 0.58 * 100 all fall short in floating point.
    kept = prune(Gradients({"w": normal(2, 100)}), ratio)["w"]
    assert (kept == 0).sum(1).tolist() == [round(100 * ratio)] * 2


def test_pruning_is_per_tensor_and_global_pruning_is_over_all_of_a_victim():
    exact = several()
    by_tensor, overall = prune(exact, 0.5), prune_globally(exact, 0.5)
    for name, term in exact.items():
        dropped = (by_tensor[name] == 0).flatten(1).sum(1)
        assert dropped.tolist() == [term[0].numel() // 2] * 3
    flat, kept = (
        torch.cat([t.flatten(1) for t in g.values()], 1).numpy()
        for g in (exact, overall)
    )
    for row, expected in zip(flat, kept, strict=True):
        np.testing.assert_array_equal(pruned_by_sorting(row, len(row) // 2), expected)
    assert (overall["c"] == 0).all()  # a million times smaller than "a"
    assert (by_tensor["c"] != 0).any()


def test_global_pruning_keeps_each_parameters_dtype():
    mixed = Gradients({"a": normal(2, 4).half(), "b": normal(2, 4).double()})
    pruned = prune_globally(mixed, 0.5)
    assert [pruned[n].dtype for n in "ab"] == [torch.float16, torch.float64]


def test_pruning_does_not_hide_a_gradient_that_is_no_number():
    kept = prune(one([1.0, float("nan"), 3.0, 2.0]), 0.5)["w"][0]
    assert kept.isnan().tolist() == [False, True, False, False]
    assert kept[[0, 2, 3]].tolist() == [0.0, 3.0, 0.0]


def test_pruning_a_factored_gradient_prunes_its_matrix():
    outer = Outer(normal(2, 1, 6), normal(2, 1, 5, seed=1), torch.Size((6, 5)))
    pruned = prune(Gradients({"w": outer}), 0.4)["w"]
    assert_close(pruned, prune(Gradients({"w": outer.dense()}), 0.4)["w"])


def test_random_pruning_drops_a_share_of_all_sizes_and_keeps_the_rest_as_it_is():
    exact = Gradients({"w": normal(3, 40_000), "b": normal(3)})
    kept = prune_at_random(exact, 0.3, generator=seeded())
    gone = kept["w"] == 0
    assert torch.equal(kept["w"][~gone], exact["w"][~gone])
    share = gone.double().mean(1)
    assert_close(share, torch.full_like(share, 0.3), atol=0.01, rtol=0)
    large = exact["w"].abs() > 2
    assert abs(gone[large].double().mean() - 0.3) < 0.03
    assert not torch.equal(gone[0], gone[1])
    again = prune_at_random(exact.take(0), 0.3, generator=seeded())
    assert torch.equal(again["w"][0], kept["w"][0])
    whole = prune_at_random(exact, 0, generator=seeded())
    assert torch.equal(whole["w"], exact["w"])
    with pytest.raises(ValueError, match="share to drop"):
        prune_at_random(exact, 1, generator=seeded())


# --- rounding -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_short_floats_are_those_of_torch(dtype):
    exact = Gradients({"w": normal(2, 50)})
    rounded = round_to(exact, dtype)["w"]
    assert torch.equal(rounded, exact["w"].to(dtype).float())
    assert rounded.dtype == torch.float32


def test_half_precision_agrees_with_numpy_and_loses_the_smallest():
    exact = np.float32([1e-3, 1 / 3, -65504, 2e-8, -5e-8, 4e-8])
    rounded = round_to(one(exact.tolist()))["w"][0].numpy()
    np.testing.assert_array_equal(rounded, exact.astype(np.float16).astype(np.float32))
    assert rounded[3] == 0 and rounded[5] != 0


@pytest.mark.parametrize("source", [torch.float32, torch.float64, torch.bfloat16])
def test_entries_beyond_the_range_become_the_largest_number(source):
    term = torch.tensor([[1e5, -3e38, float("inf"), 2.0]]).to(source)
    rounded = round_to(Gradients({"w": term}))["w"]
    assert rounded.dtype == source
    expected = torch.tensor([65504.0, -65504.0, 65504.0, 2.0]).to(source)
    assert torch.equal(rounded[0], expected)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 16), st.booleans(), st.booleans())
def test_the_error_of_a_grid_is_half_a_step_or_one_if_stochastic(
    seed, bits, symmetric, stochastic
):
    assume(bits > 1 or not symmetric)
    term = normal(2, 60, seed=seed, dtype=torch.float64)
    term = term + (seed % 5 - 2)  # also grids whose range is all on one side of 0
    source = seeded(seed) if stochastic else None
    exact = Gradients({"w": term})
    rounded = quantise(exact, bits, symmetric=symmetric, generator=source)["w"]
    if symmetric:
        step = term.abs().amax(1) / (2 ** (bits - 1) - 1)
    else:
        step = (term.amax(1).clamp(min=0) - term.amin(1).clamp(max=0)) / (2**bits - 1)
    worst = (rounded - term).abs().amax(1) / step
    assert (worst <= (1 if stochastic else 0.5) + 1e-6).all()
    whole = rounded / step[:, None]
    assert_close(whole, whole.round(), rtol=0, atol=1e-6)
    for row in rounded:
        assert len(row.unique()) <= 2**bits - symmetric


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_symmetric_grids_agree_with_torch(bits):
    exact = normal(4, 50)
    highest = 2 ** (bits - 1) - 1
    rounded = quantise(Gradients({"w": exact}), bits)["w"]
    for row, got in zip(exact, rounded, strict=True):
        step = (row.abs().max() / highest).item()
        ends = (-highest, highest)
        expected = torch.fake_quantize_per_tensor_affine(row, step, 0, *ends)
        assert_close(got, expected)


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_affine_grids_agree_with_torch(bits):
    exact = normal(4, 50, seed=bits) + torch.tensor([[0.0], [1.0], [5.0], [-5.0]])
    rounded = quantise(Gradients({"w": exact}), bits, symmetric=False)["w"]
    highest = 2**bits - 1
    for row, got in zip(exact, rounded, strict=True):
        low, high = row.min().clamp(max=0), row.max().clamp(min=0)
        step = ((high - low) / highest).item()
        zero = round(-low.item() / step)
        expected = torch.fake_quantize_per_tensor_affine(row, step, zero, 0, highest)
        assert_close(got, expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_stochastic_rounding_is_right_on_average(symmetric):
    row = torch.tensor([[-1.0, -0.31, 0.0, 0.07, 0.5, 2.0]], dtype=torch.float64)
    many = Gradients({"w": row.expand(20_000, 6)})
    rounded = quantise(many, 3, symmetric=symmetric, generator=seeded())["w"]
    step = 2 / 3 if symmetric else 3 / 7
    low = 0 if symmetric else 1  # -1 is no whole number of steps of an affine grid
    average = rounded.mean(0)[low:]
    assert_close(average, row[0, low:], rtol=0, atol=4 * step / 2 / 20_000**0.5)
    assert (rounded[:, 2] == 0).all()
    assert len(rounded[:, 4].unique()) == 2


def test_rounding_to_the_nearest_is_not_right_on_average():
    rounded = quantise(one([0.07, 2.0]), 3)["w"]
    assert rounded.tolist() == [[0.0, 2.0]]


def test_zeros_stay_zeros_on_every_grid():
    zeros = Gradients({"w": torch.zeros(2, 5)})
    for options in ({}, {"symmetric": False}, {"generator": seeded()}):
        assert torch.equal(quantise(zeros, **options)["w"], zeros["w"])


def test_every_tensor_has_a_step_of_its_own():
    small = torch.tensor([[0.03, 0.01]])
    pair = Gradients({"large": 1000 * small, "small": small})
    rounded = quantise(pair, 8)
    assert (rounded["small"] != 0).all()
    assert_close(rounded["small"], pair["small"], rtol=2e-2, atol=0)


def test_half_precision_gradients_keep_what_their_grid_can_hold():
    term = normal(1, 40).half()
    rounded = quantise(Gradients({"w": term}), 16)["w"]
    assert rounded.dtype == torch.float16
    assert_close(rounded, term, rtol=1e-3, atol=1e-4)


# --- the wire -------------------------------------------------------------------------


def packed_floats(row, dtype=np.float32):
    return row.astype(dtype).tobytes()


def packed_indices(row):
    (places,) = row.nonzero()
    count = np.uint32(len(places)).tobytes()
    return count + places.astype(np.uint32).tobytes() + row[places].tobytes()


def unpacked_indices(blob, size):
    count = np.frombuffer(blob[:4], np.uint32)[0]
    places = np.frombuffer(blob[4 : 4 + 4 * count], np.uint32)
    row = np.zeros(size, np.float32)
    row[places] = np.frombuffer(blob[4 + 4 * count :], np.float32)
    return row


def packed_bitmap(row):
    return np.packbits(row != 0).tobytes() + row[row != 0].tobytes()


def unpacked_bitmap(blob, size):
    num_bytes = -(-size // 8)
    mask = np.unpackbits(np.frombuffer(blob[:num_bytes], np.uint8), count=size) == 1
    row = np.zeros(size, np.float32)
    row[mask] = np.frombuffer(blob[num_bytes:], np.float32)
    return row


def packed_steps(row, bits):
    """Signed steps as unsigned numbers of `bits` bits, after the step's 4 bytes."""
    highest = 2 ** (bits - 1) - 1
    step = np.float32(np.abs(row).max() / highest)
    numbers = np.rint(row / step).astype(int) + highest
    digits = (numbers[:, None] >> np.arange(bits)[::-1]) & 1
    return step.tobytes() + np.packbits(digits.astype(np.uint8).ravel()).tobytes()


def unpacked_steps(blob, size, bits):
    step = np.frombuffer(blob[:4], np.float32)[0]
    body = np.frombuffer(blob[4:], np.uint8)
    digits = np.unpackbits(body, count=size * bits).reshape(size, bits)
    numbers = digits.astype(int) @ (1 << np.arange(bits)[::-1])
    return (numbers - (2 ** (bits - 1) - 1)).astype(np.float32) * step


def sent_by_each(gradients, pack):
    """Total length of the packed parameters of each victim, and the blobs."""
    rows = [term.flatten(1).numpy() for term in gradients.values()]
    return [
        [(pack(row[v]), row[v]) for row in rows] for v in range(gradients.num_victims)
    ]


WIRES = {
    "floats": (as_floats, packed_floats, lambda b, n: np.frombuffer(b, np.float32)),
    "indices": (as_indices, packed_indices, unpacked_indices),
    "bitmap": (as_bitmap, packed_bitmap, unpacked_bitmap),
}


@pytest.mark.parametrize("kind", WIRES)
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.9])
def test_the_bytes_of_a_pruned_gradient_are_those_of_a_packed_one(kind, ratio):
    encoding, pack, unpack = WIRES[kind]
    pruned = prune_globally(several(), ratio)
    sent = sent_by_each(pruned, pack)
    expected = [sum(len(blob) for blob, _ in blobs) for blobs in sent]
    assert bytes_on_wire(pruned, encoding).tolist() == expected
    for blob, row in itertools.chain(*sent):
        np.testing.assert_array_equal(unpack(blob, len(row)), row)


@pytest.mark.parametrize("bits", [2, 3, 8, 11])
def test_the_bytes_of_a_grid_are_those_of_a_packed_one(bits):
    rounded = quantise(several(), bits)
    sent = sent_by_each(rounded, partial(packed_steps, bits=bits))
    expected = [sum(len(blob) for blob, _ in blobs) for blobs in sent]
    encoding = partial(as_steps, bits=bits)
    assert bytes_on_wire(rounded, encoding).tolist() == expected
    for blob, row in itertools.chain(*sent):
        np.testing.assert_allclose(
            unpacked_steps(blob, len(row), bits), row, rtol=1e-6, atol=0
        )
    affine = bytes_on_wire(rounded, partial(as_steps, bits=bits, symmetric=False))
    assert (affine - torch.tensor(expected)).tolist() == [3 * 4] * 3


def test_a_grid_has_eight_bits_unless_it_is_told_and_may_have_one():
    exact = several()
    rounded, told = quantise(exact), quantise(exact, 8)
    assert all(torch.equal(rounded[name], told[name]) for name in exact)
    entries = torch.ones(1, 16)
    assert as_steps(entries).tolist() == [16 + 4]
    assert as_steps(entries, bits=1, symmetric=False).tolist() == [2 + 8]


def test_half_precision_halves_the_bytes():
    exact = several()
    half = bytes_on_wire(exact, partial(as_floats, bits=16))
    assert (2 * half).tolist() == bytes_on_wire(exact).tolist() == [4 * 78] * 3
    values = partial(as_bitmap, bits=16)(torch.ones(1, 80))
    assert values.tolist() == [10 + 160]
    assert as_indices(torch.eye(3)[:2], bits=16).tolist() == [4 + 4 + 2] * 2


def test_a_tenth_pruned_costs_more_as_indices_and_less_as_a_bitmap():
    pruned = prune(Gradients({"w": normal(1, 10_000)}), 0.1)
    whole, indices, bitmap = (
        bytes_on_wire(pruned, e).item() for e in (as_floats, as_indices, as_bitmap)
    )
    assert (whole, indices, bitmap) == (40_000, 72_004, 37_250)


def test_factored_gradients_cross_the_wire_dense():
    outer = Outer(normal(2, 1, 6), normal(2, 1, 5, seed=1), torch.Size((6, 5)))
    gradients = Gradients({"w": outer})
    assert bytes_on_wire(gradients).tolist() == [120, 120]
    assert dense(gradients["w"]).shape == (2, 6, 5)


@pytest.mark.parametrize(
    ("encoding", "error", "message"),
    [
        ("sparse", TypeError, "as_floats"),
        (partial(as_floats, bits=0), ValueError, "bits"),
        (partial(as_indices, bits=1.5), TypeError, "bits"),
        (partial(as_bitmap, bits=-1), ValueError, "bits"),
        (partial(as_steps, bits=17), ValueError, r"^bits must be in \[1, 16\]"),
        (partial(as_steps, bits=1.5), TypeError, "bits"),
    ],
)
def test_encodings_that_cannot_be_are_refused(encoding, error, message):
    with pytest.raises(error, match=message):
        bytes_on_wire(several(), encoding)
