"""What may cross from an answer to its marker, and what may not."""

import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from precode_lib.marking import TODO
from precode_lib.marking.plain import DEEPEST, UnplainError, copy, dump, load

WORDS = st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(WORDS, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    came = copy(value)
    assert came == value
    assert type(came) is type(value)


FLOATS = [torch.float64, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.bool, torch.cfloat])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_tensors_of_every_kind_come_back_equal(dtype, shape, generator):
    tensor = (3 * torch.rand(shape, generator=generator)).to(dtype)
    came = copy(tensor)
    assert_close(came, tensor, rtol=0, atol=0)
    assert came.dtype == dtype


def test_a_copy_shares_no_memory_and_no_history():
    tensor = torch.ones(2, requires_grad=True)
    came = copy([2 * tensor])[0]
    came.zero_()
    assert tensor.tolist() == [1, 1]
    assert not came.requires_grad


def test_views_and_numpy_become_ordinary_tensors():
    tensor = torch.arange(6.0).view(2, 3).T
    assert_close(copy(tensor), tensor.contiguous())
    assert_close(copy(np.float32(0.5)), torch.tensor(0.5))
    assert_close(copy(np.arange(3)), torch.arange(3))
    assert_close(copy(torch.tensor(1j).conj()), torch.tensor(-1j))


BACKWARDS = np.arange(6.0).reshape(2, 3)[::-1, ::-1]


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (BACKWARDS, [[5, 4, 3], [2, 1, 0]]),
        (np.flip(np.arange(3)), [2, 1, 0]),
        (np.arange(3).astype(">f4"), [0, 1, 2]),
        (np.array([1, 2], dtype=np.uint32), [1, 2]),
        (np.array([0.5], dtype=np.longdouble), [0.5]),
        (np.float64(0.25)[...], 0.25),
        (np.ma.array([1.0, 2.0]), [1, 2]),
    ],
)
def test_arrays_in_any_order_of_entries_and_bytes_cross(array, values):
    came = copy(array)
    assert isinstance(came, torch.Tensor)
    assert came.tolist() == values


def test_relatives_of_numbers_and_lists_cross_as_these():
    assert copy(Fraction(1, 4)) == 0.25
    assert copy(Decimal("0.5")) == 0.5
    assert copy(range(3)) == [0, 1, 2]
    assert copy({"b": 1, "a": 2}.keys()) == ["b", "a"]
    assert copy({"b": 1, "a": 2}.values()) == [1, 2]
    assert copy(np.array([Fraction(1, 4), 2])) == [0.25, 2]
    assert copy(np.array(["a", "b"])) == ["a", "b"]
    assert copy(np.str_("a")) == "a"
    assert copy(2j).item() == 2j


def test_a_set_stays_one_so_that_its_order_says_nothing():
    came = copy({1, 2.5, "a", (3, (4, 5)), frozenset({6})})
    assert came == frozenset({1, 2.5, "a", (3, (4, 5)), frozenset({6})})
    assert copy({range(2)}) == {(0, 1)}


def test_numbers_that_are_not_finite_cross_too():
    assert math.isnan(copy(math.nan))
    assert copy([math.inf, -math.inf]) == [math.inf, -math.inf]


def test_a_missing_answer_stays_a_missing_answer():
    assert copy([TODO])[0] is TODO


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "a object is not accepted"),
        (torch.nn.Linear(1, 1), "a Linear is not accepted"),
        (len, "not accepted"),
        (Text("a string with code of its own"), "a Text is not accepted"),
        ({1: 2}, "keys must be strings"),
        (torch.eye(2).to_sparse(), "dense"),
        (np.array([object()]), "a object is not accepted"),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), "datetime64"),
        (np.array([2**64 - 1], dtype=np.uint64), "too large"),
        ([Fraction(10**400)], "too large"),
        ((n for n in [1]), "a generator is not accepted; make a list of it"),
        ([10**5000], "digits"),
        (torch.ones(1, device="meta"), "no numbers"),
    ],
)
def test_anything_else_is_refused(value, message):
    with pytest.raises(TypeError, match=message):
        dump(value)


def test_lists_that_hold_themselves_are_refused():
    endless: list = []
    endless.append(endless)
    with pytest.raises(UnplainError, match=f"more than {DEEPEST} lists"):
        dump(endless)


def tagged(**fields) -> str:
    return json.dumps({"~": "tensor", **fields})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": 1}',
        '{"~": "function"}',
        '{"~": "tuple"}',
        '{"~": "tuple", "items": 3}',
        '{"~": "set", "items": 3}',
        '{"~": "set", "items": [{"~": "dict", "entries": {}}]}',
        '{"~": "dict", "entries": [1]}',
        "[" * 100_000,
        "[" * 50 + "]" * 50,
        tagged(dtype="float32", shape=[2], data="AAAA"),
        tagged(dtype="float32", shape=[-1], data=""),
        tagged(dtype="load", shape=[0], data=""),
        tagged(dtype="float32", shape=[10**18, 10**18], data=""),
        tagged(dtype="float32", shape="no", data=""),
        tagged(dtype=3, shape=[0], data=""),
        tagged(dtype="float32", shape=[1], data="!"),
    ],
)
def test_a_forged_text_is_refused_by_a_value_error(text):
    with pytest.raises(ValueError):
        load(text)


def test_too_much_is_refused_both_ways(monkeypatch):
    monkeypatch.setattr("precode_lib.marking.plain.LARGEST", 100)
    with pytest.raises(UnplainError, match="too many"):
        dump("a" * 100)
    with pytest.raises(ValueError, match="too many"):
        load('"' + "a" * 100 + '"')
