"""ATS: transform a picture before its gradient is taken (Gao et al. 2021).

`policies` writes and applies what `operations` lists, `scores` rates it without an
attack, `search` looks for good ones. Only pictures pass through these: no attack is
known. How policies fare against attacks is measured in `evaluation`, a door of its own.

What the reference implementation does and this does not: draw operation 50, which does
not exist; list probabilities and ignore them; rate every candidate on other noise, so
that an operation that changes nothing ranks among its ten best; take eigenvalues that
may turn out complex; compare reconstructions with transformed pictures only.
"""

from precode_lib.ats.operations import (
    OPERATION_KINDS,
    OPERATIONS,
    Operation,
    OperationKind,
    translate_x,
)
from precode_lib.ats.policies import (
    Policy,
    Transform,
    Variant,
    apply_each,
    augment,
    in_turn,
)
from precode_lib.ats.scores import (
    ACCURACY_FLOOR,
    accuracy_score,
    mean_layer_cosine,
    privacy_scores,
    similarity_profile,
)
from precode_lib.ats.search import (
    NO_POLICY,
    Candidate,
    PolicySearch,
    best,
    by_mean,
    by_mean_and_variance,
    hybrid,
)
from precode_lib.basics.resuming import progress

__all__ = [
    "ACCURACY_FLOOR",
    "NO_POLICY",
    "OPERATIONS",
    "OPERATION_KINDS",
    "Candidate",
    "Operation",
    "OperationKind",
    "Policy",
    "PolicySearch",
    "Transform",
    "Variant",
    "accuracy_score",
    "apply_each",
    "augment",
    "best",
    "by_mean",
    "by_mean_and_variance",
    "hybrid",
    "in_turn",
    "mean_layer_cosine",
    "privacy_scores",
    "progress",
    "similarity_profile",
]
