"""The sum of the clients' messages is the message of one client with all examples."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from precode_lib.data import PHOTOS
from precode_lib.federated import LocalTraining, aggregated, observe
from precode_lib.models import smlp

SHAPE = (3, 8, 8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def net(seed=0):
    return smlp(SHAPE, width=16, generator=seeded(seed)).double()


def clients(count, batch, seed=1):
    generator = seeded(seed)
    pixels = torch.rand(count, batch, *SHAPE, generator=generator).double()
    labels = torch.randint(10, (count, batch), generator=generator)
    return PHOTOS.normalise(pixels), labels


def test_the_sum_is_the_gradient_of_one_batch():
    images, labels = clients(3, 2)
    total = aggregated(observe(net(), images, labels, normalisation=PHOTOS))
    one = observe(net(), images.flatten(0, 1)[None], labels.flatten()[None])
    assert (total.num_victims, total.num_examples) == (1, 6)
    assert torch.equal(total.labels, labels.flatten()[None])
    assert total.normalisation is PHOTOS
    for name, term in one.shared.dense().items():
        assert_close(total.shared[name], term)


def test_clients_with_more_examples_weigh_more():
    few, many = clients(1, 2), clients(2, 5, seed=2)
    total = aggregated(observe(net(), *few), observe(net(), *many))
    images = torch.cat([few[0].flatten(0, 1), many[0].flatten(0, 1)])
    labels = torch.cat([few[1].flatten(), many[1].flatten()])
    one = observe(net(), images[None], labels[None])
    assert total.num_examples == 12
    for name, term in one.shared.dense().items():
        assert_close(total.shared[name], term)


def test_labels_are_unknown_if_one_client_hides_them():
    pair = clients(1, 2)
    hidden = observe(net(), *pair, labels_known=False)
    assert aggregated(observe(net(), *pair), hidden).labels is None


def test_a_sum_of_what_is_no_round_is_refused():
    pair = clients(2, 2)
    seen = observe(net(), *pair)
    with pytest.raises(ValueError, match="nothing to sum"):
        aggregated()
    with pytest.raises(TypeError, match="a sum is of Observations, got Gradients"):
        aggregated(seen.shared)
    with pytest.raises(ValueError, match="two models"):
        aggregated(seen, observe(net(1), *pair))
    with pytest.raises(ValueError, match="one image_shape"):
        aggregated(
            seen,
            observe(smlp((3, 4, 4), width=16).double(), pair[0][..., :4, :4], pair[1]),
        )
    local = observe(net(), *pair, local=LocalTraining(1, 0.1))
    with pytest.raises(ValueError, match="update of no batch"):
        aggregated(local)
    dropped = observe(net(), *pair, defense=lambda g: g.drop("fc.*"))
    with pytest.raises(ValueError, match="same parameters"):
        aggregated(seen, dropped)


def test_clients_with_batch_statistics_of_their_own_have_no_common_batch():
    layers = nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)
    model = nn.Sequential(*layers).double()
    pair = clients(2, 4)
    with pytest.raises(ValueError, match="statistics are each client's own"):
        aggregated(observe(model.train(), *pair))
    assert aggregated(observe(model.eval(), *pair)).num_examples == 8
