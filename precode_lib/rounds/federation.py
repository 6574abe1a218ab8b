"""Federated rounds: a server, its clients, and who listens.

The server averages the clients' messages by numbers of pictures, and an optimizer
takes the average for a gradient. Whoever listens gets `Observation`s that any attack
takes.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn

from precode_lib.basics.resuming import Resumable
from precode_lib.basics.validation import check_count, check_range
from precode_lib.bottleneck import Loss, per_example_loss
from precode_lib.data import Pictures
from precode_lib.defenses import ClientStep, Defense, bytes_on_wire
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients, first_parameter
from precode_lib.training import (
    LoadedPictures,
    OptimizerFactory,
    Randomness,
    evaluate,
    make_optimizer,
    set_gradients,
    try_model,
)

from .participation import (
    Algorithm,
    Message,
    observed,
    participate,
)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round achieved.

    Args:
        round: counted from 1.
        participants: which clients sent a message.
        train_loss: mean over their pictures, each as its step met it.
        test_loss: mean over all test pictures, after the round.
        test_accuracy: likewise, in [0, 1].
        bytes_up: of all messages, running statistics included.
        bytes_down: of the model, to each participant.
        seconds: wall-clock time, the test included.
    """

    round: int
    participants: tuple[int, ...]
    train_loss: float
    test_loss: float
    test_accuracy: float
    bytes_up: int
    bytes_down: int
    seconds: float


OnMessage = Callable[
    [int, int, Observation], None
]  # round from 1, client, what it sent


class Federation(Resumable[Round]):
    """Trains the server's model in place, round by round.

    Stop the loop whenever you like; `state_dict` resumes it elsewhere, to the last bit
    on a CPU. Messages are averaged by number of pictures, and so are buffers (whole
    numbers rounded). A parameter that a defense withholds is averaged over the clients
    that did send it, and not trained if none did.

    Args:
        model: the server's; clients run copies of it in training mode.
        clients: the pictures of each.
        test: the server's own, to measure accuracy.
        rounds: how many.
        algorithm: `FedSGD` or `FedAvg`.
        server: makes the optimizer that takes the average for a gradient. For FedAvg
            as published `partial(torch.optim.SGD, lr=1.0)`; for FedSGD its lr is the
            learning rate.
        clients_per_round: how many are drawn for a round; None takes all.
        defense: what every client does to its message.
        client_step: what every client computes instead of its gradient (FedSGD only).
        on_message: called as on_message(round, client, observation) for each message,
            by someone on the line: honest, but curious.
        labels_known: whether that someone learns the labels.
        message_bytes: from a message to its bytes, (1,); see `defenses.bytes_on_wire`.
        random: where all random numbers come from; `Randomness.seeded(0)` by default.
    """

    def __init__(
        self,
        model: nn.Module,
        clients: Sequence[Pictures],
        test: Pictures,
        *,
        rounds: int,
        server: OptimizerFactory,
        algorithm: Algorithm,
        clients_per_round: int | None = None,
        defense: Defense | None = None,
        client_step: ClientStep | None = None,
        on_message: OnMessage | None = None,
        labels_known: bool = True,
        message_bytes: Callable[[Gradients], Tensor] = bytes_on_wire,
        loss: Loss = per_example_loss,
        random: Randomness | None = None,
    ):
        _check_clients(clients, test, clients_per_round)
        check_count(rounds, "rounds")
        self.model, self.rounds, self.algorithm = model, rounds, algorithm
        self.num_classes = try_model(model, test)
        self.on_message, self.labels_known = on_message, labels_known
        self.message_bytes, self.loss = message_bytes, loss
        self.participate = partial(
            participate, defense=defense, client_step=client_step, loss=loss
        )
        self._clients = [LoadedPictures(pictures, model) for pictures in clients]
        self._test = LoadedPictures(test, model)
        self._num_chosen = clients_per_round or len(clients)
        device = first_parameter(model).device
        self.random = Randomness.seeded(0, device) if random is None else random
        self._torch = self.random.torch_states(device)
        self._optimizer = make_optimizer(server, model)
        self.history: list[Round] = []

    def _left(self) -> int:
        return self.rounds - len(self.history)

    def _advance(self) -> Round:
        start = perf_counter()
        chosen = self._choose()
        with self._torch.lent():
            messages = self._messages(chosen)
        self._learn(messages)
        self.history.append(self._finished(chosen, messages, start))
        return self.history[-1]

    def state_dict(self) -> dict:
        """All that a resumed run needs: tensors, numbers and lists only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": self.random.state_dict(),
            "torch": self._torch.states,
            "history": [asdict(each) for each in self.history],
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue where that run was."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.random.load_state_dict(state["random"])
        self._torch.load(state["torch"])
        self.history = [Round(**each) for each in state["history"]]

    def _bar(self) -> dict:
        done, total = len(self.history), self.rounds
        return {"total": total, "initial": done, "unit": "round"}

    def _note(self, step: Round) -> str:
        loss, accuracy = step.train_loss, step.test_accuracy
        return f"loss {loss:.3g}, accuracy {accuracy:.1%} test"

    def _choose(self) -> list[int]:
        order = torch.randperm(len(self._clients), generator=self.random.shuffle)
        return sorted(order[: self._num_chosen].tolist())

    def _messages(self, chosen: list[int]) -> list[Message]:
        # Observations keep what was sent, and the server's own model goes on learning.
        sent = copy.deepcopy(self.model).train() if self.on_message else self.model
        return [self._hear(client, sent) for client in chosen]

    def _hear(self, client: int, sent: nn.Module) -> Message:
        """One client's message, as the server and whoever listens get it."""
        pictures = self._clients[client]
        num_examples, local = self.algorithm.task(len(pictures))
        order = torch.randperm(len(pictures), generator=self.random.shuffle)
        rows = order[:num_examples].to(pictures.labels.device)
        images, labels = pictures.batch(rows)
        message = self.participate(
            sent, images, labels, local=local, noise=self.random.noise
        )
        if self.on_message is not None:
            observation = observed(
                message,
                sent,
                labels if self.labels_known else None,
                pictures,
                num_classes=self.num_classes,
                local=local,
                loss=self.loss,
            )
            self.on_message(len(self.history) + 1, client, observation)
        return message

    def _learn(self, messages: list[Message]) -> None:
        weights = [message.num_examples for message in messages]
        shared = [(m.shared.dense(), m.num_examples) for m in messages]
        means = {}
        for name, _ in self.model.named_parameters():
            sent = [(g[name], weight) for g, weight in shared if name in g]
            if sent:
                means[name] = _weighted_mean(*zip(*sent, strict=True))
        set_gradients(self.model, Gradients(means))
        self._optimizer.step()
        self._optimizer.zero_grad()
        for name, buffer in self.model.named_buffers():
            own = [message.buffers[name] for message in messages]
            buffer.copy_(_weighted_mean(own, weights))

    def _finished(
        self, chosen: list[int], messages: list[Message], start: float
    ) -> Round:
        test = evaluate(self.model, self._test, loss=self.loss)
        buffers = _bytes(self.model.buffers())
        total = sum(message.num_examples for message in messages)
        return Round(
            round=len(self.history) + 1,
            participants=tuple(chosen),
            train_loss=sum(m.loss * m.num_examples for m in messages) / total,
            test_loss=test.loss,
            test_accuracy=test.accuracy,
            bytes_up=sum(int(self.message_bytes(m.shared)) for m in messages)
            + buffers * len(messages),
            bytes_down=(_bytes(self.model.parameters()) + buffers) * len(messages),
            seconds=perf_counter() - start,
        )


def _weighted_mean(tensors: Sequence[Tensor], weights: Sequence[int]) -> Tensor:
    """The mean by weights; of whole numbers, rounded."""
    total = sum(w * t for w, t in zip(weights, tensors, strict=True)) / sum(weights)
    kind = tensors[0].dtype  # BatchNorm counts its batches in int64
    return (total if kind.is_floating_point else total.round()).to(kind)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _check_clients(
    clients: Sequence[Pictures], test: Pictures, clients_per_round: int | None
) -> None:
    if not clients:
        raise ValueError("a federation needs at least one client with pictures.")
    for number, pictures in enumerate(clients):
        if pictures.classes != test.classes or pictures.image_shape != test.image_shape:
            raise ValueError(
                f"client {number} has {pictures!r}, the server tests with {test!r}; "
                "classes and sizes must be the same."
            )
    if clients_per_round is not None:
        check_count(clients_per_round, "clients_per_round")
        check_range(clients_per_round, "clients_per_round", 1, len(clients))
