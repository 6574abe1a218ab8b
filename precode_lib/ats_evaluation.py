"""How policies fare is measured in `ats.evaluation`; this is its old address."""

from precode_lib.ats.evaluation import (
    IGA_ATS,
    SCOUTING,
    Attack,
    Deterministic,
    Evaluation,
    Guess,
    adaptive,
    compare,
    evaluate,
    plain,
    through,
)

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
