"""What a loss wants of a model's outputs, seen by trying it: which labels it reads.

Rules that read labels off a gradient rest on the loss's slope at the outputs. Not its
name tells, but how that slope looks at some outputs for some labels.
"""

import torch
from torch import Tensor

from precode_lib.bottleneck import per_example_loss, unheard
from precode_lib.federated import Observation


def check_picks_classes(observation: Observation, rule: str) -> None:
    """Refuse losses that don't pull one class up and push the others down.

    Where it does, the slope's entries sum to 0, and the least is the class's.
    """
    if observation.loss is per_example_loss:
        return
    logits, labels = _logits(observation), _classes(observation)
    slope = _slope(observation, logits, labels)
    if slope is not None:
        balanced = slope.sum(1).abs() <= 1e-3 * slope.abs().sum(1)
        if bool(balanced.all()) and torch.equal(slope.argmin(1), labels):
            return
    several = wants_several(observation)
    hint = "multi_hot_labels reads such" if several else "search with known_labels"
    raise ValueError(
        f"{rule} reads one class off a loss that picks one; the clients' loss "
        + ("asks yes or no of each output" if several else "does something else")
        + f": {hint}."
    )


def check_is_cross_entropy(observation: Observation, rule: str) -> None:
    """Refuse losses whose slope is not p - onehot, with p the probabilities."""
    if observation.loss is per_example_loss:
        return
    check_picks_classes(observation, rule)
    logits, labels = _logits(observation), _classes(observation)
    slope = _slope(observation, logits, labels)
    chosen = torch.nn.functional.one_hot(labels, logits.shape[1])
    if not torch.allclose(slope, logits.softmax(1) - chosen, atol=1e-3):
        raise ValueError(
            f"{rule} counts in units of cross-entropy's slope; the clients' loss "
            "weighs or smooths it: bias_sign_labels reads a single label all the same."
        )


def wants_several(observation: Observation) -> bool:
    """Whether the loss asks yes or no of each output, which its slope answers by signs.

    Negative where the label is 1, positive where it is 0, whatever the outputs.
    """
    logits = _logits(observation)
    labels = (logits.flip(1) > 0).to(logits)
    slope = _slope(observation, logits, labels)
    return slope is not None and torch.equal(slope < 0, labels > 0)


def _logits(observation: Observation) -> Tensor:
    """Some outputs (N, classes), N being none of the sizes that could be mixed up."""
    classes = observation.num_classes
    generator = torch.Generator().manual_seed(0)
    examples = 8 if classes == 7 else 7
    return 3 * torch.randn(examples, classes, generator=generator)


def _classes(observation: Observation) -> Tensor:
    logits = _logits(observation)
    return torch.arange(len(logits)) % logits.shape[1]


def _slope(observation: Observation, logits: Tensor, labels: Tensor) -> Tensor | None:
    """The slope of the loss at these outputs: (N, classes); None if it refuses them."""
    logits = logits.clone().requires_grad_()
    images = torch.zeros(len(logits), *observation.image_shape)
    for outputs in (logits, _Named(logits), (logits,)):
        try:
            with torch.enable_grad(), unheard():
                losses = observation.loss(lambda x, out=outputs: out, images, labels)
                (slope,) = torch.autograd.grad(losses.sum(), logits)
        except Exception:  # whatever a loss says of what is not its own
            continue
        return slope if losses.shape == logits.shape[:1] else None
    return None


class _Named(dict):
    """Logits by the names that models have for them."""

    def __init__(self, logits: Tensor):
        super().__init__(logits=logits, out=logits)
        self.logits = self.out = logits
