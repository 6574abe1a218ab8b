"""Which words a text had: from rows, from slopes, and from a span."""

from dataclasses import replace

import pytest
import torch
from plain import Mixed, Recurrent, Writer, drawn, fresh, seeded, watched, words
from torch import nn
from torch.nn import functional as F

from precode_lib.attacks import in_span, input_of, span, tokens_in_span, tokens_of
from precode_lib.federated import observe
from precode_lib.models import adapted
from precode_lib.models import writer as new_writer

TEXTS, ANSWERS = words(3, 1, 9), words(3, 1, 9, seed=2)
BATCHES = words(2, 3, 7)


def sets_of(texts):
    return [sorted({*text.flatten().tolist()}) for text in texts]


def recurrent(**options):
    labels = words(2, 3, size=4, seed=3)
    return watched(fresh(Recurrent, **options), BATCHES, labels)


def writer(**options):
    return watched(fresh(Writer, **options), TEXTS, ANSWERS)


# --- rows ---------------------------------------------------------------------------


def test_the_rows_that_are_not_zero_are_the_words_of_the_batch():
    found = tokens_of(recurrent())
    assert found.parameter == "table.weight"
    assert found.sets == sets_of(BATCHES)
    assert found.certified.all()
    assert (found.order == -1).all()


def test_single_precision_is_enough():
    model = fresh(Recurrent).float()
    seen = watched(model, BATCHES, words(2, 3, size=4))
    for found in (tokens_of(seen), tokens_in_span(seen)):
        assert found.sets == sets_of(BATCHES)
        assert found.certified.all()


def test_padding_has_no_row_and_is_missed():
    found = tokens_of(recurrent(padding=int(BATCHES[0, 0, 0])))
    gone = int(BATCHES[0, 0, 0])
    assert found.sets == [[w for w in s if w != gone] for s in sets_of(BATCHES)]


def test_learned_positions_tell_the_order_too():
    found = tokens_of(writer())
    assert found.sets == sets_of(TEXTS)
    assert torch.equal(found.order, TEXTS[:, 0])
    several = tokens_of(watched(fresh(Writer), BATCHES, words(2, 3, 7, seed=4)))
    assert several.sets == sets_of(BATCHES)
    assert (several.order == -1).all()


def test_words_that_repeat_are_put_in_order_as_well():
    texts = torch.tensor([[[5, 7, 5, 5, 9, 7]]])
    found = tokens_of(watched(fresh(Writer), texts, words(1, 1, 6)))
    assert found.order.tolist() == [[5, 7, 5, 5, 9, 7]]


def test_noise_fills_every_row_and_takes_the_proof_away():
    seen = recurrent()
    noisy = seen.shared.map(
        lambda g: g + 1e-6 * torch.randn(g.shape, generator=seeded(5)).to(g)
    )
    found = tokens_of(replace(seen, shared=noisy))
    assert found.occurs.all()
    assert not found.certified.any()


def test_behind_strong_noise_there_is_no_order():
    seen = writer()
    noisy = seen.shared.map(
        lambda g: g + 0.1 * torch.randn(g.shape, generator=seeded(5)).to(g)
    )
    assert (tokens_of(replace(seen, shared=noisy)).order == -1).all()


def test_a_silent_client_shows_nothing():
    seen = recurrent()
    found = tokens_of(replace(seen, shared=seen.shared.map(torch.zeros_like)))
    assert not found.occurs.any()
    assert not found.certified.any()


def test_a_table_tied_to_the_output_is_refused_and_the_span_named():
    seen = writer(tied=True)
    assert (seen.shared["table.weight"] != 0).any(2).all()  # dense, all of it
    with pytest.raises(ValueError, match="tied or frozen.*tokens_in_span"):
        tokens_of(seen)
    with pytest.raises(ValueError, match="'out.weight' is no shared table.*: \\[\\]"):
        tokens_of(seen, "out.weight")


def test_a_bare_matrix_that_rows_are_picked_from_is_a_table():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.Parameter(torch.randn(40, 8))
            self.head = nn.Linear(8, 4)

        def forward(self, tokens):
            return self.head(self.rows[tokens].mean(1).tanh())

    found = tokens_of(watched(fresh(Bag), BATCHES, words(2, 3, size=4)))
    assert found.parameter == "rows"
    assert found.sets == sets_of(BATCHES)


def test_a_small_vocabulary_is_traced_although_its_words_repeat():
    texts = words(2, 1, 9, size=3)
    found = tokens_of(watched(fresh(Writer, size=3), texts, words(2, 1, 9, size=3)))
    assert torch.equal(found.order, texts[:, 0])


def test_words_packed_with_other_inputs_are_found_in_their_place():
    texts, kinds = words(2, 1, 9), words(2, 1, 9, size=3, seed=5)
    rows = torch.cat([texts.double(), kinds.double(), drawn(2, 1, 5)], 2)
    seen = watched(fresh(Mixed), rows, words(2, 1, 9, seed=4))
    found = tokens_of(seen)
    assert found.parameter == "writer.table.weight"
    assert found.sets == sets_of(texts)
    assert tokens_of(seen, "kinds.weight").sets == sets_of(kinds)
    assert torch.equal(tokens_in_span(seen).order, texts[:, 0])
    numbers = input_of(seen)
    assert (numbers.parameter, numbers.gives) == ("numbers.weight", "part")
    assert numbers.places.tolist() == [18, 19, 20, 21, 22]
    assert (numbers.values - rows[:, 0, 18:]).abs().max() < 1e-9


# --- the span -----------------------------------------------------------------------


@pytest.mark.parametrize("tied", (False, True))
def test_the_span_of_the_first_attention_has_the_words_in_order(tied):
    found = tokens_in_span(writer(tied=tied))
    assert found.parameter == "blocks.layers.0.self_attn.in_proj_weight"
    assert torch.equal(found.order, TEXTS[:, 0])
    assert found.sets == sets_of(TEXTS)
    assert found.certified.all()


def test_the_span_of_a_batch_has_its_words_without_their_order():
    texts = words(1, 3, 9)
    found = tokens_in_span(watched(fresh(Writer), texts, words(1, 3, 9, seed=2)))
    assert found.sets == sets_of(texts)
    assert found.certified.all()
    assert (found.order == -1).all()


def test_a_recurrent_net_has_one_too():
    seen = recurrent()
    without = replace(seen, shared=seen.shared.drop("table.weight"))
    found = tokens_in_span(without)
    assert found.parameter == "lstm.weight_ih_l0"
    assert found.sets == sets_of(BATCHES)
    with pytest.raises(ValueError, match="tied or frozen"):
        tokens_of(without)


def test_a_span_as_wide_as_the_space_tells_nothing():
    # 27 vectors in 16 dimensions.
    texts = words(1, 3, 9)
    seen = watched(fresh(Writer, width=16), texts, words(1, 3, 9, seed=2))
    found = tokens_in_span(seen)
    assert not found.occurs.any()
    assert not found.certified.any()


def test_where_words_have_met_their_vectors_are_not_known():
    later = "blocks.layers.1.self_attn.in_proj_weight"
    with pytest.raises(ValueError, match=f"what '{later}' sees.*depends on the others"):
        tokens_in_span(writer(), later)


def test_candidates_are_inside_or_they_are_not():
    model = fresh(Recurrent)
    seen = watched(model, BATCHES, words(2, 3, size=4))
    table = model.table.weight.detach()
    found = in_span(seen, table, parameter="lstm.weight_ih_l0")
    for inside, own in zip(found.inside, sets_of(BATCHES), strict=True):
        assert inside.nonzero().flatten().tolist() == own
    assert found.certified.all()
    assert found.distance[found.inside].max() < 1e-6
    assert found.distance[~found.inside].min() > 0.05
    strangers = in_span(seen, drawn(5, 24), parameter="lstm.weight_ih_l0")
    assert not strangers.inside.any()
    assert repr(strangers) == "Membership([0, 0] of 5 inside, 2 of 2 certified)"


def test_who_is_nearly_inside_takes_the_proof_away():
    seen = recurrent()
    name = "lstm.weight_ih_l0"
    size = 1e-4 * seen.shared[name].abs().max()
    noisy = seen.shared.map(
        lambda g: g + size * torch.randn(g.shape, generator=seeded(6)).to(g)
    )
    assert tokens_in_span(seen).certified.all()
    assert not tokens_in_span(replace(seen, shared=noisy)).certified.any()


def test_behind_a_layer_norm_the_space_is_one_dimension_smaller():
    # All vectors of mean 0: a span of one dimension less than K holds every one.
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm = nn.Embedding(40, 8), nn.LayerNorm(8)
            self.mix, self.head = nn.Linear(8, 24), nn.Linear(24, 4)

        def forward(self, tokens):
            return self.head(self.mix(self.norm(self.table(tokens))).tanh().mean(1))

    model, texts = fresh(Normed), words(1, 1, 12)
    seen = watched(model, texts, words(1, 1, size=4))
    vectors = model.norm(model.table.weight).detach()
    found = in_span(seen, vectors, parameter="mix.weight")
    assert found.distance.max() < 1e-6
    assert not found.inside.any()
    assert not found.certified.any()


def test_candidates_of_another_width_and_models_without_words_are_refused():
    seen = recurrent()
    with pytest.raises(ValueError, match=r"candidates must be \(N, 24\).*got \(3, 5\)"):
        in_span(seen, torch.zeros(3, 5), parameter="lstm.weight_ih_l0")
    with pytest.raises(ValueError, match="is a table that rows are looked up in"):
        in_span(seen, torch.zeros(3, 24), parameter="table.weight")
    rows = nn.Linear(5, 4).double()
    numbers = watched(rows, drawn(2, 1, 5), words(2, 1, size=4))
    with pytest.raises(ValueError, match="no token up"):
        tokens_in_span(numbers)
    with pytest.raises(ValueError, match="no shared table"):
        tokens_of(numbers)


def test_tokens_tell_themselves_in_one_line():
    counts = [len(words) for words in sets_of(TEXTS)]
    assert repr(tokens_of(writer())) == (
        f"Tokens('table.weight': {min(counts)} to {max(counts)} of 40, "
        "27 of 27 places, 3 of 3 certified)"
    )


def next_words(model, words, answers):
    losses = F.cross_entropy(model(words).mT, answers, reduction="none")
    return losses.mean(1)


def attended(change=None, width=24):
    """What clients with a text each send of one layer of causal attention."""
    model = new_writer(40, width=width, length=9, generator=seeded(4)).double()
    model = model if change is None else change(model)
    return observe(model, TEXTS, ANSWERS, loss=next_words)


def test_the_first_word_has_no_query_and_its_value_tells_it():
    # One key leaves a softmax nothing to choose, so nothing asks it to change.
    found = tokens_in_span(attended(), "query.weight")
    assert torch.equal(found.order[:, 1:], TEXTS[:, 0, 1:])
    assert (found.order[:, 0] == -1).all()
    assert torch.equal(tokens_in_span(attended(), "value.weight").order, TEXTS[:, 0])


def test_keys_tell_differences_of_words_and_no_word():
    # A softmax does not see what all keys have in common.
    seen = attended()
    found = tokens_in_span(seen, "key.weight")
    assert not found.occurs.any()
    table = seen.model.words.weight.detach()[TEXTS[:, 0]]
    x = table + seen.model.places.weight.detach()
    keys = span(seen, parameter="key.weight")
    assert (keys.rank == 8).all()
    assert keys.distance(x[:, 1:] - x[:, :-1]).max() < 1e-6
    assert keys.distance(x).min() > 0.1


@pytest.mark.parametrize(("rank", "finds"), ((16, True), (9, False), (4, False)))
def test_a_fresh_adapter_tells_words_by_its_second_matrix_if_it_is_wide(rank, finds):
    def change(model):
        return adapted(model, "value", rank=rank, generator=seeded(5))

    seen = attended(change)
    assert seen.health().silent_for_all == ["value.A"]
    assert not tokens_in_span(seen, "value.A").occurs.any()
    found = tokens_in_span(seen, "value.B")
    assert torch.equal(found.order, TEXTS[:, 0]) == finds
    assert found.certified.all() == finds
