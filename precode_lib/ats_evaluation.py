"""How policies fare is measured in `ats.evaluation`; this is its old address."""

from precode_lib.ats.evaluation import (
    IGA_ATS,
    SCOUTING,
    Deterministic,
    adaptive,
    compare,
    plain,
    through,
)
from precode_lib.ats.evaluation import PolicyAttack as Attack
from precode_lib.ats.evaluation import PolicyEvaluation as Evaluation
from precode_lib.ats.evaluation import PolicyGuess as Guess
from precode_lib.ats.evaluation import evaluate_policy as evaluate

__all__ = [
    "IGA_ATS",
    "SCOUTING",
    "Attack",
    "Deterministic",
    "Evaluation",
    "Guess",
    "adaptive",
    "compare",
    "evaluate",
    "plain",
    "through",
]
