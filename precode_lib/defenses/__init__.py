"""What a client does to its gradient before it shares it.

A `Defense` is a pure function from gradients to gradients; `functools.partial` binds
its options, `chain` puts several in a row, `only` and `ignoring` choose parameters. A
`ClientStep` needs the pictures as well and takes the place of the plain gradient; both
go into `federated.observe`. No function here changes what it is given, and none of
them promises privacy: the limits of each are among its tests.
"""

from precode_lib.defenses.clipping import clip
from precode_lib.defenses.combinators import (
    ClientStep,
    Defense,
    chain,
    check_client_step,
    defended,
    ignoring,
    only,
)
from precode_lib.defenses.differential_privacy import (
    dp_sgd_step,
    epsilon,
)
from precode_lib.defenses.guarantees import (
    Promise,
    mse_without_prior,
    promise_of,
    promises_by_client,
    reconstruction_bound,
    substitution_bound,
)
from precode_lib.defenses.noise import add_laplace_noise, add_noise
from precode_lib.defenses.partial_perturbation import before_bottleneck, ppp
from precode_lib.defenses.privacy_losses import PrivateSteps
from precode_lib.defenses.pruning import prune, prune_at_random, prune_globally
from precode_lib.defenses.quantisation import quantise, round_to
from precode_lib.defenses.soteria import soteria_step
from precode_lib.defenses.wire import (
    Encoding,
    as_bitmap,
    as_floats,
    as_indices,
    as_steps,
    bytes_on_wire,
)

__all__ = [
    "ClientStep",
    "Defense",
    "Encoding",
    "PrivateSteps",
    "Promise",
    "add_laplace_noise",
    "add_noise",
    "as_bitmap",
    "as_floats",
    "as_indices",
    "as_steps",
    "before_bottleneck",
    "bytes_on_wire",
    "chain",
    "clip",
    "dp_sgd_step",
    "epsilon",
    "ignoring",
    "mse_without_prior",
    "only",
    "ppp",
    "promise_of",
    "promises_by_client",
    "prune",
    "prune_at_random",
    "prune_globally",
    "quantise",
    "reconstruction_bound",
    "round_to",
    "soteria_step",
    "substitution_bound",
]
