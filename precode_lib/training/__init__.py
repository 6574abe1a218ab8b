"""Training: any model, any defense in the loop, and an exact way back.

`loop` trains, `protocols` says how and where the random numbers come from,
`evaluation` measures how well a model does.
"""

from precode_lib.basics.resuming import progress
from precode_lib.basics.schedules import OptimizerFactory, Schedule, constant

from .evaluation import (
    Evaluation,
    LoadedPictures,
    evaluate,
    mode,
)
from .loop import (
    Epoch,
    Training,
    fit,
    get_gradients,
    read_checkpoint,
    set_gradients,
    try_model,
)
from .protocols import (
    ATS,
    PAPER,
    Protocol,
    Randomness,
    TorchStates,
    ats_decay,
    make_optimizer,
)

__all__ = [
    "ATS",
    "PAPER",
    "Epoch",
    "Evaluation",
    "LoadedPictures",
    "OptimizerFactory",
    "Protocol",
    "Randomness",
    "Schedule",
    "TorchStates",
    "Training",
    "ats_decay",
    "constant",
    "evaluate",
    "fit",
    "get_gradients",
    "progress",
    "read_checkpoint",
    "set_gradients",
]
