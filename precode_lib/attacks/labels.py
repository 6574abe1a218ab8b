"""Which labels did the victims have? Rules that read them off the output layer.

A rule is a function from an observation to labels (V, B), so any of them can stand
where an attack asks for `labels`; `functools.partial` binds its options. All rest on
one fact: with cross-entropy, averaged over a batch, the gradient of the output layer's
bias is g_c = mean p_c - n_c / B, with p the model's probabilities and n the label
counts; `multi_hot_labels` on its like for yes-or-no labels. Under another loss they
refuse. A gradient does not know in which order its pictures came: labels are sorted.
"""

import torch
from torch import Tensor
from torch.func import functional_call

from precode_lib.attacks.counts import (
    as_labels,
    at_most,
    counts_of,
    nearest_counts,
)
from precode_lib.attacks.observed import (
    check_observation,
    layer_names,
    named_layer,
    row_sums,
    shared_bias,
    shared_term,
)
from precode_lib.attacks.outputs import (
    check_is_cross_entropy,
    check_picks_classes,
    wants_several,
)
from precode_lib.basics.validation import (
    check_count,
    check_examples,
    check_finite,
    check_generator,
    check_images,
    check_tensor,
)
from precode_lib.bottleneck import logits_of, noise_from
from precode_lib.federated import Observation
from precode_lib.gradients import first_parameter, one_at_a_time

_CHUNK = 64  # public pictures of one forward pass


def known_labels(observation: Observation) -> Tensor:
    """The labels that the threat model gives the attacker, (V, B)."""
    check_observation(observation)
    if observation.labels is None:
        raise ValueError(
            "this observation has no labels (labels_known=False); use a rule that "
            "recovers them, such as bias_sign_labels or expected_count_labels."
        )
    return observation.labels


def row_sum_labels(observation: Observation, *, layer: str | None = None) -> Tensor:
    """The class whose row of the output weight's gradient has the least sum, (V, 1).

    Zhao et al. 2020 (iDLG), for one picture per victim. Row c is (p_c - [c = y]) times
    the features, so the rule needs features of positive sum: it errs behind tanh, and
    behind PRECODE, whose decoder has no activation. `bias_sign_labels` does not.
    """
    layer = output_layer(observation, layer)
    check_picks_classes(observation, "row_sum_labels")
    _check_single(observation, "row_sum_labels")
    weight = shared_term(observation, layer, "weight")
    return _most_negative(row_sums(weight), f"{layer}.weight")


def bias_sign_labels(observation: Observation, *, layer: str | None = None) -> Tensor:
    """The class with the most negative output bias gradient, p - onehot: (V, 1).

    For one picture per victim; without a defense always right, whatever the features.

    >>> import torch
    >>> from precode_lib.attacks.labels import bias_sign_labels
    >>> from precode_lib.federated import observe
    >>> from precode_lib.models import lenet
    >>> images, labels = torch.rand(2, 1, 3, 32, 32), torch.tensor([[3], [7]])
    >>> bias_sign_labels(observe(lenet(), images, labels, labels_known=False))
    tensor([[3],
            [7]])
    """
    layer = output_layer(observation, layer)
    check_picks_classes(observation, "bias_sign_labels")
    _check_single(observation, "bias_sign_labels")
    return _most_negative(_output_bias(observation, layer), f"{layer}.bias")


def multi_hot_labels(observation: Observation, *, layer: str | None = None) -> Tensor:
    """Several yes-or-no labels from the signs of the output bias gradient: (V, 1, C).

    For one example per victim, and a loss that asks yes or no of each output, such as
    binary cross-entropy with logits: its slope is the probability minus the label, so a
    1 shows as a negative entry. An output so sure and right that its slope is 0 counts
    as a no.
    """
    layer = output_layer(observation, layer)
    if not wants_several(observation):
        raise ValueError(
            "multi_hot_labels reads the answers to a loss that asks yes or no of each "
            "output; the clients' loss does something else: bias_sign_labels reads one "
            "class, and known_labels what the attacker was told."
        )
    _check_single(observation, "multi_hot_labels")
    bias = _output_bias(observation, layer)
    _check_says_something(bias, f"{layer}.bias")
    return (bias < 0).to(bias)[:, None]


def bias_corrected_labels(
    observation: Observation, *, layer: str | None = None
) -> Tensor:
    """Label counts from the signs and sizes of the output bias gradient, (V, B).

    After Wainakh et al. 2022, with the bias in place of row sums: every class of
    negative gradient occurs; an occurrence is worth the mean of the negative entries,
    and the rest goes, one by one, where the most negative value is left. The steps
    underestimate that worth where p is large, so frequent classes take too much.
    """
    layer = output_layer(observation, layer)
    check_is_cross_entropy(observation, "bias_corrected_labels")
    gradient = _output_bias(observation, layer)
    _check_says_something(gradient, f"{layer}.bias")
    num_examples = observation.num_examples
    # Of one occurrence; all are negative together, for the entries sum to 0.
    impact = gradient.clamp(max=0).sum(1, keepdim=True) / num_examples
    expected = gradient / impact.where(impact < 0, -1.0)
    certain = at_most((gradient < 0).long(), num_examples, first=gradient)
    return as_labels(nearest_counts(expected, certain, num_examples))


def expected_count_labels(
    observation: Observation,
    *,
    layer: str | None = None,
    images: Tensor | None = None,
    num_images: int = 256,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Label counts n_c = B (mean p_c - g_c), rounded so that they sum to B: (V, B).

    The victims' mean probabilities are not known; those of the same model on other
    pictures stand in for them, which is good while the model has learnt little. Since
    p is not negative, each class occurs at least -B g_c times, in any model: so the
    rule includes `bias_sign_labels`.

    Args:
        layer: the output layer, where the rule finds the wrong one.
        images: (N, C, H, W), normalised, such as the attacker's own; by default
            uniform noise within the box of real pictures, or normal noise without one.
        num_images: how many pictures of noise.
        generator: draws them and the bottlenecks' noise; a fixed one by default.
    """
    layer = output_layer(observation, layer)
    check_is_cross_entropy(observation, "expected_count_labels")
    gradient = _output_bias(observation, layer) / _step_size(observation)
    check_finite(gradient, f"the gradient of '{layer}.bias'")
    if generator is not None:
        check_generator(generator)
    else:  # any fixed start will do
        generator = torch.Generator().manual_seed(0)
    if images is None:
        images = _noise_images(observation, num_images, generator)
    _check_public(images, observation)
    probabilities = _mean_probabilities(observation, images, generator)
    num_examples = observation.num_examples
    expected = num_examples * (probabilities.to(gradient) - gradient)
    # Whatever p is, it is not negative: so many there must be of each class.
    room = _rounding(observation, f"{layer}.bias", gradient)
    certain = (num_examples * (-gradient - room)).ceil().clamp(min=0).long()
    # The entries sum to 0, so the least is negative even where float32 says 0.
    least = gradient.argmin(1, keepdim=True)
    certain = certain.scatter(1, least, certain.gather(1, least).clamp(min=1))
    certain = at_most(certain, num_examples, first=gradient)
    return as_labels(nearest_counts(expected, certain, num_examples))


def label_accuracy(found: Tensor, truth: Tensor) -> Tensor:
    """The share of each victim's labels that were found, in whatever order: (V,).

    Repeated labels count as often as they occur.
    """
    for name, labels in (("found", found), ("truth", truth)):
        check_tensor(labels, name)
        if labels.dim() != 2 or labels.is_floating_point() or labels.numel() == 0:
            raise ValueError(
                f"{name} must be integer labels (V, B), got {tuple(labels.shape)}, "
                f"{labels.dtype}."
            )
    if found.shape != truth.shape:
        raise ValueError(
            f"found {tuple(found.shape)} and truth {tuple(truth.shape)} must agree."
        )
    num_classes = 1 + int(max(found.max(), truth.max()))
    a, b = (counts_of(labels, num_classes) for labels in (found, truth.to(found)))
    return torch.minimum(a, b).sum(1).double() / found.shape[1]


def output_layer(observation: Observation, layer: str | None = None) -> str:
    """The last layer whose weight has a row for each class; or `layer`, checked."""
    check_observation(observation)
    if observation.num_classes is None:
        raise ValueError(
            "labels can be read off an output layer of logits (N, classes); this model "
            "returns something else: labels_known=True, or labels=known_labels."
        )
    parameters = dict(observation.model.named_parameters())
    shapes = {n: parameters[f"{n}.weight"].shape for n in layer_names(observation)}
    fitting = [
        name
        for name, shape in shapes.items()
        if len(shape) > 1 and shape[0] == observation.num_classes
    ]
    if layer is not None:
        return named_layer(layer, fitting)
    if not fitting:
        raise ValueError(
            f"no layer has a row for each of the {observation.num_classes} classes; "
            "labels can only be read off an output layer."
        )
    return fitting[-1]


def _output_bias(observation: Observation, layer: str) -> Tensor:
    names = dict(observation.model.named_parameters())
    if f"{layer}.bias" not in names:
        raise ValueError(
            f"the output layer {layer!r} has no bias, which this rule reads; "
            "row_sum_labels needs only its weight, for one picture per victim."
        )
    return shared_bias(observation, layer)


def _most_negative(values: Tensor, name: str) -> Tensor:
    _check_says_something(values, name)
    return values.argmin(1, keepdim=True)


def _check_says_something(values: Tensor, name: str) -> None:
    check_finite(values, f"the gradient of {name!r}")
    silent = (values == 0).all(1)
    if silent.any():
        victims = silent.nonzero().flatten().tolist()
        raise ValueError(
            f"the gradient of {name!r} is zero for victims {victims}: it says nothing "
            "about their labels. Leave them out with observation.take(...)."
        )


def _check_single(observation: Observation, rule: str) -> None:
    if observation.num_examples != 1:
        raise ValueError(
            f"{rule} finds the label of a single picture, but each victim has "
            f"{observation.num_examples}; use expected_count_labels or "
            "bias_corrected_labels."
        )


def _step_size(observation: Observation) -> float:
    """An update after n small local steps is about n · lr mean gradients."""
    if observation.local is None:
        return 1.0
    if observation.local.gain is None:
        raise ValueError(
            "the clients' optimizer does not keep the size of a gradient, in which "
            "this rule counts; bias_sign_labels reads a single label's sign."
        )
    return observation.local.gain


def _rounding(observation: Observation, name: str, gradient: Tensor) -> Tensor:
    """How far rounding may have moved the entries of a mean gradient: (C,)."""
    eps = torch.finfo(gradient.dtype).eps
    weights = observation.model.get_parameter(name).detach().to(gradient)
    if observation.local is None:
        return torch.full_like(weights, 4 * eps)
    # Weights are rounded to their own size after every step.
    return 4 * eps + eps * weights.abs() / observation.local.lr


def _noise_images(
    observation: Observation, num_images: int, generator: torch.Generator
) -> Tensor:
    check_count(num_images, "num_images")
    shape = num_images, *observation.image_shape
    device = generator.device
    if observation.normalisation is None:
        return torch.randn(shape, generator=generator, device=device)
    lower, upper = (side.to(device) for side in observation.normalisation.box)
    uniform = torch.rand(shape, generator=generator, device=device)
    return lower + (upper - lower) * uniform


def _check_public(images: Tensor, observation: Observation) -> None:
    check = check_images if len(observation.image_shape) == 3 else check_examples
    check(images, "images")
    if images.shape[1:] != observation.image_shape:
        raise ValueError(
            f"images must be (N, {', '.join(map(str, observation.image_shape))}), like "
            f"the victims' pictures; got {tuple(images.shape)}."
        )


@one_at_a_time
def _mean_probabilities(
    observation: Observation, images: Tensor, generator: torch.Generator
) -> Tensor:
    """(C,), of the model as the clients ran it; the model stays as it is."""
    model = observation.client().model
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    like = first_parameter(model)
    gpus = [like.device] if like.is_cuda else []
    total = 0.0
    with torch.no_grad(), torch.random.fork_rng(gpus), noise_from(generator):
        # Dropout in train mode can only draw from the global generator.
        torch.default_generator.manual_seed(generator.initial_seed())
        for part in images.split(_CHUNK):
            logits = logits_of(functional_call(model, buffers, (part.to(like),)))
            total = total + logits.softmax(1).sum(0)
    return total / len(images)
