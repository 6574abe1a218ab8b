"""What of a model can be read off without a search: every closed form that applies.

One run of a copy of the model on noise finds them; a reader's own model needs no name
of a layer. Each is a `Leak`: what it is called, whose gradient it reads, what it gives,
and the function that reads it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from precode_lib.attacks.batches import isolated_inputs
from precode_lib.attacks.observed import check_observation
from precode_lib.attacks.patches import embeddings, read_patches
from precode_lib.attacks.readings import Leaked, last_sight, read_input
from precode_lib.attacks.sights import FEATURES, PART, PICTURE, Sight, sights_of
from precode_lib.attacks.tokens import (
    Tokens,
    first_behind,
    read_rows,
    tables_of,
    tokens_in_span,
    words_of,
)
from precode_lib.attacks.traces import trace_of
from precode_lib.attacks.uses import Trace
from precode_lib.federated import Observation

TOKENS = "tokens"

# More candidates than this would take minutes: a vocabulary times its places.
_MOST_CANDIDATES = 2**18


@dataclass(frozen=True)
class Leak:
    """One closed form that applies to a model.

    Args:
        name: of the form: "division", "direction", "isolated units", "patches",
            "rows", "span".
        parameter: whose gradient it reads.
        gives: "picture", "part" of the example, "features" or "tokens".
        read: from an observation of the same model, of as many examples, to what it
            gives, with its `certified` (V,).
    """

    name: str
    parameter: str
    gives: str
    read: Callable[[Observation], Leaked | Tokens]

    def __repr__(self) -> str:
        return f"Leak({self.name} of {self.parameter!r}: {self.gives})"


def closed_forms(observation: Observation) -> list[Leak]:
    """Every closed form that applies to what was shared, what gives most first.

    Of a large model those that are worth it: what sees the example itself, embeddings
    of patches and of tokens, the first layer or adapter that was shared at all, and the
    last layer's features. An empty list says that none of *these* applies.

    >>> import torch
    >>> from precode_lib.attacks import closed_forms
    >>> from precode_lib.federated import observe
    >>> from precode_lib.models import smlp
    >>> images, labels = torch.rand(2, 1, 3, 8, 8), torch.tensor([[3], [7]])
    >>> leaks = closed_forms(observe(smlp((3, 8, 8), width=64), images, labels))
    >>> leaks[0]
    Leak(division of 'features.hidden1.weight': picture)
    """
    check_observation(observation)
    trace = trace_of(observation)
    sights = [s for s in sights_of(observation, trace) if _is_read_once(s, trace)]
    return [
        *_of_examples(observation, sights, trace),
        *_of_patches(observation, sights, trace),
        *_of_tokens(observation, trace),
        *_of_features(observation, sights, trace),
    ]


def _is_read_once(sight: Sight, trace: Trace) -> bool:
    name = sight.use.parameter
    return len(trace.of(name)) == 1 and not trace.others[name]


def _of_examples(
    observation: Observation, sights: list[Sight], trace: Trace
) -> Iterator[Leak]:
    for gives in (PICTURE, PART):
        for sight in sights:
            if sight.gives == gives:
                yield from _inputs(observation, sight, trace)


def _inputs(observation: Observation, sight: Sight, trace: Trace) -> Iterator[Leak]:
    """What tells one input of each example; of several examples only with a bias."""
    use = sight.use
    has_bias = use.bias is not None and use.bias in observation.shared
    if observation.num_examples == 1:
        read = partial(read_input, sight=sight, trace=trace)
        name = "division" if has_bias else "direction"
        yield Leak(name, use.parameter, sight.gives, read)
    elif has_bias:
        read = partial(read_isolated, sight=sight)
        yield Leak("isolated units", use.parameter, sight.gives, read)


def read_isolated(observation: Observation, sight: Sight) -> Leaked:
    """`isolated_inputs` of all victims in one: (V, B, K), zeros where none is left."""
    name, shape = sight.use.parameter, observation.image_shape
    found = isolated_inputs(observation, parameter=name)
    num_victims, num_examples = observation.num_victims, observation.num_examples
    width = shape.numel() if sight.gives == PICTURE else sight.use.num_inputs
    like = found[0].images
    values = like.new_zeros(num_victims, num_examples, width)
    certified = torch.zeros(num_victims, dtype=torch.bool, device=like.device)
    for v, one in enumerate(found):
        values[v, : len(one)] = one.images.flatten(1)
        certified[v] = len(one) > 0 and bool(one.certified.all())
    images = None
    if sight.gives == PICTURE:
        images = values.view(num_victims, num_examples, *shape)
    return Leaked(
        parameter=name,
        gives=sight.gives,
        values=values,
        certified=certified,
        images=images,
        places=_places(sight),
        normalisation=observation.normalisation,
    )


def _places(sight: Sight) -> Tensor | None:
    if sight.gives == PICTURE or sight.places is None:
        return None  # pictures were put in order already
    return sight.places.flatten()


def _of_patches(
    observation: Observation, sights: list[Sight], trace: Trace
) -> Iterator[Leak]:
    if observation.num_examples > 1:
        return
    for embedding in embeddings(observation, sights, trace):
        read = partial(read_patches, embedding=embedding)
        yield Leak("patches", embedding.use.parameter, PICTURE, read)


def _of_tokens(observation: Observation, trace: Trace) -> Iterator[Leak]:
    for use in tables_of(observation, trace):
        read = partial(read_rows, use=use, trace=trace)
        yield Leak("rows", use.parameter, TOKENS, read)
    words, name = words_of(trace), first_behind(observation, trace)
    if name is None:
        return
    if words.window.shape[0] * words.num_positions <= _MOST_CANDIDATES:
        read = partial(tokens_in_span, parameter=name)
        yield Leak("span", name, TOKENS, read)


def _of_features(
    observation: Observation, sights: list[Sight], trace: Trace
) -> Iterator[Leak]:
    """The last layer's, and the first one's that was shared."""
    last = last_sight(sights)
    chosen = [s for s in (*sights[:1], last) if s is not None]
    single = {s.use.parameter: s for s in chosen if s.use.num_positions == 1}
    for sight in reversed(single.values()):
        if sight.gives == FEATURES and observation.num_examples == 1:
            yield from _inputs(observation, sight, trace)
