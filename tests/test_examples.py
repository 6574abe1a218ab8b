"""The examples in docstrings: each is complete, runs, and prints what it says."""

import ast
import doctest
from importlib import import_module
from pathlib import Path

import pytest
import torch

import precode_lib

LIBRARY = Path(precode_lib.__file__).parent
FILES = [p for p in sorted(LIBRARY.rglob("*.py")) if ">>> " in p.read_text("utf-8")]


def documented(path: Path) -> list[str]:
    """The functions and classes of a file whose docstring has an example."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = ast.FunctionDef, ast.ClassDef
    made = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return [node.name for node in made if ">>> " in (ast.get_docstring(node) or "")]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_examples_of_a_file_print_what_they_say(path):
    module, ran = import_module(name_of(path)), []
    for example in doctest.DocTestFinder().find(module, globs={}):
        if example.examples:  # nothing is imported for it: a reader can paste it
            runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
            said = []
            torch.manual_seed(0)
            runner.run(example, out=said.append)
            assert runner.failures == 0, "".join(said)
            ran.append(example.name.rpartition(".")[2])
    assert sorted(ran) == sorted(documented(path))


def test_the_front_functions_have_an_example():
    found = {name for path in FILES for name in documented(path)}
    wanted = {
        *("Capture", "bias_sign_labels", "chain", "cosine_similarity", "dp_sgd_step"),
        *("explore", "fit", "iga", "invert_linear", "lenet", "prune", "score", "smlp"),
        "with_precode",
    }
    assert wanted <= found
