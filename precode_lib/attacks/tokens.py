"""Which words were in the text: rows of an embedding, and the span of what they become.

A table's gradient has a row for each token, and only those that occurred have one that
is not zero. Where the table is frozen or tied to the output, a linear layer behind it
still sends the span of the tokens' vectors: each token of the vocabulary is tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from precode_lib.attacks.batches import Span, span
from precode_lib.attacks.observed import check_observation, sight_of
from precode_lib.attacks.patches import embedding_of, solved
from precode_lib.attacks.traces import place_of_tokens, probe_of, trace_of, traced
from precode_lib.attacks.uses import LINEAR, LOOKUP, Trace, Use
from precode_lib.basics.validation import check_range, closest
from precode_lib.federated import Observation
from precode_lib.gradients import dense

_NUMBERS = 2**22  # of the candidates that are tried at a time


@dataclass(frozen=True, repr=False)
class Tokens:
    """The tokens that each victim's gradient shows.

    Args:
        parameter: whose gradient shows them.
        occurs: (V, vocabulary) bool.
        order: (V, T), the token at each place, -1 where it is not known.
        certified: (V,) bool, whether it is proven of each of them that it occurred, if
            what was sent is a gradient. That none is missing is not: a padding's row
            is zero, and so is that of a token that nothing was learnt from.
    """

    parameter: str
    occurs: Tensor
    order: Tensor
    certified: Tensor

    @property
    def sets(self) -> list[list[int]]:
        """The tokens of each victim, in the order of the vocabulary."""
        return [row.nonzero().flatten().tolist() for row in self.occurs]

    def __repr__(self) -> str:
        few, many = int(self.occurs.sum(1).min()), int(self.occurs.sum(1).max())
        placed = int((self.order >= 0).sum())
        return (
            f"Tokens({self.parameter!r}: {few} to {many} of {self.occurs.shape[1]}, "
            f"{placed} of {self.order.numel()} places, "
            f"{int(self.certified.sum())} of {len(self.certified)} certified)"
        )


@dataclass(frozen=True, repr=False)
class Membership:
    """Which candidates lie in the span of a layer's inputs.

    Args:
        inside: (V, N) bool.
        distance: (V, N), as a share of the candidate's norm: 0 within the span.
        certified: (V,) bool: the span is smaller than the space, so that a stranger
            lies in it by no chance; it has a direction for each input; and no
            candidate is nearly inside.
    """

    inside: Tensor
    distance: Tensor
    certified: Tensor

    def __repr__(self) -> str:
        return (
            f"Membership({self.inside.sum(1).tolist()} of {self.inside.shape[1]} "
            f"inside, {int(self.certified.sum())} of {len(self.certified)} certified)"
        )


def tokens_of(observation: Observation, embedding: str | None = None) -> Tokens:
    """Which tokens occurred in each victim's text, from the rows of an embedding.

    Where learned positions are added and sent, and a victim has one text of no more
    tokens than an embedding's entries, in which order as well.

    Args:
        embedding: the table's parameter; by default that of most rows.
    """
    check_observation(observation)
    trace = trace_of(observation)
    return read_rows(observation, _table(observation, trace, embedding), trace)


def read_rows(observation: Observation, use: Use, trace: Trace) -> Tokens:
    """The tokens of a table that is only looked up in."""
    rows = dense(observation.shared[use.parameter])
    occurs = (rows != 0).any(2)
    counts = occurs.sum(1)
    most = observation.num_examples * use.num_positions
    proven = (counts > 0) & (counts <= most) & rows.isfinite().all(2).all(1)
    order = torch.full((len(rows), use.num_positions), -1, device=rows.device)
    positions = embedding_of(use, observation, trace)
    if positions is not None and observation.num_examples == 1:
        order = _in_order(positions.slopes(observation), rows, occurs.any(0))
    return Tokens(use.parameter, occurs, order, proven)


def _in_order(slopes: Tensor, rows: Tensor, kept: Tensor) -> Tensor:
    """The token at each place, where all places' equations have one solution: (V, T).

    A token's row is the sum of the slopes at its places: with one-hot vectors in the
    patches' stead these are the equations of `patches_of`.
    """
    names = kept.nonzero().flatten()
    nowhere = torch.full(slopes.shape[:2], -1, device=rows.device)
    if not len(names):
        return nowhere
    one_hot, _ = solved(slopes, rows[:, names].mT)
    is_one_hot = (one_hot.amax(2) - 1).abs().amax(1) < 0.01
    found = names[one_hot.argmax(2)]
    return found.where(is_one_hot[:, None], nowhere)


def in_span(
    observation: Observation,
    candidates: Tensor,
    *,
    parameter: str,
    tolerance: float = 1e-3,
) -> Membership:
    """Which of these vectors were among the inputs of a linear layer.

    The gradient's rows are mixtures of the inputs, so an input lies in their span and
    a stranger does not, as long as there are fewer inputs than dimensions. After
    Petrov et al. 2024 (DAGER).

    Args:
        candidates: (N, K), such as an embedding's rows, changed as the model does on
            the way to this layer; see `tokens_in_span`.
        parameter: the layer's weight.
        tolerance: the distance, as a share of the norm, up to which one is inside.
    """
    check_range(tolerance, "tolerance", 0, 1, open_low=True)
    found = span(observation, parameter=parameter)
    _check_candidates(candidates, found)
    rows = sight_of(observation, parameter).use.window.shape[0]
    return _members(found, candidates, min(rows, _room(candidates)), tolerance)


def tokens_in_span(
    observation: Observation,
    parameter: str | None = None,
    *,
    tolerance: float = 1e-3,
) -> Tokens:
    """Which tokens stood where, from a linear layer behind the embedding.

    Needs no gradient of the embedding. Every token is put at every place of a text
    and run through a copy of the model up to the layer; see `in_span`. Of a layer that
    keeps a query from the first place (one key leaves attention nothing to learn) the
    first token is missed: try the values' weight too.

    Args:
        parameter: a linear layer whose input at a place depends on the token there
            and on no other; by default the first that was shared.
        tolerance: see `in_span`.
    """
    check_observation(observation)
    check_range(tolerance, "tolerance", 0, 1, open_low=True)
    trace = trace_of(observation)
    words = words_of(trace)
    if words is None:
        raise ValueError("the model looks no token up, so there is no vocabulary.")
    if parameter is None:
        parameter = first_behind(observation, trace)
    if parameter is None:
        raise ValueError("no shared linear layer runs on each token, and only once.")
    found = span(observation, parameter=parameter)
    room, inside, certified = trace.of(parameter)[0].window.shape[0], [], []
    for vectors in _vectors(observation, parameter, trace, words):
        if not inside:
            room = min(room, _room(vectors.flatten(0, 1)))
        one = _members(found, vectors.flatten(0, 1), room, tolerance)
        inside.append(one.inside.unflatten(1, vectors.shape[:2]))
        certified.append(one.certified)
    places = torch.cat(inside, 1)  # (V, vocabulary, T)
    single = (places.sum(1) == 1) & (observation.num_examples == 1)
    order = places.long().argmax(1).where(single, -1)
    proven = torch.stack(certified).all(0) & places.any(2).any(1)
    return Tokens(parameter, places.any(2), order, proven)


def first_behind(observation: Observation, trace: Trace) -> str | None:
    """The first shared matrix that sees each token, and is read once."""
    words = words_of(trace)
    if words is None:
        return None
    length = words.num_positions
    for use in trace.uses:
        sees_all = use.kind == LINEAR and use.num_positions == length
        if sees_all and use.parameter in observation.shared and trace.is_alone(use):
            return use.parameter
    return None


def words_of(trace: Trace) -> Use | None:
    """The lookup of the example's tokens: of several the one with most rows."""
    tables = [u for u in trace.uses if place_of_tokens(u, trace) is not None]
    return max(tables, key=lambda use: use.window.shape[0], default=None)


def _vectors(
    observation: Observation, parameter: str, trace: Trace, words: Use
) -> Iterator[Tensor]:
    """The layer's input for each token at each place: (n, T, K), chunk by chunk."""
    probe, use = probe_of(observation), trace.of(parameter)[0]
    length, width = words.num_positions, use.num_inputs
    if use.num_positions != length:
        raise ValueError(
            f"{parameter!r} sees {use.num_positions} inputs of an example, not its "
            f"{length} tokens."
        )
    step = max(2, _NUMBERS // (length * width))
    start = place_of_tokens(words, trace)

    def run(tokens: Tensor) -> Tensor:
        texts = trace.example.repeat(len(tokens), *[1] * (trace.example.dim() - 1))
        texts.view(len(tokens), -1)[:, start : start + length] = tokens[:, None]
        return traced(probe, texts).of(parameter)[0].x

    first, both = run(torch.tensor([0])), run(torch.tensor([0, 1]))
    is_batch_first = torch.allclose(both[:length], first, atol=1e-5)
    for tokens in torch.arange(words.window.shape[0]).split(step):
        x = run(tokens)
        if is_batch_first:
            x = x.view(len(tokens), length, width)
        else:
            x = x.view(length, len(tokens), width).transpose(0, 1)
        _check_alone(use, words, tokens, x)
        yield x


def _check_alone(use: Use, words: Use, tokens: Tensor, x: Tensor) -> None:
    """Refuse a layer where the same token becomes another vector among others."""
    for place, token in enumerate(words.x.flatten().tolist()):
        if tokens[0] <= token <= tokens[-1]:
            here = x[token - int(tokens[0]), place]
            if not torch.allclose(here, use.x[place], rtol=1e-3, atol=1e-4):
                raise ValueError(
                    f"what {use.parameter!r} sees of a token depends on the others, or "
                    "on a dropout; name a layer in front of which tokens do not meet."
                )


def _members(
    found: Span, candidates: Tensor, room: int, tolerance: float
) -> Membership:
    """Who is inside; nobody, where the span has all the room that there is."""
    vectors = candidates.to(found.basis).expand(len(found.basis), -1, -1)
    distance = found.distance(vectors)
    tells = (found.rank < room) & (found.rank > 0)
    inside = (distance <= tolerance) & tells[:, None]
    near = ((distance > tolerance) & (distance < 10 * tolerance)).any(1)
    return Membership(inside, distance, tells & ~near)


def _room(candidates: Tensor) -> int:
    """How many dimensions the candidates have: behind a layer norm one less than K."""
    count, width = candidates.shape
    if count <= width:
        return width - 1
    some = candidates[:: max(1, count // (4 * width))].double()
    return int(torch.linalg.matrix_rank(some, rtol=1e-5))


def _check_candidates(candidates: Tensor, found: Span) -> None:
    width = found.basis.shape[2]
    if candidates.dim() != 2 or candidates.shape[1] != width:
        raise ValueError(
            f"candidates must be (N, {width}), as what goes into the layer; got "
            f"{tuple(candidates.shape)}."
        )


def _table(observation: Observation, trace: Trace, embedding: str | None) -> Use:
    """The table of tokens; an error that says why not."""
    tables = tables_of(observation, trace)
    names = [use.parameter for use in tables]
    if embedding is not None:
        if embedding not in names:
            raise ValueError(
                f"{embedding!r} is no shared table of tokens; these are: {names}."
                + closest(embedding, names)
            )
        return tables[names.index(embedding)]
    if tables:
        return tables[0]
    raise ValueError(
        "no shared table is looked up in for the example and for nothing else: a tied "
        "or frozen one tells no tokens. tokens_in_span needs none."
    )


def tables_of(observation: Observation, trace: Trace) -> list[Use]:
    """Lookups of the example in tables that were shared and have no other use."""
    found = []
    for use in trace.uses:
        name = use.parameter
        alone = all(u.kind == LOOKUP for u in trace.of(name)) and not trace.others[name]
        is_of_tokens = place_of_tokens(use, trace) is not None
        if is_of_tokens and alone and name in observation.shared:
            found.append(use)
    return sorted(found, key=lambda use: -use.window.shape[0])
