"""Flower's own strategies, apps and messages with our clients, in one process.

Only the grid is ours: it hands messages over by calls, for Flower's simulation needs
Ray. `test_flower_app` has the real network.
"""

import copy
import logging
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

pytest.importorskip("flwr", reason="the extra `flower` is not installed")

NORMALISATION = Normalisation((0.4,), (0.3,))


def play_server(monkeypatch):
    """Only what Flower takes for its server's process may make messages."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    logging.getLogger("flwr").setLevel(logging.ERROR)


@pytest.fixture
def flower(monkeypatch):
    from precode_lib.rounds import flower

    play_server(monkeypatch)
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


def grid(apps, run_config=None):
    """Flower's grid with these ClientApps for nodes 0, 1, ...; no network."""
    from flwr.app import Context, RecordDict
    from flwr.serverapp import Grid

    config = run_config or {}
    nodes = [{"partition-id": n} for n in range(len(apps))]
    contexts = [
        Context(1, n, node, RecordDict(), config) for n, node in enumerate(nodes)
    ]

    class InProcess(Grid):
        run = property(lambda self: None)
        set_run = create_message = push_messages = pull_messages = None

        def get_node_ids(self):
            return range(len(apps))

        def send_and_receive(self, messages, *, timeout=None):
            nodes = {message.metadata.dst_node_id: message for message in messages}
            return [apps[n](nodes[n], contexts[n]) for n in sorted(nodes)]

    return InProcess()


def app_of(client, mods=()):
    from flwr.clientapp import ClientApp

    app = ClientApp()
    app.train(mods=[*mods])(lambda message, context: client.train(message))
    app.evaluate()(lambda message, context: client.evaluate(message))
    return app


def run(
    flower,
    model,
    data,
    algorithm,
    *,
    rounds=2,
    defense=None,
    mods=(),
    wrap=lambda strategy: strategy,
):
    """Two clients and a curious server: what it heard, its model, Flower's results."""
    from flwr.serverapp.strategy import FedAvg

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
    server = flower.Curious(
        wrap(FedAvg()),
        model,
        algorithm,
        on_message=lambda r, n, o: heard.update({(r, n): o}),
        image_shape=(1, 4, 4),
        normalisation=NORMALISATION,
    )
    nodes = grid([app_of(client, mods) for client in clients])
    found = server.start(nodes, flower.to_arrays(model), num_rounds=rounds)
    final = copy.deepcopy(model)
    flower.load_arrays(final, found.arrays)
    return heard, final, found


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
    assert sorted(heard) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for (_, client), observation in heard.items():
        found = invert_linear(observation)
        images = data[client].images
        assert_close(found.images.float(), images, rtol=1e-4, atol=1e-4)
        assert observation.labels is None


def test_what_the_server_hears_replays_from_the_clients_pictures(flower):
    data = [pictures(3), pictures(4, 1)]
    heard, _, _ = run(flower, net(nn.BatchNorm1d(8)), data, FedAvg(lr=0.2))
    for (_, client), observation in heard.items():
        own = data[client]
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
    found = invert_linear(heard[1, 0])
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
    results = [evaluate(final, each) for each in data]
    found = history.evaluate_metrics_clientapp[1]
    for name in ("loss", "accuracy"):
        few, many = (getattr(each, name) for each in results)
        assert found[name] == pytest.approx((4 * few + 8 * many) / 12)


def test_a_client_can_evaluate_on_other_pictures(flower):
    from flwr.app import Message, RecordDict

    model, data = net(), [pictures(4), pictures(8, 1)]
    client = flower.PictureClient(
        model, data[0], FedAvg(lr=0.1), random=Randomness.seeded(0), test=data[1]
    )
    content = RecordDict({"arrays": flower.to_arrays(model)})
    answer = client.evaluate(Message(content, 0, "evaluate")).content["metrics"]
    result = evaluate(model, data[1])
    assert dict(answer) == {
        "loss": result.loss,
        "accuracy": result.accuracy,
        "num-examples": 8,
    }


def test_central_dp_comes_after_the_server_has_looked(flower):
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping

    data, model = [pictures(1), pictures(1, 1)], net()
    heard, final, _ = run(
        flower,
        model,
        data,
        FedAvg(lr=0.2),
        wrap=lambda strategy: DifferentialPrivacyServerSideFixedClipping(
            strategy, noise_multiplier=1.0, clipping_norm=0.1, num_sampled_clients=2
        ),
    )
    for (_, client), observation in heard.items():
        images = invert_linear(observation).images.float()
        assert_close(images, data[client].images, rtol=1e-4, atol=1e-4)
    plain, without, _ = run(flower, model, data, FedAvg(lr=0.2))
    assert (weights(final) - weights(without)).std() > 0.01
    first = heard[1, 0].shared.dense(), plain[1, 0].shared.dense()
    assert all(torch.equal(first[0][n], first[1][n]) for n in first[0])


def test_clipping_alone_hides_nothing_and_local_noise_does(flower):
    from flwr.clientapp.mod import LocalDpMod

    data, model = [pictures(1), pictures(1, 1)], net()

    def found(epsilon):
        mod = LocalDpMod(0.01, sensitivity=0.02, epsilon=epsilon, delta=1e-5)
        heard, _, _ = run(flower, model, data, FedAvg(lr=0.2), mods=[mod])
        return heard[1, 0]

    norm = squared_norm(found(1e12).shared).sqrt()
    assert_close(norm, torch.full_like(norm, 0.01), rtol=1e-6, atol=0)
    image = invert_linear(found(1e12)).images.float()
    assert_close(image, data[0].images, rtol=1e-3, atol=1e-3)
    noise = torch.cat([g.flatten() for g in found(1.0).shared.dense().values()])
    assert noise.std().item() == pytest.approx(0.02 * 4.845, rel=0.2)
    error = invert_linear(found(1.0)).images.float() - data[0].images
    assert error.abs().mean() > 0.5


def test_an_answer_that_failed_is_passed_over(flower):
    from flwr.app import Error, Message
    from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

    model = net()
    good = app_of(
        flower.PictureClient(
            net(), pictures(1), FedAvg(lr=0.2), random=Randomness.seeded(0)
        )
    )
    heard = []
    server = flower.Curious(
        FlowersFedAvg(),
        model,
        FedAvg(lr=0.2),
        on_message=lambda *answer: heard.append(answer[:2]),
        image_shape=(1, 4, 4),
    )

    def broken(message, context):
        return Message(Error(0, "gone"), reply_to=message)

    result = server.start(grid([broken, good]), flower.to_arrays(model), num_rounds=1)
    assert heard == [(1, 1)]
    assert list(result.arrays) == list(model.state_dict())


def test_what_does_not_fit_is_refused(flower):
    with pytest.raises(TypeError, match=r"must be rounds.FedAvg\(lr=...\), got FedSGD"):
        flower.PictureClient(net(), pictures(2), FedSGD(), random=Randomness.seeded(0))
    with pytest.raises(ValueError, match="do not fit the model's 4 tensors"):
        flower.load_arrays(net(), flower.to_arrays(net(nn.BatchNorm1d(8))))


def test_arrays_are_copies_and_come_back_exactly(flower):
    from flwr.app import ArrayRecord

    model = net(nn.BatchNorm1d(8))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    record = flower.to_arrays(model)
    with torch.no_grad():
        model[1].bias += 1
    flower.load_arrays(model, record)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    moved = {n: t.double() - 0.6 for n, t in before.items()}
    moved["3.num_batches_tracked"] += 3
    flower.load_arrays(model, ArrayRecord(moved))
    assert model[3].num_batches_tracked.item() == 2
    assert_close(model[1].bias, before["1.bias"] - 0.6)
