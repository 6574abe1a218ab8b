"""Training: any model, any defense in the loop, and an exact way back.

`loop` trains, `protocols` says how and where the random numbers come from,
`evaluation` measures how well a model does.
"""

from precode_lib.basics.resuming import progress

from .evaluation import (
    Evaluation,
    LoadedPictures,
    Loss,
    evaluate,
    first_parameter,
    mode,
)
from .loop import (
    Epoch,
    Training,
    check_model,
    fit,
    get_gradients,
    read_checkpoint,
    set_gradients,
)
from .protocols import (
    ATS,
    PAPER,
    OptimizerFactory,
    Protocol,
    Randomness,
    Schedule,
    TorchStates,
    ats_decay,
    constant,
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
