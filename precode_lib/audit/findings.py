"""What attacks found in a case, judged: the rows of a report."""

import re
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

# How an attack ended. Only what is DONE says anything about the model.
DONE = "done"
REFUSED = "does not apply"  # this model, this batch, this kind of example
UNKNOWING = "needs more knowledge"  # than the threat gives
UNTRIED = "not tried"  # the budget was used up
FAILED = "failed"  # raised an error, or never gave a number
BLIND = "sees nothing"  # the objective does not tell one example from another
STOPPED = "stopped"  # by whoever waited
STATES = (DONE, REFUSED, UNKNOWING, UNTRIED, FAILED, BLIND, STOPPED)

# What may go wrong in a model, a loss or a defense that nobody has seen before: they
# assert, look up, and raise what they like.
TROUBLE = (Exception,)

# Who an attack is.
EXACT, LABEL, SEARCH, ORACLE = "closed form", "labels", "search", "oracle"
GROUPS = (EXACT, LABEL, SEARCH, ORACLE)


@dataclass(frozen=True)
class Finding:
    """One attack on one case.

    Args:
        case: its name.
        attack: of the attack.
        group: one of GROUPS; an oracle knows what no attacker knows, and only says
            whether a failure is the attack's.
        gives: "picture", "row", "tokens", "features", "labels": what comes back.
        state: one of STATES.
        why: a sentence where it is not done.
        parameter: whose gradient it reads, if it reads one.
        recovered: of each of the V * B examples, whether it came back.
        certified: whether that is proven, without knowing the truth.
        ssim: of pictures; None where none is defined.
        error: |guess - truth| / |truth|, None where nothing came back.
        share: of the labels or token sets that are right.
        objective: of each client, where it searched.
        steps: that it made.
        seconds: that it took; no part of what a repetition has to agree in.
        shown: what came back as pixels, for the report's page alone.
        told: what came back in words, of what is no picture; likewise.
    """

    case: str
    attack: str
    group: str
    gives: str
    state: str = DONE
    why: str = ""
    parameter: str | None = None
    recovered: tuple[bool, ...] = ()
    certified: tuple[bool, ...] = ()
    ssim: tuple[float | None, ...] = ()
    error: tuple[float | None, ...] = ()
    share: float | None = None
    objective: tuple[float | None, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    shown: Tensor | None = field(default=None, repr=False, compare=False)
    told: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state not in STATES or self.group not in GROUPS:
            raise ValueError(f"no such state or group: {self.state}, {self.group}.")
        for name in ("recovered", "certified", "ssim", "error", "objective", "told"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def is_done(self) -> bool:
        """Whether it ran to its end, and could see something."""
        return self.state == DONE

    @property
    def returns_examples(self) -> bool:
        """Whether what comes back is the example itself, or all that it says."""
        return self.gives not in ("labels", "features")

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it, without what the clients had."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        del plain["shown"], plain["told"]
        return {n: list(v) if isinstance(v, tuple) else v for n, v in plain.items()}


def stored(finding: Finding) -> dict[str, Any]:
    """All of it in tensors, lists, numbers and text, for `torch.save`."""
    return {**finding.to_dict(), "shown": finding.shown, "told": list(finding.told)}


def restored(state: dict[str, Any]) -> Finding:
    """What `stored` kept."""
    return Finding(**state)


def first_line(problem: BaseException, lines: int = 1) -> str:
    """What went wrong, in one line."""
    text = [line.strip() for line in str(problem).strip().splitlines() if line.strip()]
    return re.sub(r"\s+", " ", " ".join(text[:lines]))[:300] or type(problem).__name__


def trouble(problem: BaseException) -> str:
    """What stopped an attack or a client; of memory, also what to do."""
    said = str(problem)
    if isinstance(problem, MemoryError) or re.search("allocate|out of memory", said):
        return "there was not enough memory: fewer clients, or a smaller batch"
    return f"{type(problem).__name__}: {first_line(problem)}"
