"""Every victim's gradient from one forward and one backward pass.

A forward pass with hooks gives each layer's input, one `autograd.grad` with respect to
the layers' outputs gives the rest, and `layers` turns the two into terms. Parameters
that no rule covers (a class token, attention's packed weights, a custom layer) are
differentiated victim by victim with `torch.func`, from the same loss.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

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
from .layers import Rule, checked_rules
from .lean import lean_convolutions
from .passes import (
    LayerCall,
    Losses,
    differentiable,
    mixes_examples,
    pure_losses,
    random_state,
    record,
    set_random_state,
    trainable,
    unhurried,
)
from .plan import Plan, Planner, checked_trainable
from .terms import Outer, Term, prefers_factors
from .turns import one_at_a_time
from .twice import (
    Swapped,
    check_differentiable,
    named_if_missing,
    recurs_on_gpu,
)


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
    """`victim_gradients` for many calls: looks at the model once, not every time.

    Args:
        model: any network; it stays as it is.
        loss: the loss of each example; must not mix examples.
        rules: for kinds of layers that the library has no rule for, which is right
            but slow and never factored: from the class to a `Rule`.

    >>> import torch
    >>> from precode_lib.gradients import Capture, linear_rule
    >>> class Doubled(torch.nn.Linear):
    ...     def forward(self, x):
    ...         return 2 * super().forward(x)
    >>> def doubled(layer, x, delta, num_victims):
    ...     return linear_rule(layer, x, 2 * delta, num_victims)
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), Doubled(48, 10))
    >>> capture = Capture(model, rules={Doubled: doubled})
    >>> images, labels = torch.rand(4, 1, 3, 4, 4), torch.zeros(4, 1).long()
    >>> type(capture(images, labels)["1.weight"]).__name__
    'Outer'
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Loss = per_example_loss,
        rules: Mapping[type[nn.Module], Rule] | None = None,
    ):
        check_model(model)
        _check_loss(loss)
        self.model, self.loss = model, loss
        self._losses = Losses(model, loss)
        self._plan_for = Planner(self._losses, checked_rules(rules or {}))
        self._checked: Plan | None = None  # whose slopes were seen to have slopes
        self._swaps = recurs_on_gpu(self._losses.layers)
        self._alone: Plan | None = None  # of what torch.func cannot transform
        checked_trainable(model)

    @property
    def names(self) -> list[str]:
        """The parameters that have a gradient: those that are not frozen now."""
        return list(checked_trainable(self.model))

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
        with source, differentiable(), named_if_missing():
            return self._all_at_once(images, labels, create_graph)

    @one_at_a_time
    def mixes_examples(self, images: Tensor, labels: Tensor) -> bool:
        """Whether an example's loss depends on the others of its batch."""
        if mixes_examples(self._losses.layers):
            return True
        return self._plan_for(images, labels).mixes

    @one_at_a_time
    def activation_bytes(self, images: Tensor, labels: Tensor) -> int:
        """What the layers' inputs and outputs of one victim take, in bytes."""
        check_victims(images, labels)
        plan = self._plan_for(images, labels)
        return plan.bytes_per_example * images.shape[1]

    @one_at_a_time
    def random_passes(self, images: Tensor, labels: Tensor) -> int:
        """How many passes of a call draw dropout masks; the last ones are the shared.

        0 for a model without dropout, or in evaluation mode.
        """
        plan = self._plan_for(images, labels)
        return plan.is_random + (plan.is_random and bool(plan.uncovered))

    def _all_at_once(self, images: Tensor, labels: Tensor, graph: bool) -> Gradients:
        plan = self._plan_for(images, labels)
        if not graph:
            return self._computed(plan, images, labels, graph).detach()
        if self._checked is not plan:
            self._see_to_slopes(plan, images[:1], labels[:1])
        return self._computed(plan, images, labels, graph)

    def _see_to_slopes(self, plan: Plan, images: Tensor, labels: Tensor) -> None:
        """Once for a plan: whether its slopes have slopes, if need be by a swap.

        One victim is enough to see it; nobody else notices.
        """
        self._checked = plan
        given = [
            t.detach().clone().requires_grad_(t.requires_grad) for t in (images, labels)
        ]
        try:
            with quiet(self.model):
                check_differentiable(self._computed(plan, *given, True).tensors())
        except ValueError:
            self._checked = None
            if self._swaps:
                raise
            self._swaps = True
            self._see_to_slopes(plan, images, labels)

    def _computed(
        self, plan: Plan, images: Tensor, labels: Tensor, graph: bool
    ) -> Gradients:
        num_victims = len(images)
        swapped = Swapped() if self._swaps else nullcontext()
        lean = lean_convolutions() if graph and plan.convolves else nullcontext()
        calling = record(plan.layers, plan.in_place)
        with swapped, recorded_noise() as noise, calling as calls, lean:
            losses = self._losses.run(images.flatten(0, 1), labels.flatten(0, 1))
        # Each victim's mean; in their sum they do not meet, so slopes stay their own.
        total = losses.view(images.shape[:2]).mean(1).sum()
        terms = _Terms()
        for call, delta in zip(calls, _deltas(total, calls, graph), strict=True):
            rule, names = plan.layers[call.layer]
            for role, term in rule(call.layer, call.x, delta, num_victims).items():
                terms.add(names.get(role), term)
        if plan.uncovered:
            with Swapped() if self._swaps else nullcontext():
                dense = self._dense(plan, images, labels, noise, graph)
            for name, term in dense.items():
                terms.add(name, term)
        return Gradients({name: terms[name] for name in plan.names})

    def _dense(
        self,
        plan: Plan,
        images: Tensor,
        labels: Tensor,
        noise: Sequence[Tensor],
        graph: bool,
    ) -> dict[str, Tensor]:
        """Gradients of what no rule covers, victim by victim, from the same noise."""
        noise = [n.unflatten(0, images.shape[:2]) for n in noise]
        victims = images, labels, noise
        if self._alone is not plan:
            state = random_state(images)
            try:
                return self._vectorised(plan.uncovered, *victims)
            except Exception:
                # In-place draws, a layer's own C++, control flow: all that torch.func
                # has no batched form of. If it is the model's fault, it shows again.
                set_random_state(state, images)
                self._alone = plan
        return self._one_after_another(plan.uncovered, *victims, graph)

    def _vectorised(
        self, names: Sequence[str], images: Tensor, labels: Tensor, noise: list[Tensor]
    ) -> dict[str, Tensor]:
        prefix = "model."  # as `Losses` calls it
        chosen = {
            prefix + n: p.detach()
            for n, p in self.model.named_parameters()
            if n in names
        }
        losses = pure_losses(self.model, self.loss)

        # unheard: the first pass has told everyone of this noise and its KL.
        def victim_loss(chosen, images, labels, noise):
            with noise_from(noise), unheard():
                return functional_call(losses, chosen, (images, labels)).mean()

        # "different": each victim's dropout has a mask of its own.
        per_victim = vmap(
            grad(victim_loss), in_dims=(None, 0, 0, 0), randomness="different"
        )
        with unhurried():
            found = per_victim(chosen, images, labels, noise)
        return {name.removeprefix(prefix): term for name, term in found.items()}

    def _one_after_another(
        self,
        names: Sequence[str],
        images: Tensor,
        labels: Tensor,
        noise: list[Tensor],
        graph: bool,
    ) -> dict[str, Tensor]:
        """The same without torch.func; each victim draws for itself."""
        parameters = trainable(self.model)
        chosen = [parameters[name] for name in names]
        rows = []
        for v in range(len(images)):
            with noise_from([n[v] for n in noise]), unheard():
                total = self._losses.run(images[v], labels[v]).mean()
            slopes = torch.autograd.grad(
                total, chosen, create_graph=graph, allow_unused=True,
                materialize_grads=True,
            )  # fmt: skip
            rows.append([s.to_dense() if s.is_sparse else s for s in slopes])
        columns = zip(*rows, strict=True)
        return {n: torch.stack(c) for n, c in zip(names, columns, strict=True)}


def _deltas(total: Tensor, calls: Sequence[LayerCall], graph: bool) -> list[Tensor]:
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


class _Terms(dict):
    """Parameter name -> sum of what all calls contribute: a layer may run twice."""

    def add(self, name: str | None, term: Term) -> None:
        if name is None:  # frozen, or not the rule's alone
            return
        self[name] = _sum(self[name], term) if name in self else term


def _sum(a: Term, b: Term) -> Term:
    # Ranks add up, until the matrix is the smaller of the two.
    if isinstance(a, Outer) and isinstance(b, Outer):
        left, right = torch.cat([a.left, b.left], 1), torch.cat([a.right, b.right], 1)
        total = Outer(left, right, a.shape)
        return total if prefers_factors(left.shape[1], a.shape) else total.dense()
    return sum(t.dense() if isinstance(t, Outer) else t for t in (a, b))


def _check_loss(loss: Loss) -> None:
    # A module of torch.nn can be called, but not with the model.
    if not callable(loss) or isinstance(loss, nn.Module):
        raise TypeError(
            "loss must be a function (model, images, labels) -> (N,), such as "
            f"per_example_loss, got {type(loss).__name__}."
        )


_HOW_TO_SHAPE = {
    1: "It is one number for each; rows of a table are (V, B, features).",
    2: "Rows of a table, a client for each: rows[:, None]; one for all: rows[None].",
    3: "If this is one picture, it is images[None, None].",
    4: "A client for each picture: images[:, None]; one client for all: images[None].",
}


def check_victims(images: Tensor, labels: Tensor) -> None:
    """Refuse anything but examples (V, B, ...) with their labels (V, B, ...).

    Examples are pictures (C, H, W), rows, sound, volumes, embeddings: floats of any
    shape; or tokens, int64. Labels are whatever the loss takes.
    """
    for name, given in (("images", images), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise TypeError(
                f"{name} must be a Tensor, got {type(given).__name__}; "
                "torch.as_tensor(...) makes one."
            )
    if images.dim() < 2 or labels.shape[:2] != images.shape[:2]:
        raise ValueError(_misshapen(images, labels))
    of_tokens = images.dtype == torch.int64 and images.dim() < 5
    if not (images.is_floating_point() or of_tokens):
        raise ValueError(
            f"images must be floating point, got {images.dtype}; 8-bit pictures become "
            "pixels by .float() / 255, and images by the model's normalisation. Tokens "
            "are int64."
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
