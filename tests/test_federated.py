"""Clients and what the listener sees, against training by hand in float64."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.testing import assert_close

from precode_lib.bottleneck import (
    VariationalBottleneck,
    loss,
    noise_from,
    recorded_noise,
)
from precode_lib.data import PHOTOS, Normalisation
from precode_lib.defenses import dp_sgd_step, prune
from precode_lib.federated import Client, LocalTraining, observe, observing
from precode_lib.gradients import Gradients, Outer, squared_norm, to_list


def net(bottleneck=False, norm=False):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1)]
    layers += [nn.BatchNorm2d(4)] if norm else []
    layers += [nn.Sigmoid(), nn.Flatten(), nn.Linear(64, 12)]
    layers += [VariationalBottleneck(12, k=5)] if bottleneck else []
    return nn.Sequential(*layers, nn.Linear(12, 3)).double().eval()


def pictures(victims, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(victims, batch, 3, 4, 4, generator=generator).double()
    return images, torch.randint(3, (victims, batch), generator=generator)


def trained_by_hand(model, x, y, local, noises=None):
    """torch.optim.SGD on one client's pictures: the weights' way, in order."""
    model = copy.deepcopy(model)
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = local.optimizer(model.parameters(), lr=local.lr)
    size = local.batch_size or len(x)
    batches = [*zip(x.split(size), y.split(size), strict=True)]
    for step in range(local.steps):
        optimizer.zero_grad()
        with noise_from(noises[step] if noises else torch.zeros_like):
            loss(model, *batches[step % len(batches)]).backward()
        optimizer.step()
    return [s - p.detach() for s, p in zip(start, model.parameters(), strict=True)]


PROTOCOLS = [
    LocalTraining(steps=1, lr=0.5),
    LocalTraining(steps=4, lr=0.1),
    LocalTraining(steps=5, lr=0.2, batch_size=2),
    LocalTraining(steps=5, lr=0.2, batch_size=3),  # an incomplete last batch
    LocalTraining(steps=2, lr=0.2, batch_size=9),
    *(
        LocalTraining(steps=4, lr=0.05, batch_size=3, optimizer=optimizer)
        for optimizer in (
            partial(SGD, momentum=0.9),
            partial(SGD, momentum=0.8, dampening=0.3, weight_decay=0.1),
            partial(SGD, momentum=0.9, nesterov=True, weight_decay=0.1),
            Adam,
            partial(Adam, betas=(0.5, 0.7), eps=1e-3, weight_decay=0.1),
            partial(Adam, amsgrad=True),
            partial(AdamW, weight_decay=0.1),
        )
    ),
]


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "train-mode norm"])
@pytest.mark.parametrize("local", PROTOCOLS)
def test_an_update_is_what_sgd_does_to_the_weights(local, norm):
    model = net(norm=norm).train(norm)
    images, labels = pictures(3, 4)
    before = copy.deepcopy(model.state_dict())
    update = Client(model, local=local)(images, labels)
    # Before a norm a bias has no slope but rounding, which Adam divides by its size.
    atol = 1e-11 if "SGD" in repr(local.optimizer) else 1e-8
    for v in range(3):
        expected = trained_by_hand(model, images[v], labels[v], local)
        for term, want in zip(update.values(), expected, strict=True):
            assert_close(term[v], want, rtol=1e-8, atol=atol)
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())


def test_one_local_step_shares_the_gradient_times_the_learning_rate():
    model, (images, labels) = net(), pictures(2, 4)
    update = Client(model, local=LocalTraining(steps=1, lr=0.25))(images, labels)
    gradient = Client(model)(images, labels).dense()
    for name in gradient:
        assert_close(update[name], 0.25 * gradient[name])


def test_every_victim_draws_its_own_noise_in_every_local_step(generator):
    model, local = net(bottleneck=True), LocalTraining(steps=3, lr=0.3, batch_size=2)
    images, labels = pictures(2, 4)
    given = [torch.randn(4, 5, generator=generator).double() for _ in range(3)]
    update = Client(model, local=local)(images, labels, noise=given)
    for v in range(2):
        own = [[n.unflatten(0, (2, 2))[v]] for n in given]
        expected = trained_by_hand(model, images[v], labels[v], local, own)
        for term, want in zip(update.values(), expected, strict=True):
            assert_close(term[v], want, rtol=1e-8, atol=1e-11)
    twins = images[:1].expand(2, -1, -1, -1, -1), labels[:1].expand(2, -1)
    drawn = Client(model, local=local)(*twins, noise=generator)
    assert not torch.allclose(drawn["0.bias"][0], drawn["0.bias"][1])


@pytest.mark.parametrize("local", [PROTOCOLS[1], PROTOCOLS[3], *PROTOCOLS[5:]])
def test_an_update_can_be_differentiated_by_the_pictures(local):
    client = Client(net(), local=local)
    images, labels = pictures(1, 3)

    def squares(x):
        return squared_norm(client(x, labels))

    assert torch.autograd.gradcheck(squares, (images.requires_grad_(),), fast_mode=True)
    with torch.no_grad():
        assert not squares(images).requires_grad


def test_local_training_refuses_impossible_protocols():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        LocalTraining(steps=0, lr=0.1)
    with pytest.raises(ValueError, match="lr must be in"):
        LocalTraining(steps=1, lr=0.0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        LocalTraining(steps=1, lr=0.1, batch_size=0)
    with pytest.raises(TypeError, match=r"optimizer must be a function .*got str"):
        LocalTraining(steps=1, lr=0.1, optimizer="Adam")
    with pytest.raises(TypeError, match=r"knows SGD, Adam, AdamW .* got RMSprop"):
        LocalTraining(steps=1, lr=0.1, optimizer=RMSprop)
    with pytest.raises(ValueError, match="leave out maximize=True"):
        LocalTraining(steps=1, lr=0.1, optimizer=partial(SGD, maximize=True))


def test_epochs_become_steps_and_the_last_batch_may_be_smaller():
    local = LocalTraining.of_epochs(2, 5, lr=0.1, batch_size=2, optimizer=Adam)
    assert local == LocalTraining(6, 0.1, 2, Adam)
    sizes = [len(range(5)[batch]) for batch in local.batches(5)]
    assert sizes == [2, 2, 1, 2, 2, 1]
    assert LocalTraining(2, 0.1, 8).batches(4) == [slice(0, 4)] * 2


def test_a_unit_that_never_runs_does_not_spoil_the_slopes_under_adam():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        model[1].bias[0] = -1e3  # dead: its slope is exactly 0, and so is its square
    local = LocalTraining(2, 0.1, optimizer=Adam)
    images, labels = pictures(1, 2)
    images.requires_grad_()
    squared_norm(Client(model.double(), local=local)(images, labels)).sum().backward()
    assert images.grad.isfinite().all()


# --- what the listener gets ---------------------------------------------------------


def test_the_listener_sees_the_gradient_factored_to_rounding():
    model, (images, labels) = net(), pictures(3, 2)
    seen = observe(model, images, labels, normalisation=PHOTOS)
    exact = Client(model)(images, labels).dense()
    assert isinstance(seen.shared["3.weight"], Outer)
    for name, term in seen.shared.dense().items():
        assert_close(term, exact[name], rtol=1e-9, atol=1e-12)
    assert seen.num_victims == 3
    assert seen.num_examples == 2
    assert seen.image_shape == (3, 4, 4)
    assert seen.num_classes == 3
    assert torch.equal(seen.labels, labels)
    assert seen.normalisation is PHOTOS


def test_victims_are_observed_in_pieces_with_their_own_noise(monkeypatch, generator):
    model, (images, labels) = net(bottleneck=True), pictures(5, 2)
    noise = [torch.randn(10, 5, generator=generator).double()]
    whole = observe(model, images, labels, noise=noise).shared.dense()
    monkeypatch.setattr(observing, "WIRE_BYTES", 1)
    pieces = observe(model, images, labels, noise=noise).shared.dense()
    for name in whole:
        assert_close(pieces[name], whole[name])
    one = torch.Generator().manual_seed(3)
    two = torch.Generator().manual_seed(3)
    a = observe(model, images, labels, noise=one).shared.dense()["0.bias"]
    b = observe(model, images, labels, noise=two).shared.dense()["0.bias"]
    assert torch.equal(a, b)


def test_a_defended_gradient_is_what_is_seen():
    def halve(gradients):
        return gradients.map(lambda t: t / 2)

    def spoil(gradients):
        generator = torch.Generator().manual_seed(0)
        return Gradients(
            {
                n: t + torch.randn(t.shape, generator=generator)
                for n, t in gradients.items()
            }
        )

    model, (images, labels) = net(), pictures(2, 1)
    plain = observe(model, images, labels).shared.dense()
    halved = observe(model, images, labels, defense=halve).shared.dense()
    assert_close(halved["0.weight"], plain["0.weight"] / 2)
    noisy = observe(model, images, labels, defense=spoil).shared
    assert not any(isinstance(t, Outer) for t in noisy.values())
    assert_close(noisy["3.weight"], spoil(plain)["3.weight"])


def test_unknown_labels_are_not_in_the_observation():
    seen = observe(net(), *pictures(2, 1), labels_known=False)
    assert seen.labels is None
    assert seen.take(slice(0, 1)).labels is None


def test_an_observation_says_what_it_holds_without_its_tensors():
    seen = observe(net(), *pictures(2, 3))
    assert repr(seen).startswith(
        "Observation(2 victims x 3 pictures (3, 4, 4), labels known, Gradients(2 "
    )


def test_pictures_with_nan_are_refused_by_name():
    images, labels = pictures(2, 1)
    images[1, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="images holds NaN or infinity in 1 of"):
        observe(net(), images, labels)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.rand(2, 1, 1, 4, 4).double(),
            r"not take .*images, \(1, 1, 4, 4\) .*channels",
        ),
        (torch.rand(2, 1, 3, 4, 4), r"weights are float64: .*\.to\(torch\.float64\)"),
    ],
)
def test_pictures_that_the_model_does_not_take_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        observe(net(), images, torch.zeros(2, 1, dtype=torch.int64))


def test_eight_bit_levels_are_no_normalised_images():
    images, labels = pictures(2, 1)
    levels = 255 * images.sigmoid()
    with pytest.raises(ValueError, match=r"real pictures lie in .* divide .* by 255"):
        observe(net(), levels, labels, normalisation=PHOTOS)
    observe(net(), levels, labels)  # whose range nobody knows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalisation": (0.5, 0.25)}, r"like Normalisation\(mean=.*got tuple"),
        ({"normalisation": Normalisation((0.5,) * 2, (1.0,) * 2)}, "of 2 channels"),
        ({"local": 3}, r"local must be LocalTraining\(steps, lr\), got int"),
        ({"defense": "prune"}, r"defense must be a function .*ratio=0.9\).*got str"),
        ({"defense": prune}, r"must take \(gradients\), .*prune takes .*'ratio'"),
        ({"defense": lambda: None}, "a defense must take .*: too many positional"),
        ({"defense": lambda g: None}, "a defense returns Gradients, got NoneType"),
        ({"defense": to_list}, "a defense returns Gradients, got list"),
        ({"client_step": 0.9}, "client_step must be a function such as partial"),
        ({"client_step": dp_sgd_step}, "must take .*missing a required argument"),
        ({"client_step": lambda c, x, y: None}, "unexpected keyword argument 'noise'"),
        (
            {"defense": lambda g: Gradients({"5.bias": g["4.bias"]})},
            r"'5\.bias', which the model does not have\. Did you mean '4",
        ),
        (
            {"defense": lambda g: Gradients({"4.bias": g["4.bias"][:, :1]})},
            r"'4\.bias' of shape \(1,\), the model's is \(3,\)",
        ),
    ],
)
def test_choices_of_the_wrong_kind_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        observe(net(), *pictures(2, 1), **options)


def test_inference_mode_is_named_before_autograd_stumbles_over_it():
    images, labels = pictures(2, 1)
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"inference_mode\(\) is on .*no_grad"),
    ):
        observe(net(), images, labels)
    with torch.inference_mode():
        images = images * 2
    with pytest.raises(ValueError, match=r"images were made under .*images\.clone\(\)"):
        observe(net(), images, labels)
    observe(net(), images.clone(), labels)
    with torch.no_grad():
        observe(net(), images.clone(), labels)


def test_the_norm_of_a_batch_of_vectors_needs_the_whole_batch():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5))
    model = nn.Sequential(*model, nn.Linear(5, 3)).double().train()
    images, labels = pictures(2, 4)
    seen = observe(model, images, labels)
    assert seen.num_classes == 3
    with pytest.raises(ValueError, match="not take .*more than 1 value per channel"):
        observe(model, images[:, :1], labels[:, :1])


def test_looking_at_the_model_uses_up_no_random_numbers():
    model, given = nn.Sequential(net(), nn.Dropout()).train(), pictures(2, 1)
    torch.manual_seed(1)
    expected = Client(model)(*given).dense()
    torch.manual_seed(1)
    seen = observe(model, *given).shared.dense()
    for name, term in expected.items():
        assert_close(seen[name], term)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_crosses_the_wire_dense(dtype):
    images, labels = pictures(2, 1)
    seen = observe(net().to(dtype), images.to(dtype), labels)
    assert all(isinstance(term, torch.Tensor) for term in seen.shared.values())
    assert seen.shared["3.weight"].dtype == dtype


def test_take_and_to_keep_victims_and_labels_together():
    images, labels = pictures(3, 1)
    seen = observe(net(), images, labels)
    some = seen.take(torch.tensor([2, 0]))
    assert torch.equal(some.labels, labels[[2, 0]])
    assert some.num_victims == 2
    last = seen.take(-1)
    assert torch.equal(last.labels, labels[2:])
    assert last.num_victims == 1
    single = seen.to(torch.float32)
    assert next(single.model.parameters()).dtype == torch.float32
    assert next(seen.model.parameters()).dtype == torch.float64
    assert single.shared["0.weight"].dtype == torch.float32
    assert single.labels.dtype == torch.int64


class Centred(nn.Module):
    """Takes the batch's mean off, as a batch norm of one's own would."""

    def forward(self, x):
        return x - x.mean(0)


def test_a_batch_that_is_mixed_is_given_victim_by_victim():
    model = nn.Sequential(net()[:3], Centred(), nn.Linear(64, 3).double())
    client, (images, labels) = Client(model), pictures(2, 3)
    assert client.victims_within(2**30, images, labels) == 1
    assert Client(net()).victims_within(2**30, images, labels) > 1
    together = client(images, labels).dense()
    for v in range(2):
        alone = client(images[v : v + 1], labels[v : v + 1])
        for name, term in alone.dense().items():
            assert_close(together[name][v], term[0])


@pytest.mark.parametrize("local", [None, LocalTraining(2, 0.1)])
def test_who_listens_hears_the_clients_noise_and_nothing_else(local):
    model, (images, labels) = net(bottleneck=True), pictures(2, 1)
    with recorded_noise() as noise:
        seen = observe(model, images, labels, local=local)
    assert [n.shape for n in noise] == [(2, 5)] * (1 if local is None else 2)
    again = observe(model, images, labels, local=local, noise=noise)
    for name, term in seen.shared.dense().items():
        assert torch.equal(term, again.shared.dense()[name])


def test_training_on_after_the_round_does_not_change_what_was_seen():
    model, (images, labels) = net(), pictures(1, 1)
    seen = observe(model, images, labels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    replayed = seen.client()(images, labels).dense()
    for name, term in seen.shared.dense().items():
        assert_close(replayed[name], term)


@pytest.mark.parametrize("training", [False, True])
def test_the_attacker_replays_the_mode_the_client_ran_in(training):
    model, (images, labels) = net(norm=True).train(training), pictures(2, 4)
    seen = observe(model, images, labels)
    assert seen.model.training == training
    replayed = seen.client()(images, labels).dense()
    for name, term in seen.shared.dense().items():
        assert_close(replayed[name], term)
    assert seen.num_classes == 3


def test_buffers_matter_and_are_seen_only_when_shared():
    model, (images, labels) = net(norm=True), pictures(2, 2)
    own = {"1.running_mean": torch.full((4,), 0.7).double()}
    shared = observe(model, images, labels, client_buffers=own)
    hidden = observe(model, images, labels, client_buffers=own, buffers_shared=False)
    assert hidden.buffers is None
    wanted = shared.shared.dense()["0.weight"]
    assert_close(hidden.shared.dense()["0.weight"], wanted)
    assert_close(shared.client()(images, labels).dense()["0.weight"], wanted)
    wrong = hidden.client()(images, labels).dense()["0.weight"]
    assert not torch.allclose(wrong, wanted)


def test_buffers_the_model_does_not_have_are_refused():
    for name, size in (("1.runing_mean", 4), ("1.running_mean", 5)):
        with pytest.raises(
            ValueError, match=r"no buffer .* Did you mean '1\.running_mean'"
        ):
            observe(
                net(norm=True), *pictures(1, 1), client_buffers={name: torch.ones(size)}
            )
