"""Plain data, the only thing that crosses between an answer and its marker.

Numbers, text, None, tensors, and lists, tuples and dicts of them become JSON and come
back equal. Nothing else does: no objects, so no code, and nothing is unpickled.
"""

import base64
import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 64_000_000  # characters of JSON; the largest honest answer is far smaller
DEEPEST = 12  # lists in lists in lists
_TAG = "~"
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
    text = json.dumps(_to_json(value, 0))
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
    if type(value) in (list, tuple):
        items = [_to_json(item, depth + 1) for item in value]
        return items if type(value) is list else {_TAG: "tuple", "items": items}
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            raise UnplainError("a dict's keys must be strings")
        entries = {key: _to_json(item, depth + 1) for key, item in value.items()}
        return {_TAG: "dict", "entries": entries}
    if isinstance(value, np.ndarray | np.generic):
        value = torch.from_numpy(np.asarray(value))
    if isinstance(value, Tensor):
        return _tensor_to_json(value)
    raise UnplainError(
        f"a {type(value).__name__} is not accepted; use numbers, text, tensors, or "
        "lists of them"
    )


def _tensor_to_json(tensor: Tensor) -> dict:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise UnplainError("only dense tensors are accepted; call .to_dense()")
    dense = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
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
    if kind == "dict":
        entries = value["entries"]
        return {key: _from_json(entries[key], depth + 1) for key in entries}
    if kind == "tensor":
        return _tensor_from_json(value)
    raise ValueError(f"not plain data: {kind!r}")


def _tensor_from_json(value: dict) -> Tensor:
    dtype = _DTYPES[value["dtype"]]
    data = base64.b64decode(value["data"], validate=True)
    shape = [int(size) for size in value["shape"]]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes do not fill a {dtype} of shape {shape}")
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
