"""What a notebook sees of the markers while an examiner elsewhere judges.

    folder = write(Path("somewhere"))

writes a folder that stands for `checks` in a hand-in's box: the same modules, but of a
chapter only what its notebooks need. Its markers ask the examiner and know nothing, so
nothing that is expected lies where a hand-in can read it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

_CHECKS = Path(__file__).parents[1] / "checks"
USED = "NOTEBOOKS_USE"  # in a chapter: what its notebooks take besides its markers
_DEFINING = (ast.FunctionDef, ast.ClassDef)


def write(folder: Path) -> Path:
    """Write the modules of `checks` elsewhere, chapters as stubs; returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(_CHECKS.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        text = stub(path.stem) if _markers(ast.parse(text)) else text
        (folder / path.name).write_text(text, encoding="utf-8")
        (folder / path.name).chmod(0o644)
    folder.chmod(0o755)  # whoever runs the hand-in reads it
    return folder


def chapters() -> list[str]:
    """The chapters that have markers."""
    texts = {path.stem: path.read_text("utf-8") for path in _CHECKS.glob("*.py")}
    return sorted(name for name, text in texts.items() if _markers(ast.parse(text)))


def stub(chapter: str) -> str:
    """A module with the chapter's markers, which only ask, and what notebooks use.

    What that uses is taken along; hints, models of answers and all that the markers
    alone use stay behind.
    """
    text = (_CHECKS / f"{chapter}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    markers = _markers(tree)
    tree.body = [node for node in tree.body if not _bound(node) & {*markers}]
    kept = _needed(tree, {*_used(tree, chapter)})
    lines = [
        f'"""Asks about the exercises of {chapter}; the markers lie elsewhere."""',
        "from precode_lib.marking.markers import asking",
        *(part for node in tree.body for part in _text(node, kept, text)),
        *(f'{name} = asking("{chapter}.{name}")' for name in markers),
    ]
    return "\n".join(lines) + "\n"


def _markers(tree: ast.Module) -> list[str]:
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(
            isinstance(d, ast.Name) and d.id == "exercise" for d in node.decorator_list
        )
    ]


def _used(tree: ast.Module, chapter: str) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and USED in _bound(node):
            return ast.literal_eval(node.value)
    raise ValueError(
        f"checks/{chapter}.py has no list {USED}; name there what the chapter's "
        "notebooks take from it besides its markers, if only in an empty list."
    )


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement gives a meaning to."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, _DEFINING):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {name for target in targets for name in _names(target)}
    return set()


def _names(node: ast.AST) -> Iterator[str]:
    return (inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))


def _needed(tree: ast.Module, names: set[str]) -> set[str]:
    """These names, and all that their definitions use."""
    needed: set[str] = set()
    waiting = {*names}
    while waiting:
        needed |= waiting
        used = {
            name
            for node in tree.body
            if _bound(node) & waiting
            and not isinstance(node, ast.Import | ast.ImportFrom)
            for name in _names(node)
        }
        waiting = used - needed
    return needed


def _text(node: ast.stmt, kept: set[str], text: str) -> Iterator[str]:
    """A statement as it is, if it is needed; of an import the names that are."""
    if not _bound(node) & kept:
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        node.names = [a for a in node.names if _bound(_alone(a)) & kept]
        yield ast.unparse(node)
    else:
        first = min(
            [node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]
        )
        yield "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def _alone(alias: ast.alias) -> ast.Import:
    return ast.Import([alias])
