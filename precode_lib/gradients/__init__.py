"""What a gradient is, and every victim's from one pass through the model.

`terms` is one parameter's gradient, dense or factored; `algebra` adds terms up over a
model, `entrywise` what is no product, `factoring` finds factors again. `capture` takes
gradients of any model: `plan` looks which layers the rules of `layers` can serve,
`passes` runs and records the model, `convolutions` and `lean` are quick ones, `twice`
has slopes of slopes that torch has not, and `turns` keeps other threads out meanwhile.
"""

from .algebra import (
    Gradients,
    check_gradients,
    concatenate,
    cosine_similarity,
    from_list,
    inner,
    inners,
    keeping_axis,
    layer_cosines,
    matching,
    squared_distance,
    squared_distances,
    squared_norm,
    squared_norms,
    to_list,
)
from .capture import (
    Capture,
    check_victims,
    victim_by_victim,
    victim_gradients,
)
from .entrywise import Cost, entry_sums
from .factoring import factor, ranks
from .layers import Rule, linear_rule
from .passes import (
    Losses,
    differentiable,
    first_parameter,
    mixes_examples,
    pure_losses,
    random_state,
    set_random_state,
    trainable,
    unhurried,
)
from .terms import Outer, Term, dense, prefers_factors
from .turns import one_at_a_time
from .twice import Swapped, check_differentiable, named_if_missing

__all__ = [
    "Capture", "Gradients", "Outer", "Rule", "Term", "concatenate",
    "cosine_similarity", "dense", "entry_sums", "factor", "from_list", "inner",
    "inners", "layer_cosines", "linear_rule", "matching", "prefers_factors", "ranks",
    "squared_distance", "squared_distances", "squared_norm", "squared_norms",
    "to_list", "victim_by_victim", "victim_gradients",
]  # fmt: skip
