"""Federated rounds against pooled training, and messages against attacks."""

import copy
from dataclasses import asdict
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from precode_lib.attacks.closed_form import invert_linear
from precode_lib.bottleneck import VariationalBottleneck, loss
from precode_lib.data import Normalisation, Pictures
from precode_lib.defenses import dp_sgd_step
from precode_lib.federated import LocalTraining, observe
from precode_lib.gradients import Gradients, Outer, squared_distance
from precode_lib.rounds import (
    ClientTask,
    FedAvg,
    Federation,
    FedSGD,
    iid_split,
    label_skewed_split,
    observed,
    participate,
)
from precode_lib.training import LoadedPictures, Randomness, evaluate

NORMALISATION = Normalisation((0.4,), (0.3,))
ADOPT = partial(torch.optim.SGD, lr=1.0)  # the average becomes the new weights


def pictures(count, seed=0, size=4):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(256, (count, 1, size, size), generator=generator).byte()
    labels = torch.randint(3, (count,), generator=generator)
    return Pictures(levels, labels, tuple("abc"), "squares", "", NORMALISATION)


def net(*extra, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid(), *extra, nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def bottleneck():
    generator = torch.Generator().manual_seed(7)
    return VariationalBottleneck(8, k=2, beta=0.1, generator=generator)


def weights(model):
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


def clients(*sizes):
    data = pictures(sum(sizes))
    return [data[rows] for rows in torch.arange(sum(sizes)).split(sizes)]


def federation(model, *, sizes=(2, 3, 5), **options):
    usual = {"rounds": 2, "server": ADOPT, "algorithm": FedSGD()}
    return Federation(model, clients(*sizes), pictures(7, 1), **{**usual, **options})


# --- splits -------------------------------------------------------------------------


def owners_of(data, parts):
    """How often each picture was dealt out."""
    rows = {tuple(row.tolist()): 0 for row in data.stored.flatten(1)}
    for part in parts:
        for row in part.stored.flatten(1):
            rows[tuple(row.tolist())] += 1
    return set(rows.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_split_uses_every_picture_once_with_its_label(seed):
    data = pictures(50)
    labels = {tuple(x.flatten().tolist()): y for x, y in zip(*pairs(data), strict=True)}
    for dealt in (
        iid_split(data, 4, seed=seed),
        label_skewed_split(data, 4, alpha=0.5, min_size=3, seed=seed),
    ):
        assert owners_of(data, dealt) == {1}
        assert len(dealt) == 4
        assert min(map(len, dealt)) >= 3
        for part in dealt:
            for x, y in zip(*pairs(part), strict=True):
                assert labels[tuple(x.flatten().tolist())] == y


def pairs(data):
    return data.stored, data.labels.tolist()


def test_an_iid_split_is_even_and_its_seed_decides():
    data = pictures(50)
    sizes = [len(part) for part in iid_split(data, 4)]
    assert sorted(sizes) == [12, 12, 13, 13]
    stored = [iid_split(data, 4, seed=seed)[0].stored for seed in (0, 0, 1)]
    assert torch.equal(stored[0], stored[1])
    assert not torch.equal(stored[0], stored[2])


def test_alpha_decides_how_skewed_the_labels_are():
    data = pictures(600)

    def purity(alpha):
        """The mean share of a client's most frequent class."""
        dealt = label_skewed_split(data, 5, alpha=alpha, min_size=5, seed=1)
        shares = [p.labels.bincount(minlength=3).max() / len(p) for p in dealt]
        return sum(shares) / len(shares)

    assert purity(0.05) > 0.8
    assert purity(1000.0) < 0.45
    first, again, other = (
        label_skewed_split(data, 5, alpha=0.5, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first.stored, again.stored)
    assert len(first) != len(other)


def test_a_clients_share_of_a_class_is_drawn_from_all_of_it():
    data = pictures(60)
    rows = {tuple(x.flatten().tolist()): i for i, x in enumerate(data.stored)}
    dealt = label_skewed_split(data, 2, alpha=1000.0)
    own = [rows[tuple(x.flatten().tolist())] for x in dealt[0].stored]
    of_class = [row for row in own if data.labels[row] == 0]
    everyone = (data.labels == 0).nonzero().flatten().tolist()
    assert sorted(of_class) != everyone[: len(of_class)]


def test_impossible_splits_are_refused():
    with pytest.raises(ValueError, match="3 pictures do not suffice for 4 clients"):
        iid_split(pictures(3), 4)
    with pytest.raises(ValueError, match="num_clients must be at least 1"):
        iid_split(pictures(3), 0)
    with pytest.raises(ValueError, match="for 2 clients with 5 or more"):
        label_skewed_split(pictures(9), 2, alpha=1.0, min_size=5)
    with pytest.raises(ValueError, match="fewer than min_size=3 pictures"):
        label_skewed_split(pictures(12), 4, alpha=0.001, min_size=3)
    with pytest.raises(ValueError, match="alpha must be in"):
        label_skewed_split(pictures(9), 2, alpha=0.0)


# --- FedSGD and FedAvg --------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(2, 3, 5), (10,), (1,) * 10])
def test_fedsgd_with_all_clients_is_sgd_on_the_pooled_pictures(sizes):
    ours, theirs = net(), net()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9)
    server = partial(torch.optim.SGD, lr=0.5, momentum=0.9)
    data = pictures(10)
    images = NORMALISATION.normalise(data.stored.double() / 255)
    for each in federation(ours, sizes=sizes, server=server, rounds=3):
        optimizer.zero_grad()
        pooled = loss(theirs, images, data.labels)
        pooled.backward()
        optimizer.step()
        assert_close(weights(ours), weights(theirs), rtol=1e-12, atol=1e-14)
        assert each.train_loss == pytest.approx(pooled.item(), rel=1e-12)


def test_fedavg_with_one_local_step_is_fedsgd_times_the_learning_rate():
    ours, theirs = net(), net()
    list(federation(ours, algorithm=FedAvg(lr=0.25)))
    server = partial(torch.optim.SGD, lr=0.25)
    list(federation(theirs, algorithm=FedSGD(), server=server))
    assert_close(weights(ours), weights(theirs), rtol=1e-12, atol=1e-14)


def test_fedavg_averages_the_weights_of_clients_that_train_by_hand():
    model, sizes = net(), (2, 3, 7)
    random = Randomness.seeded(0)
    torch.randperm(3, generator=random.shuffle)  # who takes part
    expected, total = 0, 0
    for data in clients(*sizes):
        rows = torch.randperm(len(data), generator=random.shuffle)
        images = NORMALISATION.normalise(data.stored[rows].double() / 255)
        own = copy.deepcopy(model)
        optimizer = torch.optim.SGD(own.parameters(), lr=0.3)
        num_batches = len(data) // 2
        for _ in range(2):
            for start in range(0, 2 * num_batches, 2):
                batch = slice(start, start + 2)
                optimizer.zero_grad()
                loss(own, images[batch], data.labels[rows][batch]).backward()
                optimizer.step()
        expected = expected + 2 * num_batches * weights(own)
        total += 2 * num_batches
    algorithm = FedAvg(lr=0.3, epochs=2, batch_size=2)
    next(federation(model, sizes=sizes, algorithm=algorithm))
    assert_close(weights(model), expected / total, rtol=1e-10, atol=1e-12)


def test_tasks_say_what_a_client_with_so_many_pictures_does():
    assert FedSGD().task(7) == ClientTask(7, None)
    assert FedSGD(batch_size=4).task(7) == ClientTask(4, None)
    assert FedSGD(batch_size=9).task(7) == ClientTask(7, None)
    assert FedAvg(lr=0.1).task(7) == ClientTask(7, LocalTraining(1, 0.1, 7))
    several = FedAvg(lr=0.1, epochs=3, batch_size=2)
    assert several.task(7) == ClientTask(6, LocalTraining(9, 0.1, 2))
    assert several.task(1) == ClientTask(1, LocalTraining(3, 0.1, 1))


@pytest.mark.parametrize("algorithm", [FedSGD(), FedAvg(lr=0.1, batch_size=2)])
def test_running_statistics_are_averaged_by_number_of_pictures(algorithm):
    model = net(nn.BatchNorm1d(8))
    start = copy.deepcopy(model.state_dict())
    sent = []

    class Listening(Federation):
        def _learn(self, messages):
            sent.extend(messages)
            super()._learn(messages)

    data = clients(2, 4, 10)
    list(
        Listening(
            model,
            data,
            pictures(7, 1),
            rounds=1,
            server=ADOPT,
            algorithm=algorithm,
        )
    )
    means = [m.buffers["3.running_mean"] for m in sent]
    expected = (2 * means[0] + 4 * means[1] + 10 * means[2]) / 16
    assert_close(model[3].running_mean, expected)
    assert not torch.allclose(means[0], start["3.running_mean"])
    counts = torch.tensor([m.buffers["3.num_batches_tracked"] for m in sent])
    steps = [1, 1, 1] if isinstance(algorithm, FedSGD) else [1, 2, 5]
    assert counts.tolist() == steps
    rounded = round((2 * steps[0] + 4 * steps[1] + 10 * steps[2]) / 16)
    assert model[3].num_batches_tracked.item() == rounded
    assert model[3].num_batches_tracked.dtype == torch.int64


def test_a_round_counts_the_bytes_of_messages_and_models():
    model = net(nn.BatchNorm1d(8)).float()
    each = next(federation(model))
    num_parameters = sum(p.numel() for p in model.parameters())
    buffers = 2 * 8 * 4 + 8
    assert each.bytes_up == each.bytes_down == 3 * (4 * num_parameters + buffers)
    sparse = federation(net(), message_bytes=lambda shared: torch.tensor([5]))
    assert next(sparse).bytes_up == 15


def test_a_round_tells_the_test_figures_of_the_model_as_it_then_is():
    model = net(bottleneck())
    for number, each in enumerate(federation(model, rounds=2), start=1):
        now = evaluate(model, pictures(7, 1))
        assert (each.test_loss, each.test_accuracy) == (now.loss, now.accuracy)
        assert (each.round, each.participants) == (number, (0, 1, 2))
        assert each.seconds > 0


def test_drawn_clients_take_part_and_the_others_sit_out():
    seen = []
    each = federation(
        net(), rounds=20, clients_per_round=2, on_message=lambda r, c, o: seen.append(c)
    )
    drawn = [r.participants for r in each]
    assert all(len(set(chosen)) == 2 for chosen in drawn)
    assert {c for chosen in drawn for c in chosen} == {0, 1, 2}
    assert seen == [c for chosen in drawn for c in chosen]


def test_the_defense_stands_between_client_and_server():
    ours, theirs = net(), net()
    before, sizes = weights(ours), []

    def halve(gradients):
        sizes.append(gradients.num_victims)
        return Gradients({n: 0.5 * t for n, t in gradients.dense().items()})

    list(federation(ours, rounds=1, defense=halve))
    list(federation(theirs, rounds=1))
    assert_close(weights(ours) - before, 0.5 * (weights(theirs) - before))
    assert sizes == [1, 1, 1]


def test_dp_sgd_takes_the_place_of_a_clients_gradient():
    ours, heard = net(), []
    step = partial(
        dp_sgd_step,
        clip_norm=1e-3,
        noise_multiplier=0,
        generator=torch.Generator(),
    )
    before = weights(ours)
    list(
        federation(
            ours,
            rounds=1,
            client_step=step,
            on_message=lambda r, c, o: heard.append(o),
        )
    )
    assert 0 < (weights(ours) - before).norm() <= 1e-3 * (1 + 1e-9)
    assert len(heard) == 3
    with pytest.raises(ValueError, match="use it with FedSGD"):
        next(federation(net(), client_step=step, algorithm=FedAvg(lr=0.1)))


def test_a_withheld_parameter_is_not_trained():
    model = net()
    before = copy.deepcopy(model.state_dict())
    heard = []
    list(
        federation(
            model,
            defense=lambda g: g.drop("1.*"),
            on_message=lambda r, c, o: heard.append(o),
        )
    )
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"3.weight", "3.bias"}
    assert list(heard[0].shared) == ["3.weight", "3.bias"]


@pytest.mark.parametrize("silent", [{0, 2}, {1}])
def test_what_some_clients_withhold_is_the_mean_of_the_others(silent):
    model, heard = net(), []
    before = copy.deepcopy(model.state_dict())
    turn = iter(range(3))

    def defense(gradients):
        return gradients.drop("1.*") if next(turn) in silent else gradients

    list(
        federation(
            model,
            rounds=1,
            server=partial(torch.optim.SGD, lr=0.5),
            defense=defense,
            on_message=lambda r, c, o: heard.append(o),
        )
    )
    for name, tensor in model.state_dict().items():
        senders = [o for o in heard if name in o.shared]
        assert len(senders) == (3 - len(silent) if name.startswith("1.") else 3)
        total = sum(o.num_examples for o in senders)
        gradients = [o.num_examples * o.shared.dense()[name][0] for o in senders]
        assert_close(before[name] - tensor, 0.5 * sum(gradients) / total)


# --- who listens --------------------------------------------------------------------


def listened(model, **options):
    heard = {}

    def note(number, client, observation):
        heard[number, client] = observation

    list(federation(model, on_message=note, **options))
    return heard


def test_what_is_heard_in_a_round_can_be_attacked():
    model = net()
    heard = listened(model, sizes=(1, 1, 5))
    assert sorted(heard) == [(r, c) for r in (1, 2) for c in range(3)]
    for client in (0, 1):
        images = clients(1, 1, 5)[client].images
        for number in (1, 2):
            found = invert_linear(heard[number, client])
            assert found.exact.all()
            assert_close(found.images.float(), images, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "algorithm", [FedSGD(), FedAvg(lr=0.2, epochs=2, batch_size=1)]
)
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_the_listeners_own_client_reproduces_the_message(algorithm, norm):
    if norm and isinstance(algorithm, FedAvg):
        algorithm = FedAvg(lr=0.2, epochs=2, batch_size=2)
    model = net(*([nn.BatchNorm1d(8)] if norm else [])).eval()
    seen = []

    class Watched(LoadedPictures):
        def batch(self, rows, *options):
            images, labels = super().batch(rows, *options)
            seen.append(images)
            return images, labels

    heard = []
    each = federation(
        model,
        sizes=(4, 6),
        rounds=1,
        algorithm=algorithm,
        on_message=lambda r, c, o: heard.append(o),
    )
    each._clients = [Watched(p, model) for p in clients(4, 6)]
    list(each)
    for observation, images in zip(heard, seen, strict=True):
        assert observation.model.training
        replayed = observation.client()(images[None], observation.labels)
        distance = squared_distance(replayed.dense(), observation.shared.dense())
        assert distance.item() < 1e-24
        assert observation.num_examples == len(images)
        assert observation.num_classes == 3


def test_the_listener_gets_what_observe_makes():
    model, data = net(), clients(2)[0]
    heard = []
    each = federation(
        model, sizes=(2,), rounds=1, on_message=lambda r, c, o: heard.append(o)
    )
    random = Randomness.seeded(0)
    torch.randperm(1, generator=random.shuffle)
    rows = torch.randperm(2, generator=random.shuffle)
    images = NORMALISATION.normalise(data.stored[rows].double() / 255)
    labels = data.labels[rows][None]
    expected = observe(model.train(), images[None], labels, normalisation=NORMALISATION)
    list(each)
    (ours,) = heard
    assert isinstance(ours.shared["1.weight"], Outer)
    # Dense, because between factors the distance is a difference of large numbers.
    ours_dense, expected_dense = ours.shared.dense(), expected.shared.dense()
    assert squared_distance(ours_dense, expected_dense).item() < 1e-24
    for name in ("image_shape", "num_examples", "num_classes", "normalisation"):
        assert getattr(ours, name) == getattr(expected, name)
    assert torch.equal(ours.labels, expected.labels)
    assert ours.buffers is None


def test_what_was_heard_keeps_the_model_of_its_round():
    model = net()
    before = weights(model)
    heard = listened(model)
    assert torch.equal(weights(heard[1, 0].model), before)
    assert not torch.equal(weights(heard[2, 0].model), before)
    assert not torch.equal(weights(heard[2, 0].model), weights(model))


def test_labels_and_noise_are_known_only_if_told():
    heard = listened(net(bottleneck()), labels_known=False)
    assert all(observation.labels is None for observation in heard.values())
    model = net(bottleneck())
    data = LoadedPictures(clients(2)[0], model)
    images, labels = data.batch(slice(0, 2))
    messages = [participate(model, images, labels) for _ in range(2)]
    given = [
        participate(model, images, labels, noise=torch.Generator().manual_seed(0))
        for _ in range(2)
    ]
    assert squared_distance(messages[0].shared, messages[1].shared) > 0
    assert squared_distance(given[0].shared, given[1].shared) == 0
    sent = observed(messages[0], model, None, data, num_classes=3)
    assert squared_distance(sent.shared.dense(), messages[0].shared) < 1e-20


def test_a_client_leaves_the_servers_model_as_it_is():
    model = net(nn.BatchNorm1d(8)).eval()
    before = copy.deepcopy(model.state_dict())
    data = LoadedPictures(clients(4)[0], model)
    for local in (None, LocalTraining(3, 0.1, 2)):
        participate(model, *data.batch(slice(0, 4)), local=local)
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m.training for m in model.modules())


def test_listening_changes_nothing():
    ours, theirs = (
        net(bottleneck(), nn.Dropout(0.2)),
        net(bottleneck(), nn.Dropout(0.2)),
    )
    state = torch.get_rng_state()
    listened(ours)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    list(federation(theirs))
    assert torch.equal(weights(ours), weights(theirs))


# --- resume and refuse --------------------------------------------------------------


def restless(model, rounds=4):
    random = Randomness.seeded(3)

    def noisy(gradients):
        return gradients.map(
            lambda t: t + 0.1 * torch.randn(t.shape, generator=random.defense)
        )

    return federation(
        model,
        rounds=rounds,
        clients_per_round=2,
        algorithm=FedAvg(lr=0.1, epochs=2, batch_size=2),
        server=partial(torch.optim.Adam, lr=0.01),
        defense=noisy,
        random=random,
        sizes=(4, 4, 5),
    )


def test_a_federation_resumes_to_the_last_bit(tmp_path):
    extra = [nn.BatchNorm1d(8), nn.Dropout(0.2), bottleneck()]
    through, first, second = (net(*copy.deepcopy(extra)) for _ in range(3))
    expected = restless(through)
    list(expected)
    begun = restless(first)
    next(begun)
    next(begun)
    torch.save(begun.state_dict(), tmp_path / "state.pt")
    resumed = restless(second)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert len(resumed) == 2
    list(resumed)
    assert torch.equal(weights(second), weights(through))
    assert figures(resumed) == figures(expected)
    assert list(resumed) == []


def figures(federation):
    return [{**asdict(r), "seconds": None} for r in federation.history]


def test_impossible_federations_are_refused():
    with pytest.raises(ValueError, match="at least one client"):
        Federation(net(), [], pictures(3), rounds=1, server=ADOPT, algorithm=FedSGD())
    with pytest.raises(ValueError, match="client 0 has .* the server tests with"):
        Federation(
            net(),
            [pictures(3, size=5)],
            pictures(3),
            rounds=1,
            server=ADOPT,
            algorithm=FedSGD(),
        )
    with pytest.raises(ValueError, match=r"clients_per_round must be in \[1, 3\]"):
        federation(net(), clients_per_round=4)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        federation(net(), rounds=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        FedSGD(batch_size=0)
    with pytest.raises(ValueError, match="lr must be in"):
        FedAvg(lr=0)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        FedAvg(lr=1.0, epochs=0)
