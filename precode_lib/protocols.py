"""How to train lives in `training`; this is its old address."""

from precode_lib.training import (
    ATS,
    PAPER,
    OptimizerFactory,
    Protocol,
    Randomness,
    Schedule,
    TorchStates,
    ats_decay,
    constant,
)

__all__ = [
    "ATS",
    "PAPER",
    "OptimizerFactory",
    "Protocol",
    "Randomness",
    "Schedule",
    "TorchStates",
    "ats_decay",
    "constant",
]
