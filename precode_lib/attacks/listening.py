"""Listening to a model: every operation that reads a parameter is written down.

Below autograd a Linear, a transposed one, a bare matrix and an adapter are the same few
operations, so no kind of layer has to be known. A view is told by its storage.
"""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from precode_lib.attacks.uses import (
    CONVOLUTION,
    LINEAR,
    LOOKUP,
    Addition,
    Trace,
    Use,
    Window,
    whole,
)

aten = torch.ops.aten

# Larger inputs and outputs are kept only until all together have so many numbers.
_SMALL, _ROOM = 2**16, 2**25
# They move no number, whatever torch says of them.
_SHAPES = {
    *(aten.view.default, aten._unsafe_view.default, aten._reshape_alias.default),
    aten.detach.default,
}
_PRODUCTS = {aten.mm.default, aten.bmm.default, aten.mv.default}
_SUMS = {aten.add.Tensor, aten.add_.Tensor}
_LOOKUPS = {aten.embedding.default, aten.index_select.default, aten.index.Tensor}


class Listener(TorchDispatchMode):
    """Writes down in a trace what the operations of its `with` do with parameters."""

    def __init__(self, model: nn.Module, trace: Trace):
        super().__init__()
        self.trace, self.room = trace, _ROOM
        self.parameters = dict(model.named_parameters())
        self.homes: dict[int, list[str]] = {}  # by storage
        for name, parameter in self.parameters.items():
            self.homes.setdefault(_storage(parameter), []).append(name)
        self.made: dict[int, Use] = {}  # by the storage of the output
        self.alive: list[Tensor] = []  # so that no storage is given away twice

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation, and note it."""
        kwargs = kwargs or {}
        if getattr(func, "is_view", False) or func in _SHAPES:
            return func(*args, **kwargs)
        inputs = _tensors((args, kwargs))
        makers = {id(t): self.made.get(_storage(t)) for t in inputs}
        named = {id(t): name for t in inputs if (name := self._name(t)) is not None}
        before = self._before(func, args)
        output = func(*args, **kwargs)
        self.trace.order.update(dict.fromkeys(named.values()))
        noted = self._note(func, args, output, before, named, makers)
        for tensor in inputs:
            if id(tensor) in named and id(tensor) not in noted:
                self.trace.others[named[id(tensor)]] += 1
        return output

    def _name(self, tensor: Tensor) -> str | None:
        """The parameter that this tensor is, or is a part of."""
        for name in self.homes.get(_storage(tensor), ()):
            parameter = self.parameters[name]
            start = parameter.storage_offset()
            if start <= tensor.storage_offset() < start + max(1, parameter.numel()):
                return name
        return None

    def _before(self, func, args) -> Tensor | None:
        """What a sum begins with; a copy, if it is about to be overwritten."""
        if func not in _SUMS:
            return None
        return args[0].clone() if func is aten.add_.Tensor else args[0]

    def _note(self, func, args, output, before, named, makers) -> set[int]:
        """Write it down; which of the inputs is spoken of, by id."""
        if func in _PRODUCTS:
            return self._product(None, args[0], args[1], output, named)
        if func is aten.addmm.default:
            return self._product(*args[:3], output, named)
        if func is aten.linear.default:
            x, bias = args[0].flatten(0, -2), args[2] if len(args) > 2 else None
            return self._product(bias, x, args[1].t(), output, named)
        if func is aten.convolution.default:
            return self._convolution(args, output, named)
        if func in _LOOKUPS:
            return self._lookup(func, args, output, named)
        if func in _SUMS and all(isinstance(a, Tensor) for a in args[:2]):
            return self._sum(args[:2], before, output, named, makers)
        return set()

    def _product(self, bias, a, b, output, named) -> set[int]:
        """x @ B or A @ x, of which one is a parameter's window."""
        if (id(a) in named) == (id(b) in named):
            return set()
        operand, x = (b, a) if id(b) in named else (a, b)
        matrix = operand
        if matrix.dim() == 3 and (len(matrix) == 1 or matrix.stride(0) == 0):
            matrix = matrix[0]
        if matrix.dim() != 2:  # a matrix for each group: no single product
            return set()
        if x.dim() > 1 and operand is a:
            x = x.mT
        x = x.reshape(-1, x.shape[-1])
        name = named[id(operand)]
        start = self.parameters[name].storage_offset()
        window = Window(
            tuple(matrix.shape), tuple(matrix.stride()), matrix.storage_offset() - start
        )
        window = window.turned if operand is b else window
        use = Use(name, LINEAR, window, len(x), self._copied(x), self._copied(output))
        use.is_whole = window == whole(self.parameters[name].shape)
        return {id(operand), *self._add(use, bias, output, named)}

    def _convolution(self, args, output, named) -> set[int]:
        """A convolution of one group: at each position a product."""
        x, weight, bias, stride, padding, dilation, transposed, _, groups = args
        if id(weight) not in named or transposed or groups != 1:
            return set()
        use = Use(
            named[id(weight)],
            CONVOLUTION,
            whole(weight.shape),
            output[:, 0].numel(),
            self._copied(x),
            self._copied(output),
            unfold={
                "kernel_size": tuple(weight.shape[2:]),
                "stride": tuple(stride),
                "padding": tuple(padding),
                "dilation": tuple(dilation),
            },
        )
        return {id(weight), *self._add(use, bias, output, named)}

    def _lookup(self, func, args, output, named) -> set[int]:
        """Rows of a whole table, by their numbers."""
        table, indices = args[0], args[1]
        if func is aten.index_select.default:
            indices = args[2] if args[1] == 0 else None
        if func is aten.index.Tensor:
            indices = args[1][0] if len(args[1]) == 1 else None
        is_list = isinstance(indices, Tensor) and indices.dtype == torch.int64
        if id(table) not in named or table.dim() != 2 or not is_list:
            return set()
        name, window = named[id(table)], whole(table.shape)
        if self.parameters[name].numel() != table.numel():
            return set()
        count = indices.numel()
        use = Use(name, LOOKUP, window, count, indices.clone(), self._copied(output))
        return {id(table), *self._add(use, None, output, named)}

    def _sum(self, pair, before, output, named, makers) -> set[int]:
        """A bias, or what is added position by position."""
        for z, added in (pair, pair[::-1]):
            use = makers[id(z)]
            is_bare = use is not None and use.bias is None
            if is_bare and self._is_bias(added, use, named):
                use.output, use.bias = self._copied(output), named[id(added)]
                self._made(use, output)
                return {id(added)}
        for z, added in (pair, pair[::-1]):
            other = before if z is pair[0] else z
            if id(z) not in named and self._positions(added, other, named, makers):
                return {id(added)} & named.keys()
        return set()

    def _positions(self, added, other, named, makers) -> bool:
        """Note a sum with a parameter, or with rows of a table."""
        name, use = named.get(id(added)), makers[id(added)]
        if added.numel() != other.numel() or not added.is_contiguous():
            return False
        if name is not None:
            rows = self._rows(added, self.parameters[name])
        elif use is not None and use.kind == LOOKUP:
            name, rows = use.parameter, use.x.flatten()
        else:
            return False
        self.trace.additions.append(Addition(name, rows, self._copied(other)))
        return True

    def _rows(self, part: Tensor, parameter: Tensor) -> Tensor | None:
        """Which rows of a parameter this slice of it is; None for all of it."""
        if part.numel() == parameter.numel():
            return None
        width = parameter.shape[-1]
        first = (part.storage_offset() - parameter.storage_offset()) // width
        return torch.arange(first, first + part.numel() // width, device=part.device)

    def _is_bias(self, bias: Tensor | None, use: Use, named) -> bool:
        """Whether this is one number for each output, all of its parameter."""
        if bias is None or id(bias) not in named or use.kind == LOOKUP:
            return False
        size = self.parameters[named[id(bias)]].numel()
        is_last = use.num_positions == 1 or bias.shape[-1] == size
        return is_last and size == bias.numel() == use.window.shape[0]

    def _copied(self, x: Tensor) -> Tensor | None:
        """A copy that nobody overwrites, if there is room for it."""
        if x.numel() > _SMALL:
            if x.numel() > self.room:
                return None
            self.room -= x.numel()
        return x.detach().clone()

    def _add(self, use: Use, bias: Tensor | None, output: Tensor, named) -> set[int]:
        """List a use, with its bias if this is one; what that speaks of."""
        self.trace.uses.append(use)
        self._made(use, output)
        if not self._is_bias(bias, use, named):
            return set()
        use.bias = named[id(bias)]
        return {id(bias)}

    def _made(self, use: Use, output: Tensor) -> None:
        self.made[_storage(output)] = use
        self.alive.append(output)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(values: object) -> list[Tensor]:
    """All tensors in arguments, which may be lists."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = [*values.values()]
    if not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in _tensors(value)]
