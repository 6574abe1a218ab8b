"""Second derivatives that torch has not, given or refused by name.

An attacker differentiates a gradient. Of a few functions torch has the first slope and
not the slope of that; what stands here in their place has both and the same values.
Others are found in the graph, before somebody meets torch's own error in it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Its slope at the two bends is 0, as torch's is."""
    return F.relu6(input + 3) / 6


def _multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    rows, classes = torch.atleast_2d(input), torch.atleast_1d(target)
    own = rows.gather(1, classes[:, None])
    excess = (margin - own + rows).clamp(min=0) ** p
    if weight is not None:
        excess = excess * weight[classes][:, None]
    others = torch.ones_like(rows).scatter(1, classes[:, None], 0.0)
    losses = (excess * others).sum(1) / rows.shape[1]
    losses = losses if input.dim() > 1 else losses[0]
    average = {"mean": losses.mean, "sum": losses.sum}
    return average[reduction]() if reduction in average else losses


def _without_cudnn(function: Callable) -> Callable:
    """cuDNN's recurrent layers have one slope, and that in training mode only."""

    def recurrent(*args: Any, **options: Any) -> Any:
        with torch.backends.cudnn.flags(enabled=False):
            return function(*args, **options)

    return recurrent


_INSTEAD = {
    F.hardsigmoid: _hardsigmoid,
    torch._C._nn.hardsigmoid: _hardsigmoid,
    F.multi_margin_loss: _multi_margin_loss,
    **{f: _without_cudnn(f) for f in (torch.lstm, torch.gru)},
    **{f: _without_cudnn(f) for f in (torch.rnn_tanh, torch.rnn_relu)},
}


class Swapped(TorchFunctionMode):
    """While it is open, what can be differentiated twice runs in place of some."""

    def __torch_function__(self, function, types, args=(), options=None):
        return _INSTEAD.get(function, function)(*args, **(options or {}))


def recurs_on_gpu(layers: Iterable[nn.Module]) -> bool:
    """Whether cuDNN would run some layer, which in evaluation mode has no slope."""
    recurrent = [layer for layer in layers if isinstance(layer, nn.RNNBase)]
    return any(p.is_cuda for layer in recurrent for p in layer.parameters())


def check_differentiable(tensors: Iterable[Tensor]) -> None:
    """Refuse slopes whose own slopes torch doesn't know; walks their whole graph."""
    for node in _nodes(t.grad_fn for t in tensors):
        if node.name().endswith(("NotImplemented", "Error")):
            raise ValueError(_advice(_told_by(node)))


@contextmanager
def named_if_missing() -> Iterator[None]:
    """Say what to do where torch says that it knows no derivative."""
    try:
        yield
    except RuntimeError as error:
        if not re.search(r"derivative for|support automatic diff", str(error)):
            raise
        raise ValueError(_advice(str(error))) from error


def _advice(told: str) -> str:
    found = re.search(r"derivative for '?(?:aten::)?_?(\w+)", told)
    name = found[1].removesuffix("_backward") if found else "one of its functions"
    return (
        f"the model or its loss uses {name}, of whose slope torch has no derivative, "
        "and an attacker differentiates slopes: write it in functions that have one, "
        f"in a copy of the model or as a `loss` of your own ({told.strip()})"
    )


def _nodes(roots: Iterable[Node | None]) -> Iterator[Node]:
    """All of a graph, each once."""
    waiting, seen = [*roots], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
            yield node


def _told_by(node: Node) -> str:
    """Which derivative is missing: a node of this kind only tells when it is run."""
    for count in range(1, 9):  # it wants as many slopes as its function had outputs
        try:
            node(*[torch.zeros(1)] * count)
        except TypeError:
            continue
        except RuntimeError as error:
            return str(error)
    return ""
