"""What runs through each parameter of a model, whatever layer holds it.

A copy of the model runs once on noise while every operation is listened to. The noise
is of distinct numbers, so that each number that comes in somewhere tells where in the
example it stood.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from precode_lib.attacks.listening import Listener
from precode_lib.attacks.uses import LOOKUP, Trace, Use
from precode_lib.bottleneck import quiet
from precode_lib.federated import Observation
from precode_lib.gradients import differentiable, first_parameter, one_at_a_time


def trace_of(observation: Observation) -> Trace:
    """Run a copy of the model once, and listen.

    On noise; where the model looks numbers up, on random tokens in their places.
    """
    probe = probe_of(observation)
    noise = noise_for(observation).to(first_parameter(probe))
    try:
        return traced(probe, noise)
    except Exception as error:  # whatever a model may raise
        for example in _with_tokens(probe, noise):
            with suppress(Exception):
                return traced(probe, example)
        raise ValueError(
            "the model does not run on noise of an example's shape, "
            f"{tuple(observation.image_shape)} ({error}), so what runs through its "
            "parameters is unknown."
        ) from error


def _with_tokens(probe: nn.Module, noise: Tensor) -> Iterator[Tensor]:
    """Examples with whole numbers where tokens are; where nothing else is, throughout.

    All zeros and ones first, which every table has rows for: that run tells the tables.
    """
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(2, noise.shape, generator=generator).to(noise.device)
    for plain, rest in ((bits, bits), (bits.to(noise), noise)):
        try:
            trace = traced(probe, plain)
        except Exception:
            continue
        tables = [(place_of_tokens(use, trace), use) for use in trace.uses]
        tables = [(at, use) for at, use in tables if at is not None]
        example = rest.clone()
        for at, use in tables:
            rows, count = use.window.shape[0], use.num_positions
            tokens = torch.randperm(max(rows, count), generator=generator)[:count]
            tokens = tokens % rows  # unlike each other, as far as there are so many
            example.view(-1)[at : at + count] = tokens.to(example)
        if tables:
            yield example


def probe_of(observation: Observation) -> nn.Module:
    """A copy to look at, as the clients ran it, dropout and all.

    But batch norms, which refuse one example, in evaluation mode.
    """
    probe = copy.deepcopy(observation.client().model)
    for module in probe.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    # Half precision would give many numbers of the noise the same value.
    return probe.float() if first_parameter(probe).dtype.itemsize < 4 else probe


@one_at_a_time
def traced(probe: nn.Module, example: Tensor) -> Trace:
    """All that shows when this example runs through this model, which may change."""
    trace = Trace(example)
    recurs = any(isinstance(m, nn.RNNBase) for m in probe.modules())
    plain = _in_products() if recurs else nullcontext()
    with differentiable(), quiet(probe), plain, Listener(probe, trace):
        probe(example)
    return trace


@contextmanager
def _in_products() -> Iterator[None]:
    """Run recurrent layers as the products that they are made of."""
    was = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = was


def place_of_tokens(use: Use, trace: Trace) -> int | None:
    """Where in the flattened example a lookup's numbers stand, one after another."""
    if use.kind != LOOKUP or use.num_positions > trace.example.numel():
        return None
    numbers = use.x.flatten().to(trace.example)
    windows = trace.example.flatten().unfold(0, len(numbers), 1)
    hits = (windows == numbers).all(1).nonzero().flatten().tolist()
    return hits[0] if hits else None


def noise_for(observation: Observation, seed: int = 0) -> Tensor:
    """One example of distinct numbers, in random order: (1, C, H, W)."""
    shape = observation.image_shape
    like = first_parameter(observation.model)
    generator = torch.Generator().manual_seed(seed)  # any fixed one will do
    order = torch.randperm(shape.numel(), generator=generator)
    # The odd number keeps zero out, which paddings are made of.
    spread = (order.double() + 0.5) / shape.numel() * 4 - 1.8734567
    dtype = torch.promote_types(like.dtype, torch.float32)
    return spread.view(1, *shape).to(like.device, dtype)
