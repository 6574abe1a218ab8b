"""Plain data, the only thing that crosses between an answer and its marker.

Numbers, text, None, tensors, and lists, tuples, sets and dicts of them become JSON and
come back equal. A few relatives become one of these: an array a tensor, a fraction a
float, a range or a dict's keys a list. Nothing else crosses: no objects, so no code,
and nothing is unpickled.
"""

import base64
import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 64_000_000  # characters of JSON; the largest honest answer is far smaller
DEEPEST = 12  # lists in lists in lists
_TAG = "~"
_LISTS = (range, type({}.keys()), type({}.values()))  # what a list says as well
# No others: torch ends the process where bytes become a quantised tensor.
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128),
    )
}


class UnplainError(TypeError):
    """A value that is not plain data; the message says which and what to do."""


class Todo:
    """What stands where an answer is still missing."""

    def __repr__(self) -> str:
        return "TODO"


TODO = Todo()


def dump(value: Any) -> str:
    """The value as JSON text.

    Raises:
        UnplainError: it holds something else than plain data, or too much of it.
    """
    try:
        text = json.dumps(_to_json(value, 0))
    except ValueError:  # Python writes no more digits
        raise UnplainError("a number of more than 4,300 digits is too long") from None
    if len(text) > LARGEST:
        raise UnplainError(
            f"{len(text):,} characters are too many; {LARGEST:,} are allowed"
        )
    return text


def load(text: str) -> Any:
    """The value of a text by `dump`; refuses anything else with a ValueError."""
    try:
        if len(text) > LARGEST:
            raise ValueError(f"{len(text):,} characters are too many")
        return _from_json(json.loads(text), 0)
    except (LookupError, TypeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"not plain data: {error}") from error


def copy(value: Any) -> Any:
    """An equal value that shares nothing with the one given."""
    return load(dump(value))


def _to_json(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise UnplainError(f"more than {DEEPEST} lists in one another are not accepted")
    # Exact types only: a subclass may come with code of its own.
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Todo):
        return {_TAG: "todo"}
    if isinstance(value, np.ndarray | np.generic):
        return _array_to_json(value, depth)
    if isinstance(value, Tensor):
        return _tensor_to_json(value)
    if type(value) in (Fraction, Decimal, complex):
        return _number_to_json(value)
    return _collection_to_json(value, depth)


def _collection_to_json(value: Any, depth: int) -> Any:
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            raise UnplainError("a dict's keys must be strings")
        entries = {key: _to_json(item, depth + 1) for key, item in value.items()}
        return {_TAG: "dict", "entries": entries}
    kind = {list: "list", tuple: "tuple", set: "set", frozenset: "set"}.get(type(value))
    if kind is None and type(value) not in _LISTS:
        raise UnplainError(_not_accepted(value))
    items = [_to_json(item, depth + 1) for item in value]
    return {_TAG: kind, "items": items} if kind in ("tuple", "set") else items


def _not_accepted(value: Any) -> str:
    name = type(value).__name__
    if hasattr(type(value), "__next__"):
        return f"a {name} is not accepted; make a list of it with list(...)"
    return f"a {name} is not accepted; use numbers, text, tensors, or lists of them"


def _number_to_json(value: Any) -> Any:
    if type(value) is complex:
        return _tensor_to_json(torch.tensor(value, dtype=torch.complex128))
    try:
        return float(value)
    except (OverflowError, ValueError):
        raise UnplainError("a number too large for a float is not accepted") from None


def _array_to_json(value: Any, depth: int) -> Any:
    # A copy in order: torch knows neither negative strides nor foreign byte orders.
    array = np.array(value, order="C")
    if array.dtype.kind in "OU":  # text, fractions and the like
        return _to_json(array.tolist(), depth + 1)
    wide = {"u": np.int64, "f": np.float64, "c": np.complex128}.get(array.dtype.kind)
    try:
        kept = array.dtype.newbyteorder("=")
        if str(kept) not in _DTYPES and wide is not None:
            kept = np.dtype(wide)
            if kept.kind == "i" and array.max(initial=0) > np.iinfo(kept).max:
                raise UnplainError("a number too large for 64 bits is not accepted")
        return _tensor_to_json(torch.from_numpy(array.astype(kept)))
    except (TypeError, ValueError) as problem:
        raise UnplainError(f"an array of {array.dtype}: {problem}") from None


def _tensor_to_json(tensor: Tensor) -> dict:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise UnplainError("only dense tensors are accepted; call .to_dense()")
    try:
        dense = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    except RuntimeError as problem:  # on no device, or in a transform
        raise UnplainError(f"this tensor has no numbers: {problem}") from None
    name = str(dense.dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise UnplainError(f"a tensor of {name} is not accepted; convert it first")
    # Bytes, because numpy knows no bfloat16.
    data = (
        dense.reshape(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b""
    )
    return {
        _TAG: "tensor",
        "dtype": name,
        "shape": list(dense.shape),
        "data": base64.b64encode(data).decode("ascii"),
    }


def _from_json(value: Any, depth: int) -> Any:
    if depth > 2 * DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [_from_json(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value[_TAG]
    if kind == "todo":
        return TODO
    if kind == "tuple":
        return tuple(_from_json(value["items"], depth + 1))
    if kind == "set":
        return frozenset(map(_frozen, _from_json(value["items"], depth)))
    if kind == "dict":
        entries = value["entries"]
        return {key: _from_json(entries[key], depth + 1) for key in entries}
    if kind == "tensor":
        return _tensor_from_json(value)
    raise ValueError(f"not plain data: {kind!r}")


def _frozen(item: Any) -> Any:
    """As it can lie in a set."""
    return tuple(map(_frozen, item)) if isinstance(item, list | tuple) else item


def _tensor_from_json(value: dict) -> Tensor:
    dtype = _DTYPES[value["dtype"]]
    data = base64.b64decode(value["data"], validate=True)
    shape = [int(size) for size in value["shape"]]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes do not fill a {dtype} of shape {shape}")
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
