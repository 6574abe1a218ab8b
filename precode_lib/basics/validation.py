"""Checks for the public border: what came, what was expected, what to do.

They look at shapes, dtypes and values, change nothing and return nothing.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from numbers import Integral, Real

import torch
from torch import Tensor, nn


def check_images(
    images: Tensor, name: str = "images", *, channels: int | None = None
) -> None:
    """Refuse anything but a non-empty batch of finite float images (N, C, H, W)."""
    check_tensor(images, name)
    if images.ndim != 4:
        hint = " Add the batch dimension with [None]." if images.ndim == 3 else ""
        raise ValueError(
            f"{name} must have shape (N, C, H, W), got {tuple(images.shape)}.{hint}"
        )
    check_examples(images, name)
    if channels is not None and images.shape[1] != channels:
        raise ValueError(
            f"{name} must have {channels} channels, got {images.shape[1]} "
            f"in shape {tuple(images.shape)}."
        )


def check_examples(examples: Tensor, name: str) -> None:
    """Refuse anything but a non-empty batch of finite float examples (N, ...)."""
    check_tensor(examples, name)
    if examples.ndim < 2:
        raise ValueError(
            f"{name} must have shape (N, ...), such as images (N, C, H, W) or rows "
            f"(N, F), got {tuple(examples.shape)}."
        )
    if not examples.is_floating_point():
        raise TypeError(
            f"{name} must be floating point, got {examples.dtype}; "
            "8-bit pictures become pixels in [0, 1] by .float() / 255."
        )
    if examples.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(examples.shape)}.")
    check_finite(examples, name)


def check_finite(values: Tensor, name: str) -> None:
    """Refuse a tensor that holds NaN or infinity, and say how many."""
    num_bad = values.numel() - int(values.isfinite().sum())
    if num_bad:
        raise ValueError(
            f"{name} holds NaN or infinity in {num_bad} of {values.numel()} entries; "
            "find out where they arose before going on."
        )


def check_labels(labels: Tensor, num_examples: int, num_classes: int) -> None:
    """Refuse labels that are neither classes int64 (N,) nor probabilities (N, C)."""
    check_label_shape(labels, num_examples, num_classes)
    if labels.numel() == 0:
        raise ValueError(f"labels is empty: its shape is {tuple(labels.shape)}.")
    if labels.ndim == 2:
        _check_probabilities(labels)
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1} for {num_classes} classes, "
            f"got values from {low} to {high}."
        )


def check_label_shape(labels: Tensor, num_examples: int, num_classes: int) -> None:
    """Check labels without looking at a value, so also inside torch.func and compile.

    Accepted are classes, int64 (N,), and probabilities, floating point (N, C).
    """
    check_tensor(labels, "labels")
    if labels.ndim not in (1, 2):
        raise ValueError(
            f"labels must have shape (N,) or (N, C), got {tuple(labels.shape)}."
        )
    expected = (num_examples, num_classes)[: labels.ndim]
    if tuple(labels.shape) != expected:
        raise ValueError(
            f"labels must have shape {expected} for {num_examples} examples and "
            f"{num_classes} classes, got {tuple(labels.shape)}."
        )
    if labels.ndim == 1 and labels.dtype != torch.int64:
        raise TypeError(
            f"labels of shape (N,) must be int64, got {labels.dtype}; use .long()."
        )
    if labels.ndim == 2 and not labels.is_floating_point():
        raise TypeError(
            "labels of shape (N, C) are probabilities and must be floating point, "
            f"got {labels.dtype}."
        )


def _check_probabilities(labels: Tensor) -> None:
    check_finite(labels, "labels")
    # Half precision sums of a hundred classes are off by about 1e-3.
    tolerance = 1e-2 if labels.dtype.itemsize < 4 else 1e-4
    furthest = float((labels.sum(dim=1) - 1).abs().max())
    if float(labels.min()) < 0 or furthest > tolerance:
        raise ValueError(
            "labels of shape (N, C) must be probabilities: not negative, each row "
            f"summing to 1; a softmax makes them so (a row is off by {furthest:.3g})."
        )


def check_range(
    value: float,
    name: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    hint: str = "",
) -> None:
    """Refuse anything but a finite real number between low and high.

    Both ends belong to the range unless open_low or open_high says otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}.")
    above = value > low or (value == low and not open_low)
    below = value < high or (value == high and not open_high)
    if not (math.isfinite(value) and above and below):
        left = "(" if open_low or low == -math.inf else "["
        right = ")" if open_high or high == math.inf else "]"
        raise ValueError(
            f"{name} must be in {left}{low:g}, {high:g}{right}, got {value}."
            + (f" {hint}" if hint else "")
        )


def check_count(value: int, name: str, low: int = 1) -> None:
    """Refuse anything but a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}.")


def check_function(value: object, name: str, example: str) -> None:
    """Refuse what cannot be called; the example says what would do instead."""
    if not callable(value):
        raise TypeError(
            f"{name} must be a function such as {example}, got {type(value).__name__}."
        )


def check_takes(function: Callable, name: str, example: str, *given: str) -> None:
    """Refuse a function that needs more than `given`, as `prune` needs its ratio.

    Args:
        given: the arguments that it will be called with; those after a "*" by name.
    """
    check_function(function, name, example)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not every function in C tells its arguments
        return
    first = given.index("*") if "*" in given else len(given)
    try:
        signature.bind(*given[:first], **dict.fromkeys(given[first + 1 :]))
    except TypeError as problem:
        called = getattr(function, "__name__", type(function).__name__)
        takes = ", ".join(signature.parameters)
        raise TypeError(
            f"{name} must take ({', '.join(given)}), such as {example}; "
            f"{called} takes ({takes}): {problem}."
        ) from None


def check_recordable(images: Tensor, name: str = "images") -> None:
    """Refuse what autograd will not record: inference mode, and what was made in it."""
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "torch.inference_mode() is on and forbids gradients; leave it first, or "
            "use torch.no_grad() in its place."
        )
    if images.is_inference():
        raise ValueError(
            f"{name} were made under torch.inference_mode(), which forbids gradients; "
            f"{name}.clone() outside of it is free."
        )


def check_generator(generator: object) -> None:
    """Refuse a seed, None or NumPy's generator where torch's is wanted."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {type(generator).__name__}; "
            "torch.Generator().manual_seed(0) makes one."
        )


def check_model(model: object) -> None:
    """Refuse anything but a network itself, above all its class or its weights."""
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        what = f"the class {model.__name__}" if isinstance(model, type) else kind
        raise TypeError(f"model must be an instance of torch.nn.Module, got {what}.")


def closest(name: str, names: Iterable[str]) -> str:
    """A hint such as " Did you mean 'fc'?", or "" when nothing resembles the name."""
    matches = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def check_tensor(value: object, name: str) -> None:
    """Refuse a list, an array or whatever else is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}.")
