"""The order of an audit: what is exact first, then searches for as long as is allowed.

How many steps each search gets is decided once, from its pace, and kept: a run that
was stopped makes the same steps when it goes on, on however busy a machine.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from precode_lib.attacks import Search
from precode_lib.audit.attempts import Attempt, attempts
from precode_lib.audit.exact import read_exactly
from precode_lib.audit.findings import (
    BLIND,
    DONE,
    FAILED,
    REFUSED,
    STOPPED,
    TROUBLE,
    UNKNOWING,
    UNTRIED,
    Finding,
    restored,
    stored,
    trouble,
)
from precode_lib.audit.journal import Journal
from precode_lib.audit.judging import judge
from precode_lib.audit.scenes import Scene, Terms
from precode_lib.basics.validation import check_range

Tell = Callable[[str], None]
_SAVED_EVERY = 5.0  # seconds between two checkpoints of a search
_LONG = 1.0  # seconds that a step takes to be timed by its first one
_STILL = 1e-5  # of a normalised number: who moved less did not search
_MARGIN = 0.85  # of the budget is given out: paces are measured, not promised


@dataclass(frozen=True)
class Turn:
    """A search of a case, and how many steps it may make."""

    scene: Scene
    attempt: Attempt
    iterations: int = 0
    pace: float = 0.0  # seconds a step

    @property
    def name(self) -> str:
        """Of its finding in the journal."""
        return f"{self.scene.case.name}: {self.attempt.name}"


def run(
    scenes: Sequence[Scene],
    terms: Terms,
    journal: Journal,
    *,
    seed: int,
    budget: float,
    effort: float | None,
    tell: Tell,
) -> list[Finding]:
    """All findings of all cases; a stop from outside leaves those that are finished.

    Args:
        budget: seconds, about.
        effort: instead of it, the share of its full steps that each search makes.
    """
    check_range(budget, "budget", 0, open_low=True)
    if effort is not None:
        check_range(effort, "effort", 0, 1)
    deadline = time.monotonic() + budget * _MARGIN
    found: list[Finding] = []
    turns: list[Turn] = []
    try:
        for scene in scenes:
            tell(f"{scene.case.name}: closed forms")
            found += _exact(scene, journal)
        turns, refused = _turns(scenes, terms)
        found += refused
        left = deadline - time.monotonic()
        if effort is None:
            turns = _planned(turns, journal, seed, left, tell)
        else:
            turns = [
                replace(t, iterations=round(effort * t.attempt.full)) for t in turns
            ]
        for turn in turns:
            found.append(_searched(turn, journal, seed, tell))
    except KeyboardInterrupt:
        tell("stopped; what is finished is reported")
        done = {(each.case, each.attack) for each in found}
        found += _stopped(scenes, turns, done)
    return found


def _exact(scene: Scene, journal: Journal) -> list[Finding]:
    name = f"{scene.case.name}: closed forms"
    kept = journal.read(name)
    if kept is None:
        findings = list(read_exactly(scene))
        journal.write(name, {"findings": [stored(each) for each in findings]})
        return findings
    return [restored(state) for state in kept["findings"]]


def _turns(scenes: Iterable[Scene], terms: Terms) -> tuple[list[Turn], list[Finding]]:
    """What can be searched for, by attempt and then by case; and what can't, why."""
    turns, refused = [], []
    for attempt in attempts():
        for scene in scenes:
            why = attempt.why_not(scene)
            lacks = attempt.lacks(scene, terms.threat)
            if why is not None:
                refused.append(_empty(scene, attempt, REFUSED, why))
            elif lacks:
                why = f"needs to know {' and '.join(lacks)}"
                refused.append(_empty(scene, attempt, UNKNOWING, why))
            else:
                turns.append(Turn(scene, attempt))
    return turns, refused


def _planned(
    turns: list[Turn], journal: Journal, seed: int, left: float, tell: Tell
) -> list[Turn]:
    """Turns with their steps: as decided before, or by what is left of the budget."""
    kept = journal.read("plan")
    if kept is not None:
        steps = kept["steps"]
        return [replace(t, iterations=steps.get(t.name, 0)) for t in turns]
    began = time.monotonic()
    paced = []
    for turn in turns:
        tell(f"{turn.name}: how long is a step?")
        paced.append(replace(turn, pace=_pace(turn, seed)))
    planned = _shared_out(paced, left - (time.monotonic() - began))
    journal.write("plan", {"steps": {t.name: t.iterations for t in planned}})
    return planned


def _pace(turn: Turn, seed: int) -> float:
    """Seconds of the second step, or of a long first one; 0 where it fails."""
    seconds = 0.0
    try:
        search = _begun(turn, 2, seed)
        for _ in range(2):
            began = time.perf_counter()
            if next(search, None) is None:
                break
            seconds = time.perf_counter() - began
            if seconds > _LONG:  # beside which warming up is nothing
                break
    except TROUBLE:
        return 0.0  # it fails again when it is its turn, and is reported then
    return seconds


def _shared_out(turns: list[Turn], seconds: float) -> list[Turn]:
    """Equal parts of the time for all; what one does not need goes to the others.

    A search whose part would be too short to say anything leaves it to the others: the
    most expensive one first, until every search that is made says something.
    """
    staying = sorted(turns, key=lambda turn: turn.pace * turn.attempt.least)
    steps = _in_parts(staying, seconds)
    while any(steps[t.name] < t.attempt.least for t in staying):
        staying.pop()
        steps = _in_parts(staying, seconds)
    return [replace(turn, iterations=steps.get(turn.name, 0)) for turn in turns]


def _in_parts(turns: list[Turn], seconds: float) -> dict[str, int]:
    """How many steps each makes if all have equal parts of the time."""
    left, steps = max(seconds, 0.0), {}
    waiting = sorted(turns, key=lambda turn: turn.pace * turn.attempt.full)
    for number, turn in enumerate(waiting):
        part = left / (len(waiting) - number)
        steps[turn.name] = turn.attempt.full
        if turn.pace > 0:
            steps[turn.name] = min(turn.attempt.full, int(part / turn.pace))
        left -= steps[turn.name] * turn.pace
    return steps


def _begun(turn: Turn, iterations: int, seed: int) -> Search:
    generator = turn.scene.case.generator(seed, turn.attempt.name)
    return turn.attempt.search(turn.scene, iterations, generator)


def _searched(turn: Turn, journal: Journal, seed: int, tell: Tell) -> Finding:
    kept = journal.read(turn.name)
    if kept is not None:
        return restored(kept)
    if turn.iterations < turn.attempt.least:
        why = (
            f"{turn.iterations} steps were left for it, and fewer than "
            f"{turn.attempt.least} say nothing"
        )
        return _empty(turn.scene, turn.attempt, UNTRIED, why)
    began = time.monotonic()
    try:
        search = _begun(turn, turn.iterations, seed)
        for made in _steps(search, turn, journal):
            tell(f"{turn.name}: step {made} of {turn.iterations}")
        found = _judged(turn, search, time.monotonic() - began, seed)
    except TROUBLE as problem:
        found = _empty(turn.scene, turn.attempt, FAILED, trouble(problem))
    journal.write(turn.name, stored(found))
    journal.forget(f"{turn.name}, under way")
    return found


def _steps(search: Search, turn: Turn, journal: Journal) -> Iterator[int]:
    """The steps made, with a checkpoint now and then."""
    name = f"{turn.name}, under way"
    kept = journal.read(name)
    if kept is not None:
        search.load_state_dict(kept["search"])
        torch.set_rng_state(kept["torch"])
    saved = time.monotonic()
    for step in search:
        if time.monotonic() - saved > _SAVED_EVERY:
            state = {"search": search.state_dict(), "torch": torch.get_rng_state()}
            journal.write(name, state)
            saved = time.monotonic()
        yield step.iteration + 1


def _judged(turn: Turn, search: Search, seconds: float, seed: int) -> Finding:
    found = search.result
    objective = [o if isfinite(o) else None for o in found.objective.tolist()]
    common = {
        "case": turn.scene.case.name,
        "attack": turn.attempt.name,
        "group": turn.attempt.group,
        "gives": turn.scene.sample.kind,
        "objective": objective,
        "steps": int(found.iterations.max()),
        "seconds": seconds,
    }
    if all(each is None for each in objective):
        return Finding(**common, state=FAILED, why="the objective never was a number")
    compared = judge(turn.scene, found.images)
    state, why = DONE, ""
    if not any(compared.recovered) and not any(found.conclusive):
        state, why = BLIND, next(filter(None, found.blind), "it was not conclusive")
    if not any(compared.recovered) and _stood_still(turn, found.images, seed):
        state, why = BLIND, "the search never left the place where it began"
    return Finding(
        **common,
        state=state,
        why=why,
        recovered=compared.recovered,
        certified=[False] * len(compared.recovered),
        ssim=compared.ssim,
        error=compared.error,
        shown=compared.shown,
        told=compared.told,
    )


def _stood_still(turn: Turn, images: Tensor, seed: int) -> bool:
    """Whether what a search found is what it began with, for every client."""
    began = next(_begun(turn, 1, seed)).images
    return bool((images - began).abs().max() < _STILL)


def _empty(scene: Scene, attempt: Attempt, state: str, why: str) -> Finding:
    kind = scene.sample.kind
    return Finding(scene.case.name, attempt.name, attempt.group, kind, state, why)


def _stopped(
    scenes: Sequence[Scene], turns: Sequence[Turn], done: set[tuple[str, str]]
) -> list[Finding]:
    """What was still to do when somebody stopped the audit."""
    why = "the audit was stopped before"
    waiting = turns or [Turn(s, a) for a in attempts() for s in scenes]
    return [
        _empty(turn.scene, turn.attempt, STOPPED, why)
        for turn in waiting
        if (turn.scene.case.name, turn.attempt.name) not in done
    ]
