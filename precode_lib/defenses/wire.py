"""What a gradient costs on the wire, in bytes.

An encoding takes the entries of one parameter, (V, n), and says how many bytes each
victim sends for it: (V,). A server that knows the model's shapes decodes them exactly
to what the defense returned.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from precode_lib.basics.validation import check_count, check_function, check_range
from precode_lib.defenses.entries import rows
from precode_lib.gradients import Gradients, check_gradients

Encoding = Callable[[Tensor], Tensor]


def as_floats(entries: Tensor, *, bits: int = 32) -> Tensor:
    """Every entry as a float of so many bits: n · bits / 8."""
    check_count(bits, "bits")
    return _same(entries, _whole_bytes(entries.shape[1] * bits))


def as_indices(entries: Tensor, *, bits: int = 32) -> Tensor:
    """Of every entry that is not 0 its place (4 bytes) and value, and how many (4).

    Dearer than `as_floats` unless more than half of the 32 bit entries are 0.
    """
    check_count(bits, "bits")
    counts = (entries != 0).sum(1)
    return 4 + 4 * counts + _whole_bytes(counts * bits)


def as_bitmap(entries: Tensor, *, bits: int = 32) -> Tensor:
    """One bit per entry that says whether it is 0, and the values of the others."""
    check_count(bits, "bits")
    counts = (entries != 0).sum(1)
    return _whole_bytes(entries.shape[1]) + _whole_bytes(counts * bits)


def as_steps(entries: Tensor, *, bits: int = 8, symmetric: bool = True) -> Tensor:
    """What `quantise` needs: n whole numbers of so many bits, and the step (4 bytes).

    An affine grid sends the place of its zero as well (4 bytes).
    """
    check_count(bits, "bits")
    check_range(bits, "bits", 1, 16)
    extra = 4 if symmetric else 8
    return _same(entries, _whole_bytes(entries.shape[1] * bits) + extra)


def bytes_on_wire(gradients: Gradients, encoding: Encoding = as_floats) -> Tensor:
    """How many bytes each victim sends: (V,) int64.

    Without an encoding, dense 32 bit floats. Bind options by partial, as in
    `bytes_on_wire(gradients, partial(as_steps, bits=4))`.
    """
    check_gradients(gradients)
    check_function(encoding, "encoding", "as_floats")
    terms = gradients.dense().values()
    return torch.stack([encoding(rows(term)) for term in terms]).sum(0)


def _whole_bytes(num_bits):
    return (num_bits + 7) // 8


def _same(entries: Tensor, num_bytes: int) -> Tensor:
    return torch.full((len(entries),), num_bytes, device=entries.device)
