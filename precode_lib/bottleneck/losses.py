"""The loss of the project: trainer, victim and attacker all call this one."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from precode_lib.basics.validation import check_label_shape

from .sampling import kl_terms, quiet

# Of each example: a model, (N, ...) and (N, ...) -> (N,).
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Model = Callable[[Tensor], Tensor]  # images (N, C, H, W) to logits (N, classes)


def loss(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy + Σᵢ betaᵢ · KLᵢ in nats, averaged over the batch: a scalar.

    Scheliga et al. 2022, eq. 3 and supplement, eq. 6-7.
    """
    return per_example_loss(model, images, labels).mean()


def per_example_loss(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy + Σᵢ betaᵢ · KLᵢ of each example, in nats: (N,).

    Shapes are checked, values only as far as no device has to wait for it.

    Args:
        model: any function from images to logits, or to what has them (`logits`); with
            torch.func, a partial of functional_call.
        images: (N, C, H, W), normalised as the model expects.
        labels: classes, int64 (N,), or probabilities (N, num_classes).
    """
    with kl_terms() as terms:
        logits = logits_of(model(images))
    _check_logits(logits, len(images))
    check_label_shape(labels, *logits.shape)
    losses = _cross_entropy(logits, labels)
    for term in terms:
        _check_term(term, losses)
        losses = losses + term
    return losses


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    # PyTorch gives examples of class -100 the loss 0 unless told otherwise.
    nobody = torch.iinfo(torch.int64).min
    try:
        if labels.ndim == 2:
            return F.cross_entropy(logits, labels.to(logits), reduction="none")
        return F.cross_entropy(logits, labels, reduction="none", ignore_index=nobody)
    except IndexError as error:
        raise ValueError(
            f"labels must lie in 0..{logits.shape[1] - 1}, as many as the model's "
            f"{logits.shape[1]} logits; got a label outside ({error})"
        ) from error


def num_classes(model: nn.Module, images: Tensor) -> int:
    """How many logits the model has for an image; see `rehearse`."""
    return logits_of(rehearse(model, images)).shape[-1]


def rehearse(model: nn.Module, images: Tensor) -> Any:
    """What the model returns for these images, which it has to take.

    It runs in the mode that it is in, and changes nothing: see `quiet`.
    """
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    try:
        with torch.no_grad(), quiet(model):
            return functional_call(model, buffers, (images,))
    except Exception as error:
        raise ValueError(
            f"the model does not take these images, {tuple(images.shape)} "
            f"{images.dtype} ({error}).{_advice(model, images, error)}"
        ) from error


def _advice(model: nn.Module, images: Tensor, error: Exception) -> str:
    if isinstance(error, TypeError) and "argument" in str(error):
        return " Several inputs are a tuple of tensors, or a dict by their names."
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if images.dtype in dtypes or not dtypes:
        return ""
    dtype = dtypes.pop()
    return f" Its weights are {str(dtype).removeprefix('torch.')}: images.to({dtype})."


def logits_of(outputs: Any) -> Tensor:
    """The logits among a model's outputs, where these are more than a tensor.

    They are called `logits` by Hugging Face and by GoogLeNet, "out" by torchvision's
    models of segmentation.
    """
    if isinstance(outputs, Tensor):
        return outputs
    for name in ("logits", "out"):
        by_name = isinstance(outputs, Mapping)
        found = outputs.get(name) if by_name else getattr(outputs, name, None)
        if isinstance(found, Tensor):
            return found
    raise TypeError(
        f"the model must return logits (N, classes), got {type(outputs).__name__}, in "
        "which none are called `logits`: give a `loss` of your own, which gets all of "
        "it, such as lambda model, x, y: F.cross_entropy(model(x)[0], y, "
        "reduction='none')."
    )


def _check_logits(logits: Tensor, num_examples: int) -> None:
    if logits.ndim != 2 or len(logits) != num_examples:
        raise ValueError(
            f"the model must return logits ({num_examples}, classes) for "
            f"{num_examples} images, got shape {tuple(logits.shape)}."
        )


def _check_term(term: Tensor, losses: Tensor) -> None:
    if term.shape != losses.shape:
        raise ValueError(
            f"a bottleneck saw a batch of {len(term)} where the model was given "
            f"{len(losses)} images; place it where dimension 0 counts the examples."
        )
