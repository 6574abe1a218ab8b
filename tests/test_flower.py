"""Flower's own server and strategy with our clients, in one process.

Flower's Server, client manager, FedAvg and serialisation are the real ones; only the
transport is a function call, for its simulation needs Ray, and a gRPC server a port
and seconds of start. Flower starts a thread for each client here as well.
"""

import copy
import logging
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from precode_lib.attacks.closed_form import invert_linear
from precode_lib.bottleneck import VariationalBottleneck
from precode_lib.data import Normalisation, Pictures
from precode_lib.gradients import squared_distance, squared_norm
from precode_lib.rounds import FedAvg, Federation, FedSGD
from precode_lib.training import Randomness, evaluate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flower's own
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    pytest.importorskip("flwr", reason="the extra `flower` is not installed")

NORMALISATION = Normalisation((0.4,), (0.3,))


@pytest.fixture(scope="module")
def flower():
    logging.getLogger("flwr").setLevel(logging.ERROR)
    from precode_lib.rounds import flower

    return flower


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(256, (count, 1, 4, 4), generator=generator).byte()
    labels = torch.randint(3, (count,), generator=generator)
    return Pictures(levels, labels, tuple("abc"), "squares", "", NORMALISATION)


def net(*extra):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid(), *extra, nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def bottleneck():
    generator = torch.Generator().manual_seed(7)
    return VariationalBottleneck(8, k=2, beta=0.1, generator=generator)


def weights(model):
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


def proxies(clients):
    """Each client behind Flower's ClientProxy, with Flower's own messages."""
    from flwr.server.client_proxy import ClientProxy

    class InProcess(ClientProxy):
        def __init__(self, cid, client):
            super().__init__(cid)
            self.client = client.to_client()

        def fit(self, ins, timeout, group_id):
            return self.client.fit(ins)

        def evaluate(self, ins, timeout, group_id):
            return self.client.evaluate(ins)

        def get_properties(self, ins, timeout, group_id):
            raise NotImplementedError

        def get_parameters(self, ins, timeout, group_id):
            return self.client.get_parameters(ins)

        def reconnect(self, ins, timeout, group_id):
            raise NotImplementedError

    return [InProcess(str(i), client) for i, client in enumerate(clients)]


def run(flower, model, data, algorithm, *, rounds=2, defense=None):
    """Two clients and a curious server; what it heard, and Flower's results."""
    from flwr.server.client_manager import SimpleClientManager
    from flwr.server.server import Server

    clients = [
        flower.PictureClient(
            copy.deepcopy(model),
            each,
            algorithm,
            random=Randomness.seeded(i),
            defense=defense,
        )
        for i, each in enumerate(data)
    ]
    heard = {}
    strategy = flower.CuriousFedAvg(
        model,
        algorithm,
        on_message=lambda r, c, o: heard.update({(r, c): o}),
        image_shape=(1, 4, 4),
        normalisation=NORMALISATION,
    )
    server = Server(client_manager=SimpleClientManager(), strategy=strategy)
    for proxy in proxies(clients):
        server.client_manager().register(proxy)
    history, _ = server.fit(num_rounds=rounds, timeout=None)
    final = copy.deepcopy(model)
    flower.load_arrays(final, flower.parameters_to_ndarrays(server.parameters))
    return heard, final, history


EXTRAS = {
    "plain": lambda: [],
    "norm": lambda: [nn.BatchNorm1d(8)],
    "precode": lambda: [bottleneck()],
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_flower_comes_to_the_same_weights_as_our_own_rounds(flower, extra):
    algorithm, data = (
        FedAvg(lr=0.2, epochs=2, batch_size=2),
        [pictures(4), pictures(8, 1)],
    )
    model = net(*extra())
    _, flowers, _ = run(flower, model, data, algorithm)
    ours = copy.deepcopy(model)
    server = partial(torch.optim.SGD, lr=1.0)
    federation = Federation(
        ours, data, pictures(5, 2), rounds=2, server=server, algorithm=algorithm
    )
    streams = [Randomness.seeded(i) for i in range(2)]
    hear = federation._hear

    def hear_with_own_stream(client, sent):
        federation.random = streams[client]
        return hear(client, sent)

    federation._hear = hear_with_own_stream
    federation._choose = lambda: [0, 1]
    list(federation)
    assert_close(weights(flowers), weights(ours), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(weights(ours), weights(model))


def test_an_honest_but_curious_server_reads_a_clients_picture(flower):
    data = [pictures(1), pictures(1, 1)]
    model = net()
    heard, _, _ = run(flower, model, data, FedAvg(lr=0.2))
    assert sorted(heard) == [(1, "0"), (1, "1"), (2, "0"), (2, "1")]
    for (_, client), observation in heard.items():
        found = invert_linear(observation)
        images = data[int(client)].images
        assert_close(found.images.float(), images, rtol=1e-4, atol=1e-4)
        assert observation.labels is None


def test_what_the_server_hears_replays_from_the_clients_pictures(flower):
    data = [pictures(3), pictures(4, 1)]
    heard, _, _ = run(flower, net(nn.BatchNorm1d(8)), data, FedAvg(lr=0.2))
    for (_, client), observation in heard.items():
        own = data[int(client)]
        images = NORMALISATION.normalise(own.stored.double() / 255)
        replayed = observation.client()(images[None], own.labels[None])
        distance = squared_distance(replayed, observation.shared)
        assert distance < 1e-20 * squared_norm(observation.shared)
        assert (observation.num_examples, observation.num_classes) == (len(own), 3)
        assert observation.model.training
        assert observation.buffers["3.num_batches_tracked"].dtype == torch.int64


def test_precode_travels_and_hides_nothing_in_front_of_it(flower):
    data = [pictures(1), pictures(1, 1)]
    heard, _, _ = run(flower, net(bottleneck()), data, FedAvg(lr=0.2), rounds=1)
    found = invert_linear(heard[1, "0"])
    assert_close(found.images.float(), data[0].images, rtol=1e-4, atol=1e-4)


def test_the_defense_works_before_anything_leaves_the_client(flower):
    def silence(gradients):
        return gradients.map(torch.zeros_like)

    model = net()
    data = [pictures(2), pictures(2, 1)]
    heard, final, _ = run(flower, model, data, FedAvg(lr=0.2), defense=silence)
    assert torch.equal(weights(final), weights(model))
    assert all(squared_norm(each.shared) == 0 for each in heard.values())


def test_clients_evaluate_for_flower(flower):
    data = [pictures(4), pictures(8, 1)]
    model = net()
    _, final, history = run(flower, model, data, FedAvg(lr=0.2), rounds=1)
    losses = [evaluate(final, each).loss for each in data]
    expected = (4 * losses[0] + 8 * losses[1]) / 12
    ((_, found),) = history.losses_distributed
    assert found == pytest.approx(expected)
    client = flower.PictureClient(
        model, data[0], FedAvg(lr=0.1), random=Randomness.seeded(0), test=data[1]
    )
    arrays = client.get_parameters({})
    result = evaluate(model, data[1])
    expected = (result.loss, 8, {"accuracy": result.accuracy})
    assert client.evaluate(arrays, {}) == expected


def test_what_does_not_fit_is_refused(flower):
    with pytest.raises(TypeError, match=r"must be rounds.FedAvg\(lr=...\), got FedSGD"):
        flower.PictureClient(net(), pictures(2), FedSGD(), random=Randomness.seeded(0))
    with pytest.raises(ValueError, match="do not fit the model's 4 tensors"):
        flower.load_arrays(net(), flower.to_arrays(net(nn.BatchNorm1d(8))))


def test_arrays_are_copies_and_come_back_exactly(flower):
    model = net(nn.BatchNorm1d(8))
    arrays = flower.to_arrays(model)
    before = weights(model)
    for array in arrays:
        array += 1
    assert torch.equal(weights(model), before)
    flower.load_arrays(model, [array.astype(float) - 0.6 for array in arrays])
    assert model[3].num_batches_tracked.item() == 0
    assert_close(model[1].bias, before[128:136] + 0.4)


def test_the_strategy_names_itself(flower):
    options = {"on_message": print, "image_shape": (1, 4, 4)}
    strategy = flower.CuriousFedAvg(net(), FedAvg(lr=0.1), **options)
    assert repr(strategy) == "CuriousFedAvg(accept_failures=True)"
