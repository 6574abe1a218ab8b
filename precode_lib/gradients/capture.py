"""Every victim's gradient from one forward and one backward pass.

A forward pass with hooks gives each layer's input, one `autograd.grad` with respect to
the layers' outputs gives the rest, and `layers` turns the two into terms. Parameters
that no rule covers (a class token, attention's packed weights, a custom layer) are
differentiated victim by victim with `torch.func`, from the same loss.
"""

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import (
    functional_call,
    grad,
    replace_all_batch_norm_modules_,
    vmap,
)
from torch.nn.modules.batchnorm import _BatchNorm

from precode_lib.basics.validation import check_model
from precode_lib.bottleneck import (
    Loss,
    NoiseSource,
    noise_from,
    per_example_loss,
    quiet,
    recorded_noise,
    unheard,
)

from .algebra import Gradients, concatenate
from .convolutions import lean_convolutions
from .layers import rule_for
from .terms import Outer, Term, prefers_factors
from .turns import one_at_a_time


def victim_gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    loss: Loss = per_example_loss,
    noise: NoiseSource | None = None,
    create_graph: bool | None = None,
) -> Gradients:
    """The gradients that V victims would share, each of its mean loss over B pictures.

    Leaves the model, its hooks, buffers and `.grad` as they were, also after an error.

    Args:
        images: (V, B, C, H, W), normalised as the model expects.
        labels: (V, B) classes, or (V, B, classes) probabilities.
        loss: the loss of each example; must not mix examples.
        noise: where bottlenecks draw their noise from; see `noise_from`.
        create_graph: whether the result can be differentiated, with respect to images
            and labels (not to the model's parameters); by default when they require it.
    """
    capture = Capture(model, loss=loss)
    return capture(images, labels, noise=noise, create_graph=create_graph)


def victim_by_victim(
    step: Callable[..., Gradients],
    images: Tensor,
    labels: Tensor,
    noise: NoiseSource | None,
) -> Gradients:
    """`step(images, labels, noise=...)` for each victim alone, put together."""
    parts = []
    for v, pair in enumerate(zip(images.split(1), labels.split(1), strict=True)):
        own = noise
        if isinstance(noise, list | tuple):
            own = [n.unflatten(0, images.shape[:2])[v] for n in noise]
        parts.append(step(*pair, noise=own))
    return concatenate(parts)


class Capture:
    """`victim_gradients` for many calls: looks at the model once, not every time."""

    def __init__(self, model: nn.Module, *, loss: Loss = per_example_loss):
        check_model(model)
        _check_loss(loss)
        self.model, self.loss = model, loss
        self._losses = Losses(model, loss)
        self._modules = list(model.modules())  # walking the tree costs at every call
        self._plan: _Plan | None = None
        _trained(model)

    @property
    def names(self) -> list[str]:
        """The parameters that have a gradient: those that are not frozen now."""
        return list(_trained(self.model))

    @one_at_a_time
    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        noise: NoiseSource | None = None,
        create_graph: bool | None = None,
    ) -> Gradients:
        """The victims' gradients; see `victim_gradients`."""
        check_victims(images, labels)
        if create_graph is None:
            wanted = images.requires_grad or labels.requires_grad
            create_graph = torch.is_grad_enabled() and wanted
        if len(images) > 1 and self.mixes_examples(images, labels):
            alone = partial(self, create_graph=create_graph)
            return victim_by_victim(alone, images, labels, noise)
        source = nullcontext() if noise is None else noise_from(noise)
        with source, differentiable():
            return self._all_at_once(images, labels, create_graph)

    @one_at_a_time
    def mixes_examples(self, images: Tensor, labels: Tensor) -> bool:
        """Whether an example's loss depends on the others of its batch."""
        if mixes_examples(self._modules):
            return True
        return self._look_at_model(images, labels).mixes

    @one_at_a_time
    def activation_bytes(self, images: Tensor, labels: Tensor) -> int:
        """What the layers' inputs and outputs of one victim take, in bytes."""
        check_victims(images, labels)
        plan = self._look_at_model(images, labels)
        return plan.bytes_per_example * images.shape[1]

    @one_at_a_time
    def random_passes(self, images: Tensor, labels: Tensor) -> int:
        """How many passes of a call draw dropout masks; the last ones are the shared.

        0 for a model without dropout, or in evaluation mode.
        """
        plan = self._look_at_model(images, labels)
        return plan.is_random + (plan.is_random and bool(plan.uncovered))

    def _all_at_once(self, images: Tensor, labels: Tensor, graph: bool) -> Gradients:
        plan = self._look_at_model(images, labels)
        num_victims = len(images)
        lean = lean_convolutions() if graph and plan.convolves else nullcontext()
        record = _record(plan.layers, plan.in_place)
        with recorded_noise() as noise, record as calls, lean:
            losses = self._call(images.flatten(0, 1), labels.flatten(0, 1))
        total = losses.view(images.shape[:2]).mean(1).sum()
        terms = _Terms()
        for call, delta in zip(calls, _deltas(total, calls, graph), strict=True):
            for role, term in call.terms(delta, num_victims).items():
                terms.add(plan.layers[call.layer].get(role), term)
        if plan.uncovered:
            for name, term in self._dense(plan.uncovered, images, labels, noise):
                terms.add(name, term)
        result = Gradients({name: terms[name] for name in plan.names})
        return result if graph else result.detach()

    def _call(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of each example; the model's buffers stay as they are."""
        if any(module.training for module in self._modules):
            copies = {n: b.clone() for n, b in self._losses.named_buffers()}
            losses = functional_call(self._losses, copies, (images, labels))
        else:
            losses = self._losses(images, labels)
        if losses.shape != images.shape[:1]:
            raise ValueError(
                f"the loss must return one number per example, ({len(images)},); "
                f"got shape {tuple(losses.shape)}. Do not average in it."
            )
        return losses

    def _dense(
        self,
        names: Sequence[str],
        images: Tensor,
        labels: Tensor,
        noise: Sequence[Tensor],
    ) -> Iterator[tuple[str, Tensor]]:
        """Gradients of these parameters, victim by victim, from the same noise."""
        prefix = "model."
        chosen = {
            prefix + n: p.detach()
            for n, p in self.model.named_parameters()
            if n in names
        }
        losses = pure_losses(self.model, self.loss)

        def victim_loss(chosen, images, labels, noise):
            with noise_from(noise), unheard():
                return functional_call(losses, chosen, (images, labels)).mean()

        noise = [n.unflatten(0, images.shape[:2]) for n in noise]
        per_victim = vmap(
            grad(victim_loss), in_dims=(None, 0, 0, 0), randomness="different"
        )
        found = per_victim(chosen, images, labels, noise)
        return ((name.removeprefix(prefix), term) for name, term in found.items())

    def _look_at_model(self, images: Tensor, labels: Tensor) -> "_Plan":
        modes = [(module.training, _drops(module)) for module in self._modules]
        owned = (module._parameters.values() for module in self._modules)
        frozen = [p is None or not p.requires_grad for each in owned for p in each]
        signature = (images.shape[1:], modes, frozen)
        if self._plan is None or self._plan.signature != signature:
            self._plan = self._make_plan(images, labels, signature)
        return self._plan

    def _make_plan(self, images: Tensor, labels: Tensor, signature) -> "_Plan":
        """Run twice on few pictures, to see which layers run how, and on what."""
        ruled = {m: {} for m in self._modules if rule_for(m) is not None}
        sizes = (3, 4) if images.shape[0] * images.shape[1] == 2 else (2, 3)
        with self._rehearsal(images, labels, sizes[0]) as (x, y):
            state = _rng_state(x)
            with torch.no_grad(), _record(ruled, in_place=False) as calls:
                self._call(x, y)
            is_random = not torch.equal(_rng_state(x), state)
        covered = _covered(self.model, calls, sizes[0])
        trained = _trained(self.model)
        elsewhere, mixes = self._dependences(images, labels, sizes[1], ruled, trained)
        covered -= elsewhere
        names = {id(p): n for n, p in trained.items()}
        layers = {
            call.layer: roles
            for call in calls
            if call.is_by_example(sizes[0])
            and (roles := _roles(call.layer, names, covered))
        }
        uncovered = [names[i] for i in names if i not in covered]
        if uncovered and is_random:
            # Dropout would draw another mask for the second pass: take all from one.
            layers, uncovered = {}, list(trained)
        size = sum(call.num_bytes() for call in calls) // sizes[0]
        changed = any(call.was_changed() for call in calls)
        convolves = any(isinstance(call.layer, nn.Conv2d) for call in calls)
        return _Plan(
            signature=signature,
            names=list(trained),
            layers=layers,
            uncovered=uncovered,
            in_place=changed,
            bytes_per_example=size,
            convolves=convolves,
            mixes=mixes,
            is_random=is_random,
        )

    @contextmanager
    def _rehearsal(
        self, images: Tensor, labels: Tensor, examples: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """So many different pictures; what is run on them leaves no trace."""
        x, y = (
            t.detach().flatten(0, 1)[:1].expand(examples, *t.shape[2:])
            for t in (images, labels)
        )
        fade = torch.linspace(1, 0.5, examples).to(x).view(-1, *[1] * (x.dim() - 1))
        with quiet(self.model):
            yield x * fade, y

    def _dependences(
        self, images: Tensor, labels: Tensor, examples: int, ruled, trained
    ) -> tuple[set[int], bool]:
        """Parameters that more than their layers' calls use; whether examples mix.

        Layers are cut off from their parameters: whatever still reaches one does so
        behind the rules' back (a tied weight in a function, a penalty in the loss).
        """
        rehearsal = self._rehearsal(images, labels, examples)
        cuts = _cut_off(ruled, examples)
        with rehearsal as (x, y), differentiable(), cuts as elsewhere:
            x.requires_grad_()
            losses = self._call(x.clone(), y)  # the model may change it in place
            if not losses.requires_grad:
                return elsewhere, False
            slopes = torch.autograd.grad(
                losses.sum(), trained.values(), retain_graph=True, allow_unused=True
            )
            pairs = zip(trained.values(), slopes, strict=True)
            elsewhere |= {id(p) for p, slope in pairs if slope is not None}
            (slope,) = torch.autograd.grad(losses[0], x, materialize_grads=True)
        return elsewhere, bool((slope[1:].abs() > 0).any())


@dataclass(frozen=True)
class _Plan:
    signature: tuple
    names: list[str]  # what is trained, in the model's order
    layers: dict[nn.Module, dict[str, str]]  # layer -> role -> parameter name
    uncovered: list[str]
    in_place: bool  # later layers overwrite inputs or outputs: record copies
    bytes_per_example: int
    convolves: bool  # so that `lean_convolutions` pay
    mixes: bool  # an example's loss depends on the others of its batch
    is_random: bool  # beside bottlenecks: torch's own generator is used


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The same, of which there must be some."""
    named = trainable(model)
    if not named:
        raise ValueError("no parameter of the model requires a gradient.")
    return named


class Losses(nn.Module):
    """The loss as a module, for `functional_call`; holds the model, changes nothing."""

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss
        self.training = model.training

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of each example: (N,)."""
        return self.loss(self.model, images, labels)


class _LayerCall:
    """One call of one layer: what went in and what came out."""

    def __init__(self, layer: nn.Module, x: Tensor | None, output: Tensor):
        self.layer, self.x, self.output = layer, x, output
        self._versions = self._current_versions()

    def terms(self, delta: Tensor, num_victims: int) -> dict[str, Term]:
        return rule_for(self.layer)(self.layer, self.x, delta, num_victims)

    def is_by_example(self, examples: int) -> bool:
        """Whether the first axis counts examples (not tokens, say)."""
        return self.x is not None and len(self.x) == len(self.output) == examples

    def was_changed(self) -> bool:
        return self._versions != self._current_versions()

    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._tensors())

    def _tensors(self) -> list[Tensor]:
        return [t for t in (self.x, self.output) if t is not None]

    def _current_versions(self) -> list[int]:
        return [t._version for t in self._tensors()]


@contextmanager
def _record(layers, in_place: bool) -> Iterator[list[_LayerCall]]:
    """List this thread's calls of these layers; removes its hooks whatever happens."""
    calls: list[_LayerCall] = []
    here = threading.get_ident()

    def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        if threading.get_ident() != here:
            return None
        x = inputs[0] if inputs else None
        calls.append(_LayerCall(layer, x.clone() if in_place else x, output))
        return output.clone() if in_place else None

    handles = [m.register_forward_hook(hook, prepend=True) for m in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _deltas(total: Tensor, calls: Sequence[_LayerCall], graph: bool) -> list[Tensor]:
    """The gradient of each call's output; zero where none flows (no_grad)."""
    outputs = [call.output for call in calls if call.output.requires_grad]
    found = torch.autograd.grad(
        total, outputs, create_graph=graph, materialize_grads=True
    ) if outputs else ()  # fmt: skip
    flowing = iter(found)
    return [
        next(flowing) if call.output.requires_grad else torch.zeros_like(call.output)
        for call in calls
    ]


@contextmanager
def _cut_off(layers, examples: int) -> Iterator[set[int]]:
    """Let layers compute without a way back to their parameters.

    Yields the parameters of those whose first axis does not count examples.
    """
    odd: set[int] = set()

    def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        call = _LayerCall(layer, inputs[0] if inputs else None, output)
        if not call.is_by_example(examples):
            odd.update(id(p) for p in layer._parameters.values())
            return None
        return _Cut.apply(call.x, output.detach().clone())

    handles = [m.register_forward_hook(hook, prepend=True) for m in layers]
    try:
        yield odd
    finally:
        for handle in handles:
            handle.remove()


class _Cut(torch.autograd.Function):
    """The output; backwards, example n of it is said to come from n of the input."""

    @staticmethod
    def forward(ctx, x: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(x.new_empty(1).expand(x.shape))  # only its shape
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        (like,) = ctx.saved_tensors
        # Not sums of slopes, nor one number for all: those cancel (softmax, centring).
        reached = (upstream.reshape(len(upstream), -1).abs() > 0).any(1, keepdim=True)
        unlike = torch.linspace(0.5, 1, like[0].numel()).to(like)
        return (reached * unlike).view_as(like), None


class _Terms(dict):
    """Parameter name -> sum of the contributions of all calls."""

    def add(self, name: str | None, term: Term) -> None:
        if name is None:  # frozen
            return
        self[name] = _sum(self[name], term) if name in self else term


def _sum(a: Term, b: Term) -> Term:
    if isinstance(a, Outer) and isinstance(b, Outer):
        left, right = torch.cat([a.left, b.left], 1), torch.cat([a.right, b.right], 1)
        total = Outer(left, right, a.shape)
        return total if prefers_factors(left.shape[1], a.shape) else total.dense()
    return sum(t.dense() if isinstance(t, Outer) else t for t in (a, b))


def _covered(model: nn.Module, calls: Sequence[_LayerCall], examples: int) -> set[int]:
    """The parameters all of whose owners were called, always example by example."""
    good = {c.layer for c in calls} - {
        c.layer for c in calls if not c.is_by_example(examples)
    }
    elsewhere = {
        id(p) for m in model.modules() if m not in good for p in m._parameters.values()
    }
    inside = {id(getattr(m, r)) for m in good for r in ("weight", "bias")}
    return inside - elsewhere


def _roles(layer: nn.Module, names: dict[int, str], covered: set[int]) -> dict:
    """role -> parameter name, of this layer's covered parameters."""
    own = {role: id(p) for role, p in layer._parameters.items() if p is not None}
    return {r: names[i] for r, i in own.items() if i in covered and i in names}


def mixes_examples(modules: nn.Module | Iterable[nn.Module]) -> bool:
    """Batch statistics tie the victims of one pass together."""
    if isinstance(modules, nn.Module):
        modules = modules.modules()
    return any(
        isinstance(m, _BatchNorm) and (m.training or m.running_mean is None)
        for m in modules
    )


def _drops(module: nn.Module) -> bool:
    """Whether it is a dropout that drops something."""
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0


def _rng_state(like: Tensor) -> Tensor:
    """Where torch's global generators are that `like`'s device draws from."""
    states = [torch.get_rng_state()]
    if like.is_cuda:
        states.append(torch.cuda.get_rng_state(like.device))
    return torch.cat(states)


@contextmanager
def differentiable() -> Iterator[None]:
    """Record a graph, and use the attention that has a second derivative."""
    math = torch.nn.attention.SDPBackend.MATH
    with torch.enable_grad(), torch.nn.attention.sdpa_kernel(math):
        yield


def _check_loss(loss: Loss) -> None:
    # A module of torch.nn can be called, but not with the model.
    if not callable(loss) or isinstance(loss, nn.Module):
        raise TypeError(
            "loss must be a function (model, images, labels) -> (N,), such as "
            f"per_example_loss, got {type(loss).__name__}."
        )


def pure_losses(model: nn.Module, loss: Loss) -> "Losses":
    """`Losses` that torch.func can transform: no buffer is updated on the way."""
    if any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
        model = copy.deepcopy(model)
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.training:
                replace_all_batch_norm_modules_(module)
    return Losses(model, loss)


_HOW_TO_SHAPE = {
    1: "It is one number for each; rows of a table are (V, B, features).",
    2: "Rows of a table, a client for each: rows[:, None]; one for all: rows[None].",
    3: "If this is one picture, it is images[None, None].",
    4: "A client for each picture: images[:, None]; one client for all: images[None].",
}


def check_victims(images: Tensor, labels: Tensor) -> None:
    """Refuse anything but examples (V, B, ...) with their labels (V, B, ...).

    Examples are pictures (C, H, W), rows, sound, volumes, embeddings: floats of any
    shape. Labels are whatever the loss takes.
    """
    for name, given in (("images", images), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise TypeError(
                f"{name} must be a Tensor, got {type(given).__name__}; "
                "torch.as_tensor(...) makes one."
            )
    if images.dim() < 2 or labels.shape[:2] != images.shape[:2]:
        raise ValueError(_misshapen(images, labels))
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating point, got {images.dtype}; 8-bit pictures become "
            "pixels by .float() / 255, and images by the model's normalisation."
        )
    if images.numel() == 0:
        raise ValueError(f"there is no picture: images are {tuple(images.shape)}.")


def _misshapen(images: Tensor, labels: Tensor) -> str:
    if images.dim() == 5:
        return (
            f"labels must be (V, B) = {tuple(images.shape[:2])}, or (V, B, ...) as the "
            f"loss takes them; got {tuple(labels.shape)}."
        )
    return (
        "images must be (V, B, C, H, W), victims x pictures, or other examples "
        f"(V, B, ...), with labels for each; got images {tuple(images.shape)} and "
        f"labels {tuple(labels.shape)}. {_HOW_TO_SHAPE.get(images.dim(), '')}"
    )
