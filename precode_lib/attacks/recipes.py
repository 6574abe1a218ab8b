"""The published attacks as recipes for the one search engine.

Each constant holds the published settings; `dataclasses.replace` varies them. The
functions start a search: `for step in iga(observation, generator=generator): ...`
"""

import re
from dataclasses import replace
from functools import partial

import torch
from torch.optim import Adam

from precode_lib.attacks.hidden import expected, searched
from precode_lib.attacks.labels import known_labels, row_sum_labels
from precode_lib.attacks.lbfgs import VictimLBFGS
from precode_lib.attacks.objectives import (
    balanced_cosine_distance,
    cosine_distance,
    squared_distance,
)
from precode_lib.attacks.recipe import Recipe, varied
from precode_lib.attacks.search import Search
from precode_lib.attacks.starts import normal, patterned, zeros
from precode_lib.attacks.telling import telling
from precode_lib.basics.schedules import step_decay
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients

# What the published code of DLG, iDLG and CPL uses: torch's rules, which depend on the
# units of the distance. `partial(VictimLBFGS, lr=1.0)` finds what these take for zero.
_PUBLISHED_LBFGS = partial(VictimLBFGS, lr=1.0, absolute=True)

# Zhu et al. 2019: images and labels together, L-BFGS of 20 updates a step.
DLG = Recipe(
    name="DLG",
    distance=squared_distance,
    optimizer=_PUBLISHED_LBFGS,
    iterations=300,
    start=normal,
    labels=None,
)

# Zhao et al. 2020: first the label, by the row sums of the last layer's gradient.
IDLG = replace(DLG, name="iDLG", labels=row_sum_labels, tolerance=1e-6)

# Not published: DLG whose search does not depend on the units of the distance.
UNIT_FREE_DLG = replace(
    DLG, name="DLG in any units", optimizer=partial(VictimLBFGS, lr=1.0)
)

# Geiping et al. 2020, the settings of their script for single pictures.
IGA = Recipe(
    name="IGA",
    distance=cosine_distance,
    optimizer=partial(Adam, lr=0.1),
    iterations=24_000,
    start=normal,
    labels=known_labels,
    prior_weight=1e-4,
    schedule=step_decay,
    signed=True,
    boxed=True,
)

# Scheliga et al. 2022, section 4: smaller steps, and a stop on a plateau.
IGA_PRECODE = replace(
    IGA,
    name="IGA (PRECODE paper)",
    optimizer=partial(Adam, lr=0.01),
    iterations=7_000,
    prior_weight=1e-6,
    patience=1_200,
)

# Wei et al. 2020, their settings for 32 x 32 pictures. The label term of the paper is
# switched off in the released code, so it is here.
CPL = Recipe(
    name="CPL",
    distance=squared_distance,
    optimizer=_PUBLISHED_LBFGS,
    iterations=300,
    start=patterned(16),
    labels=row_sum_labels,
)

# Scheliga et al. 2022: CPL's objective with the optimizer of their IGA. They do not
# give the weight of the label term; 0.01 is what their next repository uses.
CPL_PRECODE = replace(
    IGA_PRECODE,
    name="CPL (PRECODE paper)",
    distance=squared_distance,
    prior_weight=0.0,
    label_weight=0.01,
)


# Not published, the strongest that we have for one picture and a CPU: a distance
# without units, a grey start, bounded moves of L-BFGS, 600 evaluations, and smoothness
# that is asked for less and less, for how much of it helps differs by a factor of 1,000
# between weights. Chosen once for all defenses, by success on the paper's first eight
# victims with LeNet, untrained and trained: other victims judge it.
STRONG = Recipe(
    name="strong",
    distance=balanced_cosine_distance,
    optimizer=partial(VictimLBFGS, lr=1.0, longest=1.0),
    iterations=30,
    start=zeros,
    labels=known_labels,
    prior_weight=1e-2,
    stages=(1.0, 1e-1, 1e-2, 1e-3, 1e-4),
)

# The same, and what the client draws is a variable: it begins at what to expect.
JOINT = replace(
    STRONG,
    name="joint",
    hidden=searched(start=expected, rate=0.5),
)

# Code of 2022 against PRECODE: noise beside the picture, both by Adam (NRA).
JOINT_IGA = replace(IGA_PRECODE, name="joint IGA", hidden=searched())


def before_noise(gradients: Gradients) -> Gradients:
    """What no bottleneck's noise touches: up to and with the first one's encoder.

    Scheliga et al. 2022 (PPP) and 2023 (CVB): leave out the layers behind it. For a
    recipe's `layers`.
    """
    names = list(gradients)
    first = next((i for i, n in enumerate(names) if "bottleneck" in n), len(names))
    encoder = [n for n in names[first:] if re.search(_ENCODER, n)]
    return gradients.select(*names[:first], *encoder[:2])


# A bottleneck's layers that come before its noise: PRECODE's encoder, or CVB's two.
_ENCODER = r"bottleneck\.(encoder|mean|spread)\."


@telling(JOINT)
def joint(observation: Observation, *, generator: torch.Generator, **changes) -> Search:
    """Search for the pictures and for what the client drew (after NRA and DIA)."""
    return Search(observation, varied(JOINT, changes), generator=generator)


@telling(DLG)
def dlg(observation: Observation, *, generator: torch.Generator, **changes) -> Search:
    """Search for pictures and labels at once (Zhu et al. 2019)."""
    return Search(observation, varied(DLG, changes), generator=generator)


@telling(IDLG)
def idlg(observation: Observation, *, generator: torch.Generator, **changes) -> Search:
    """Read off the label, then search for the picture (Zhao et al. 2020)."""
    return Search(observation, varied(IDLG, changes), generator=generator)


@telling(IGA)
def iga(observation: Observation, *, generator: torch.Generator, **changes) -> Search:
    """Match the gradient's direction by signed steps (Geiping et al. 2020).

    >>> import torch
    >>> from precode_lib.attacks import iga
    >>> from precode_lib.data import Normalisation
    >>> from precode_lib.federated import observe
    >>> from precode_lib.models import lenet
    >>> images, labels = torch.rand(2, 1, 3, 16, 16), torch.tensor([[3], [7]])
    >>> box = Normalisation(mean=(0.5,), std=(0.25,))
    >>> images = box.normalise(images)
    >>> seen = observe(lenet((3, 16, 16)), images, labels, normalisation=box)
    >>> for step in iga(seen, generator=torch.Generator(), iterations=3):
    ...     print(step.iteration, step.images.shape)
    0 torch.Size([2, 1, 3, 16, 16])
    1 torch.Size([2, 1, 3, 16, 16])
    2 torch.Size([2, 1, 3, 16, 16])
    """
    return Search(observation, varied(IGA, changes), generator=generator)


@telling(CPL)
def cpl(observation: Observation, *, generator: torch.Generator, **changes) -> Search:
    """Start from a pattern, hold on to the label (Wei et al. 2020)."""
    return Search(observation, varied(CPL, changes), generator=generator)
