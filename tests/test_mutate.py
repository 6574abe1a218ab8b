"""The mutation tool on a toy package: it finds the weak test and touches nothing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "mutate.py"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tool forks")


@pytest.fixture(scope="module")
def changes():
    """Map a source text to what its mutants change."""
    spec = importlib.util.spec_from_file_location("mutate", TOOL)
    tool = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = tool  # dataclasses look their module up
    spec.loader.exec_module(tool)
    yield lambda source: [mutant.change for mutant in tool.mutants(source)]
    del sys.modules["mutate"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("0 <= a", ["0 < a", "0 > a", "1"]),
        ("a == b != c", ["a != b != c", "a == b == c"]),
        ("a is not b", ["a is b"]),
        ("a @ b", ["a * b"]),
        ("a += b", ["a -= b"]),
        ("a and b", ["a or b"]),
        ("not a", ["a"]),
        ("-a", ["a"]),
        ("a[True]", ["False"]),
        ("a[0.5]", ["1.5"]),
        ("a if b else c", ["c if b else a"]),
        ("x.sum(dim=b, keepdim=c)", ["x.sum(keepdim=c)", "x.sum(dim=b)", "x.mean"]),
        ("if a: b", ["if not a: b"]),
        ("raise a", ["pass"]),
        ("with a: b", ["if True: b"]),
        ("for a in b: break", ["continue"]),
        ("lambda: (yield a)", []),
    ],
)
def test_every_kind_of_code_is_broken_in_its_ways(changes, source, expected):
    found = [change.split("  ->  ")[1] for change in changes(source)]
    # A call that stands alone can also vanish.
    found = [change for change in found if change != "pass" or "raise" in source]
    assert len(found) == len(expected)
    for change, beginning in zip(found, expected, strict=True):
        assert change.startswith(beginning)


def test_strings_annotations_and_bare_returns_are_left_alone(changes):
    source = '"""Doc."""\ndef f(a: int = b | None) -> 1: return\nx: 3 = f"{1 + 1}"'
    assert changes(source) == []


TOY = """
def f(n):
    total = 0
    while n:
        total += n
        n -= 1
    return total
"""


def toy_repository(folder: Path, assertion: str) -> dict[Path, str]:
    """A package with one function and one test; its files and their texts."""
    texts = {
        folder / "toy" / "__init__.py": "",
        folder / "toy" / "core.py": TOY,
        folder / "tests" / "test_core.py": (
            f"from toy import core\n\ndef test_f():\n    {assertion}\n"
        ),
    }
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return texts


def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), "toy/core.py", "tests/test_core.py"]
    # Plugins that the toy does not need take seconds to load.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [*command, *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_weak_test_lets_mutants_live(tmp_path):
    toy_repository(tmp_path, "assert core.f(0) == 0")
    weak = run(tmp_path, "--at-least", "90")
    assert "survived: toy/core.py:5: total += n  ->  total -= n\n" in weak.stdout
    assert weak.stdout.endswith(
        "3 survived, 2 killed, 0 timed out: 40.0 % of 5 killed\n"
    )
    assert weak.returncode == 1


def test_a_strong_test_kills_all_and_the_tree_stays_as_it_was(tmp_path):
    texts = toy_repository(tmp_path, "assert core.f(3) == 6")
    strong = run(tmp_path, "--at-least", "90", "--limit", "2", "--jobs", "2")
    assert strong.returncode == 0, strong.stdout + strong.stderr
    for endless in ("n -= 1  ->  n += 1", "1  ->  2"):
        assert f"timed out: toy/core.py:6: {endless}\n" in strong.stdout
    assert "100.0 % of 5 killed" in strong.stdout
    assert {path: path.read_text() for path in texts} == texts
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(texts)


@pytest.mark.parametrize(
    ("assertion", "complaint"),
    [
        ("assert core.f(3) == 7", "must pass before anything is broken"),
        ("assert core.missing", "must pass before anything is broken"),
    ],
)
def test_nothing_is_broken_while_the_tests_fail(tmp_path, assertion, complaint):
    toy_repository(tmp_path, assertion)
    refused = run(tmp_path)
    assert complaint in refused.stderr
    assert refused.returncode == 1


def test_tests_of_something_else_are_refused(tmp_path):
    toy_repository(tmp_path, "pass")
    (tmp_path / "tests" / "test_core.py").write_text("def test_f(): pass\n")
    assert "do not import" in run(tmp_path).stderr
