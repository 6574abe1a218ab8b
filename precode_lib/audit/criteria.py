"""When does an audit fail? A rule over its figures, such as "asr > 0 or certified".

Read by Python's parser, evaluated by us: comparisons, `and`, `or`, `not`, numbers and
the names below. Nothing is called, so a rule can come from anywhere.
"""

import ast
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

# What a rule may speak of; of each case under audit.
FIGURES = {
    "asr": "the share of the examples that at least one attack brought back",
    "recovered": "how many examples that were",
    "certified": "how many examples came back with a proof that they are right",
    "ssim": "the similarity of the best picture that came back; 0 where none is one",
    "labels": "the share of the labels that were read off",
    "tokens": "the share of the token sets that were read off exactly",
    "features": "of how many clients the inputs of an inner layer came back, certified",
    "silent": "the share of the parameters whose gradients are zero for everybody",
}
DEFAULT = "asr > 0 or certified"

_COMPARE = {
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt,
    ast.LtE: operator.le, ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


@dataclass(frozen=True)
class Criterion:
    """A rule that was read: `fires` says whether figures break it."""

    text: str
    tree: ast.expr

    def fires(self, figures: Mapping[str, float | None]) -> bool:
        """Whether the rule holds for these figures, so that the audit fails.

        A figure that there is none of, None, counts as 0.
        """
        known = {name: value or 0.0 for name, value in figures.items()}
        return bool(_value(self.tree, known))

    @property
    def names(self) -> list[str]:
        """The figures that it speaks of."""
        found = (each.id for each in ast.walk(self.tree) if isinstance(each, ast.Name))
        return list(dict.fromkeys(found))

    def __str__(self) -> str:
        return self.text


def criterion(text: str) -> Criterion:
    """Read a rule; whatever does not belong into one is refused."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"a rule is text such as {DEFAULT!r}, got {text!r}.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as problem:
        raise ValueError(_refusal(text, getattr(problem, "msg", problem))) from None
    _check(tree, text)
    return Criterion(text.strip(), tree)


def _check(node: ast.expr, text: str) -> None:
    if isinstance(node, ast.BoolOp):
        for each in node.values:
            _check(each, text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        _check(node.operand, text)
    elif isinstance(node, ast.Compare):
        for each in (node.left, *node.comparators):
            _check(each, text)
        if any(type(op) not in _COMPARE for op in node.ops):
            raise ValueError(_refusal(text, "numbers are compared by <, <=, >, >="))
    elif isinstance(node, ast.Name):
        _check_name(node.id, text)
    elif not _is_number(node):
        raise ValueError(_refusal(text, f"{ast.unparse(node)} has no place in a rule"))


def _is_number(node: ast.expr) -> bool:
    if not isinstance(node, ast.Constant):
        return False
    return isinstance(node.value, int | float)


def _check_name(name: str, text: str) -> None:
    if name not in FIGURES:
        near = get_close_matches(name, FIGURES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(_refusal(text, f"{name!r} is no figure of an audit{hint}"))


def _refusal(text: str, reason: object) -> str:
    return (
        f"the rule {text!r} cannot be read: {reason}. It may speak of "
        f"{', '.join(FIGURES)}, such as {DEFAULT!r}."
    )


def _value(node: ast.expr, figures: Mapping[str, float]) -> float:
    if isinstance(node, ast.BoolOp):
        values = (_value(each, figures) for each in node.values)
        return any(values) if isinstance(node.op, ast.Or) else all(values)
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, figures)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.Compare):
        sides = [_value(each, figures) for each in (node.left, *node.comparators)]
        pairs = zip(node.ops, pairwise(sides), strict=True)
        return all(_COMPARE[type(op)](*pair) for op, pair in pairs)
    return figures[node.id] if isinstance(node, ast.Name) else node.value
