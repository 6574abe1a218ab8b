"""The searches of an audit: what each needs, where it applies, how long it takes.

Closed forms come from `attacks.closed_forms`, which finds out what applies to a model.
A search is a recipe of the attacks, fitted to the case; the order is that of the plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from precode_lib.attacks import (
    IGA,
    JOINT,
    STRONG,
    Recipe,
    Search,
    before_noise,
    bias_sign_labels,
    expected_count_labels,
    given,
    known_labels,
    still,
)
from precode_lib.attacks.objectives import balanced_cosine_distance, where_shared
from precode_lib.attacks.starts import normal
from precode_lib.audit.findings import ORACLE, SEARCH
from precode_lib.audit.scenes import Scene
from precode_lib.audit.threats import BOX, Threat
from precode_lib.federated import Observation

Reason = str | None


@dataclass(frozen=True)
class Attempt:
    """One search that an audit may make.

    Args:
        name: in the report.
        recipe: made for a case.
        why_not: (case) -> a sentence where it does not apply; None where it does.
        needs: what the attacker of a picture has to know beside gradient and model.
        full: steps after which more would hardly help.
        least: steps below which a failure would say nothing.
        group: SEARCH, or ORACLE where it is told what no attacker knows.
    """

    name: str
    recipe: Callable[[Scene], Recipe]
    why_not: Callable[[Scene], Reason]
    needs: frozenset[str] = frozenset({BOX})
    full: int = 1000
    least: int = 50
    group: str = SEARCH

    def lacks(self, scene: Scene, threat: Threat) -> list[str]:
        """What the attacker would have to know, and does not."""
        return threat.lacks(self.needs) if scene.sample.kind == "picture" else []

    def search(self, scene: Scene, iterations: int, generator) -> Search:
        """The search itself, of so many steps."""
        made = replace(self.recipe(scene), iterations=iterations)
        return Search(scene.seen, made, generator=generator)


def attempts() -> tuple[Attempt, ...]:
    """All of them, in the order in which a budget is given out."""
    strong = {"full": 30, "least": 5}  # a step of L-BFGS is 20 evaluations
    return (
        Attempt("search by directions (IGA)", _iga, _no_numbers, full=2000, least=50),
        Attempt("strong search", partial(_fitted, STRONG), _nothing_drawn, **strong),
        Attempt("joint search", partial(_fitted, JOINT), _something_drawn, **strong),
        Attempt("strong search before the noise", _early, _no_bottleneck, **strong),
        Attempt("search without a prior", _bare, _has_a_prior, frozenset(), **strong),
        Attempt("strong search among what was kept", _kept, _nothing_cut, **strong),
        Attempt(
            "oracle: told what the model drew",
            _told,
            _something_drawn,
            group=ORACLE,
            **strong,
        ),
    )


def label_rule(scene: Scene) -> Callable[[Observation], Tensor]:
    """Where a search gets its labels: known, or read off."""
    if scene.seen.labels is not None:
        return known_labels
    return bias_sign_labels if scene.case.batch == 1 else expected_count_labels


def _fitted(recipe: Recipe, scene: Scene) -> Recipe:
    """The recipe for this kind of example, and what this attacker knows of it."""
    fitted = replace(recipe, labels=label_rule(scene))
    if scene.sample.kind == "picture" and scene.seen.normalisation is not None:
        return fitted
    # Smoothness and grey are for pictures, and nobody said what values are possible.
    return replace(fitted, prior_weight=0.0, stages=(1.0,), start=normal, boxed=False)


def _iga(scene: Scene) -> Recipe:
    return _fitted(replace(IGA, prior_weight=1e-3), scene)


def _bare(scene: Scene) -> Recipe:
    return replace(_fitted(JOINT if scene.draws else STRONG, scene), start=normal)


def _early(scene: Scene) -> Recipe:
    return replace(_fitted(STRONG, scene), layers=before_noise, hidden=still)


def _kept(scene: Scene) -> Recipe:
    return replace(
        _fitted(JOINT if scene.draws else STRONG, scene),
        distance=where_shared(balanced_cosine_distance),
    )


def _told(scene: Scene) -> Recipe:
    oracle = given(scene.drawn, num_examples=scene.case.batch)
    return replace(_fitted(STRONG, scene), hidden=oracle)


def _no_numbers(scene: Scene) -> Reason:
    if scene.sample.kind == "tokens":
        return (
            "tokens are no numbers that a search could move by small steps: see the "
            "closed forms"
        )
    if scene.seen.labels is None and scene.seen.num_classes is None:
        return "the labels are unknown, and have no form that a search could guess"
    return None


def _has_a_prior(scene: Scene) -> Reason:
    if scene.sample.kind != "picture" or scene.seen.normalisation is not None:
        return "the other searches do the same, and more where they know more"
    return _no_numbers(scene)


def _nothing_drawn(scene: Scene) -> Reason:
    if scene.draws:
        return "the model draws numbers, which the joint search looks for as well"
    return _no_numbers(scene)


def _something_drawn(scene: Scene) -> Reason:
    if not scene.draws:
        return "the model draws nothing that would be hidden"
    return _no_numbers(scene)


def _no_bottleneck(scene: Scene) -> Reason:
    if not any("bottleneck" in name for name in scene.seen.shared):
        return "there is no bottleneck whose noise could be left out"
    return _no_numbers(scene)


def _nothing_cut(scene: Scene) -> Reason:
    # Without a defense zeros are the network's own, and say what they say.
    if scene.case.protection.change is None or cut_share(scene.seen) < 0.2:
        return "hardly an entry of the gradient was cut to zero"
    return _no_numbers(scene)


def cut_share(seen: Observation) -> float:
    """The share of exact zeros where a parameter says something at all."""
    zeros, entries = 0, 0
    for term in seen.shared.dense().values():
        if bool((term != 0).any()):
            zeros += int((term == 0).sum())
            entries += term.numel()
    return zeros / entries if entries else 0.0
