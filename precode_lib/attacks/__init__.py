"""Attacks: from an `Observation` back to the pictures behind it, with torch alone.

`recipes` holds the published searches, `search` the engine under them, `closed_form`
what needs no search, `spear` what takes batches apart, `labels` the ways to the labels,
and `cheating` another threat model: a server that changes the model.
"""

from precode_lib.attacks.cheating import (
    Binned,
    Imprint,
    brightness,
    expected_hits,
    imprint,
    imprint_slices,
    read_bins,
    set_traps,
    slope,
)
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
from precode_lib.attacks.spear import Unmixed, spear
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
    "Binned",
    "Hidden",
    "Imprint",
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
    "Unmixed",
    "VictimLBFGS",
    "before_noise",
    "bias_corrected_labels",
    "bias_sign_labels",
    "brightness",
    "closed_forms",
    "constant",
    "cpl",
    "direction_of_input",
    "dlg",
    "drawn",
    "expected",
    "expected_count_labels",
    "expected_hits",
    "features_of",
    "first_linear",
    "fresh",
    "given",
    "idlg",
    "iga",
    "imprint",
    "imprint_slices",
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
    "multi_hot_labels",
    "patches_of",
    "progress",
    "read_bins",
    "row_sum_labels",
    "searched",
    "set_traps",
    "shift",
    "slope",
    "span",
    "spear",
    "step_decay",
    "still",
    "tokens_in_span",
    "tokens_of",
    "total_least_squares",
]
