"""Weight decay, momentum and Adam: what an update still says about its gradients."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from precode_lib.attacks import (
    gradient_of_step,
    invert_linear,
    isolated_inputs,
    sign_votes,
    without_decay,
)
from precode_lib.federated import LocalTraining, observe
from precode_lib.gradients import Gradients

DECAYING = partial(SGD, weight_decay=0.05)


def net(dtype=torch.float64, activation=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 16), activation(), nn.Linear(16, 4)
    ).to(dtype)


def pictures(batch=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, batch, 3, 2, 2, generator=generator).to(dtype)
    return images, torch.arange(3 * batch).view(3, batch) % 4


def heard(optimizer, steps=1, batch=1, dtype=torch.float64, **options):
    images, labels = pictures(batch, dtype)
    local = LocalTraining(steps, lr=0.05, optimizer=optimizer)
    model = net(dtype, **options)
    return images, labels, observe(model, images, labels, local=local)


def true_gradient(model, images, labels):
    """By autograd alone, victim by victim."""
    rows = []
    for x, y in zip(images, labels, strict=True):
        loss = F.cross_entropy(model(x), y)
        rows.append(torch.autograd.grad(loss, list(model.parameters())))
    names = [name for name, _ in model.named_parameters()]
    columns = zip(*rows, strict=True)
    return dict(zip(names, map(torch.stack, columns), strict=True))


def assert_gradient(seen, images, labels, **close):
    truth = true_gradient(seen.model, images, labels)
    for name, found in seen.shared.dense().items():
        torch.testing.assert_close(found, truth[name], **close)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD,
        DECAYING,
        partial(SGD, momentum=0.9, dampening=0.3, weight_decay=0.05),
        partial(SGD, momentum=0.9, nesterov=True, weight_decay=0.05),
        Adam,
        partial(Adam, weight_decay=0.05),
        partial(AdamW, weight_decay=0.05),
    ],
)
def test_a_single_step_gives_its_gradient_back(optimizer):
    images, labels, seen = heard(optimizer, batch=3)
    undone = gradient_of_step(seen)
    assert undone.local is None
    exact = isinstance(seen.local.started([torch.zeros(1)]), SGD)
    close = {} if exact else {"rtol": 1e-4, "atol": 1e-7}
    assert_gradient(undone, images, labels, **close)


@pytest.mark.parametrize(
    ("nesterov", "dampening"), [(False, 0.0), (False, 0.3), (True, 0.0)]
)
def test_momentum_of_the_round_before_is_taken_away_if_it_is_known(nesterov, dampening):
    """Torch's own optimizer keeps its buffer; the server moves the weights between."""
    images, labels = pictures()
    model = net()
    options = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.05}
    options["dampening"] = dampening
    optimizer = SGD(model.parameters(), lr=0.05, **options)
    F.cross_entropy(model(images[0]), labels[0]).backward()
    optimizer.step()
    named = dict(model.named_parameters())
    buffer = {
        n: optimizer.state[p]["momentum_buffer"].clone() for n, p in named.items()
    }
    optimizer.zero_grad()
    before = {n: p.detach().clone() for n, p in named.items()}
    told = net()
    told.load_state_dict(before)
    F.cross_entropy(model(images[1]), labels[1]).backward()
    optimizer.step()
    moved = {n: (before[n] - p.detach())[None] for n, p in named.items()}

    local = LocalTraining(1, lr=0.05, optimizer=partial(SGD, **options))
    seen = observe(told, images[1:2], labels[1:2], local=local)
    seen = replace(seen, shared=Gradients({n: moved[n] for n in seen.shared}))
    assert_gradient(
        gradient_of_step(seen, momentum_buffer=buffer), images[1:2], labels[1:2]
    )
    wrong = gradient_of_step(seen).shared["1.weight"]
    truth = true_gradient(told, images[1:2], labels[1:2])["1.weight"]
    assert (wrong - truth).norm() > 0.1 * truth.norm()


def worst_error(found, images):
    return ((found - images[:, 0]).flatten(1).norm(dim=1)).max().item()


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_less_its_decay_an_update_divides_into_the_picture(steps, momentum):
    optimizer = partial(SGD, momentum=momentum, weight_decay=0.05)
    images, _, seen = heard(optimizer, steps)
    raw, cleaned = invert_linear(seen), invert_linear(without_decay(seen))
    assert not raw.exact.any() and worst_error(raw.images, images) > 1e-2
    assert cleaned.exact.all() and worst_error(cleaned.images, images) < 1e-8


def test_without_weight_decay_nothing_is_taken_away():
    _, _, seen = heard(partial(SGD, momentum=0.9), steps=3)
    left = without_decay(seen).shared.dense()
    for name, term in seen.shared.dense().items():
        torch.testing.assert_close(left[name], term, rtol=1e-9, atol=1e-12)


def test_isolated_inputs_of_a_batch_come_back_behind_weight_decay():
    images, _, seen = heard(DECAYING, batch=3, activation=nn.ReLU)
    found = isolated_inputs(gradient_of_step(seen))
    plain = isolated_inputs(heard(SGD, batch=3, activation=nn.ReLU)[2])
    assert [len(each) for each in found] == [len(each) for each in plain]
    assert sum(len(each) for each in found) > 0
    for each, own in zip(found, images, strict=True):
        for picture in each.images:
            away = (own - picture).flatten(1).norm(dim=1)
            assert away.min() < 1e-6
    assert sum(len(each) for each in isolated_inputs(seen)) == 0


def test_the_first_step_of_adam_gives_the_signs_of_the_picture():
    images, _, seen = heard(Adam)
    votes = invert_linear(seen, estimate=sign_votes).images
    assert torch.equal(votes.sign(), images[:, 0].sign())
    assert votes.abs().min() == 1


def test_of_a_batch_the_signs_of_adam_do_not_agree():
    _, _, seen = heard(Adam, batch=3)
    votes = invert_linear(seen, estimate=sign_votes).images
    assert votes.abs().min() < 1


def test_in_single_precision_adam_hides_what_is_far_above_eps():
    images, labels, seen = heard(Adam, dtype=torch.float32)
    truth = true_gradient(seen.model, images, labels)["1.weight"]
    found = gradient_of_step(seen).shared["1.weight"]
    loud = truth.abs() > 1e-2
    assert loud.any() and torch.equal(found[loud].sign(), truth[loud].sign())
    error = ((found - truth).abs() / truth.abs())[loud]
    assert error.median() > 0.05


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: gradient_of_step(heard(DECAYING, 2)[2]), "2 steps have as many"),
        (lambda: without_decay(heard(Adam)[2]), "only SGD keeps decay"),
        (
            lambda: gradient_of_step(heard(SGD)[2], momentum_buffer={}),
            "SGD with momentum",
        ),
        (
            lambda: gradient_of_step(
                heard(partial(SGD, momentum=0.9))[2], momentum_buffer={}
            ),
            "nothing of '1.weight'",
        ),
        (
            lambda: gradient_of_step(observe(net(), *pictures())),
            "of a gradient already",
        ),
    ],
)
def test_what_cannot_be_undone_is_refused_with_the_reason(act, message):
    with pytest.raises(ValueError, match=message):
        act()
