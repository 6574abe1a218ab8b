"""The standard progress bar; any other fits a search just as well."""

from collections.abc import Iterator

from precode_lib.attacks.reports import AttackStep
from precode_lib.attacks.search import Search


def progress(search: Search, *, every: int = 10, **options) -> Iterator[AttackStep]:
    """The search's steps behind a bar that shows the median objective.

    Args:
        search: yields the steps; stop the loop, and it can be resumed.
        every: steps between two looks at the objective (each look waits for a GPU).
        options: of `tqdm.auto.tqdm`.
    """
    from tqdm.auto import tqdm  # only for people who watch

    name = search.recipe.name
    with tqdm(total=len(search), **{"desc": name, "unit": "step", **options}) as bar:
        for step in search:
            if step.iteration % every == 0:
                bar.set_postfix_str(_note(step), refresh=False)
            bar.update()
            yield step


def _note(step: AttackStep) -> str:
    middle = step.objective.median().item()
    return f"objective {middle:.3g}, {step.num_active} searching"
