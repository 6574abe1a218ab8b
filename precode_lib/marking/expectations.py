"""What a marker may expect, and how it says that something else came.

Every refusal has three parts: what was expected, what came, and where to look. Typical
mistakes are given as the values they lead to; one that is met is answered by name.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from .verdicts import NotSolved

SHOWN = 8  # numbers of a tensor that a message prints in full


def expect(condition: bool, message: str, *, hint: str) -> None:
    """Refuse with the message and where to look, unless the condition holds."""
    if not condition:
        raise NotSolved(f"{message}\nWhere to look: {hint}")


def expect_repeatable(learner: Callable, *inputs: Any) -> Any:
    """The answer to these inputs, of a function that uses no noise of its own."""
    came, again = learner(*inputs), learner(*inputs)
    one, other = (numbers_of(answer) for answer in (came, again))
    if one is not None and other is not None:
        # NaN is no noise: it is a typical mistake, for others to name.
        same = _agree(one, other, rtol=0, atol=0)
        hint = "use the noise that came, and draw none of your own."
        expect(same, "not right yet. The same inputs gave two results.", hint=hint)
    return came


def expect_close(
    came: Any,
    expected: Tensor,
    *,
    hint: str,
    what: str = "the result",
    given: Mapping[str, Any] | None = None,
    mistakes: Mapping[str, Any] | None = None,
    secret: bool = False,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Tensor:
    """Refuse anything but a tensor close to the expected one; returns it as a tensor.

    Lists of numbers, of lists and of tensors are tensors, too. Complex numbers are
    refused where real ones are expected, and so is every other shape.

    Args:
        came: the learner's.
        expected: the right one; of a number, a tensor without dimensions.
        hint: where to look, when no typical mistake is recognised.
        what: how the message calls it, such as "the picture".
        given: the inputs by name, to be shown; tensors may be of any size.
        mistakes: of each typical mistake, its hint and the tensor it leads to. Leave
            out those that may equal the right answer by chance.
        secret: do not say the right value. For answers that are the same each time;
            there it would be the solution.
        rtol, atol: as for `torch.isclose`.
    """
    came = _as_tensor(came, what, expected)
    for its_hint, wrong in (mistakes or {}).items():
        wrong = torch.as_tensor(wrong)
        if _agree(came, wrong, rtol, atol) and not _agree(wrong, expected, rtol, atol):
            hint = its_hint
            break
    else:
        if _agree(came, expected, rtol, atol):
            return came
    difference = _difference(came, expected, secret)
    raise NotSolved(_report(f"{what} {difference}", given, hint))


def expect_number(
    came: Any,
    expected: float,
    *,
    hint: str,
    what: str = "the result",
    given: Mapping[str, Any] | None = None,
    mistakes: Mapping[str, float] | None = None,
    secret: bool = False,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> Tensor:
    """Refuse anything but a number close to the expected one; returns it."""
    return expect_close(
        came,
        torch.tensor(expected, dtype=torch.float64),
        hint=hint,
        what=what,
        given=given,
        mistakes=mistakes,
        secret=secret,
        rtol=rtol,
        atol=atol,
    )


def expect_choice(
    came: Any, right: str, hints: Mapping[str, str], *, what: str = "the answer"
) -> None:
    """Refuse anything but the right one of several words.

    Args:
        came: the learner's; case and blanks around it do not matter.
        right: the right word.
        hints: of each wrong word, why it is not right.
    """
    choices = sorted([right, *hints])
    listed = ", ".join(f'"{choice}"' for choice in choices)
    if not isinstance(came, str) or came.strip().lower() not in choices:
        raise NotSolved(f"{what} should be one of {listed}; got {_short(came)}.")
    if came.strip().lower() != right:
        raise NotSolved(
            f'{what} is not "{came.strip()}".\n'
            f"Where to look: {hints[came.strip().lower()]}"
        )


def _as_tensor(came: Any, what: str, expected: Tensor) -> Tensor:
    numbers = numbers_of(came)
    is_list = isinstance(came, list | tuple)
    if numbers is None or (is_list and not expected.ndim):
        wanted = f"{what} should be {_name(expected)}"
        raise NotSolved(f"{wanted}; got {_short(came)}{_remedy(came)}.")
    if numbers.is_complex() and not expected.is_complex():
        raise NotSolved(
            f"{what} should be real; got complex numbers.\n"
            "Where to look: if the imaginary part is zero, `.real` is the answer."
        )
    return numbers


def numbers_of(value: Any) -> Tensor | None:
    """A number, or lists of numbers and tensors, as a tensor; None of anything else."""
    if isinstance(value, Tensor):
        return value
    # Too large, ragged, or no numbers: for others to name.
    with suppress(OverflowError, RuntimeError, TypeError, ValueError):
        if isinstance(value, bool | int | float):
            return torch.tensor(value, dtype=torch.float64)
        if isinstance(value, list | tuple):
            if any(isinstance(item, Tensor | list | tuple) for item in value):
                return torch.stack([*map(_real_or_complex, value)])
            return torch.tensor(value, dtype=torch.float64)
    return None


def _real_or_complex(value: Any) -> Tensor:
    numbers = numbers_of(value)
    if numbers is None:
        raise TypeError("no numbers")
    return numbers if numbers.is_complex() else numbers.to(torch.float64)


def _remedy(came: Any) -> str:
    if isinstance(came, str) and came.strip():
        return ", which is text: leave out the quotation marks"
    if isinstance(came, frozenset):
        return ", which has no order: use a list"
    return ""


def whole(value: Any) -> int | None:
    """The whole number that a number or a tensor of one is; None of all else."""
    if isinstance(value, Tensor):
        value = value.item() if value.ndim == 0 else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def listed(value: Any) -> list | None:
    """What lies in a list, a tuple, a set or along a tensor's first dimension."""
    if isinstance(value, Tensor):
        return [*value.unbind()] if value.ndim else None
    return [*value] if isinstance(value, list | tuple | frozenset) else None


def _agree(came: Tensor, expected: Tensor, rtol: float, atol: float) -> bool:
    if came.shape != expected.shape:
        return False
    # NaN equals NaN: a division by zero can be a typical mistake.
    return torch.allclose(
        came.to(torch.float64),
        expected.to(torch.float64),
        rtol=rtol,
        atol=atol,
        equal_nan=True,
    )


def _report(sentence: str, given: Mapping[str, Any] | None, hint: str) -> str:
    inputs = [f"  {name} = {show(value)}" for name, value in (given or {}).items()]
    start = "\n".join(["not right yet. With", *inputs, ""]) if inputs else ""
    return f"{start or 'not right yet. '}{sentence}\nWhere to look: {hint}"


def _difference(came: Tensor, expected: Tensor, secret: bool) -> str:
    if came.shape != expected.shape:
        reshape = _reshape(came, expected)
        return f"should be {_name(expected)}, got {_name(came)}{reshape}."
    num_bad = came.numel() - int(came.isfinite().sum())
    if num_bad:
        return f"holds NaN or infinity in {num_bad} of {came.numel()} entries."
    if secret:
        return f"is not {show(came)}."
    if expected.numel() <= SHOWN:
        return f"should be {show(expected)}, got {show(came)}."
    gap = (came.to(torch.float64) - expected.to(torch.float64)).abs()
    flat = int(gap.argmax())
    place = [int(i) for i in torch.unravel_index(torch.tensor(flat), gap.shape)]
    return (
        f"differs most at {place}: expected {expected.reshape(-1)[flat]:.4g}, "
        f"got {came.reshape(-1)[flat]:.4g}."
    )


def _reshape(came: Tensor, expected: Tensor) -> str:
    """What to do where a shape differs in dimensions of length 1 only."""
    one, other = ([n for n in each.shape if n != 1] for each in (came, expected))
    if one != other:
        return ""
    shape = ", ".join(map(str, expected.shape))
    how = f"`.reshape({shape})`" if shape else "`.item()`"
    return f": dimensions of length 1 count, and {how} takes them away"


def show(value: Any) -> str:
    """A value for a message: short ones in full, of a large tensor its shape."""
    if isinstance(value, Tensor) and value.numel() <= SHOWN:
        return _round(value.tolist())
    if isinstance(value, Tensor):
        return _name(value)
    return _round(value) if isinstance(value, float | list | tuple) else _short(value)


def _round(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_round, value))}]"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.5g}"
    return _short(value)


def _name(tensor: Tensor) -> str:
    if not tensor.ndim:
        return "a number"
    return f"a tensor of shape {tuple(tensor.shape)}"


def _short(value: Any, longest: int = 60) -> str:
    text = repr(value)
    kind = type(value).__name__
    shown = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return shown if isinstance(value, int | float | str) else f"a {kind}, {shown}"


def expect_sequence(came: Any, length: int, *, what: str, hint: str) -> Sequence:
    """Refuse anything but so many values in an order; returns them."""
    values = None if isinstance(came, frozenset) else listed(came)
    if values is None or len(values) != length:
        raise NotSolved(
            f"{what} should be {length} values; got {_short(came)}{_remedy(came)}.\n"
            f"Where to look: {hint}"
        )
    return values
