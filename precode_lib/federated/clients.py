"""The client: from pictures to what is shared, for victim and attacker alike."""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from precode_lib.basics.validation import closest
from precode_lib.bottleneck import (
    Law,
    NoiseSource,
    draw_noise,
    logits_of,
    noise_from,
    per_example_loss,
    quiet,
    recorded_noise,
    unheard,
)
from precode_lib.gradients import (
    Capture,
    Gradients,
    Losses,
    Rule,
    Swapped,
    check_differentiable,
    check_victims,
    differentiable,
    named_if_missing,
    one_at_a_time,
    pure_losses,
    random_state,
    set_random_state,
    trainable,
    unhurried,
)

from .local import LocalTraining


class Client:
    """From pictures to what is shared, differentiably: victim and attacker run this.

    Leaves the model as it is.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        local: LocalTraining | None = None,
        loss: Callable = per_example_loss,
        rules: Mapping[type[nn.Module], Rule] | None = None,
    ):
        self.model, self.local, self.loss = model, local, loss
        self.capture = Capture(model, loss=loss, rules=rules)
        self._is_alone = False  # torch.func could not transform its training
        self._is_checked = False  # the slopes of its updates were seen to have slopes

    def __call__(
        self, images: Tensor, labels: Tensor, *, noise: NoiseSource | None = None
    ) -> Gradients:
        """What V clients would share, dense or factored.

        Args:
            images: (V, B, C, H, W), normalised; or other examples (V, B, ...).
            labels: (V, B) classes, (V, B, classes) probabilities, or whatever else the
                loss takes.
            noise: where bottlenecks draw from.
        """
        if self.local is None:
            return self.capture(images, labels, noise=noise)
        return self._update(images, labels, noise)

    @one_at_a_time
    def logits(self, images: Tensor, *, noise: NoiseSource | None = None) -> Tensor:
        """The model's outputs for images (V, B, C, H, W): (V, B, classes).

        Of other examples (V, B, ...) its outputs are (V, B, ...) too.
        """
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        source = nullcontext() if noise is None else noise_from(noise)
        with source, differentiable(), Swapped():
            outputs = functional_call(self.model, buffers, (images.flatten(0, 1),))
        return logits_of(outputs).unflatten(0, images.shape[:2])

    def victims_within(self, num_bytes: int, images: Tensor, labels: Tensor) -> int:
        """How many victims like these fit, about, when the result is differentiated.

        Forward, backward and double backward keep about eight times the layers' inputs
        and outputs; a term that is not factored is met as guess and as difference.

        Args:
            images: of one victim at least, (V, B, ...).
            labels: such as the loss takes, (V, B, ...).
        """
        one, labels = images[:1].detach(), labels[:1].detach()
        if self.capture.mixes_examples(one, labels):
            return 1  # a batch norm would normalise all of them together
        held = 8 * self.capture.activation_bytes(one, labels)
        if self.local is None:
            with quiet(self.model):
                shared = self.capture(one, labels, create_graph=False)
            dense = [term for term in shared.values() if isinstance(term, Tensor)]
            held += 3 * sum(map(bytes_of, dense))
        else:
            weights = sum(map(bytes_of, trainable(self.model).values()))
            held = self.local.steps * (held + 3 * weights)
        return max(1, num_bytes // held)

    @one_at_a_time
    def _update(
        self, images: Tensor, labels: Tensor, noise: NoiseSource | None
    ) -> Gradients:
        """Weights before minus weights after local training, victim by victim."""
        check_victims(images, labels)
        losses = pure_losses(self.model, self.loss)
        noises = self._draw(losses, images, labels, noise)
        wanted = images.requires_grad or labels.requires_grad
        wanted = wanted and torch.is_grad_enabled()
        with differentiable(), Swapped(), named_if_missing():
            update = Gradients(self._moved(losses, images, labels, noises, wanted))
            if wanted and not self._is_checked:
                check_differentiable(update.tensors())
                self._is_checked = True
        return update if wanted else update.detach()

    def _moved(
        self,
        losses: Losses,
        images: Tensor,
        labels: Tensor,
        noises: list[list[Tensor]],
        graph: bool,
    ) -> dict[str, Tensor]:
        """All victims at once, or one after another if torch.func cannot."""
        prefix = "model."  # as `Losses` calls it
        start = {prefix + n: p.detach() for n, p in trainable(self.model).items()}
        if not self._is_alone:
            state = random_state(images)
            train = partial(self._trained, losses, start, grad)
            try:
                with unhurried():
                    every = vmap(train, randomness="different")(images, labels, noises)
                return {n.removeprefix(prefix): t for n, t in every.items()}
            except Exception:  # if it is the model's fault, it shows again
                set_random_state(state, images)
                self._is_alone = True
        start = {n: p.requires_grad_() for n, p in start.items()}
        rows = []
        for v in range(len(images)):
            own = [[n[v] for n in step] for step in noises]
            slopes = partial(_slopes, graph=graph)
            rows.append(self._trained(losses, start, slopes, images[v], labels[v], own))
        return {
            n.removeprefix(prefix): torch.stack([row[n] for row in rows]) for n in start
        }

    def _trained(
        self,
        losses: Losses,
        start: dict[str, Tensor],
        slopes_of: Callable,
        images: Tensor,
        labels: Tensor,
        noises: list[list[Tensor]],
    ) -> dict[str, Tensor]:
        """How far one victim's weights move, as a function that can be differentiated.

        Args:
            slopes_of: from a function of the weights to its slopes, such as `grad`.
        """
        update = self.local.update()
        weights, states = start, {name: {} for name in start}
        batches = self.local.batches(len(images))
        for step, (batch, given) in enumerate(zip(batches, noises, strict=True), 1):

            def step_loss(weights, batch=batch, given=given):
                with noise_from(given), unheard():
                    pair = images[batch], labels[batch]
                    return functional_call(losses, weights, pair).mean()

            slopes = slopes_of(step_loss)(weights)
            moved = {
                n: update(w, slopes[n], states[n], step) for n, w in weights.items()
            }
            weights = {n: weight for n, (weight, _) in moved.items()}
            states = {n: state for n, (_, state) in moved.items()}
        return {n: start[n] - w for n, w in weights.items()}

    def _draw(
        self, losses: Losses, images: Tensor, labels: Tensor, noise: NoiseSource | None
    ) -> list[list[Tensor]]:
        """Noise (V, b, ...) of every bottleneck in every step.

        Drawn in advance, for inside `vmap` a generator would give all victims the same.
        """
        drawn = []
        source = nullcontext() if noise is None else noise_from(noise)
        with source:
            for batch in self.local.batches(images.shape[1]):
                with torch.no_grad(), quiet(losses), recorded_noise() as stand_ins:
                    losses(images[0, batch].detach(), labels[0, batch].detach())
                pairs = zip(stand_ins, stand_ins.laws, strict=True)
                drawn.append([_draw_for(len(images), *pair) for pair in pairs])
        return drawn


def _slopes(function: Callable, *, graph: bool) -> Callable:
    """As `torch.func.grad`, by autograd: it serves what torch.func does not."""

    def slopes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        found = torch.autograd.grad(
            function(weights), [*weights.values()], create_graph=graph,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return dict(zip(weights, found, strict=True))

    return slopes


def bytes_of(tensor: Tensor) -> int:
    """What a tensor takes."""
    return tensor.numel() * tensor.element_size()


def _draw_for(num_victims: int, stand_in: Tensor, law: Law) -> Tensor:
    """Noise (V, b, ...) where one victim's bottleneck would draw (b, ...)."""
    shape = num_victims * len(stand_in), *stand_in.shape[1:]
    return draw_noise(stand_in.new_zeros(shape), law).unflatten(0, (num_victims, -1))


def with_buffers(model: nn.Module, buffers: dict[str, Tensor]) -> nn.Module:
    """A copy with these buffers; refuses names or shapes the model does not have."""
    model = copy.deepcopy(model)
    own = dict(model.named_buffers())
    for name, value in buffers.items():
        if name not in own or own[name].shape != value.shape:
            raise ValueError(
                f"the model has no buffer {name!r} of shape {tuple(value.shape)}."
                + closest(name, own)
            )
        own[name].copy_(value)
    return model
