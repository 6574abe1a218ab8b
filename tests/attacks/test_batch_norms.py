"""What batch norms remember of a client's pictures, as a term of the objective."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from precode_lib.attacks import (
    Recipe,
    Search,
    VictimLBFGS,
    batch_statistics,
    known_labels,
    running_statistics,
    statistics_prior,
    statistics_sent,
    weighed,
)
from precode_lib.attacks.objectives import squared_distance, total_variation
from precode_lib.federated import observe
from precode_lib.rounds import participate


def net(training=True, momentum=0.1):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, momentum=momentum)]
    layers += [nn.Tanh(), nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5, momentum=momentum)]
    layers += [nn.Tanh(), nn.Flatten(), nn.Linear(5 * 16, 4)]
    model = nn.Sequential(*layers).double().train(training)
    for norm in (model[1], model[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return model


def batches(victims=2, size=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(victims, size, 3, 6, 6, generator=generator).double()


@pytest.mark.parametrize("training", [True, False])
def test_each_norm_s_statistics_are_those_of_its_input(training):
    model, images = net(training), batches()
    seen = batch_statistics(model, images)
    assert list(seen) == ["1", "4"]
    for v, batch in enumerate(images):
        first = model[0](batch)
        second = model[3](model[2](net(training)[1](first)))
        for name, maps in (("1", first), ("4", second)):
            mean, variance = (each[v] for each in seen[name])
            torch.testing.assert_close(mean, maps.mean((0, 2, 3)))
            torch.testing.assert_close(variance, maps.transpose(0, 1).flatten(1).var(1))


def test_looking_at_statistics_leaves_the_model_as_it_was():
    model = net()
    before = {n: b.clone() for n, b in model.named_buffers()}
    batch_statistics(model, batches())
    assert all(torch.equal(before[n], b) for n, b in model.named_buffers())
    assert not model[1]._forward_pre_hooks


def test_the_running_averages_that_a_client_sends_tell_its_batch_s_own():
    model, images = net(), batches(1)
    message = participate(model, images[0], torch.tensor([0, 1, 2, 3]))
    told = statistics_sent(model, message.buffers)
    truth = batch_statistics(model, images)
    for name, moments in told.items():
        torch.testing.assert_close(moments.mean, truth[name].mean[0])
        torch.testing.assert_close(moments.variance, truth[name].variance[0])
    remembered = running_statistics(model)
    assert (remembered["1"].mean - truth["1"].mean[0]).abs().max() > 0.1


def test_an_average_over_all_batches_cannot_be_taken_apart():
    model = net(momentum=None)
    with pytest.raises(ValueError, match="momentum=None"):
        statistics_sent(model, dict(model.named_buffers()))


def test_the_prior_is_zero_at_the_truth_and_the_distance_of_two_gaussians_elsewhere():
    model, images = net(), batches()
    known = {
        n: type(m)(*(each[0] for each in m))
        for n, m in batch_statistics(model, images[:1]).items()
    }
    prior = statistics_prior(model, known)
    at_truth, of_another = prior(images)
    assert at_truth < 1e-20 < of_another
    shuffled = images[:1, torch.tensor([2, 0, 3, 1])]
    assert prior(shuffled).item() < 1e-20
    model = nn.Sequential(nn.BatchNorm2d(3)).double()
    known = {"0": type(known["1"])(torch.zeros(3), torch.full((3,), 4.0))}
    wide = 3 * (images[:1] - images[:1].mean((0, 1, 3, 4))[:, None, None])
    spread = wide[0].transpose(0, 1).flatten(1).std(1)
    expected = ((spread - 2) ** 2 / 4).mean()
    torch.testing.assert_close(statistics_prior(model, known)(wide)[0], expected)


def test_a_model_without_batch_norm_is_refused():
    with pytest.raises(ValueError, match="any batch norm"):
        statistics_prior(nn.Linear(2, 2), running_statistics(nn.Linear(2, 2)))


def test_several_priors_weigh_as_they_are_told():
    images = batches()
    both = weighed((total_variation, 2.0), (lambda x: x.flatten(1).norm(dim=1), 0.5))
    expected = 2 * total_variation(images) + images.flatten(1).norm(dim=1) / 2
    torch.testing.assert_close(both(images), expected)


def test_own_statistics_tell_the_brightness_that_training_mode_takes_away():
    """A norm at the pictures: their mean and spread are sent, in no gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Flatten())
    model = model.append(nn.Linear(12, 12)).append(nn.Tanh()).append(nn.Linear(12, 4))
    model = model.double().train()
    images = 2 + 3 * torch.randn(1, 2, 3, 2, 2, dtype=torch.float64)
    labels = torch.tensor([[0, 1]])
    seen = observe(model, images, labels)
    known = statistics_sent(model, participate(model, images[0], labels[0]).buffers)
    recipe = Recipe(
        distance=squared_distance,
        optimizer=partial(VictimLBFGS, lr=1.0, longest=1.0),
        labels=known_labels,
        iterations=25,
    )

    def error(**changes):
        generator = torch.Generator().manual_seed(3)
        search = Search(seen, replace(recipe, **changes), generator=generator)
        for _ in search:
            pass
        found = search.result.images
        return ((found - images).norm() / images.norm()).item()

    assert error() > 0.3
    assert error(prior=statistics_prior(model, known), prior_weight=1e-2) < 0.01


def test_statistics_that_nobody_sent_are_not_made_up():
    model = net()
    with pytest.raises(ValueError, match="no running average of '1'"):
        statistics_sent(model, {})
    with pytest.raises(ValueError, match="momentum 0"):
        still = net(momentum=0.0)
        statistics_sent(still, dict(still.named_buffers()))
    with pytest.raises(ValueError, match=r"no batch norms \['1', '4'\]"):
        statistics_prior(nn.Sequential(nn.Flatten()), running_statistics(model))
