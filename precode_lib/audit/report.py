"""An audit's figures, its verdict, and what it does not say; as JSON knows it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from precode_lib.audit.criteria import Criterion
from precode_lib.audit.findings import (
    BLIND,
    EXACT,
    FAILED,
    LABEL,
    ORACLE,
    SEARCH,
    STOPPED,
    UNKNOWING,
    UNTRIED,
    Finding,
)
from precode_lib.metrics import CLOSE, SUCCESS_SSIM, exact_interval

SCHEMA = 1  # of the JSON; raised when a field changes its meaning or goes

_SCHEMA_FILE = Path(__file__).parents[1] / "assets" / "audit-schema.json"

LEAKS, NOTHING, WITHIN, NO_VERDICT, INCOMPLETE = (
    "leaks",
    "nothing found",
    "within the rule",  # something came back that the rule lets pass
    "no verdict",
    "stopped",
)
CODES = {NOTHING: 0, WITHIN: 0, LEAKS: 1, NO_VERDICT: 2, INCOMPLETE: 3}


def schema() -> dict[str, Any]:
    """What the JSON of a report looks like, as a JSON Schema."""
    return json.loads(_SCHEMA_FILE.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class CaseReport:
    """What was found in one case.

    Args:
        name: of the case.
        is_control: whether it is there to judge the attacks, not the model.
        clients: V.
        batch: B.
        health: what there was to see in the gradients: see `Health`.
        findings: of all attacks, the order of their making.
        promise: what is proven of the defense, by name.
        advice: on the defense, a phrase.
    """

    name: str
    is_control: bool
    clients: int
    batch: int
    health: Mapping[str, Any]
    findings: tuple[Finding, ...]
    promise: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""

    @property
    def examples(self) -> int:
        """V * B."""
        return self.clients * self.batch

    @property
    def attacks(self) -> list[Finding]:
        """What an attacker could have done, and what did run: no oracles."""
        return [f for f in self.findings if f.is_done and f.group != ORACLE]

    @property
    def returned(self) -> list[Finding]:
        """The attacks that give examples back, recovered or not."""
        return [f for f in self.attacks if f.returns_examples and f.group != LABEL]

    @property
    def is_judged(self) -> bool:
        """Whether any attack ran that could have brought an example back.

        Of gradients that are nearly empty none could: other weights may send more.
        """
        empty = _vacuous(self)
        return bool(self.returned) and not (empty and all(empty))

    @property
    def is_stopped(self) -> bool:
        """Whether somebody stopped it."""
        return any(f.state == STOPPED for f in self.findings)

    def anywhere(self, kind: str) -> list[bool]:
        """Of each example, whether any attack has it "recovered" or "certified"."""
        rows = [getattr(f, kind) for f in self.returned if getattr(f, kind)]
        columns = zip(*rows, strict=True)
        return [any(column) for column in columns] or [False] * self.examples

    @property
    def figures(self) -> dict[str, float | None]:
        """What a rule may speak of: see `criteria.FIGURES`; None where there is none.

        A regression has no labels to read, a row of a table no similarity.
        """
        recovered = sum(self.anywhere("recovered"))
        alike = [s for f in self.returned for s in f.ssim if s is not None]
        tokens = [f.share for f in self.returned if f.gives == "tokens"]
        labels = [f.share for f in self.attacks if f.group == LABEL]
        features = [sum(f.certified) for f in self.attacks if f.gives == "features"]
        return {
            "asr": recovered / self.examples,
            "recovered": recovered,
            "certified": sum(self.anywhere("certified")),
            "ssim": max(alike, default=None),
            "labels": max((s for s in labels if s is not None), default=None),
            "tokens": max((s for s in tokens if s is not None), default=None),
            "features": max(features, default=None),
            "silent": self.health.get("silent_share", 0.0),
        }

    @property
    def interval(self) -> tuple[float, float] | None:
        """The rates that so many recovered examples do not exclude, 95 %.

        None where nothing was tried that could have recovered one.
        """
        if not self.is_judged:
            return None
        return exact_interval(int(self.figures["recovered"]), self.examples)

    def to_dict(self, rule: Criterion) -> dict[str, Any]:
        """As JSON knows it."""
        figures = self.figures
        return {
            "name": self.name,
            "control": self.is_control,
            "clients": self.clients,
            "batch": self.batch,
            "health": dict(self.health),
            "figures": figures,
            "interval": None if self.interval is None else list(self.interval),
            "judged": self.is_judged,
            "fires": not self.is_control and rule.fires(figures),
            "promise": dict(self.promise),
            "findings": [f.to_dict() for f in self.findings],
        }


@dataclass(frozen=True, repr=False)
class Report:
    """All of an audit; a notebook shows its page.

    Args:
        subject: what was audited: name, parameters, kind and shape of examples, notes.
        settings: protocol, threat, budget, seed: what a repetition needs.
        versions: of the library and what it stands on.
        rule: by which it is judged.
        cases: in the order of their playing.
        sent: what clients sent as pixels (N, C, H, W), for the page alone.
        said: the same in words, of what is no picture.
        cost: what the defense costs in accuracy, if it was measured.
    """

    subject: Mapping[str, Any]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    rule: Criterion
    cases: tuple[CaseReport, ...]
    sent: Tensor | None = field(default=None, repr=False, compare=False)
    said: tuple[str, ...] = field(default=(), repr=False)
    cost: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Report: {self.verdict}. {self.sentence()}>"

    def _repr_html_(self) -> str:
        from precode_lib.audit import frame  # of the room that knows reports

        return frame(self)

    @property
    def audited(self) -> list[CaseReport]:
        """The cases that the verdict is about."""
        return [case for case in self.cases if not case.is_control]

    @property
    def fired(self) -> list[CaseReport]:
        """Those that break the rule."""
        return [case for case in self.audited if self.rule.fires(case.figures)]

    @property
    def verdict(self) -> str:
        """One of LEAKS, INCOMPLETE, NO_VERDICT, NOTHING, the first that holds."""
        if self.fired:
            return LEAKS
        if any(case.is_stopped for case in self.cases):
            return INCOMPLETE
        if self.is_mute or not all(case.is_judged for case in self.audited):
            return NO_VERDICT
        back = any(case.figures["recovered"] for case in self.audited)
        return WITHIN if back else NOTHING

    @property
    def is_mute(self) -> bool:
        """Whether the rule speaks of nothing that was measured here."""
        named = [case.figures[n] for case in self.audited for n in self.rule.names]
        return bool(named) and all(value is None for value in named)

    @property
    def exit_code(self) -> int:
        """0 nothing found, 1 the rule fired, 2 nothing could be said, 3 stopped."""
        return CODES[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it; its fields are those of the schema."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "sentence": self.sentence(),
            "rule": self.rule.text,
            "subject": dict(self.subject),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "cases": [case.to_dict(self.rule) for case in self.cases],
            "cost": dict(self.cost),
            "thresholds": {"ssim": SUCCESS_SSIM, "relative_error": CLOSE},
            "not_tried": self.not_tried(),
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def sentence(self) -> str:
        """The verdict in a sentence or two that never promise safety."""
        return {
            LEAKS: self._leaks,
            NOTHING: self._nothing,
            WITHIN: self._within,
            NO_VERDICT: self._no_verdict,
            INCOMPLETE: self._incomplete,
        }[self.verdict]()

    def _leaks(self) -> str:
        worst = max(self.fired, key=lambda case: case.figures["asr"])
        figures = worst.figures
        if not figures["recovered"]:
            named = [(n, figures[n]) for n in self.rule.names]
            said = ", ".join(f"{n} is {value:g}" for n, value in named if value)
            return f"The rule fired: {said or 'it always does'} ({worst.name})."
        what = f"{figures['recovered']} of {worst.examples} examples came back"
        proven = figures["certified"]
        proof = f", {proven} of them with proof" if proven else ""
        return f"These gradients leak: {what}{proof} ({worst.name})."

    def _nothing(self) -> str:
        worst = max(self.audited, key=lambda case: case.interval[1])
        return (
            f"Nothing that was tried broke the rule. With {worst.examples} examples, a "
            f"rate of up to {worst.interval[1]:.0%} is not excluded for these attacks; "
            f"of attacks that were not tried this says nothing.{self._of_controls()}"
        )

    def _within(self) -> str:
        worst = max(self.audited, key=lambda case: case.figures["asr"])
        return (
            f"The rule did not fire, and {worst.figures['recovered']} of "
            f"{worst.examples} examples came back ({worst.name})."
        )

    def _of_controls(self) -> str:
        """What it means where nothing comes back without the defense either."""
        controls = [case for case in self.cases if case.is_control]
        if not controls or any(case.figures["recovered"] for case in controls):
            return ""
        return (
            " With the defense switched off nothing came back either, so it says "
            "nothing for the defense."
        )

    def _no_verdict(self) -> str:
        if self.is_mute:
            named = ", ".join(self.rule.names)
            return f"No verdict: the rule speaks of {named}, and there is none here."
        case = next(case for case in self.audited if not case.is_judged)
        return (
            f"No verdict: no attack ran to its end that could have brought an example "
            f"back ({case.name}). {_reason(case)}"
        )

    def _incomplete(self) -> str:
        return (
            "Stopped before the end: what is finished broke no rule, and what is not "
            "may. The same command goes on from here."
        )

    def not_tried(self) -> list[str]:
        """What this audit is silent about, a sentence each."""
        return [*_left_out(self.audited), *_NEVER_TRIED]


def _reason(case: CaseReport) -> str:
    silent, parameters = case.health.get("silent", ()), case.health.get("parameters")
    if any(_vacuous(case)):
        return (
            f"{len(silent)} of {parameters} parameters sent nothing but zeros: audit "
            "other weights, such as trained ones."
        )
    tried = [
        f
        for state in (FAILED, BLIND, UNTRIED)
        for f in case.findings
        if f.group in (EXACT, SEARCH) and f.state == state
    ]
    return f"{tried[0].attack}: {tried[0].why}." if tried else ""


def _vacuous(case: CaseReport) -> list[bool]:
    """Of which clients hardly anything was sent."""
    return list(case.health.get("vacuous", ()))


def _left_out(cases: Sequence[CaseReport]) -> list[str]:
    """Attacks that apply and did not run to their end, with the reasons."""
    states = (UNTRIED, FAILED, BLIND, STOPPED, UNKNOWING)
    said = {
        f"{f.attack}: {f.state}" + (f"; {f.why}." if f.why else ".")
        for case in cases
        for f in case.findings
        if f.state in states and f.group in (EXACT, SEARCH)
    }
    return sorted(said)


_NEVER_TRIED = (
    "A server that changes the model or chooses its clients (threats F to H) was not "
    "tried.",
    "Attackers with a generative model of the data, or with other rounds of the same "
    "client, were not tried.",
    "Longer searches, other starts and other priors were not tried.",
)
