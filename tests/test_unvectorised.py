"""Layers that torch.func cannot transform: one victim after another, each its own."""

import warnings

import pytest
import torch
from torch import nn
from torchvision.models import convnext_tiny
from torchvision.ops import StochasticDepth

from precode_lib.attacks import Recipe, Search, known_labels
from precode_lib.bottleneck import VariationalBottleneck, per_example_loss
from precode_lib.federated import Client, LocalTraining, observe
from precode_lib.gradients import Capture


class Residual(nn.Module):
    """A block that is left out at random, with a scale that no rule serves."""

    def __init__(self, p=0.5, mode="row"):
        super().__init__()
        self.scale = nn.Parameter(torch.full((6,), 0.7))
        self.inner, self.depth = nn.Linear(6, 6), StochasticDepth(p, mode)
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(x + self.depth(self.scale * self.inner(x)))


def rows(victims=3, batch=2):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(victims, batch, 6, generator=generator)
    return x, torch.randint(3, (victims, batch), generator=generator)


def model_of(**options):
    torch.manual_seed(0)
    return Residual(**options).train()


def by_hand(model, images, labels):
    """Each victim's gradient by torch's own means, one after another."""
    found = []
    for x, y in zip(images, labels, strict=True):
        losses = per_example_loss(model, x, y)
        found.append(torch.autograd.grad(losses.mean(), [*model.parameters()]))
    return [torch.stack(column) for column in zip(*found, strict=True)]


def test_what_is_never_left_out_has_the_gradient_of_one_backward_each():
    model, (images, labels) = model_of(p=0.0), rows()
    model.depth.p = 1e-9  # draws, and never drops
    found = Capture(model)(images, labels)
    expected = by_hand(model, images, labels)
    for term, truth in zip(found.dense().values(), expected, strict=True):
        torch.testing.assert_close(term, truth)


def test_each_victim_draws_for_itself_as_clients_do():
    model, (x, y) = model_of(mode="batch"), rows(1)
    twins = x.expand(64, -1, -1), y.expand(64, -1)
    torch.manual_seed(1)
    found = Capture(model)(*twins).dense()["inner.bias"]
    left_out = (found == 0).all(1)
    assert 10 < left_out.sum() < 54  # of 64, each with a half's chance
    kept = found[~left_out]
    torch.testing.assert_close(kept, kept[:1].expand_as(kept))


@pytest.mark.parametrize("local", [None, LocalTraining(2, 0.1)])
def test_the_same_seed_gives_the_same_and_the_first_call_is_no_exception(local):
    model, (images, labels) = model_of(), rows()
    client = Client(model, local=local)
    calls = []
    for _ in range(3):
        torch.manual_seed(7)
        calls.append(client(images, labels).dense())
    for other in calls[1:]:
        for name, term in calls[0].items():
            assert torch.equal(term, other[name])


def test_no_more_is_recorded_of_the_noise_than_the_client_drew(generator):
    model = nn.Sequential(model_of(), VariationalBottleneck(3, k=2)).train()
    images, labels = rows()
    given = [torch.randn(6, 2, generator=generator)]
    model[0].depth.p = 1e-9
    found = Capture(model)(images, labels, noise=given)
    for v in range(3):
        alone = Capture(model)(
            images[v : v + 1], labels[v : v + 1], noise=[given[0][2 * v : 2 * v + 2]]
        )
        for name, term in found.dense().items():
            torch.testing.assert_close(term[v], alone.dense()[name][0])


@pytest.mark.parametrize("kind", [nn.GRUCell, nn.RNNCell])
def test_layers_without_a_batched_form_are_right_in_float32(kind):
    torch.manual_seed(0)
    model = nn.Sequential(kind(6, 5), nn.Linear(5, 3))
    images, labels = rows()
    found = Capture(model)(images, labels)
    expected = by_hand(model, images, labels)
    for term, truth in zip(found.dense().values(), expected, strict=True):
        torch.testing.assert_close(term, truth)


class Inward(torch.autograd.Function):
    """Of an author who does not know torch.func."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return 2 * x * upstream


class Squared(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(Inward.apply(self.scale * x))


@pytest.mark.parametrize("local", [None, LocalTraining(3, 0.1, batch_size=1)])
def test_functions_that_torch_func_refuses_are_served_and_searched(local):
    torch.manual_seed(0)
    model, (images, labels) = Squared().double(), rows()
    images = images.double()
    client = Client(model, local=local)
    x = images.clone().requires_grad_()
    sizes = [t.square().sum() for t in client(x, labels).dense().values()]
    (slope,) = torch.autograd.grad(sum(sizes), x)

    def size(x):
        return sum(t.square().sum() for t in client(x, labels).dense().values())

    assert torch.autograd.gradcheck(size, (x,))
    assert slope.abs().max() > 0


def test_a_models_own_mistake_is_told_as_it_is():
    class Wrong(Squared):
        def forward(self, x):
            if torch.is_grad_enabled() and x.requires_grad:
                raise RuntimeError("mine")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="mine"):
        Capture(Wrong())(*rows())


def test_a_convnext_in_training_is_observed_and_searched_without_a_word_of_functorch():
    torch.manual_seed(0)
    model = convnext_tiny(num_classes=4).train()
    images, labels = torch.randn(2, 1, 3, 32, 32), torch.tensor([[0], [3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = observe(model, images, labels)
        recipe = Recipe(labels=known_labels, iterations=2)
        search = Search(seen, recipe, generator=torch.Generator().manual_seed(0))
        assert next(search).objective.isfinite().all()
        observe(model.eval(), images, labels)
    assert seen.health().silent_share < 0.5
