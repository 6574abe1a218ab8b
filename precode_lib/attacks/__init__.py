"""Attacks: from an `Observation` back to the pictures behind it, with torch alone.

`recipes` holds the published searches, `search` the engine under them, `closed_form`
what needs no search, `labels` the ways to the labels.
"""

from precode_lib.attacks.batch_norms import (
    batch_statistics,
    running_statistics,
    statistics_prior,
    statistics_sent,
    weighed,
)
from precode_lib.attacks.closed_form import (
    direction_of_input,
    first_linear,
    invert_linear,
    isolated_inputs,
    largest_row,
    least_squares,
    sign_votes,
    span,
    total_least_squares,
)
from precode_lib.attacks.epochs import (
    mean_picture,
    one_set,
    per_epoch,
    same_pictures,
    sorted_pixels,
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
from precode_lib.attacks.updates import gradient_of_step, without_decay
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
    "batch_statistics",
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
    "gradient_of_step",
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
    "mean_of",
    "mean_picture",
    "multi_hot_labels",
    "one_set",
    "patches_of",
    "per_epoch",
    "progress",
    "row_sum_labels",
    "running_statistics",
    "same_pictures",
    "searched",
    "shift",
    "sign_votes",
    "sorted_pixels",
    "span",
    "statistics_prior",
    "statistics_sent",
    "step_decay",
    "still",
    "tokens_in_span",
    "tokens_of",
    "total_least_squares",
    "weighed",
    "without_decay",
]
