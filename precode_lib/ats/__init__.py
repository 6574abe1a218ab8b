"""ATS: transform a picture before its gradient is taken (Gao et al. 2021).

`policies` writes and applies what `operations` lists, `scores` rates it without an
attack, `search` looks for good ones; how they fare against attacks is measured in
`precode_lib.ats_evaluation`. Only pictures pass through here: no attack is known.
"""

from precode_lib.ats.operations import KINDS, OPERATIONS, Kind, Operation
from precode_lib.ats.policies import (
    Policy,
    Transform,
    Variant,
    apply_each,
    augment,
    chain,
)
from precode_lib.ats.scores import (
    ACCURACY_FLOOR,
    accuracy_score,
    mean_layer_cosine,
    privacy_scores,
    similarity_profile,
)

__all__ = [
    "ACCURACY_FLOOR",
    "KINDS",
    "OPERATIONS",
    "Kind",
    "Operation",
    "Policy",
    "Transform",
    "Variant",
    "accuracy_score",
    "apply_each",
    "augment",
    "chain",
    "mean_layer_cosine",
    "privacy_scores",
    "similarity_profile",
]
