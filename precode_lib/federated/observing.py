"""One round: V clients compute, and somebody listens."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import (
    check_finite,
    check_model,
    check_recordable,
)
from precode_lib.bottleneck import (
    NoiseSource,
    logits_of,
    per_example_loss,
    rehearse,
)
from precode_lib.defenses import ClientStep, Defense, check_client_step, defended
from precode_lib.gradients import (
    Gradients,
    Rule,
    check_victims,
    concatenate,
    factor,
    first_parameter,
    keeping_axis,
    one_at_a_time,
    ranks,
    trainable,
)
from precode_lib.models import Inputs, PackedNormalisation, Packing, packed

from .clients import Client, bytes_of, with_buffers
from .health import (
    Health,
    VacuousGradientWarning,
    health_of,
    silence_of,
    warning_of,
)
from .local import LocalTraining

# How much dense gradient `observe` holds at a time, in bytes.
WIRE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Observation:
    """All that the attacker gets; V victims took part in the same round.

    Pictures are what this book attacks; an example may as well be a row of a table, a
    sound, a volume: floats of any shape, with labels of any form that the loss takes.
    Or tokens, whole numbers; or several of these at once, which `packing` tells apart.

    Args:
        shared: what each victim sent, after its defense: a gradient, or with `local`
            the weights it started from minus those it ended with.
        model: as the server sent it, in the mode (train or eval) the clients ran it in.
        image_shape: (C, H, W), or that of another example.
        num_examples: B, the pictures of each victim.
        num_classes: how many labels there are; None where the model does not return
            logits (N, classes).
        labels: (V, B) if the attacker knows them, or as the loss takes them; else None.
        normalisation: how pixels became images; its `box` bounds real pictures.
        local: the clients' local training; None for one shared gradient.
        loss: the loss of each example, the one every client minimises.
        buffers: the clients' own buffers (running statistics), if they share them;
            an attacker without them falls back on the model's.
        rules: for layers of the model that the library has none for; see `Capture`.
        discrete: whether examples are whole numbers, such as tokens, or hold some: no
            search can move them by small steps.
        packing: how several inputs became one row, (D,), that the model now takes;
            None for a model of one input.
    """

    shared: Gradients
    model: nn.Module
    image_shape: torch.Size
    num_examples: int
    num_classes: int | None
    labels: Tensor | None = None
    normalisation: object | None = None
    local: LocalTraining | None = None
    loss: Callable = per_example_loss
    buffers: dict[str, Tensor] | None = field(default=None, repr=False)
    rules: Mapping[type[nn.Module], Rule] | None = field(default=None, repr=False)
    discrete: bool = False
    packing: Packing | None = None

    def __repr__(self) -> str:
        labels = "unknown" if self.labels is None else "known"
        silence = self.health().silence()
        silence = f"; {silence}" if silence else ""
        return (
            f"Observation({self.num_victims} victims x {self.num_examples} pictures "
            f"{tuple(self.image_shape)}, labels {labels}, {self.shared!r}{silence})"
        )

    @property
    def num_victims(self) -> int:
        """How many victims: V."""
        return self.shared.num_victims

    def health(self) -> Health:
        """Whether what was sent says anything: what of it is exactly zero.

        >>> import torch
        >>> from precode_lib.federated import observe
        >>> model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
        >>> _ = torch.nn.init.zeros_(model[1].weight)
        >>> seen = observe(model, torch.ones(2, 1, 5), torch.tensor([[0], [2]]))
        >>> seen.health().silent_for_all
        ['0.weight', '0.bias']
        """
        return health_of(self.shared)

    def take(self, victims: Tensor | slice | int) -> "Observation":
        """What these victims sent, by index, mask or slice."""
        rows = keeping_axis(victims)
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, shared=self.shared.take(rows), labels=labels)

    def to(self, *args, **kwargs) -> "Observation":
        """A copy elsewhere, as `Tensor.to`; the model is copied, not moved."""
        model = copy.deepcopy(self.model).to(*args, **kwargs)
        device = first_parameter(model).device
        labels = None if self.labels is None else self.labels.to(device)
        return replace(
            self, shared=self.shared.to(*args, **kwargs), model=model, labels=labels
        )

    def client(
        self, imagined: Callable[[nn.Module], nn.Module] | None = None
    ) -> "Client":
        """The client as the attacker imagines it: the model, the loss, the protocol.

        Args:
            imagined: from the model to the one that is run in its place, with the same
                parameters, such as `hold_dropout`.
        """
        model = self.model
        if self.buffers is not None:
            model = with_buffers(model, self.buffers)
        if imagined is not None:
            model = imagined(model)
        return Client(model, local=self.local, loss=self.loss, rules=self.rules)


def observe(
    model: nn.Module,
    images: Tensor | Inputs,
    labels: Tensor,
    *,
    labels_known: bool = True,
    defense: Defense | None = None,
    client_step: ClientStep | None = None,
    local: LocalTraining | None = None,
    normalisation: object | None = None,
    loss: Callable = per_example_loss,
    noise: NoiseSource | None = None,
    client_buffers: dict[str, Tensor] | None = None,
    buffers_shared: bool = True,
    rules: Mapping[type[nn.Module], Rule] | None = None,
) -> Observation:
    """Let V clients compute what they share, blur it, and listen.

    The model runs in the mode it is in. What crosses the wire is dense; the listener
    factors what has the rank of the batch (see `factor`), a few victims at a time, so
    that 128 undefended victims of a large model fit into memory.

    Args:
        model: as the server sent it; it is copied, so training it on changes nothing.
        images: (V, B, C, H, W), normalised; or other examples (V, B, ...), tokens
            being int64. For a model of several inputs a tuple of them, or a dict by the
            names of its arguments: the observation then has them packed into rows, and
            a model that takes these.
        labels: (V, B), or (V, B, ...) in any form that the loss takes: masks, several
            labels, numbers.
        labels_known: whether the attacker learns the labels.
        defense: from the clients' gradients to what they send.
        client_step: what the clients compute instead of their plain gradient, such as
            `partial(dp_sgd_step, ...)`; the defense, if any, comes after it. The
            attacker's own client (`Observation.client`) does not run it.
        local: several local steps instead of one gradient.
        normalisation: known to the attacker; carries the box of real pictures. Of
            several inputs a tuple or a dict, None where one has no box.
        loss: of each example, (model, images, labels) -> (N,), what every client
            minimises on average. It gets all that the model returns, be it a tensor or
            not; the default takes the logits among it (`logits`, "out").
        noise: where the clients' bottlenecks draw from.
        client_buffers: the clients' own running statistics, where they differ from
            the model's.
        buffers_shared: whether the attacker sees `client_buffers`.
        rules: how layers that the library does not know make gradients; see `Capture`.
    """
    check_model(model)
    packing = None if isinstance(images, Tensor | list) else Packing.of(images)
    if packing is not None:
        model, images = packed(model, packing), packing.pack(images)
        if normalisation is not None:
            normalisation = PackedNormalisation.of(packing, normalisation)
    check_victims(images, labels)
    check_recordable(images)
    check_finite(images, "images")
    _check_protocol(local, client_step)
    _check_normalisation(normalisation, images)
    model = copy.deepcopy(model) if packing is None else model
    own = model if client_buffers is None else with_buffers(model, client_buffers)
    client = Client(own, local=local, loss=loss, rules=rules)
    classes = one_at_a_time(_count_classes)(own, images[0])
    share = client
    if client_step is not None:
        share = partial(client_step, client.capture)
    parts, silent = [], []
    for chunk in _chunks(model, len(images)):
        chosen = _noise_of(noise, chunk, len(images))
        exact = share(images[chunk].detach(), labels[chunk], noise=chosen)
        silent.append(silence_of(exact))
        sent = exact.dense()
        if defense is not None:
            sent = defended(defense, sent)
        expected = {n: r for n, r in ranks(exact).items() if n in sent}
        parts.append(factor(sent, expected))
    warning = warning_of(torch.cat(silent), exact)
    if warning is not None:
        warnings.warn(warning, VacuousGradientWarning, stacklevel=2)
    return Observation(
        shared=concatenate(parts),
        model=model,
        image_shape=images.shape[2:],
        num_examples=images.shape[1],
        num_classes=classes,
        labels=labels.clone() if labels_known else None,
        normalisation=normalisation,
        local=local,
        loss=loss,
        buffers=client_buffers if buffers_shared else None,
        rules=rules,
        discrete=_is_discrete(images, packing),
        packing=packing,
    )


def _is_discrete(images: Tensor, packing: Packing | None) -> bool:
    if packing is not None:
        return any(piece.is_whole for piece in packing.pieces)
    return not images.is_floating_point()


def _chunks(model: nn.Module, num_victims: int) -> Iterator[slice]:
    """Slices of victims whose dense gradients fit into WIRE_BYTES, one at least."""
    step = max(1, WIRE_BYTES // sum(map(bytes_of, trainable(model).values())))
    return (slice(i, i + step) for i in range(0, num_victims, step))


def _noise_of(noise: NoiseSource | None, victims: slice, num_victims: int):
    """The part of given noise tensors (V * b, ...) that these victims use."""
    if not isinstance(noise, list | tuple):
        return noise
    return [n.unflatten(0, (num_victims, -1))[victims].flatten(0, 1) for n in noise]


def _check_protocol(local: object, client_step: object) -> None:
    if local is not None and not isinstance(local, LocalTraining):
        kind = type(local).__name__
        raise TypeError(f"local must be LocalTraining(steps, lr), got {kind}.")
    if client_step is not None:
        check_client_step(client_step)
        if local is not None:
            raise ValueError("a client_step replaces the gradient: it has no `local`.")


def _check_normalisation(normalisation: object, images: Tensor) -> None:
    """Refuse what has no box, and images that are no pictures by far."""
    if normalisation is None:
        return
    if not hasattr(normalisation, "box") or not hasattr(normalisation, "denormalise"):
        raise TypeError(
            "normalisation must be one like Normalisation(mean=(0.5,), std=(0.25,)), "
            f"got {type(normalisation).__name__}."
        )
    if not images.is_floating_point():
        raise ValueError("tokens have no normalisation: leave it out.")
    black, white = (side.to(images) for side in normalisation.box)
    _check_box(black, images.shape[2:])
    # Not every image is a picture (noise, a step too far), but none of these is.
    if ((images - black).abs() > 10 * (white - black).abs()).any():
        raise ValueError(
            f"real pictures lie in [{black.min():.3g}, {white.max():.3g}], got "
            f"{images.min():.3g} to {images.max():.3g}: divide 8-bit levels by 255, "
            "then normalise."
        )


def _check_box(black: Tensor, shape: torch.Size) -> None:
    """Refuse a box that does not fit an example of this shape."""
    if len(shape) == 3 and black.dim() == 3 and len(black) not in (1, shape[0]):
        raise ValueError(
            f"the normalisation is of {len(black)} channels, the images of {shape[0]}."
        )
    try:
        fits = torch.broadcast_shapes(black.shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"the normalisation's box is {tuple(black.shape)}, an example "
            f"{tuple(shape)}: one of pictures is for (C, H, W). Other "
            "examples need none, or one with a `box` and a `denormalise` of their own."
        )


def _count_classes(model: nn.Module, images: Tensor) -> int | None:
    """How many logits an example has; None where the model returns anything else."""
    try:
        outputs = logits_of(rehearse(model, images))
    except TypeError:  # for a loss that knows what it is
        return None
    return outputs.shape[1] if outputs.dim() == 2 else None
