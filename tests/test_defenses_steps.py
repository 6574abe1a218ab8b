"""DP-SGD, Soteria and PPP against gradients by hand, torch.func, numpy and Opacus."""

import math
import sys
from functools import partial

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from precode_lib.bottleneck import (
    VariationalBottleneck,
    loss,
    noise_from,
    recorded_noise,
    with_cvb,
    with_precode,
)
from precode_lib.defenses import (
    add_noise,
    before_bottleneck,
    clip,
    dp_sgd_step,
    epsilon,
    ppp,
    prune,
    soteria,
    soteria_step,
)
from precode_lib.federated import LocalTraining, observe, observing
from precode_lib.gradients import Capture, Gradients, Outer, dense, squared_norm


class Net(nn.Module):
    """conv → sigmoid → two linear layers, with or without a norm."""

    def __init__(self, norm=False, width=12):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.hidden = nn.Linear(64, width)
        self.fc = nn.Linear(width, 3)

    def features(self, images):
        return self.hidden(self.norm(self.conv(images)).sigmoid().flatten(1)).sigmoid()

    def forward(self, images):
        return self.fc(self.features(images))


def net(norm=False, seed=0, **options):
    torch.manual_seed(seed)
    return Net(norm, **options).double().eval()


def halves():
    """A net whose first layer reads the two halves of a picture one after the other."""
    torch.manual_seed(0)
    tokens = nn.Unflatten(1, (2, 24)), nn.Linear(24, 12), nn.Sigmoid()
    return nn.Sequential(nn.Flatten(), *tokens, nn.Flatten(), nn.Linear(24, 3)).double()


def pictures(victims=2, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(victims, batch, 3, 4, 4, generator=generator).double()
    return images, torch.randint(3, (victims, batch), generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_alike(a, b, **tolerance):
    assert list(a) == list(b)
    for name in a:
        assert_close(dense(a[name]), dense(b[name]), **tolerance)


NOISELESS = partial(dp_sgd_step, noise_multiplier=0, generator=seeded())


# --- DP-SGD ---------------------------------------------------------------------------


def clipped_by_hand(model, images, labels, clip_norm):
    """One victim: autograd picture by picture, clip, average."""
    parameters, shortened = list(model.parameters()), []
    for x, y in zip(images, labels, strict=True):
        slopes = torch.autograd.grad(loss(model, x[None], y[None]), parameters)
        length = torch.cat([s.flatten() for s in slopes]).norm()
        shortened.append([s * min(1.0, clip_norm / length.item()) for s in slopes])
    return [sum(parts) / len(images) for parts in zip(*shortened, strict=True)]


@pytest.mark.parametrize("make", [net, halves])
@pytest.mark.parametrize("clip_norm", [0.1, 0.8, 100.0])
def test_dp_sgd_clips_every_picture_and_averages(clip_norm, make):
    model, (images, labels) = make(), pictures()
    shared = NOISELESS(Capture(model), images, labels, clip_norm=clip_norm)
    for v in range(2):
        expected = clipped_by_hand(model, images[v], labels[v], clip_norm)
        for term, want in zip(shared.values(), expected, strict=True):
            assert_close(dense(term)[v], want)


# Its hooks sit on a first layer whose input, a picture, needs no gradient.
@pytest.mark.filterwarnings(
    "ignore:Full backward hook is firing", "ignore:Using a non-full backward hook"
)
def test_dp_sgd_without_noise_shares_what_opacus_steps_by():
    opacus = pytest.importorskip("opacus")
    from opacus.optimizers import DPOptimizer

    model, (images, labels) = net(), pictures(victims=1, batch=5)
    shared = NOISELESS(Capture(model), images, labels, clip_norm=0.5)
    wrapped = opacus.GradSampleModule(model.train())  # it looks away in eval mode
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1),
        noise_multiplier=0,
        max_grad_norm=0.5,
        expected_batch_size=5,
    )
    F.cross_entropy(wrapped(images[0]), labels[0]).backward()
    optimizer.pre_step()
    for term, parameter in zip(shared.values(), model.parameters(), strict=True):
        # Opacus divides by the norm + 1e-6.
        assert_close(dense(term)[0], parameter.grad, rtol=1e-5, atol=1e-9)


def test_the_noise_of_dp_sgd_has_the_stated_spread():
    model, (images, labels) = net(width=40), pictures(victims=3, batch=4)
    options = {"clip_norm": 0.5, "noise_multiplier": 3.0}
    noisy = dp_sgd_step(Capture(model), images, labels, **options, generator=seeded())
    quiet = NOISELESS(Capture(model), images, labels, clip_norm=0.5)
    noise = torch.cat([(noisy[n] - dense(quiet[n])).flatten() for n in quiet]).numpy()
    assert len(noise) > 8_000
    assert stats.kstest(noise, stats.norm(scale=3.0 * 0.5 / 4).cdf).pvalue > 0.01


def test_without_noise_factors_stay_and_many_pictures_give_matrices():
    capture = Capture(net())
    few = NOISELESS(capture, *pictures(batch=2), clip_norm=0.1)
    many = NOISELESS(capture, *pictures(batch=40), clip_norm=0.1)
    assert few["hidden.weight"].left.shape == (2, 2, 12)
    assert isinstance(many["hidden.weight"], torch.Tensor)
    noisy = partial(dp_sgd_step, noise_multiplier=1.0, generator=seeded())
    shared = noisy(capture, *pictures(batch=2), clip_norm=0.1)
    assert not any(isinstance(term, Outer) for term in shared.values())


def test_one_picture_more_or_less_moves_the_sum_by_the_clip_norm_at_most():
    capture, (images, labels) = Capture(net()), pictures(batch=6)
    share = partial(NOISELESS, capture, clip_norm=0.3, expected_batch_size=1)
    with_it, without = share(images, labels), share(images[:, 1:], labels[:, 1:])
    difference = Gradients({n: dense(with_it[n]) - dense(without[n]) for n in with_it})
    lengths = squared_norm(difference).sqrt()
    assert (lengths <= 0.3 + 1e-9).all()
    assert (lengths > 0.29).any()


def test_the_expected_batch_size_divides_sum_and_noise():
    images, labels = pictures(batch=4)
    share = partial(
        dp_sgd_step, Capture(net()), images, labels, clip_norm=0.3, noise_multiplier=1
    )
    actual, expected = (
        share(expected_batch_size=size, generator=seeded()) for size in (None, 10)
    )
    assert_alike(actual, Gradients({n: 2.5 * t for n, t in expected.items()}))


def test_pictures_keep_their_own_bottleneck_noise_under_dp_sgd():
    model = with_precode(net(), "fc", k=4, example=(3, 4, 4))
    images, labels = pictures()
    given = [torch.randn(6, 4, generator=seeded()).double()]
    shared = NOISELESS(Capture(model), images, labels, clip_norm=1e6, noise=given)
    assert_alike(shared, Capture(model)(images, labels, noise=given))


def test_dp_sgd_takes_probabilities_and_lets_an_attacker_differentiate():
    images, labels = pictures()
    soft = F.one_hot(labels, 3).double()
    share = partial(NOISELESS, Capture(net()), clip_norm=0.1)
    assert_alike(share(images, soft), share(images, labels))
    guess = images.clone().requires_grad_()
    slope = torch.autograd.grad(squared_norm(share(guess, labels)).sum(), guess)[0]
    assert (slope != 0).any()


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def test_dp_sgd_refuses_a_model_that_mixes_its_batch_by_hand():
    model = nn.Sequential(Centred(), nn.Flatten(), nn.LazyLinear(3))
    images, labels = pictures()
    model.to(images)(images[0])
    with pytest.raises(ValueError, match="mixes its batch"):
        NOISELESS(Capture(model), images, labels, clip_norm=1.0)


def test_dp_sgd_refuses_a_model_that_normalises_over_its_batch():
    model, (images, labels) = net(norm=True), pictures()
    NOISELESS(Capture(model), images, labels, clip_norm=1.0)
    with pytest.raises(ValueError, match=r"group norm, or model\.eval"):
        NOISELESS(Capture(model.train()), images, labels, clip_norm=1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clip_norm": 0.0}, ValueError, "clip_norm must be in"),
        ({"noise_multiplier": -1.0}, ValueError, "noise_multiplier"),
        ({"generator": None}, TypeError, "torch.Generator"),
        ({"expected_batch_size": 0}, ValueError, "expected_batch_size"),
    ],
)
def test_dp_sgd_refuses_bad_options(options, error, message):
    good = {"clip_norm": 1.0, "noise_multiplier": 1.0, "generator": seeded()}
    with pytest.raises(error, match=message):
        dp_sgd_step(Capture(net()), *pictures(), **{**good, **options})
    with pytest.raises(ValueError, match="victims x pictures"):
        dp_sgd_step(Capture(net()), *(t[0] for t in pictures()), **good)


# --- epsilon --------------------------------------------------------------------------


def gaussian_epsilon(std, delta):
    """Of one Gaussian mechanism of sensitivity 1, exactly (Balle & Wang 2018)."""

    def excess(value):
        upper = stats.norm.cdf(0.5 / std - value * std)
        lower = stats.norm.logcdf(-0.5 / std - value * std)
        return upper - math.exp(value + lower) - delta

    return optimize.brentq(excess, 0, 100)


# Opacus takes log 0 where nothing is sampled, and bounds its grid by a rough first RDP.
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:Optimal order")
@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (5.0, 10), (20.0, 100)])
def test_epsilon_without_sampling_is_that_of_the_gaussian_mechanism(sigma, steps):
    accountants = pytest.importorskip("opacus.accountants")
    exact = gaussian_epsilon(sigma / steps**0.5, 1e-5)
    spent = partial(epsilon, sigma, sample_rate=1.0, steps=steps, delta=1e-5)
    assert exact <= spent(accountant=accountants.PRVAccountant) < exact + 0.03
    assert exact <= spent() < 1.15 * exact


# noise, epochs and epsilon of DP-SGD on MNIST in batches of 256, delta 1e-5, from the
# README of TensorFlow Privacy's tutorials; its older conversion is less tight.
PUBLISHED = [(1.3, 15, 1.19), (1.1, 60, 3.01), (0.7, 45, 7.10)]


@pytest.mark.parametrize(("sigma", "epochs", "published"), PUBLISHED)
def test_epsilon_is_opacus_own_and_close_below_the_published(sigma, epochs, published):
    accountants = pytest.importorskip("opacus.accountants")
    steps, rate = epochs * 60_000 // 256, 256 / 60_000
    spent = epsilon(sigma, sample_rate=rate, steps=steps, delta=1e-5)
    assert 0.8 * published < spent < published
    own = accountants.RDPAccountant()
    for _ in range(steps):
        own.step(noise_multiplier=sigma, sample_rate=rate)
    assert spent == own.get_epsilon(delta=1e-5)


def test_epsilon_is_infinite_without_noise_and_zero_before_the_first_step():
    spent = partial(epsilon, sample_rate=0.1, delta=1e-5)
    assert spent(0, steps=1) == math.inf
    assert spent(0, steps=0) == spent(1.0, steps=0) == 0


def test_a_missing_opacus_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(ImportError, match=r"precode-lib\[dp\]"):
        epsilon(1.0, sample_rate=0.1, steps=1, delta=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"noise_multiplier": -1}, ValueError, "noise_multiplier"),
        ({"sample_rate": 0}, ValueError, "sample_rate"),
        ({"sample_rate": 1.5}, ValueError, r"^sample_rate must be in \(0, 1\]"),
        ({"steps": 1.5}, TypeError, "steps"),
        ({"steps": -1}, ValueError, "steps"),
        ({"delta": 0}, ValueError, "delta"),
        ({"delta": 1}, ValueError, "delta"),
    ],
)
def test_epsilon_refuses_what_is_no_dp_sgd(change, error, message):
    good = {"noise_multiplier": 1, "sample_rate": 0.1, "steps": 1, "delta": 1e-5}
    with pytest.raises(error, match=message):
        epsilon(**{**good, **change})


# --- Soteria --------------------------------------------------------------------------


def scores_by_hand(features_of, images):
    """numpy over torch.func's Jacobians of one victim's pictures: (F,)."""
    total = 0
    for x in images:
        slopes = torch.func.jacrev(lambda x: features_of(x[None])[0])(x)
        features = features_of(x[None])[0].detach().numpy()
        total += slopes.flatten(1).norm(dim=1).detach().numpy() / (abs(features) + 0.1)
    return total


@pytest.mark.parametrize("percentile", [1, 37.5, 60, 100])
@pytest.mark.parametrize("batch", [1, 4])
def test_soteria_zeroes_the_columns_of_the_smallest_scores(percentile, batch):
    model, (images, labels) = net(), pictures(batch=batch)
    capture = Capture(model)
    exact = capture(images, labels)
    step = partial(soteria_step, layer="fc", percentile=percentile)
    shared = step(capture, images, labels)
    for v in range(2):
        scores = scores_by_hand(model.features, images[v])
        kept = scores >= np.percentile(scores, percentile)
        assert kept.sum() == 12 - math.ceil(percentile / 100 * 11)
        expected = dense(exact["fc.weight"])[v] * torch.from_numpy(kept)
        assert_close(dense(shared["fc.weight"])[v], expected)
    assert_alike(shared.drop("fc.weight"), exact.drop("fc.weight"))


def test_soteria_scores_feature_by_feature_as_all_at_once(monkeypatch):
    step = partial(soteria_step, layer="fc", percentile=50)
    at_once = step(Capture(net()), *pictures())
    monkeypatch.setattr(soteria, "FEATURE_BYTES", 1)
    assert_alike(step(Capture(net()), *pictures()), at_once)


def test_soteria_at_percentile_0_changes_nothing_and_factors_stay():
    capture, (images, labels) = Capture(net()), pictures(batch=1)
    exact = capture(images, labels)
    step = partial(soteria_step, capture, images, labels, layer="hidden")
    assert_alike(step(percentile=0), exact)
    shared = step(percentile=50)["hidden.weight"]
    assert isinstance(shared, Outer)
    assert (shared.right == 0).all(1).sum(1).tolist() == [32, 32]


class Dropping(nn.Module):
    """hidden → dropout → linear, with a parameter that no rule covers if `scaled`."""

    def __init__(self, scaled=False):
        super().__init__()
        self.hidden, self.fc = nn.Linear(48, 40), nn.Linear(40, 3)
        self.scale = nn.Parameter(torch.ones(40)) if scaled else 1.0

    def forward(self, images):
        features = self.hidden(images.flatten(1)) * self.scale
        return self.fc(F.dropout(features, 0.25, training=self.training))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("has_bottleneck", [False, True])
def test_soteria_scores_the_features_that_dropout_leaves_in(scaled, has_bottleneck):
    torch.manual_seed(0)
    model = Dropping(scaled).double().train()
    layer = "fc"
    if has_bottleneck:
        model = with_precode(model, "hidden", k=4, example=(3, 4, 4)).double().train()
    images, labels = pictures(victims=3, batch=1)
    step = partial(soteria_step, Capture(model), layer=layer, percentile=60)
    found = [dense(step(images, labels)["fc.weight"]) for _ in range(2)]
    for gradient in found:
        # 16 of 40 have a score above the limit; those that are out have none.
        assert (gradient.abs().sum(1) > 0).sum(1).tolist() == [16] * 3
    assert not torch.equal(*(gradient != 0 for gradient in found))  # other masks


def test_soteria_on_a_bottleneck_scores_and_shares_under_one_noise():
    model = with_precode(net(), "fc", k=4, example=(3, 4, 4))
    images, labels = pictures()
    capture, noise = Capture(model), [torch.randn(6, 4, generator=seeded()).double()]
    step = partial(soteria_step, capture, images, labels)
    step = partial(step, layer="fc.layer", percentile=50)
    exact, shared = capture(images, labels, noise=noise), step(noise=noise)
    assert_alike(shared.drop("fc.layer.weight"), exact.drop("fc.layer.weight"))
    for v in range(2):
        with noise_from([noise[0][3 * v : 3 * v + 3]]):
            x = images[v].clone().requires_grad_()
            features = model.fc.bottleneck(model.features(x))
        slopes = [
            torch.autograd.grad(f.sum(), x, retain_graph=True)[0].flatten(1).norm(dim=1)
            for f in features.unbind(1)
        ]
        scores = (torch.stack(slopes, 1) / (features.abs() + 0.1)).sum(0).detach()
        assert (features < 0).any()  # where the released code would divide by 0 or less
        kept = scores.numpy() >= np.percentile(scores.numpy(), 50)
        expected = dense(exact["fc.layer.weight"])[v] * torch.from_numpy(kept)
        assert_close(dense(shared["fc.layer.weight"])[v], expected)
    assert_alike(step(noise=seeded()), step(noise=seeded()))
    torch.manual_seed(3)
    first = step()
    torch.manual_seed(3)
    assert_alike(first, step())


def test_soteria_lets_every_victim_normalise_its_own_batch():
    model = with_precode(net(norm=True), "fc", k=4, example=(3, 4, 4)).train()
    images, labels = pictures(victims=3)
    noise = [torch.randn(9, 4, generator=seeded()).double()]
    before = {name: b.clone() for name, b in model.named_buffers()}
    step = partial(soteria_step, Capture(model), layer="hidden", percentile=50)
    together = step(images, labels, noise=noise)
    for v in range(3):
        own = [noise[0][3 * v : 3 * v + 3]]
        alone = step(images[v : v + 1], labels[v : v + 1], noise=own)
        assert_alike(together.take(slice(v, v + 1)), alone)
    first, again = (step(images, labels, noise=seeded()) for _ in range(2))
    assert_alike(first, again)
    assert all(torch.equal(before[n], b) for n, b in model.named_buffers())


def test_soteria_leaves_the_model_as_it_was_also_after_an_error():
    class Twice(Net):
        def forward(self, images):
            return self.fc(self.features(images)) + self.fc(self.features(-images))

    torch.manual_seed(0)
    model = Twice().double()
    step = partial(soteria_step, Capture(model), *pictures(), percentile=50)
    with pytest.raises(ValueError, match=r"must run once, on features \(N, F\)"):
        step(layer="fc")
    assert not model.fc._forward_pre_hooks
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "fd"}, r"no such 'fd'.*Did you mean 'fc'"),
        ({"layer": "conv"}, "Linear"),
        ({"layer": "hidden"}, "frozen"),
        ({"percentile": 101}, "60 drops 60 %"),
        ({"percentile": -1}, "percentile"),
    ],
)
def test_soteria_refuses_bad_options(options, message):
    model = net()
    model.hidden.weight.requires_grad_(False)
    good = {"layer": "fc", "percentile": 60}
    with pytest.raises(ValueError, match=message):
        soteria_step(Capture(model), *pictures(), **{**good, **options})


def test_soteria_refuses_a_layer_that_sees_tokens():
    class Tokens(Net):
        def features(self, images):
            return self.hidden(images.flatten(2).repeat(1, 1, 4)).mean(1)

    torch.manual_seed(0)
    step = partial(soteria_step, Capture(Tokens().double()), *pictures())
    with pytest.raises(ValueError, match=r"\(6, 3, 64\)"):
        step(layer="hidden", percentile=50)


# --- PPP ------------------------------------------------------------------------------


def test_ppp_perturbs_what_is_before_the_bottleneck_and_nothing_else():
    model = with_precode(net(), "fc", k=4, example=(3, 4, 4))
    images, labels = pictures(batch=1)
    first = {"conv.weight", "conv.bias", "hidden.weight", "hidden.bias"}
    assert set(before_bottleneck(model, images[0])) == first
    exact = Capture(model)(images, labels, noise=seeded())
    shared = ppp(model, images[0], 0.1, generator=seeded())(exact)
    assert list(shared) == list(exact)
    for name in exact:
        same = torch.equal(dense(shared[name]), dense(exact[name]))
        assert same == (name not in first)
    assert isinstance(shared["fc.layer.weight"], Outer)
    noise = add_noise(exact.select("conv.*", "hidden.*"), 0.1, generator=seeded())
    assert_alike(shared.select("conv.*", "hidden.*"), noise)


def test_of_several_bottlenecks_the_first_that_runs_counts():
    model = with_precode(net(), ["fc", "hidden"], k=4, example=(3, 4, 4))
    found = before_bottleneck(model, pictures()[0][0])
    assert found == ("conv.weight", "conv.bias")
    early = with_cvb(net(), after="conv", example=(3, 4, 4))
    found = before_bottleneck(early, pictures()[0][0])
    assert found == ("conv.layer.weight", "conv.layer.bias")


def test_looking_for_the_bottleneck_leaves_no_trace():
    model = with_precode(net(norm=True), "fc", k=4, example=(3, 4, 4)).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    with recorded_noise() as drawn, torch.no_grad():
        before_bottleneck(model, pictures()[0][0])
    assert not drawn
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert model.training
    assert not model.fc.bottleneck._forward_pre_hooks


def test_ppp_needs_a_bottleneck_with_something_before_it():
    images = pictures()[0][0]
    with pytest.raises(ValueError, match="with_precode"):
        before_bottleneck(net(), images)
    at_picture = with_precode(net(), before="conv", k=4, example=(3, 4, 4))
    with pytest.raises(ValueError, match="no trained parameter lies before"):
        ppp(at_picture, images, 0.1, generator=seeded())
    asleep = net()
    asleep.spare = VariationalBottleneck(3, k=2)
    with pytest.raises(ValueError, match="never runs"):
        before_bottleneck(asleep, images)
    with pytest.raises(ValueError, match="std"):
        ppp(at_picture, images, -1, generator=seeded())


# --- observing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_step",
    [
        lambda: partial(soteria_step, layer="fc", percentile=50),
        lambda: partial(
            dp_sgd_step, clip_norm=0.1, noise_multiplier=1.0, generator=seeded()
        ),
    ],
)
def test_observing_in_chunks_shows_what_observing_at_once_shows(monkeypatch, make_step):
    model, (images, labels) = net(), pictures(victims=5)
    at_once = observe(model, images, labels, client_step=make_step())
    monkeypatch.setattr(observing, "WIRE_BYTES", 1)
    in_chunks = observe(model, images, labels, client_step=make_step())
    assert_alike(in_chunks.shared, at_once.shared)
    assert_alike(at_once.shared, make_step()(Capture(model), images, labels))


def test_a_defense_follows_the_client_step_and_noiseless_steps_stay_factored():
    model, (images, labels) = net(), pictures(batch=1)
    step = partial(NOISELESS, clip_norm=0.1)
    share = step(Capture(model), images, labels)
    seen = observe(model, images, labels, client_step=step)
    assert isinstance(seen.shared["hidden.weight"], Outer)
    assert_alike(seen.shared, share)
    pruned = partial(prune, ratio=0.5)
    seen = observe(model, images, labels, client_step=step, defense=pruned)
    assert_alike(seen.shared, prune(share, 0.5))


def test_clipping_shows_as_factors_and_withheld_parameters_do_not_show():
    model, (images, labels) = net(), pictures(batch=1)
    defense = partial(clip, max_norm=0.1)
    seen = observe(model, images, labels, defense=defense)
    assert isinstance(seen.shared["hidden.weight"], Outer)
    seen = observe(model, images, labels, defense=lambda g: g.drop("hidden.*"))
    assert list(seen.shared) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]


def test_a_client_step_knows_no_local_training():
    step = partial(soteria_step, layer="fc", percentile=50)
    local = LocalTraining(steps=2, lr=0.1)
    with pytest.raises(ValueError, match="client_step"):
        observe(net(), *pictures(), client_step=step, local=local)
