"""The small network for texts, and adapters."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from precode_lib.models import Adapter, adapted, lenet, writer


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


WORDS = torch.randint(30, (2, 7), generator=seeded(1))


def test_what_comes_later_does_not_change_what_is_said_before():
    model = writer(30, width=12, generator=seeded()).double()
    changed = WORDS.clone()
    changed[:, 5:] = 29 - changed[:, 5:]
    one, other = model(WORDS), model(changed)
    assert one.shape == (2, 7, 30)
    assert_close(one[:, :5], other[:, :5])
    assert not torch.allclose(one[:, 5:], other[:, 5:])


def test_attention_is_that_of_torch():
    model = writer(30, width=12, generator=seeded()).double()
    x = model.words(WORDS) + model.places.weight[:7]
    heard = F.scaled_dot_product_attention(
        model.query(x), model.key(x), model.value(x), is_causal=True
    )
    x = x + heard
    assert_close(model(WORDS), model.out(x + model.down(model.up(x).relu())))


def test_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    adapted(writer(10, generator=seeded()), "query", generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    one, other = (writer(30, generator=seeded(2)) for _ in range(2))
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
    tied = writer(30, tied=True, generator=seeded())
    assert tied.out.weight is tied.words.weight
    assert 0.8 < float(tied.words.weight.detach().std()) < 1.2


def test_too_long_a_text_is_refused():
    with pytest.raises(ValueError, match="at most 4 words, got 7"):
        writer(30, length=4)(WORDS)


def test_a_fresh_adapter_changes_nothing_and_only_its_matrices_learn():
    model = writer(30, width=12, generator=seeded())
    changed = adapted(model, "query", "value", rank=3, generator=seeded(1))
    assert torch.equal(changed(WORDS), model(WORDS))
    names = [n for n, p in changed.named_parameters() if p.requires_grad]
    assert names == ["query.A", "query.B", "value.A", "value.B"]
    assert all(p.requires_grad for p in model.parameters())
    changed(WORDS).square().mean().backward()
    # Of B = 0 nothing reaches A.
    assert (changed.query.A.grad == 0).all()
    assert (changed.query.B.grad != 0).any()
    with torch.no_grad():
        changed.query.B.fill_(0.1)
    x = torch.randn(4, 12, generator=seeded(3))
    delta = changed.query.B @ changed.query.A
    assert_close(changed.query(x), F.linear(x, model.query.weight + delta))


def test_an_adapter_is_of_a_linear_layer():
    with pytest.raises(TypeError, match="'features.conv1' is a Conv2d"):
        adapted(lenet(), "features.conv1")
    with pytest.raises(ValueError, match="rank must be at least 1"):
        Adapter(nn.Linear(3, 4), 0)


def test_an_adapter_of_no_layer_is_refused():
    with pytest.raises(ValueError, match="give the layers to adapt, such as of"):
        adapted(writer(10))
    with pytest.raises(ValueError, match="Did you mean 'query'"):
        adapted(writer(10), "querry")
