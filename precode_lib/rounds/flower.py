"""Our clients and a curious server in Flower, the federated framework.

Needs the extra `flower`. Flower sends weights, not gradients: what a client shares is
the way that its weights moved, rounded as the weights are. That is all which protects
it from a server that looks at one client's answer before averaging.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
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
    from flwr.client import NumPyClient
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server.strategy import FedAvg
except ImportError as error:
    raise ImportError(
        "precode_lib.rounds.flower needs Flower, which is not installed: "
        "pip install 'precode-lib[flower]'."
    ) from error

Arrays = list[np.ndarray]


class PictureClient(NumPyClient):
    """A Flower client that trains any of our models, PRECODE included.

    Args:
        model: the architecture; every round overwrites its weights.
        pictures: the client's own; they stay here.
        algorithm: `rounds.FedAvg`; one epoch with all pictures in a batch is FedSGD.
        random: its shuffles and noise. Flower's simulation makes clients anew in every
            round: keep this elsewhere, or each round repeats the first one's numbers.
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

    def get_parameters(self, config: dict) -> Arrays:
        """The weights and buffers it has."""
        return to_arrays(self.model)

    def fit(self, parameters: Arrays, config: dict) -> tuple[Arrays, int, dict]:
        """Train from these weights; returns where they came to, behind the defense."""
        load_arrays(self.model, parameters)
        num_examples, local = self.algorithm.task(len(self._pictures))
        order = torch.randperm(len(self._pictures), generator=self.random.shuffle)
        rows = order[:num_examples].to(self._pictures.labels.device)
        message = participate(
            self.model,
            *self._pictures.batch(rows),
            local=local,
            defense=self.defense,
            loss=self.loss,
            noise=self.random.noise,
        )
        _move(self.model, message.shared, message.buffers)
        return to_arrays(self.model), num_examples, {"loss": message.loss}

    def evaluate(self, parameters: Arrays, config: dict) -> tuple[float, int, dict]:
        """The loss and accuracy of these weights."""
        load_arrays(self.model, parameters)
        result = evaluate(self.model, self._test, loss=self.loss)
        return result.loss, result.num_pictures, {"accuracy": result.accuracy}


class CuriousFedAvg(FedAvg):
    """Flower's FedAvg, run by a server that also looks at every single answer.

    It is honest: what it averages and sends is what `FedAvg` would.

    Args:
        model: the architecture, with the weights of the first round.
        algorithm: what the clients were told to do.
        on_message: called as on_message(round, client id, observation).
        image_shape: (C, H, W) of the pictures; known, like the normalisation.
        options: of Flower's FedAvg, such as min_fit_clients.
    """

    def __init__(
        self,
        model: nn.Module,
        algorithm: LocalAveraging,
        *,
        on_message: Callable[[int, str, Observation], None],
        image_shape: Sequence[int],
        normalisation: object | None = None,
        loss: Loss = per_example_loss,
        **options,
    ):
        _check_algorithm(algorithm)
        start = ndarrays_to_parameters(to_arrays(model))
        # Flower's average in place turns whole numbers, BatchNorm's counter, into 0.
        usual = {"initial_parameters": start, "inplace": False}
        super().__init__(**{**usual, **options})
        self.on_message, self.algorithm, self.loss = on_message, algorithm, loss
        self.image_shape, self.normalisation = torch.Size(image_shape), normalisation
        self._model = copy.deepcopy(model).train()
        self._num_classes = _count_classes(model, self.image_shape)

    def __repr__(self) -> str:
        return f"CuriousFedAvg(accept_failures={self.accept_failures})"

    def configure_fit(self, server_round, parameters, client_manager):
        """As FedAvg; remembers what it sends."""
        load_arrays(self._model, parameters_to_ndarrays(parameters))
        return super().configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(self, server_round, results, failures):
        """As FedAvg; looks at the answers first."""
        sent = copy.deepcopy(self._model)
        for client, answer in results:
            arrays = parameters_to_ndarrays(answer.parameters)
            observation = self.observe(sent, arrays, answer.num_examples)
            self.on_message(server_round, client.cid, observation)
        return super().aggregate_fit(server_round, results, failures)

    def observe(
        self, sent: nn.Module, arrays: Arrays, num_examples: int
    ) -> Observation:
        """What one answer tells: the weights sent minus those that came back."""
        back = copy.deepcopy(sent)
        load_arrays(back, arrays)
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


def to_arrays(model: nn.Module) -> Arrays:
    """Copies of the weights and buffers, in the order of the state dict."""
    tensors = model.state_dict().values()
    return [tensor.detach().cpu().numpy().copy() for tensor in tensors]


def load_arrays(model: nn.Module, arrays: Arrays) -> None:
    """Put them into the model; averages of whole numbers are rounded."""
    state = model.state_dict()
    shapes = [tuple(np.shape(array)) for array in arrays]
    if shapes != [tuple(tensor.shape) for tensor in state.values()]:
        raise ValueError(
            f"got {len(arrays)} arrays that do not fit the model's {len(state)} "
            "tensors; server and clients must build the same model."
        )
    for tensor, array in zip(state.values(), arrays, strict=True):
        value = torch.as_tensor(np.asarray(array))
        whole = not tensor.dtype.is_floating_point and value.dtype.is_floating_point
        tensor.copy_(value.round() if whole else value)


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
