"""Our clients, and a curious server, in Flower, the federated framework.

Needs the extra `flower`. Flower sends weights, not gradients: what a client shares is
the way that its weights moved, rounded as the weights are. That is all which protects
it from a server that looks at one client's answer before averaging.
"""

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from precode_lib.bottleneck import Loss, num_classes, per_example_loss
from precode_lib.data import Pictures
from precode_lib.defenses import Defense
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients, first_parameter, trainable
from precode_lib.training import (
    LoadedPictures,
    Randomness,
    evaluate,
    mode,
    try_model,
)

from .participation import FedAvg as LocalAveraging
from .participation import participate

try:
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp.strategy import Strategy
except ImportError as error:
    raise ImportError(
        "precode_lib.rounds.flower needs Flower 1.42 or newer, which is not "
        "installed: pip install 'precode-lib[flower]'."
    ) from error


class PictureClient:
    """Answers Flower's messages with any of our models, PRECODE included.

    `train` and `evaluate` are what a ClientApp's functions return. Flower starts an app
    anew for every message, so make the client inside these functions.

    Args:
        model: the architecture; every message overwrites its weights.
        pictures: the client's own; they stay here.
        algorithm: `rounds.FedAvg`; one epoch with all pictures in a batch is FedSGD.
        random: its shuffles and noise. Seed it by client and round, or each round
            repeats the first one's numbers.
        defense: what it does to its update.
        test: what it evaluates on; by default its own pictures.
    """

    def __init__(
        self,
        model: nn.Module,
        pictures: Pictures,
        algorithm: LocalAveraging,
        *,
        random: Randomness,
        defense: Defense | None = None,
        test: Pictures | None = None,
        loss: Loss = per_example_loss,
    ):
        _check_algorithm(algorithm)
        try_model(model, pictures)
        self.model, self.algorithm, self.random = model, algorithm, random
        self.defense, self.loss = defense, loss
        self._pictures = LoadedPictures(pictures, model)
        self._test = LoadedPictures(pictures if test is None else test, model)

    def train(self, message: Message) -> Message:
        """Train from these weights; replies where they came to, behind the defense."""
        load_arrays(self.model, _arrays_of(message))
        num_examples, local = self.algorithm.task(len(self._pictures))
        order = torch.randperm(len(self._pictures), generator=self.random.shuffle)
        rows = order[:num_examples].to(self._pictures.labels.device)
        answer = participate(
            self.model,
            *self._pictures.batch(rows),
            local=local,
            defense=self.defense,
            loss=self.loss,
            noise=self.random.noise,
        )
        _move(self.model, answer.shared, answer.buffers)
        metrics = {"loss": answer.loss, "num-examples": num_examples}
        return _reply(message, metrics, arrays=to_arrays(self.model))

    def evaluate(self, message: Message) -> Message:
        """Replies the loss and accuracy of these weights."""
        load_arrays(self.model, _arrays_of(message))
        found = evaluate(self.model, self._test, loss=self.loss)
        metrics = {"loss": found.loss, "accuracy": found.accuracy}
        return _reply(message, {**metrics, "num-examples": found.num_pictures})


class Curious(Strategy):
    """Any of Flower's strategies, run by a server that also looks at every answer.

    It is honest: what it sends and averages is what the strategy would. It looks first,
    so a strategy that adds noise to the average (central DP) is no protection from it.

    Args:
        strategy: does the server's work, such as Flower's FedAvg, wrapped or not.
        model: the architecture.
        algorithm: what the clients were told to do.
        on_message: called as on_message(round, node, observation) for each answer.
        image_shape: (C, H, W) of the pictures; known, like the normalisation.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        algorithm: LocalAveraging,
        *,
        on_message: Callable[[int, int, Observation], None],
        image_shape: Sequence[int],
        normalisation: object | None = None,
        loss: Loss = per_example_loss,
    ):
        _check_algorithm(algorithm)
        self.strategy, self.on_message = strategy, on_message
        self.algorithm, self.loss = algorithm, loss
        self.image_shape, self.normalisation = torch.Size(image_shape), normalisation
        self._model = copy.deepcopy(model).train()
        self._num_classes = _count_classes(model, self.image_shape)

    def configure_train(self, server_round, arrays, config, grid) -> Iterable[Message]:
        """As the strategy; remembers what is sent."""
        load_arrays(self._model, arrays)
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round, replies
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the strategy; looks at the answers first."""
        replies, sent = list(replies), copy.deepcopy(self._model)
        for reply in replies:
            if not reply.has_error():
                observation = self.observe(sent, reply)
                self.on_message(server_round, reply.metadata.src_node_id, observation)
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round, arrays, config, grid
    ) -> Iterable[Message]:
        """As the strategy."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round, replies) -> MetricRecord | None:
        """As the strategy."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """As the strategy, in Flower's log."""
        self.strategy.summary()

    def observe(self, sent: nn.Module, reply: Message) -> Observation:
        """What one answer tells: the weights sent minus those that came back."""
        (metrics,) = reply.content.metric_records.values()
        num_examples = int(metrics["num-examples"])
        back = copy.deepcopy(sent)
        load_arrays(back, _arrays_of(reply))
        after = trainable(back)
        moved = {n: (p - after[n]).detach()[None] for n, p in trainable(sent).items()}
        return Observation(
            shared=Gradients(moved),
            model=sent,
            image_shape=self.image_shape,
            num_examples=num_examples,
            num_classes=self._num_classes,
            normalisation=self.normalisation,
            local=self.algorithm.task(num_examples).local,
            loss=self.loss,
            buffers=dict(back.named_buffers()) or None,
        )


def to_arrays(model: nn.Module) -> ArrayRecord:
    """Copies of the weights and buffers, by their names in the state dict."""
    return ArrayRecord(model.state_dict())


@torch.no_grad()
def load_arrays(model: nn.Module, arrays: ArrayRecord) -> None:
    """Put them into the model; averages of whole numbers are rounded."""
    state = model.state_dict()
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in state.items()}:
        raise ValueError(
            f"got {len(shapes)} arrays that do not fit the model's {len(state)} "
            "tensors; server and clients must build the same model."
        )
    for name, tensor in state.items():
        value = torch.as_tensor(arrays[name].numpy())
        whole = not tensor.dtype.is_floating_point and value.dtype.is_floating_point
        tensor.copy_(value.round() if whole else value)


def _arrays_of(message: Message) -> ArrayRecord:
    (arrays,) = message.content.array_records.values()
    return arrays


def _reply(message: Message, metrics: dict, **records: ArrayRecord) -> Message:
    content = RecordDict({**records, "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


@torch.no_grad()
def _move(model: nn.Module, shared: Gradients, buffers: dict[str, Tensor]) -> None:
    for name, term in shared.dense().items():
        model.get_parameter(name).sub_(term[0])
    for name, value in buffers.items():
        model.get_buffer(name).copy_(value)


def _count_classes(model: nn.Module, image_shape: torch.Size) -> int:
    black = first_parameter(model).new_zeros(1, *image_shape)
    with mode(model, training=False):
        return num_classes(model, black)


def _check_algorithm(algorithm: LocalAveraging) -> None:
    if not isinstance(algorithm, LocalAveraging):
        raise TypeError(
            "Flower sends weights, so the algorithm must be rounds.FedAvg(lr=...), got "
            f"{type(algorithm).__name__}; FedAvg with one step is FedSGD."
        )
