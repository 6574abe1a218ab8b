"""What each chapter teaches, as a table, from the chapters themselves.

    ```{goal-map}
    ```

A row has a chapter with its time, its learning goals, and its exercises.
"""

import json
import re
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from precode_lib.marking.notebooks import exercises, source

EXERCISES = "book/exercises"
_GOALS = re.compile(r"You will be able to\n(.*?)\n```", re.DOTALL)
_TIME = re.compile(r"^\*(\d+)\s+minutes", re.MULTILINE)


def chapters(toc: dict, root: Path) -> list[str]:
    """The numbered notebooks of a table of contents, in its order."""
    return [
        chapter["file"]
        for part in toc["parts"]
        if part.get("numbered")
        for chapter in part["chapters"]
        if not Path(root, f"{chapter['file']}.md").exists()
    ]


def goals(notebook: dict) -> tuple[int, list[str]]:
    """Minutes and learning goals of a chapter."""
    cells = [c for c in notebook["cells"] if c["cell_type"] == "markdown"]
    text = "\n".join(map(source, cells))
    found = _GOALS.search(text)
    minutes = _TIME.search(found[1]) if found else None
    if not minutes:
        raise ValueError("no learning goals with a time, `*20 minutes. ...*`.")
    items = found[1][: minutes.start()].split("\n- ")
    return int(minutes[1]), [_joined(item) for item in items if item.strip()]


def _joined(item: str) -> str:
    return " ".join(item.removeprefix("- ").split()).rstrip(";.")


class GoalMap(SphinxDirective):
    """A table of all numbered chapters."""

    def run(self):
        """Write the table as MyST, and let MyST read it."""
        path = Path(self.env.srcdir, self.config.external_toc_path)
        self.env.note_dependency(str(path))
        toc = yaml.safe_load(path.read_text(encoding="utf-8"))
        pages = re.findall(r"file: (\S+)", path.read_text(encoding="utf-8"))
        lines = ["```{list-table}", ":header-rows: 1", ":widths: 26 50 24"]
        lines += ["* - Chapter", "  - You will be able to", "  - Exercises"]
        for name in chapters(toc, Path(self.env.srcdir)):
            lines += self._row(name, pages)
        parent = nodes.container(classes=["exercise-list"])
        content = StringList(
            [*lines, "```"], self.env.doc2path("book/teaching")
        )
        self.state.nested_parse(content, self.content_offset, parent)
        return [parent]

    def _row(self, name: str, pages: list[str]) -> list[str]:
        try:
            minutes, found = goals(self._read(name))
        except (OSError, ValueError) as error:
            raise self.error(f"goals of {name!r}: {error}") from error
        first, *others = [f"- {goal}" for goal in found]
        return [
            f"* - [](/{name}), {minutes} minutes",
            f"  - {first}",
            *(f"    {other}" for other in others),
            f"  - {self._exercises(name.rpartition('/')[2], pages)}",
        ]

    def _exercises(self, stem: str, pages: list[str]) -> str:
        page = f"{EXERCISES}/{stem}"
        if page not in pages:
            return "none yet"
        found = exercises(self._read(page))
        minutes = sum(exercise.minutes for exercise in found)
        return f"[{len(found)} exercises](/{page}), {minutes} minutes"

    def _read(self, name: str) -> dict:
        path = Path(self.env.srcdir, f"{name}.ipynb")
        self.env.note_dependency(str(path))
        return json.loads(path.read_text(encoding="utf-8"))


def setup(app):
    """Register the directive with Sphinx."""
    app.add_directive("goal-map", GoalMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
