"""A look at a model before its gradients are taken: which layers a rule can serve.

A rule is sound only where its layer's every use is a call on one example after another.
Two rehearsals on few pictures tell: one lists the calls, one cuts the layers off from
their parameters and sees what the loss still depends on.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from precode_lib.bottleneck import quiet

from .layers import Rule, rule_for
from .passes import (
    LayerCall,
    Losses,
    differentiable,
    hooked,
    random_state,
    record,
    trainable,
)
from .twice import Swapped, named_if_missing, recurs_on_gpu

# Pictures of the two rehearsals, unlike each other: a layer that sees a table of two
# rows and no pictures looks served among two pictures, and not among three.
SIZES = 2, 3


class Served(NamedTuple):
    """How one layer's gradients are made: by its rule, for these parameters."""

    rule: Rule
    names: dict[str, str]  # role -> parameter name


@dataclass(frozen=True)
class Plan:
    """What a look at the model found, for one shape of pictures and one mode."""

    names: list[str]  # what is trained, in the model's order
    layers: dict[nn.Module, Served]
    uncovered: list[str]
    in_place: bool  # later layers overwrite inputs or outputs: record copies
    bytes_per_example: int
    convolves: bool  # so that `lean_convolutions` pay
    mixes: bool  # an example's loss depends on the others of its batch
    is_random: bool  # beside bottlenecks: torch's own generator is used


class Planner:
    """Plans for a model; looks at it anew only when something has changed."""

    def __init__(self, losses: Losses, rules: Mapping[type[nn.Module], Rule]):
        self._losses, self._rules = losses, rules
        self._plan: Plan | None = None
        self._signature: tuple = ()

    def __call__(self, images: Tensor, labels: Tensor) -> Plan:
        """The plan for victims like these: (V, B, C, H, W) and (V, B, ...)."""
        modes = [(module.training, _drops(module)) for module in self._losses.layers]
        owned = (module._parameters.values() for module in self._losses.layers)
        frozen = [p is None or not p.requires_grad for each in owned for p in each]
        signature = (images.shape[1:], modes, frozen)
        if self._plan is None or self._signature != signature:
            with named_if_missing():
                self._plan = self._look(images, labels)
            self._signature = signature
        return self._plan

    def _look(self, images: Tensor, labels: Tensor) -> Plan:
        """Run twice on few pictures, to see which layers run how, and on what."""
        trained = checked_trainable(self._losses.model)
        ruled = {m: r for m in self._losses.layers if (r := rule_for(m, self._rules))}
        with self._rehearsal(images, labels, SIZES[0]) as (x, y):
            state = random_state(x)
            with torch.no_grad(), self._swapping(), record(ruled, False) as calls:
                self._losses.run(x, y)
            is_random = not all(map(torch.equal, random_state(x), state))
        roles = _roles(calls, ruled)
        elsewhere, mixes = self._dependences(images, labels, ruled, trained)
        covered = self._covered(calls, roles) - elsewhere
        names = {id(p): n for n, p in trained.items()}
        uncovered = [names[i] for i in names if i not in covered]
        if uncovered and is_random:
            # Dropout would draw another mask for the second pass: take all from one.
            covered, uncovered = set(), list(trained)
        return Plan(
            names=list(trained),
            layers=_served(ruled, roles, covered, names),
            uncovered=uncovered,
            in_place=any(call.was_changed() for call in calls),
            bytes_per_example=sum(call.num_bytes() for call in calls) // SIZES[0],
            convolves=any(isinstance(call.layer, nn.Conv2d) for call in calls),
            mixes=mixes,
            is_random=is_random,
        )

    def _swapping(self) -> AbstractContextManager:
        return Swapped() if recurs_on_gpu(self._losses.layers) else nullcontext()

    def _covered(self, calls: Sequence[LayerCall], roles: dict) -> set[int]:
        """The parameters all of whose owners were called, always example by example."""
        odd = {call.layer for call in calls if not call.is_by_example(SIZES[0])}
        good = {layer: roles[layer] for layer in roles if layer not in odd}
        elsewhere = {
            id(p)
            for m in self._losses.layers
            for role, p in m._parameters.items()
            if role not in good.get(m, ())
        }
        inside = {id(m._parameters[role]) for m, own in good.items() for role in own}
        return inside - elsewhere

    @contextmanager
    def _rehearsal(
        self, images: Tensor, labels: Tensor, examples: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """So many different pictures; what is run on them leaves no trace."""
        x, y = (
            t.detach().flatten(0, 1)[:1].expand(examples, *t.shape[2:])
            for t in (images, labels)
        )
        if not x.is_floating_point():  # tokens do not fade
            with quiet(self._losses.model):
                yield x.clone(), y
            return
        # Made of the first, for a victim may have but one; faded, for among equal
        # pictures the slope of what mixes them (a variance, say) may be nought.
        fade = torch.linspace(1, 0.75, examples).to(x).view(-1, *[1] * (x.dim() - 1))
        with quiet(self._losses.model):
            yield x * fade, y

    def _dependences(
        self, images: Tensor, labels: Tensor, ruled, trained
    ) -> tuple[set[int], bool]:
        """Parameters that more than their layers' calls use; whether examples mix.

        Layers are cut off from their parameters: whatever still reaches one does so
        behind the rules' back (a tied weight in a function, a penalty in the loss).
        """
        rehearsal = self._rehearsal(images, labels, SIZES[1])
        cuts = _cut_off(ruled, SIZES[1])
        of_tokens = not images.is_floating_point()
        mixes = of_tokens and self._sees_others(images, labels)
        swapping = self._swapping()
        with rehearsal as (x, y), differentiable(), swapping, cuts as elsewhere:
            x.requires_grad_(not of_tokens)
            losses = self._losses.run(x.clone(), y)  # the model may change it in place
            if not losses.requires_grad:
                return elsewhere, False
            slopes = torch.autograd.grad(
                losses.sum(), trained.values(), retain_graph=True, allow_unused=True
            )
            pairs = zip(trained.values(), slopes, strict=True)
            # Not None is enough: that a path exists counts, not its slope just here.
            elsewhere |= {id(p) for p, slope in pairs if slope is not None}
            if of_tokens:
                return elsewhere, mixes
            (slope,) = torch.autograd.grad(losses[0], x, materialize_grads=True)
        return elsewhere, bool((slope[1:].abs() > 0).any())

    def _sees_others(self, tokens: Tensor, labels: Tensor) -> bool:
        """Whether an example's loss changes with the others: tokens have no slope."""
        found = []
        for is_changed in (False, True):
            with self._rehearsal(tokens, labels, SIZES[1]) as (x, y), torch.no_grad():
                if is_changed:
                    x[1:] = x.min()  # which the model knows
                torch.manual_seed(0)  # `quiet` puts it back
                found.append(self._losses.run(x, y)[0])
        return not torch.allclose(*found, rtol=1e-3)


def checked_trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, of which there must be some."""
    named = trainable(model)
    if not named:
        raise ValueError("no parameter of the model requires a gradient.")
    return named


@torch.no_grad()
def _roles(
    calls: Sequence[LayerCall], ruled: Mapping[nn.Module, Rule]
) -> dict[nn.Module, set[str]]:
    """Of which of its layer's parameters each rule speaks: whoever asks it, knows."""
    roles: dict[nn.Module, set[str]] = {}
    for call in calls:
        layer = call.layer
        if layer not in roles and call.is_by_example(SIZES[0]):
            nothing = torch.zeros_like(call.output)
            named = ruled[layer](layer, call.x, nothing, SIZES[0])
            own = {role for role, p in layer._parameters.items() if p is not None}
            roles[layer] = own & named.keys()
    return roles


def _served(
    ruled: Mapping[nn.Module, Rule],
    roles: Mapping[nn.Module, set[str]],
    covered: set[int],
    names: Mapping[int, str],
) -> dict[nn.Module, Served]:
    """The layers that serve at least one parameter that is trained."""
    served = {}
    for layer, own in roles.items():
        ids = {role: id(layer._parameters[role]) for role in own}
        chosen = {r: names[i] for r, i in ids.items() if i in covered and i in names}
        if chosen:
            served[layer] = Served(ruled[layer], chosen)
    return served


@contextmanager
def _cut_off(layers, examples: int) -> Iterator[set[int]]:
    """Let layers compute without a way back to their parameters.

    Yields the parameters of those whose first axis does not count examples.
    """
    odd: set[int] = set()

    def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        call = LayerCall(layer, inputs[0] if inputs else None, output)
        if not call.is_by_example(examples):
            odd.update(id(p) for p in layer._parameters.values())
            return None
        # A clone, for the cut marks it as changed, and a layer may return its input.
        return _Cut.apply(call.x, output.detach().clone())

    with hooked(layers, hook):
        yield odd


class _Cut(torch.autograd.Function):
    """The output; backwards, example n of it is said to come from n of the input.

    The backward pass is forged: not slopes flow through it but the news which examples
    are reached, so it needs none of the layer's parameters, which are cut off.
    """

    @staticmethod
    def forward(ctx, x: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(x.new_empty(1).expand(x.shape))  # only its shape
        # An argument returned as it came would be a view, which no later layer could
        # change in place; one that is marked as changed is an output of its own.
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        (like,) = ctx.saved_tensors
        # Not the sum of the slopes: a softmax's add up to nought, so nothing would
        # seem to arrive. Nor one number for all entries: what takes a mean off, as a
        # softmax and a layer norm do too, lets nothing pass of equal slopes. Between
        # 0.5 and 1 at every layer, so that the news neither fades nor explodes.
        reached = (upstream.reshape(len(upstream), -1).abs() > 0).any(1, keepdim=True)
        unlike = torch.linspace(0.5, 1, like[0].numel()).to(like)
        return (reached * unlike).view_as(like), None


def _drops(module: nn.Module) -> bool:
    """Whether it is a dropout that drops something."""
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
