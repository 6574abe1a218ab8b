"""Attacks: from an `Observation` back to the pictures behind it, with torch alone.

`recipes` holds the published searches, `search` the engine under them, `closed_form`
what needs no search, `labels` the ways to the labels.
"""

from precode_lib.attacks.candidates import Likeliest, likeliest_candidate
from precode_lib.attacks.closed_form import (
    direction_of_input,
    first_linear,
    invert_linear,
    isolated_inputs,
    largest_row,
    least_squares,
    span,
    total_least_squares,
)
from precode_lib.attacks.hidden import (
    Hidden,
    Site,
    Sites,
    expected,
    fresh,
    given,
    kept_share,
    mean_of,
    searched,
    still,
)
from precode_lib.attacks.labels import (
    bias_corrected_labels,
    bias_sign_labels,
    expected_count_labels,
    known_labels,
    label_accuracy,
    multi_hot_labels,
    row_sum_labels,
)
from precode_lib.attacks.lbfgs import VictimLBFGS
from precode_lib.attacks.leaks import Leak, closed_forms
from precode_lib.attacks.patches import patches_of
from precode_lib.attacks.readings import Leaked, features_of, input_of
from precode_lib.attacks.recipe import Recipe
from precode_lib.attacks.recipes import (
    CPL,
    CPL_PRECODE,
    DLG,
    IDLG,
    IGA,
    IGA_PRECODE,
    JOINT,
    JOINT_IGA,
    STRONG,
    UNIT_FREE_DLG,
    before_noise,
    cpl,
    dlg,
    idlg,
    iga,
    joint,
)
from precode_lib.attacks.reports import AttackStep, Reconstruction
from precode_lib.attacks.search import Search
from precode_lib.attacks.tokens import (
    Membership,
    Tokens,
    in_span,
    tokens_in_span,
    tokens_of,
)
from precode_lib.attacks.unknowns import Trial, Unknown, drawn, shift
from precode_lib.basics.resuming import progress
from precode_lib.basics.schedules import constant, step_decay

__all__ = [
    "CPL",
    "CPL_PRECODE",
    "DLG",
    "IDLG",
    "IGA",
    "IGA_PRECODE",
    "JOINT",
    "JOINT_IGA",
    "STRONG",
    "UNIT_FREE_DLG",
    "AttackStep",
    "Hidden",
    "Leak",
    "Leaked",
    "Likeliest",
    "Membership",
    "Recipe",
    "Reconstruction",
    "Search",
    "Site",
    "Sites",
    "Tokens",
    "Trial",
    "Unknown",
    "VictimLBFGS",
    "before_noise",
    "bias_corrected_labels",
    "bias_sign_labels",
    "closed_forms",
    "constant",
    "cpl",
    "direction_of_input",
    "dlg",
    "drawn",
    "expected",
    "expected_count_labels",
    "features_of",
    "first_linear",
    "fresh",
    "given",
    "idlg",
    "iga",
    "in_span",
    "input_of",
    "invert_linear",
    "isolated_inputs",
    "joint",
    "kept_share",
    "known_labels",
    "label_accuracy",
    "largest_row",
    "least_squares",
    "likeliest_candidate",
    "mean_of",
    "multi_hot_labels",
    "patches_of",
    "progress",
    "row_sum_labels",
    "searched",
    "shift",
    "span",
    "step_decay",
    "still",
    "tokens_in_span",
    "tokens_of",
    "total_least_squares",
]
