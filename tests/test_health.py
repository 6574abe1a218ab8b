"""Gradients that say nothing are said to; healthy ones are left in peace."""

import json
import warnings

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from precode_lib.defenses import prune
from precode_lib.federated import LocalTraining, VacuousGradientWarning, observe
from precode_lib.gradients import Gradients, Outer
from precode_lib.models import lenet, smlp


def transformer():
    """As torchvision makes it: its head begins with zeros."""
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    return VisionTransformer(image_size=8, patch_size=4, num_classes=5, **sizes).eval()


def pictures(victims=2, batch=1, side=8):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(victims, batch, 3, side, side, generator=generator)
    return images, torch.arange(victims * batch).view(victims, batch) % 5


def by_hand(model, images, labels):
    """The parameters that one backward pass leaves without any slope."""
    model.zero_grad()
    nn.functional.cross_entropy(model(images[0]), labels[0]).backward()
    return [n for n, p in model.named_parameters() if not p.grad.any()]


def test_behind_a_head_of_zeros_all_is_silent_but_the_head_and_observe_warns():
    model, (images, labels) = transformer(), pictures()
    expected = by_hand(model, images, labels)
    told = r"zero in 30 of 32 parameters, left are heads\.head\.weight, heads\.head\.b"
    assert len(expected) == 30
    with pytest.warns(VacuousGradientWarning, match=told):
        seen = observe(model, images, labels)
    health = seen.health()
    assert health.silent_for_all == expected
    assert health.vacuous.all()
    assert 0.9 < health.silent_share < 1
    assert "30 of 32 parameters silent (98% of the entries)" in repr(seen)
    assert repr(health).startswith("Health(30 of 32 parameters silent")
    assert json.loads(json.dumps(health.to_dict()))["silent"] == expected


def test_a_head_that_was_drawn_lets_all_of_them_speak():
    model = transformer()
    nn.init.normal_(model.heads.head.weight, std=0.02)
    seen = observe(model, *pictures())
    assert not seen.health().silent.any()
    assert "silent" not in repr(seen)


@pytest.mark.parametrize("model", [smlp((3, 8, 8)), lenet((3, 8, 8))])
@pytest.mark.parametrize("local", [None, LocalTraining(2, 0.1)])
def test_healthy_models_are_left_in_peace(model, local):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = observe(model, *pictures(3, 2), local=local)
    assert seen.health().silent_share == 0
    assert repr(seen.health()).startswith("Health(nothing silent, smallest norm ")
    norms = [t.flatten(1).square().sum(1) for t in seen.shared.dense().values()]
    torch.testing.assert_close(seen.health().norms, sum(norms).sqrt())


class WithAnUnusedPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, 5))
        self.unused = nn.Linear(192, 100)

    def forward(self, x):
        return self.used(x)


def test_a_branch_that_the_loss_leaves_out_is_named_and_no_reason_to_warn():
    seen = observe(WithAnUnusedPart(), *pictures())
    assert seen.health().silent_for_all == ["unused.weight", "unused.bias"]
    assert seen.health().silent_share > 0.5
    assert not seen.health().vacuous.any()
    assert "2 of 6 parameters silent (96% of the entries)" in repr(seen)


def test_victims_that_send_nothing_are_counted():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    images, labels = pictures(3)
    nn.init.zeros_(model[1].bias)
    with torch.no_grad():
        model[1].weight.fill_(0)
        model[1].weight[0] = images[0].flatten() * 1e3  # as sure as float32 can be
    labels[0] = 0
    seen = observe(model, images, labels)
    health = seen.health()
    assert health.nothing_sent == [0]
    assert health.silent_for_some == {"1.weight": [0], "1.bias": [0]}
    assert health.vacuous.tolist() == [True, False, False]
    assert health.norms[0] == 0
    assert "2 silent for some victims, nothing sent by victims 0" in repr(seen)


def test_a_defense_that_keeps_little_is_not_the_models_fault():
    def silence(gradients):
        return Gradients(
            {n: t * (n == "fc.bias") for n, t in gradients.dense().items()}
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = observe(lenet((3, 8, 8)), *pictures(), defense=silence)
        observe(lenet((3, 8, 8)), *pictures(), defense=lambda g: prune(g, 0.999))
    assert seen.health().vacuous.all()


def test_what_is_not_finite_is_named():
    seen = observe(smlp((3, 8, 8)), *pictures())
    shared = dict(seen.shared.dense())
    name = next(iter(shared))
    shared[name] = shared[name] / 0
    broken = type(seen)(Gradients(shared), seen.model, seen.image_shape, 1, 10)
    assert broken.health().not_finite == [name]
    assert f"NaN or infinity in {name}" in repr(broken.health())
    assert None in broken.health().to_dict()["norms"]


def test_factors_are_silent_where_their_products_are():
    left, right = torch.zeros(3, 2, 4), torch.ones(3, 2, 5)
    left[1, 0, 2], right[1, 0] = 1.0, 0.0  # nothing times something, in each of two
    left[2, 1, 3] = 1e-30  # whose square float32 has not
    term = Outer(left, right, torch.Size((4, 5)))
    seen = observe(smlp((3, 8, 8)), *pictures(3))
    shared = Gradients({"weight": term, "bias": torch.zeros(3)})
    seen = type(seen)(shared, seen.model, seen.image_shape, 1, 10)
    assert seen.health().silent.tolist() == [[True, True]] * 2 + [[False, True]]


def test_a_single_entry_that_speaks_among_many_zeros_is_heard():
    sparse = torch.zeros(2, 100, 70)
    sparse[1, 3, 41] = 1e-38
    seen = observe(smlp((3, 8, 8)), *pictures())
    seen = type(seen)(Gradients({"w": sparse}), seen.model, seen.image_shape, 1, 10)
    assert seen.health().silent.flatten().tolist() == [True, False]
