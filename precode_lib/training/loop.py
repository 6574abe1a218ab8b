"""Training as an iterator of epochs: any model, any defense, and an exact way back.

Epochs are yielded, nothing is printed. Every random number comes from streams that
belong to the training and travel in its checkpoints: a run that was killed and resumed
ends, on a CPU, with the same weights to the last bit.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from time import perf_counter

import torch
from torch import Tensor, nn

from precode_lib.basics.files import atomic_file
from precode_lib.basics.resuming import Resumable
from precode_lib.basics.validation import check_count
from precode_lib.bottleneck import (
    Loss,
    logits_of,
    noise_from,
    per_example_loss,
    rehearse,
)
from precode_lib.data import Pictures, Splits
from precode_lib.defenses import ClientStep, Defense, check_client_step
from precode_lib.gradients import (
    Capture,
    Gradients,
    dense,
    first_parameter,
    from_list,
    trainable,
)

from .evaluation import (
    Augment,
    LoadedPictures,
    count,
    evaluate,
    mode,
    new_totals,
    watched,
)
from .protocols import (
    PAPER,
    Protocol,
    Randomness,
    make_optimizer,
)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch achieved.

    Args:
        epoch: counted from 1.
        train_loss: mean over the epoch's pictures, each as its step met it (before
            the step, augmented, in training mode); `evaluate` looks at one model.
        train_accuracy: likewise, in [0, 1].
        test_loss: mean over all test pictures, after the epoch.
        test_accuracy: likewise, in [0, 1].
        seconds: wall-clock time, the test included.
        learning_rate: of the first parameter group.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    learning_rate: float


@dataclass
class _Running:
    """The epoch under way."""

    order: Tensor  # (N,) rows in the order of this epoch, on the CPU
    totals: Tensor  # summed loss and hits
    num_steps: int = 0
    seconds: float = 0.0


class Training(Resumable[Epoch]):
    """Trains the model in place and yields each epoch's figures; `fit` makes one.

    Stop the loop whenever you like: the next call goes on from there. A run that
    diverges goes on too, with `nan` for its loss.
    """

    def __init__(
        self,
        model: nn.Module,
        splits: Splits,
        protocol: Protocol = PAPER,
        *,
        defense: Defense | None = None,
        client_step: ClientStep | None = None,
        augment: Augment | None = None,
        loss: Loss = per_example_loss,
        random: Randomness | None = None,
        compiled: Callable[[nn.Module], nn.Module] | None = None,
    ):
        self.model, self.protocol = model, protocol
        if client_step is not None:
            check_client_step(client_step)
        self.defense, self.client_step = defense, client_step
        self.augment, self.loss = augment, loss
        self._train = LoadedPictures(splits.train, model)
        self._test = LoadedPictures(splits.test, model)
        try_model(model, splits.test)
        self.device = first_parameter(model).device
        self.random = Randomness.seeded(0, self.device) if random is None else random
        self.history: list[Epoch] = []
        self._optimizer = make_optimizer(protocol.optimizer, model)
        # The schedule multiplies these. A checkpoint brings its last epoch's rates.
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._network = model if compiled is None else compiled(model)
        self._capture = Capture(model, loss=loss)
        self._torch = self.random.torch_states(self.device)
        self._running: _Running | None = None
        self._checkpoint: Path | None = None
        self._every: int | None = None

    def _left(self) -> int:
        return self.protocol.epochs - len(self.history)

    def _advance(self) -> Epoch:
        self._check_parameters()
        with self._torch.lent():
            if self._running is None:
                self._running = self._new_epoch()
            self._train_epoch(self._running)
        self.history.append(self._finished(self._running))
        self._running = None
        if self._checkpoint is not None:
            self.save(self._checkpoint)
        return self.history[-1]

    def state_dict(self) -> dict:
        """All that a resumed run needs: tensors, numbers and lists only."""
        running = self._running
        return {
            "settings": self._settings(),
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": self.random.state_dict(),
            "torch": self._torch.states,
            "history": [asdict(epoch) for epoch in self.history],
            "running": None if running is None else vars(running),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue where that run was; refuses another model, data size or protocol."""
        for name, own in self._settings().items():
            if state["settings"][name] != own:
                raise ValueError(
                    f"the checkpoint belongs to a training with {name} "
                    f"{state['settings'][name]}, this one has {own}; "
                    "continue with the same, or start with another checkpoint file."
                )
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.random.load_state_dict(state["random"])
        self._torch.load(state["torch"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        running = state["running"]
        self._running = None if running is None else _Running(**running)

    def keep(self, file: str | Path, *, every: int | None = None) -> None:
        """Continue from this checkpoint if it exists, and keep it up to date.

        Args:
            every: also write it after so many steps of an epoch.
        """
        self._checkpoint, self._every = Path(file), every
        if self._checkpoint.exists():
            self.load(self._checkpoint)

    def save(self, file: str | Path) -> None:
        """Write a checkpoint; the file is whole at any moment, whatever happens."""
        with atomic_file(Path(file)) as partial_file:
            torch.save(self.state_dict(), partial_file)

    def load(self, file: str | Path) -> None:
        """Continue from a checkpoint; loads tensors and numbers, never code."""
        self.load_state_dict(read_checkpoint(file, self.device))

    def _bar(self) -> dict:
        done, total = len(self.history), self.protocol.epochs
        return {"total": total, "initial": done, "unit": "epoch"}

    def _note(self, step: Epoch) -> str:
        return (
            f"loss {step.train_loss:.3g}, accuracy {step.train_accuracy:.1%} "
            f"train, {step.test_accuracy:.1%} test"
        )

    def _check_parameters(self) -> None:
        groups = self._optimizer.param_groups
        known = {id(parameter) for group in groups for parameter in group["params"]}
        late = [n for n, p in trainable(self.model).items() if id(p) not in known]
        if late:
            raise ValueError(
                f"the optimizer was made before {late} were there to train, and would "
                "leave them as they are; begin another training with fit."
            )

    def _new_epoch(self) -> _Running:
        order = torch.randperm(len(self._train), generator=self.random.shuffle)
        factor = self.protocol.schedule(len(self.history), self.protocol.epochs)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        return _Running(order, new_totals(self.model))

    def _train_epoch(self, running: _Running) -> None:
        size = self.protocol.batch_size
        batches = running.order.to(self.device).split(size)
        with mode(self.model, training=True):
            for rows in batches[running.num_steps :]:
                start = perf_counter()
                running.totals += self._step(rows)
                running.num_steps += 1
                running.seconds += perf_counter() - start
                if self._every and running.num_steps % self._every == 0:
                    self._torch.note()  # else a resumed epoch would repeat its masks
                    self.save(self._checkpoint)

    def _step(self, rows: Tensor) -> Tensor:
        """Learn from these pictures; their summed loss and hits, before the step."""
        images, labels = self._train.batch(rows, self.augment, self.random.augment)
        self._optimizer.zero_grad()
        # A client_step takes its own gradient; then this pass is for the figures, and
        # for running statistics, which a Capture leaves alone.
        plain = self.client_step is None
        noise = noise_from(self.random.noise)
        with torch.set_grad_enabled(plain), noise, watched(self._network) as outputs:
            losses = self.loss(self._network, images, labels)
        if plain:
            losses.mean().backward()
        if not plain or self.defense is not None:
            set_gradients(self.model, self._shared(images, labels))
        self._optimizer.step()
        return count(losses, outputs, labels)

    def _shared(self, images: Tensor, labels: Tensor) -> Gradients:
        """The gradient of this step as a client would send it."""
        if self.client_step is None:
            shared = get_gradients(self.model)
        else:
            pair = images.unsqueeze(0), labels.unsqueeze(0)
            shared = self.client_step(self._capture, *pair, noise=self.random.noise)
        return shared if self.defense is None else self.defense(shared)

    def _finished(self, running: _Running) -> Epoch:
        start = perf_counter()
        test = evaluate(self.model, self._test, loss=self.loss)
        train_loss, train_accuracy = (running.totals / len(self._train)).tolist()
        return Epoch(
            epoch=len(self.history) + 1,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=test.loss,
            test_accuracy=test.accuracy,
            seconds=running.seconds + perf_counter() - start,
            learning_rate=self._optimizer.param_groups[0]["lr"],
        )

    def _settings(self) -> dict:
        return {
            "batch_size": self.protocol.batch_size,
            "num_pictures": len(self._train),
            "optimizer": type(self._optimizer).__name__,
            "parameters": {
                n: list(t.shape) for n, t in self.model.state_dict().items()
            },
        }


def fit(
    model: nn.Module,
    splits: Splits,
    protocol: Protocol = PAPER,
    *,
    defense: Defense | None = None,
    client_step: ClientStep | None = None,
    augment: Augment | None = None,
    loss: Loss = per_example_loss,
    random: Randomness | None = None,
    checkpoint: str | Path | None = None,
    every: int | None = None,
    compiled: Callable[[nn.Module], nn.Module] | None = None,
) -> Training:
    """Train the model, in place, epoch by epoch: `for epoch in fit(model, splits)`.

    Args:
        model: on any device; the pictures are copied there, 8-bit as they are.
        splits: what to train on, and what to test with after every epoch.
        protocol: `PAPER`, `ATS`, or `dataclasses.replace(PAPER, epochs=3)`.
        defense: changes the gradient of every step, as it would be shared; a
            `Gradients` of one victim goes in and comes out. A parameter that it
            withholds is not trained.
        client_step: computes that gradient in place of the plain one, for example
            `partial(dp_sgd_step, ...)`; costs one more pass, for the figures.
        augment: changes a batch's pixels (B, C, H, W) in [0, 1] before they are
            normalised; gets the generator of `random.augment`.
        random: where all random numbers come from; `Randomness.seeded(0)` by default.
            A defense with noise should draw from `random.defense`, or a resumed run
            would not repeat it.
        checkpoint: a file that is kept up to date after every epoch, and continued
            from if it exists.
        every: also write it after so many steps of an epoch.
        compiled: wraps the model for the training steps, for example
            `partial(torch.compile, mode="reduce-overhead")`, whose CUDA graphs pay
            for small networks. Not yet tried on a GPU.

    >>> from dataclasses import replace
    >>> import torch
    >>> from precode_lib.data import Pictures, Splits
    >>> from precode_lib.models import lenet
    >>> from precode_lib.training import PAPER, fit
    >>> pixels, labels = torch.rand(20, 3, 16, 16), torch.arange(20) % 2
    >>> pictures = Pictures(pixels, labels, ("cat", "dog"), "made up")
    >>> model, short = lenet((3, 16, 16), 2), replace(PAPER, epochs=2)
    >>> len(list(fit(model, Splits(pictures, pictures), short)))
    2
    """
    if every is not None:
        check_count(every, "every")
        if checkpoint is None:
            raise ValueError("every needs a checkpoint file to write to.")
    training = Training(
        model,
        splits,
        protocol,
        defense=defense,
        client_step=client_step,
        augment=augment,
        loss=loss,
        random=random,
        compiled=compiled,
    )
    if checkpoint is not None:
        training.keep(checkpoint, every=every)
    return training


def get_gradients(model: nn.Module) -> Gradients:
    """One victim's gradient from `.grad`; zeros where a parameter was not used."""
    named = trainable(model)
    slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in named.values()]
    return from_list(list(named), slopes)


def set_gradients(model: nn.Module, shared: Gradients) -> None:
    """Put one victim's gradient into `.grad`; `None` where it was withheld."""
    named = trainable(model)
    if not isinstance(shared, Gradients):
        raise TypeError(
            f"a defense must return Gradients, got {type(shared).__name__}."
        )
    known = {name: p.shape for name, p in named.items()}.items()
    if shared.num_victims != 1 or not shared.shapes.items() <= known:
        raise ValueError(
            "to train, a defense must keep one victim and the names and shapes of the "
            f"parameters; it returned {shared.num_victims} victim(s), and what the "
            f"model does not have: {sorted(shared.shapes.items() - known)}."
        )
    for name, parameter in named.items():
        kept = name in shared
        parameter.grad = dense(shared[name])[0].to(parameter) if kept else None


def try_model(model: nn.Module, pictures: Pictures) -> int:
    """Try the model on one picture, and count its classes; refuse too few."""
    loaded = LoadedPictures(pictures[:1], model)
    with mode(model, training=False):
        logits = logits_of(rehearse(model, loaded.batch(slice(0, 1))[0]))
    if logits.ndim != 2 or logits.shape[1] < pictures.num_classes:
        raise ValueError(
            f"the model returns {tuple(logits.shape)} for one picture; it needs "
            f"(1, {pictures.num_classes}), a logit for each class of {pictures!r}."
        )
    return logits.shape[1]


def read_checkpoint(file: str | Path, device: torch.device) -> dict:
    """What `save` wrote; raises ValueError for a file that is not a checkpoint."""
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError, KeyError) as error:
        raise ValueError(
            f"{file} is not a checkpoint that can be read ({type(error).__name__}); "
            "delete it to start from the beginning."
        ) from error
