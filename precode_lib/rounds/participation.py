"""What a client does in a round, and what it sends.

A client's message is a gradient (FedSGD) or its weights' way in local training
(FedAvg). `observed` makes an `Observation` of it, of nothing but what crossed the wire
and what the protocol says anyway.
"""

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import check_count, check_range
from precode_lib.bottleneck import Loss, noise_from, per_example_loss, quiet
from precode_lib.defenses import ClientStep, Defense, check_client_step, defended
from precode_lib.federated import Client, LocalTraining, Observation
from precode_lib.gradients import (
    Capture,
    Gradients,
    factor,
    first_parameter,
    from_list,
    ranks,
    trainable,
)
from precode_lib.training import LoadedPictures, get_gradients


class ClientTask(NamedTuple):
    """How many of its pictures a client uses in a round, and how."""

    num_examples: int
    local: LocalTraining | None


@dataclass(frozen=True)
class FedSGD:
    """Each client sends one gradient (McMahan et al. 2017).

    Args:
        batch_size: pictures of it, drawn anew in every round; None takes all.
    """

    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check_batch_size(self.batch_size)

    def task(self, num_pictures: int) -> ClientTask:
        """What a client with so many pictures does."""
        return ClientTask(min(self.batch_size or num_pictures, num_pictures), None)


@dataclass(frozen=True)
class FedAvg:
    """Each client trains by plain SGD and sends how far its weights moved.

    A round's pictures are shuffled once; every local epoch takes them in that order,
    and those that do not fill a last batch sit the round out.

    Args:
        lr: the clients' learning rate.
        epochs: local epochs of a round.
        batch_size: pictures of a local step; None takes all of a client's.
    """

    lr: float
    epochs: int = 1
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_range(self.lr, "lr", 0, open_low=True)
        check_count(self.epochs, "epochs")
        _check_batch_size(self.batch_size)

    def task(self, num_pictures: int) -> ClientTask:
        """What a client with so many pictures does."""
        size = min(self.batch_size or num_pictures, num_pictures)
        num_batches = num_pictures // size
        local = LocalTraining(self.epochs * num_batches, self.lr, size)
        return ClientTask(num_batches * size, local)


Algorithm = FedSGD | FedAvg


class Message(NamedTuple):
    """What one client sends.

    Args:
        shared: its gradient, or weights before minus after, behind its defense; V = 1.
        buffers: its model's buffers (running statistics) afterwards.
        num_examples: pictures it used.
        loss: their mean loss on the way; stays with the client, for our figures.
    """

    shared: Gradients
    buffers: dict[str, Tensor]
    num_examples: int
    loss: float


def participate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    local: LocalTraining | None = None,
    defense: Defense | None = None,
    client_step: ClientStep | None = None,
    loss: Loss = per_example_loss,
    noise: torch.Generator | None = None,
) -> Message:
    """Let one client compute its message, in training mode; the model stays as it is.

    Unlike `federated.Client` it updates running statistics, as a real client does,
    and cannot be differentiated. The two agree otherwise.

    Args:
        model: as the server sent it.
        images: (B, C, H, W), normalised.
        labels: (B,).
        local: its local training; None for one gradient.
        defense: from what it computed to what it sends.
        client_step: computes the gradient in place of the plain one.
        noise: of its bottlenecks; by default from torch's global generator.
    """
    if client_step is not None:
        if local is not None:
            raise ValueError("a client_step replaces the gradient: use it with FedSGD.")
        check_client_step(client_step)
    own = copy.deepcopy(model).train()  # local steps and running statistics move it
    pair = images.unsqueeze(0), labels.unsqueeze(0)
    if client_step is not None:
        chosen = client_step(Capture(own, loss=loss), *pair, noise=noise)
    source = torch.randn_like if noise is None else noise
    # Beside a client_step too: this pass has the loss and updates running statistics.
    with noise_from(source):
        if local is None:
            mean_loss = _step(own, images, labels, loss)
            shared = get_gradients(own)
        else:
            mean_loss, shared = _train(own, images, labels, local, loss)
    if client_step is not None:
        shared = chosen
    if defense is not None:
        shared = defended(defense, shared.dense())
    buffers = {name: b.detach() for name, b in own.named_buffers()}
    return Message(shared, buffers, len(images), mean_loss)


def _step(own: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> float:
    own.zero_grad()  # of the step before, or what the server's model came with
    mean = loss(own, images, labels).mean()
    mean.backward()
    return mean.item()


def _train(
    own: nn.Module, images: Tensor, labels: Tensor, local: LocalTraining, loss: Loss
) -> tuple[float, Gradients]:
    """Mean loss over the steps, and weights before minus weights after."""
    named = trainable(own)
    start = [p.detach().clone() for p in named.values()]
    optimizer = local.started(named.values())
    losses = []
    for batch in local.batches(len(images)):
        losses.append(_step(own, images[batch], labels[batch], loss))
        optimizer.step()
    moved = [s - p.detach() for s, p in zip(start, named.values(), strict=True)]
    return sum(losses) / len(losses), from_list(list(named), moved)


def observed(
    message: Message,
    model: nn.Module,
    labels: Tensor | None,
    pictures: LoadedPictures,
    *,
    num_classes: int,
    local: LocalTraining | None = None,
    loss: Loss = per_example_loss,
) -> Observation:
    """What a listener makes of one message, with matrices of low rank factored.

    The ranks to expect follow from the protocol alone: the listener's own client, run
    on black pictures, has them.

    Args:
        model: as the server sent it, in training mode; it is not copied.
        labels: (B,), if the listener knows them.
        pictures: whose shape and normalisation are known to everyone.
    """
    image_shape = pictures.stored.shape[1:]
    observation = Observation(
        shared=message.shared.detach(),
        model=model,
        image_shape=image_shape,
        num_examples=message.num_examples,
        num_classes=num_classes,
        labels=None if labels is None else labels.unsqueeze(0),
        normalisation=pictures.normalisation,
        local=local,
        loss=loss,
        buffers=message.buffers or None,
    )
    if local is not None:
        return observation  # an update of several steps is factored by nobody
    shape = 1, message.num_examples, *image_shape
    black = first_parameter(model).new_zeros(shape)
    zeros = torch.zeros(shape[:2], dtype=torch.int64, device=black.device)
    with quiet(model):  # listening must not move the clients' dropout
        imagined = Client(model, loss=loss)(black, zeros)
    expected = {n: r for n, r in ranks(imagined).items() if n in message.shared}
    return replace(observation, shared=factor(observation.shared, expected))


def _check_batch_size(batch_size: int | None) -> None:
    if batch_size is not None:
        check_count(batch_size, "batch_size")
