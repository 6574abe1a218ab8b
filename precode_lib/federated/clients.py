"""The client: from pictures to what is shared, for victim and attacker alike."""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from precode_lib.basics.validation import closest
from precode_lib.bottleneck import (
    Law,
    NoiseSource,
    draw_noise,
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
    check_victims,
    differentiable,
    one_at_a_time,
    pure_losses,
    trainable,
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
        with source, differentiable():
            flat = functional_call(self.model, buffers, (images.flatten(0, 1),))
        return flat.unflatten(0, images.shape[:2])

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
        batches = self.local.batches(images.shape[1])
        start = {f"model.{n}": p.detach() for n, p in trainable(self.model).items()}

        def train(x: Tensor, y: Tensor, noises: list[list[Tensor]]) -> dict:
            weights = start
            for batch, given in zip(batches, noises, strict=True):

                def step_loss(weights, batch=batch, given=given):
                    with noise_from(given), unheard():
                        pair = x[batch], y[batch]
                        return functional_call(losses, weights, pair).mean()

                slope = grad(step_loss)(weights)
                weights = {n: w - self.local.lr * slope[n] for n, w in weights.items()}
            return {n: start[n] - w for n, w in weights.items()}

        noises = self._draw(losses, images, labels, noise)
        with differentiable():
            moved = vmap(train, randomness="different")(images, labels, noises)
        update = Gradients({n.removeprefix("model."): t for n, t in moved.items()})
        wanted = images.requires_grad or labels.requires_grad
        return update if wanted and torch.is_grad_enabled() else update.detach()

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
