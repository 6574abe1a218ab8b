"""Every marker's own solution and two unusual right answers, judged many times.

    python tests/checks/right_answers.py 300 [CHAPTER...]

prints how often each was refused, with the first reason. The solutions are those of
book/solutions; of their cells only imports, functions and answers are run.
"""

import ast
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
import unusual

from precode_lib.marking.notebooks import exercises, mark, source

SOLUTIONS = Path(__file__).resolve().parents[2] / "book" / "solutions"
CHAPTERS = sorted(path.stem for path in SOLUTIONS.glob("*.ipynb"))
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


@cache
def solved(chapter: str) -> dict[str, tuple[str, tuple]]:
    """Of each exercise its kind and the solution's answers, as its check gets them."""
    notebook = json.loads((SOLUTIONS / f"{chapter}.ipynb").read_text("utf-8"))
    space: dict[str, Any] = {}
    found, kinds = {}, {one.name: one.kind for one in exercises(notebook)}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        role, name = mark(cell)
        tree = ast.parse(without_magic(source(cell)))
        if role == "Check":
            (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
            found[name] = kinds[name], tuple(_value(arg, space) for arg in call.args)
            continue
        if role != "Answer":
            tree.body = [node for node in tree.body if isinstance(node, _DEFINITIONS)]
        exec(compile(tree, f"<{chapter}>", "exec"), space)
    return found


def without_magic(text: str) -> str:
    """The text with `pass` for what only a notebook understands."""
    return re.sub(r"^( *)[%!].*$", r"\1pass", text, flags=re.MULTILINE)


def _value(node: ast.expr, space: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<check>", "eval"), space)


def marker(name: str) -> Callable:
    """The marker with this name, such as "labels.by_hand"."""
    chapter, _, exercise = name.rpartition(".")
    return getattr(import_module(f"precode_lib.checks.{chapter}"), exercise)


def answers(chapter: str) -> Iterator[tuple[str, str, tuple]]:
    """Exercise, what kind of answer, and right answers to it."""
    for exercise, (kind, given) in solved(chapter).items():
        name = f"{chapter}.{exercise}"
        yield name, "solution", given
        if kind == "By hand":
            yield name, "arrays", tuple(map(as_array, given))
            yield name, "fractions", tuple(map(as_fractions, given))
        for number, answer in enumerate(unusual.RIGHT.get(name, ()), start=1):
            if name == "any_model.insertion":  # the marker gets what tries the answer
                answer = _with(given[0], insert=answer)
            yield name, f"unusual {number}", (answer,)


def _with(function: FunctionType, **names: Any) -> FunctionType:
    """The same function among other global names."""
    return FunctionType(function.__code__, {**function.__globals__, **names})


def as_array(value: Any) -> Any:
    """An array that is a view with negative strides, as np.flip returns it."""
    if isinstance(value, str | dict):
        return value
    array = np.array(value)
    return np.flip(np.flip(array).copy())


def as_fractions(value: Any) -> Any:
    """Fractions, in tuples of tuples."""
    if isinstance(value, str | dict):
        return value
    if isinstance(value, list | tuple):
        return tuple(map(as_fractions, value))
    return Fraction(value)


def failures(name: str, given: tuple, draws: int, seed: int = 0) -> list[str]:
    """What the marker said of the right answers where it refused them."""
    check, refused = marker(name), []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        before = generator.get_state()
        verdict = check.judge(*given, generator=generator)
        if not verdict.is_right:
            refused.append(verdict.message)
        if torch.equal(before, generator.get_state()):
            break  # nothing was drawn: the next time would be the same
    return refused


def main() -> None:
    """A line for each marker and answer."""
    torch.set_num_threads(1)
    draws, chapters = int(sys.argv[1]), sys.argv[2:] or CHAPTERS
    for chapter in chapters:
        for name, what, given in answers(chapter):
            began = time.perf_counter()
            refused = failures(name, given, draws)
            seconds = time.perf_counter() - began
            reason = refused[0].replace("\n", " / ")[:200] if refused else ""
            line = f"{name:45} {what:10} {len(refused):4} of {draws}"
            print(f"{line} {seconds:7.1f} s  {reason}", flush=True)


if __name__ == "__main__":
    main()
