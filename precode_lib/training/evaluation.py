"""How well a model does on pictures: all of them, in chunks, with repeatable noise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import check_count
from precode_lib.bottleneck import Loss, logits_of, noise_from, per_example_loss
from precode_lib.data import Examples
from precode_lib.gradients import first_parameter

# Changes pixels (B, C, H, W) in [0, 1]; draws from the generator, on their device.
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over all the pictures; the loss in nats, the accuracy in [0, 1]."""

    loss: float
    accuracy: float
    num_pictures: int


class LoadedPictures:
    """Pictures on a model's device, as they are stored; batches become images there.

    Other examples stay as they are.

    8-bit pictures stay 8-bit, so that 50,000 of CIFAR take 154 MB of the device.
    """

    def __init__(self, pictures: Examples, model: nn.Module):
        parameter = first_parameter(model)
        self.stored = pictures.stored.to(parameter.device)
        self.labels = pictures.labels.to(parameter.device)
        self.normalisation, self.dtype = pictures.normalisation, parameter.dtype

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self,
        rows: Tensor | slice,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """These pictures as images (B, C, H, W), normalised, and their labels (B,)."""
        pixels = self.stored[rows]
        if pixels.dtype == torch.uint8:
            pixels = pixels.to(self.dtype) / 255
        if augment is not None:
            pixels = augment(pixels, generator)
        if self.normalisation is not None:  # what is no picture comes as it is
            pixels = self.normalisation.normalise(pixels)
        return pixels.to(self.dtype), self.labels[rows]


def evaluate(
    model: nn.Module,
    pictures: Examples | LoadedPictures,
    *,
    loss: Loss = per_example_loss,
    batch_size: int = 500,
    generator: torch.Generator | None = None,
) -> Evaluation:
    """The mean loss and the accuracy over all the pictures, in evaluation mode.

    Bottlenecks sample here as well. By default their noise is the same in every call,
    and no other random number is used up; the model is left in the mode it was in.

    Args:
        batch_size: pictures at a time; a memory limit, and part of what decides the
            noise of each picture.
        generator: of the bottlenecks' noise.
    """
    check_count(batch_size, "batch_size")
    if isinstance(pictures, Examples):
        pictures = LoadedPictures(pictures, model)
    if generator is None:
        generator = torch.Generator(pictures.labels.device).manual_seed(0)
    totals = new_totals(model)
    with torch.no_grad(), mode(model, training=False), noise_from(generator):
        for start in range(0, len(pictures), batch_size):
            images, labels = pictures.batch(slice(start, start + batch_size))
            with watched(model) as outputs:
                losses = loss(model, images, labels)
            totals += count(losses, outputs, labels)
    mean_loss, accuracy = (totals / len(pictures)).tolist()
    return Evaluation(mean_loss, accuracy, len(pictures))


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put the whole model into a mode, and every part back into its own afterwards."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before.items():
            module.training = was_training


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the model's outputs, so that one pass serves loss and accuracy."""
    outputs: list[Tensor] = []
    handle = model.register_forward_hook(
        lambda module, inputs, output: outputs.append(logits_of(output).detach())
    )
    try:
        yield outputs
    finally:
        handle.remove()


def new_totals(model: nn.Module) -> Tensor:
    """Zeros for summed loss and hits, on the model's device: nothing waits for it."""
    device = first_parameter(model).device
    # float32 could not count more than 2**24 pictures; Apple's GPUs have no float64.
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.zeros(2, dtype=dtype, device=device)


def count(losses: Tensor, outputs: list[Tensor], labels: Tensor) -> Tensor:
    """Summed loss and number of hits of one batch: (2,)."""
    if not outputs:
        raise ValueError("the loss did not call the model, so there is no accuracy.")
    hits = outputs[-1].argmax(1) == labels
    return torch.stack([losses.detach().sum(), hits.sum().to(losses.dtype)])
