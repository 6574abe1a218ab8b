"""Whether a model can be audited at all: it takes the examples, and stays as it is."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from precode_lib.audit.findings import first_line
from precode_lib.audit.samples import Sample, leaves
from precode_lib.basics.validation import check_finite
from precode_lib.bottleneck import quiet


def check_runs(made: nn.Module, clients_have: Sample) -> None:
    """Refuse a model that does not take these examples, or that changes itself.

    It runs twice on the same examples, with the same random numbers.
    """
    for name, value in made.named_parameters():
        check_finite(value.detach(), f"the model's parameter {name!r}")
    before = {n: v.clone() for n, v in made.named_parameters()}
    outputs = [_outputs(made, clients_have) for _ in range(2)]
    for name, value in made.named_parameters():
        if not torch.equal(before[name], value):
            raise ValueError(
                f"the model changes its own parameter {name!r} when it runs: what its "
                "gradient is then depends on how often it ran before."
            )
    for first, second in zip(*outputs, strict=True):
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):
            raise ValueError(
                "the model changes itself when it runs: twice the same examples, with "
                "the same random numbers, gave two results. Keep no state between "
                "calls but in buffers."
            )
        if not first.isfinite().all():
            raise ValueError("the model returns NaN or infinity for these examples.")


def _outputs(made: nn.Module, clients_have: Sample) -> list[Tensor]:
    buffers = {name: b.clone() for name, b in made.named_buffers()}
    inputs = clients_have.inputs
    with torch.random.fork_rng(devices=[]), torch.no_grad(), quiet(made):
        torch.manual_seed(0)
        two = [each[:2] for each in leaves(inputs)]
        args, named_inputs = tuple(two), {}
        if isinstance(inputs, dict):
            args, named_inputs = (), dict(zip(inputs, two, strict=True))
        try:
            made_of_it = functional_call(made, buffers, args, named_inputs)
        except Exception as problem:
            shapes = ", ".join(str(tuple(each.shape[1:])) for each in two)
            raise ValueError(
                f"the model does not take examples of shape {shapes}: "
                f"{first_line(problem)}"
            ) from None
    return _tensors(made_of_it)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        return [t for each in value.values() for t in _tensors(each)]
    if isinstance(value, tuple | list):
        return [t for each in value for t in _tensors(each)]
    return []
