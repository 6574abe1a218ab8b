"""Break the library on purpose, one small change at a time; do the tests notice?

    python tools/mutate.py precode_lib/metrics tests/test_metrics.py

Targets are files or folders of one package. Every mutant runs in a forked child on a
temporary copy, so the working tree is never touched and torch is imported only once.
Killed: a test fails, an import fails, or time runs out. Strings, annotations and tests
marked slow or browser are left alone. Run it by hand, from the root; Unix only.
"""

import argparse
import ast
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

COPIED_TOO = ("pyproject.toml", "tests")
SURVIVED, KILLED, TIMED_OUT = "survived", "killed", "timed out"

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_TWINS = "sum mean, min max, amin amax, any all, zeros ones, new_zeros new_ones, "
_TWINS += "zeros_like ones_like, triu tril, sin cos, exp log, floor ceil"
TWINS = {}
for _twins in _TWINS.split(", "):
    _one, _other = _twins.split()
    TWINS |= {_one: _other, _other: _one}


@dataclass(frozen=True)
class Mutant:
    """One change: where, what, and the whole source of the file after it."""

    file: str
    line: int
    change: str
    source: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.change}"


def mutants(source: str, file: str = "<source>") -> Iterator[Mutant]:
    """Yield every mutant of a source text, from its first line to its last."""
    tree = ast.parse(source)
    for container, key, node in sorted(_places(tree), key=lambda p: p[2].lineno):
        for replacement in _replacements(node):
            change = f"{_one_line(node)}  ->  {_one_line(replacement)}"
            container[key] = replacement
            mutated = ast.unparse(ast.fix_missing_locations(tree))
            container[key] = node
            yield Mutant(file, node.lineno, change, mutated)


def _places(parent: ast.AST) -> Iterator[tuple[list | dict, int | str, ast.AST]]:
    """Every node that may change, after the container and the key that hold it."""
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns") or isinstance(value, ast.JoinedStr):
            continue
        container = value if isinstance(value, list) else vars(parent)
        keys = range(len(value)) if isinstance(value, list) else [field]
        for key in keys:
            if isinstance(container[key], ast.AST):
                if hasattr(container[key], "lineno"):
                    yield container, key, container[key]
                yield from _places(container[key])


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left, operators, right):
            for i, operator in enumerate(operators):
                for other in COMPARISONS[type(operator)]:
                    changed = [*operators[:i], other(), *operators[i + 1 :]]
                    yield ast.Compare(left, changed, right)
        case ast.BinOp(_, ast.BitOr(), ast.Constant(None)):
            return  # a type, such as Tensor | None
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.AugAssign(target, op, value) if type(op) in ARITHMETIC:
            yield ast.AugAssign(target, ARITHMETIC[type(op)](), value)
        case ast.BoolOp(ast.And(), values):
            yield ast.BoolOp(ast.Or(), values)
        case ast.BoolOp(ast.Or(), values):
            yield ast.BoolOp(ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Call():
            yield from _calls(node)
        case _:
            yield from _flows(node)


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    """Drop each keyword argument; call the function's twin, such as max for min."""
    for keyword in node.keywords:
        rest = [other for other in node.keywords if other is not keyword]
        yield ast.Call(node.func, node.args, rest)
    match node.func:
        case ast.Name(name, context) if name in TWINS:
            yield ast.Call(ast.Name(TWINS[name], context), node.args, node.keywords)
        case ast.Attribute(value, name, context) if name in TWINS:
            twin = ast.Attribute(value, TWINS[name], context)
            yield ast.Call(twin, node.args, node.keywords)


def _flows(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        # Comparisons and `not` are turned round where they stand.
        case ast.If(ast.Compare() | ast.UnaryOp(ast.Not())):
            return
        case ast.If(test, body, orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Return(value) if value and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield ast.Pass()
        case ast.With(_, body):
            yield ast.If(ast.Constant(True), body, [])
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()


def _one_line(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 70 else text[:67] + "..."


def outcomes(
    todo: list[Mutant], folders: list[Path], tests: list[str], limit: float
) -> Iterator[tuple[Mutant, str]]:
    """Try each mutant in a free folder; yield what became of it, as it ends."""
    todo, free, running = todo[::-1], list(folders), {}
    try:
        while todo or running:
            while todo and free:
                mutant, folder = todo.pop(), free.pop()
                original = (folder / mutant.file).read_text()
                (folder / mutant.file).write_text(mutant.source)
                pid = _fork(folder, tests)
                running[pid] = mutant, folder, original, time.monotonic() + limit
            time.sleep(0.01)
            for pid, (mutant, folder, original, deadline) in list(running.items()):
                outcome = _outcome(pid, deadline)
                if outcome:
                    del running[pid]
                    (folder / mutant.file).write_text(original)
                    free.append(folder)
                    yield mutant, outcome
    finally:
        for pid in running:
            _stop(pid)


def _outcome(pid: int, deadline: float) -> str | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        return SURVIVED if status == 0 else KILLED
    if time.monotonic() < deadline:
        return None
    _stop(pid)
    return TIMED_OUT


def _stop(pid: int) -> None:
    # The group too, for a test may have started a process of its own.
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _fork(folder: Path, tests: list[str], report: Path | None = None) -> int:
    """Run the tests in a child, silently unless it is to report what it imported."""
    pid = os.fork()
    if pid:
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # both sides: whoever comes first
        return pid
    status = 1
    try:
        os.setpgid(0, 0)
        if not report:
            # A mutant may have the age in seconds and the length of the one before.
            sys.dont_write_bytecode = True
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
        status = _test(folder, tests)
        if report:
            files = {n: getattr(m, "__file__", None) for n, m in sys.modules.items()}
            report.write_text(json.dumps(files))
    except BaseException:  # nothing may return into the parent's code
        traceback.print_exc()
    finally:
        os._exit(status)


def _test(folder: Path, tests: list[str]) -> int:
    os.chdir(folder)
    os.environ["PYTHONPATH"] = sys.path[0] = str(folder)
    _settle_hypothesis()
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-o", "addopts="]
    options += ["-m", "not slow and not browser"]
    options += ["-p", "no:unraisableexception"]  # it collects garbage, five times over
    # What was loaded before the fork is not rewritten; no matter.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *tests]))


def first_run(folder: Path, tests: list[str], files: Iterable[str]) -> list[str]:
    """The modules that the unbroken tests import; ends the program if they fail."""
    report = folder.parent / "imported.json"
    _, status = os.waitpid(_fork(folder, tests, report), 0)
    if status:
        sys.exit("the tests must pass before anything is broken.")
    imported = json.loads(report.read_text())
    missing = {str(folder / file) for file in files} - set(imported.values())
    if missing:
        sys.exit(f"the tests do not import {', '.join(sorted(missing))}.")
    outside = {n: f for n, f in imported.items() if not f or str(folder) not in f}
    return [name for name in outside if name != "__main__"]


def second_run(folder: Path, tests: list[str]) -> float:
    """Seconds the unbroken tests take in a child that need not import much."""
    start = time.monotonic()
    _, status = os.waitpid(_fork(folder, tests), 0)
    if status:
        sys.exit("the tests passed once and failed the second time: mend that first.")
    return time.monotonic() - start


def _import(modules: Iterable[str]) -> None:
    """Import what every child would; those that only others can import stay out."""
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
    gc.freeze()  # children need not look through it for garbage


def _copies(root: Path, package: str, tests: list[str], above: Path, n: int) -> list:
    """Make n copies of what a test run needs."""
    names = {package, *COPIED_TOO, *(Path(test).parts[0] for test in tests)}
    folders = [above.resolve() / str(i) for i in range(n)]
    for folder in folders:
        folder.mkdir()
        for name in filter(lambda name: (root / name).exists(), names):
            copy = shutil.copytree if (root / name).is_dir() else shutil.copy
            copy(root / name, folder / name)
    return folders


def _settle_hypothesis() -> None:
    """The same examples for all mutants, and no time lost on shrinking them."""
    with suppress(ImportError):
        from hypothesis import HealthCheck, Phase, settings

        settings.register_profile(
            "mutate",
            phases=(Phase.explicit, Phase.generate),
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutate")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("target", help="files or folders of one package, with commas between")
    add("tests", nargs="+", help="test files or folders")
    add("--jobs", type=int, default=1, help="children at a time (default: 1)")
    add("--sample", type=int, help="try only so many mutants, drawn at random")
    add("--seed", type=int, default=0, help="of the sample (default: 0)")
    add("--limit", type=float, help="seconds (default: 10 + 5 unbroken runs)")
    add("--at-least", type=float, default=0, help="per cent killed, or exit status 1")
    return parser.parse_args()


def _files(root: Path, target: str) -> dict[str, str]:
    """The sources to break, by their path from the root."""
    paths = [root / name for name in target.split(",")]
    files = [f for p in paths for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return {file.relative_to(root).as_posix(): file.read_text() for file in files}


def main() -> None:
    """Print each survivor as it is found, then the kill rate."""
    options, root = _arguments(), Path.cwd()
    sources = _files(root, options.target)
    todo = [m for file, text in sources.items() for m in mutants(text, file)]
    if options.sample and options.sample < len(todo):
        todo = random.Random(options.seed).sample(todo, options.sample)
    if not todo:
        sys.exit(f"nothing to break in {options.target}.")
    # Children of one thread: forking is safe, and sums are repeatable.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    counts = dict.fromkeys((SURVIVED, KILLED, TIMED_OUT), 0)
    with tempfile.TemporaryDirectory() as above:
        package = Path(next(iter(sources))).parts[0]
        folders = _copies(root, package, options.tests, Path(above), options.jobs)
        _import(first_run(folders[0], options.tests, sources))
        seconds = second_run(folders[0], options.tests)
        limit = options.limit or 10 + 5 * seconds
        print(f"{len(todo)} mutants, {limit:.0f} s each at most", flush=True)
        for mutant, outcome in outcomes(todo, folders, options.tests, limit):
            counts[outcome] += 1
            if outcome != KILLED:
                print(f"{outcome}: {mutant}", flush=True)
    rate = 100 * (1 - counts[SURVIVED] / len(todo))
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()), end=": ")
    print(f"{rate:.1f} % of {len(todo)} killed")
    sys.exit(rate < options.at_least)


if __name__ == "__main__":
    main()
