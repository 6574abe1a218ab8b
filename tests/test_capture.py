"""Vectorised gradients against ordinary autograd, one victim at a time, in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from precode_lib.bottleneck import (
    VariationalBottleneck,
    kl_terms,
    loss,
    noise_from,
    per_example_loss,
    recorded_noise,
)
from precode_lib.gradients import (
    Capture,
    Outer,
    cosine_similarity,
    linear_rule,
    squared_distance,
    victim_gradients,
)
from precode_lib.gradients.layers import rule_for

TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def one_by_one(model, images, labels, noise=None, create_graph=False):
    """The oracle: plain `autograd.grad` of the one loss, dense, victim by victim."""
    parameters = dict(model.named_parameters())
    rows = []
    for v, (x, y) in enumerate(zip(images, labels, strict=True)):
        given_noise = [n[v] for n in noise] if noise else torch.zeros_like
        with noise_from(given_noise):
            value = loss(model, x, y)
        rows.append(
            torch.autograd.grad(
                value,
                list(parameters.values()),
                create_graph=create_graph,
                materialize_grads=True,
            )
        )
    return {n: torch.stack(t) for n, *t in zip(parameters, *rows, strict=True)}


def assert_agrees(model, images, labels, noise=None):
    flat = [n.flatten(0, 1) for n in noise] if noise else torch.zeros_like
    found = victim_gradients(model, images, labels, noise=flat)
    expected = one_by_one(model, images, labels, noise)
    assert list(found) == list(expected)
    for name, term in found.dense().items():
        assert_close(term, expected[name], **TIGHT, msg=lambda m, n=name: f"{n}: {m}")
    return found


def pictures(victims, batch, *shape, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(victims, batch, *shape, generator=generator).double()
    labels = torch.randint(classes, (victims, batch), generator=generator)
    return images, labels


def linear_net(features, hidden, bias, activation):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, hidden, bias=bias),
        activation(),
        nn.Linear(hidden, 3),
    ).double()


ACTIVATIONS = st.sampled_from([nn.Sigmoid, nn.ReLU, nn.Tanh, nn.GELU])


@settings(max_examples=25)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 20), st.booleans(), ACTIVATIONS
)
def test_linear_layers_agree_with_autograd(victims, batch, hidden, bias, activation):
    torch.manual_seed(0)
    model = linear_net(2 * 4 * 4, hidden, bias, activation)
    assert_agrees(model, *pictures(victims, batch, 2, 4, 4))


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 2]))
    padding = draw(st.sampled_from([0, 1, (2, 1), "same"]))
    return {
        "in_channels": 2,
        "out_channels": 2 * draw(st.integers(1, 2)),
        # An even kernel under "same" makes PyTorch warn about its copy.
        "kernel_size": 3 if padding == "same" else draw(st.sampled_from([1, (3, 2)])),
        "stride": 1 if padding == "same" else draw(st.sampled_from([1, 2, (1, 3)])),
        "padding": padding,
        "dilation": draw(st.sampled_from([1, 2])),
        "groups": groups,
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(["zeros", "zeros", "reflect"])),
    }


def conv_net(options, size=7):
    layers = [nn.Conv2d(2, 2, 3, padding=1), nn.Sigmoid(), nn.Conv2d(**options)]
    body = nn.Sequential(*layers, nn.Sigmoid(), nn.Flatten())
    width = body(torch.zeros(1, 2, size, size)).shape[1]
    return nn.Sequential(body, nn.Linear(width, 3)).double()


@settings(max_examples=40)
@given(convolutions(), st.integers(1, 3), st.integers(1, 3))
def test_convolutions_of_any_geometry_agree_with_autograd(options, victims, batch):
    torch.manual_seed(0)
    assert_agrees(conv_net(options), *pictures(victims, batch, 2, 7, 7))


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("padding", [0, "same"])
def test_a_convolution_of_few_positions_stays_factored(padding, padding_mode):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 30, 3, dilation=2, padding=padding, padding_mode=padding_mode)
    size = 4 if padding else 6
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Tanh(), layer, nn.Tanh(), nn.Flatten())
    width = model(torch.zeros(1, 2, size, size)).shape[1]
    model = nn.Sequential(model, nn.Linear(width, 3)).double()
    found = assert_agrees(model, *pictures(3, 1, 2, size, size))
    assert isinstance(found["0.2.weight"], Outer)
    images, labels = pictures(2, 1, 2, size, size)
    target = victim_gradients(model, *pictures(2, 1, 2, size, size, seed=1))
    x = images.clone().requires_grad_()
    distance = squared_distance(victim_gradients(model, x, labels), target)
    (slope,) = torch.autograd.grad(distance.sum(), x)
    expected = dense_slope(model, images, labels, target, squared_distance)
    assert_close(slope, expected, **TIGHT)


@settings(max_examples=20)
@given(convolutions(), st.integers(1, 2))
def test_objectives_have_the_same_slope_with_respect_to_the_pictures(options, batch):
    torch.manual_seed(0)
    model = conv_net(options)
    images, labels = pictures(2, batch, 2, 7, 7)
    target = victim_gradients(model, *pictures(2, batch, 2, 7, 7, seed=1))
    for objective in (cosine_similarity, squared_distance):
        x = images.clone().requires_grad_()
        found = victim_gradients(model, x, labels)
        (slope,) = torch.autograd.grad(objective(found, target).sum(), x)
        expected = dense_slope(model, images, labels, target, objective)
        assert_close(slope, expected, **TIGHT)


def dense_slope(model, images, labels, target, objective):
    x = images.clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
        candidate = one_by_one(model, x, labels, create_graph=True)
    a = torch.cat([t.flatten(1) for t in candidate.values()], 1)
    b = torch.cat([t.flatten(1) for t in target.dense().values()], 1)
    if objective is cosine_similarity:
        value = F.cosine_similarity(a, b, eps=0)
    else:
        value = (a - b).square().sum(1)
    return torch.autograd.grad(value.sum(), x)[0]


# --- layers and models of every kind ------------------------------------------------


class Residual(nn.Module):
    """In-place additions and activations, as torchvision writes them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x):
        start = self.relu(self.conv(x))
        out = self.norm(self.conv(x))
        out += start
        return self.fc(self.relu(out).flatten(1))


class Token(nn.Module):
    """A learned token, attention with packed weights, and a layer norm."""

    def __init__(self, batch_first=True):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.embed = nn.Linear(12, 6)
        self.norm = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
        self.mlp = nn.Linear(6, 6)
        self.fc = nn.Linear(6, 3)
        self.batch_first = batch_first

    def forward(self, x):
        x = self.embed(x.flatten(2).transpose(1, 2).reshape(len(x), 9, 12))
        x = self.norm(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        x = x if self.batch_first else x.transpose(0, 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.mlp(x) + x
        return self.fc(x[:, 0] if self.batch_first else x[0])


class Tied(nn.Module):
    """One matrix in two layers, and one of them called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(108, 108), nn.Linear(108, 108)
        self.second.weight = self.first.weight
        self.fc = nn.Linear(108, 3)

    def forward(self, x):
        x = self.first(x.flatten(1)).sigmoid()
        return self.fc(self.second(self.second(x).sigmoid()).sigmoid())


class Borrowed(nn.Module):
    """Uses a layer's weight without calling the layer, besides calling it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(108, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return F.linear(x.flatten(1), self.body.weight) * 2


class Mirrored(nn.Module):
    """An autoencoder whose decoder is the encoder's matrix, the other way round."""

    def __init__(self):
        super().__init__()
        self.encoder, self.fc = nn.Linear(108, 6), nn.Linear(108, 3)

    def forward(self, x):
        code = self.encoder(x.flatten(1)).tanh()
        return self.fc(F.linear(code, self.encoder.weight.T))


class PartsFirst(nn.Module):
    """A layer that sees the parts of every picture, counted by its first axis."""

    def __init__(self, parts=2):
        super().__init__()
        self.parts = parts
        self.body, self.fc = nn.Linear(108 // parts, 6), nn.Linear(6, 3)

    def forward(self, x):
        parts = torch.stack(x.flatten(1).chunk(self.parts, dim=1))
        return self.fc(self.body(parts).tanh().mean(0))


class Frozen(nn.Module):
    """Layers behind which no gradient is recorded."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(108, 6), nn.Linear(6, 3)

    def forward(self, x):
        with torch.no_grad():
            features = self.body(x.flatten(1)).tanh()
        return self.fc(features)


class Centred(nn.Module):
    """Takes the batch's mean off, as a batch norm of one's own would."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(108, 6), nn.Linear(6, 3)

    def forward(self, x):
        features = self.body(x.flatten(1))
        return self.fc((features - features.mean(0)).tanh())


class Apart(nn.Module):
    """How far each picture is from the next: among equal ones, no slope tells."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(108, 6), nn.Linear(6, 3)

    def forward(self, x):
        features = self.body(x.flatten(1))
        return self.fc((features - features.roll(1, dims=0)).square())


class Table(nn.Module):
    """A layer that sees no picture but a table of its own, of few rows."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(rows, 4))
        self.body, self.fc = nn.Linear(4, 108), nn.Linear(108, 3)

    def forward(self, x):
        return self.fc(x.flatten(1) * self.body(self.rows).sum(0))


class CentredTwice(Centred):
    """Each picture's own mean is taken off too: of equal slopes it passes none on."""

    def forward(self, x):
        features = self.body(x.flatten(1))
        features = features - features.mean(0)
        return self.fc(features - features.mean(1, keepdim=True))


class Hyper(nn.Module):
    """Each picture makes the kernel that it is convolved with."""

    def __init__(self):
        super().__init__()
        self.conv, self.kernel = nn.Conv2d(3, 2, 3), nn.Linear(108, 2 * 2 * 9)
        self.fc = nn.Linear(2 * 4, 3)

    def forward(self, x):
        maps = self.conv(x).tanh().flatten(0, 1)[None]
        kernels = self.kernel(x.flatten(1)).view(-1, 2, 3, 3)
        maps = F.conv2d(maps, kernels, groups=len(x))
        return self.fc(maps.view(len(x), -1).tanh())


def doubled():
    """One layer was given another forward, its class was not."""
    model = linear_net(108, 5, True, nn.Tanh)
    plain = model[1].forward
    model[1].forward = lambda x: plain(x) * x.mean(1, keepdim=True)
    return model


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1) * 1.5)

    def forward(self, x):
        return x * self.scale


def norm_net(norm):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)
    )


MODELS = {
    "in-place": Residual,
    "token": Token,
    "sequence first": lambda: Token(batch_first=False),
    "tied": Tied,
    "borrowed": Borrowed,
    "mirrored": Mirrored,
    "halves first": PartsFirst,
    "thirds first": lambda: PartsFirst(3),
    "no gradient": Frozen,
    "centred": Centred,
    "centred twice": CentredTwice,
    "apart": Apart,
    "table of two": lambda: Table(2),
    "table of three": lambda: Table(3),
    "hyper": Hyper,
    "doubled": doubled,
    "custom": lambda: nn.Sequential(Scaled(), nn.Flatten(), nn.Linear(108, 3)),
    "batch norm": lambda: norm_net(nn.BatchNorm2d(4)),
    "group norm": lambda: norm_net(nn.GroupNorm(2, 4)),
    "layer norm": lambda: norm_net(nn.LayerNorm([4, 4])),
    "instance norm": lambda: norm_net(nn.InstanceNorm2d(4, affine=True)),
    "flat batch norm": lambda: nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(108), nn.Linear(108, 3)
    ),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_models_of_every_kind_agree_with_autograd(make, batch):
    torch.manual_seed(0)
    model = make().double().eval()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)  # running statistics that matter
    for victims in (1, 2, 3):
        assert_agrees(model, *pictures(victims, batch, 3, 6, 6))


SLOPED = [Residual, Token, Tied, Mirrored, PartsFirst, Centred, Hyper]


@pytest.mark.parametrize("make", SLOPED)
def test_slopes_agree_for_models_of_every_kind(make):
    torch.manual_seed(0)
    model = make().double().eval()
    images, labels = pictures(2, 2, 3, 6, 6)
    target = victim_gradients(model, *pictures(2, 2, 3, 6, 6, seed=1))
    x = images.clone().requires_grad_()
    objective = squared_distance(victim_gradients(model, x, labels), target)
    (slope,) = torch.autograd.grad(objective.sum(), x)
    expected = dense_slope(model, images, labels, target, squared_distance)
    assert_close(slope, expected, rtol=1e-8, atol=1e-10)


def test_frozen_parameters_have_no_gradient():
    model = linear_net(12, 5, True, nn.Tanh)
    model[1].weight.requires_grad_(False)
    found = victim_gradients(model, *pictures(2, 1, 3, 2, 2))
    assert list(found) == ["1.bias", "3.weight", "3.bias"]
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter"):
        Capture(model)


def test_what_is_frozen_or_unfrozen_later_counts_at_the_next_call():
    model = linear_net(12, 5, True, nn.Tanh)
    images, labels = pictures(2, 2, 3, 2, 2)
    expected = one_by_one(model, images, labels)
    model[1].requires_grad_(False)
    capture = Capture(model)
    assert list(capture(images, labels)) == ["3.weight", "3.bias"]
    model.requires_grad_(True)
    found = capture(images, labels).dense()
    assert list(found) == capture.names == [*expected]
    for name, term in found.items():
        assert_close(term, expected[name])
    model[3].requires_grad_(False)
    assert list(capture(images, labels)) == ["1.weight", "1.bias"]
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter"):
        capture(images, labels)


def test_layers_behind_frozen_ones_are_served():
    model = linear_net(12, 5, True, nn.Tanh)
    model[1].requires_grad_(False)
    model[3].bias.requires_grad_(False)
    images, labels = pictures(2, 2, 3, 2, 2)
    found = victim_gradients(model, images, labels).dense()
    assert list(found) == ["3.weight"]
    model.requires_grad_(True)
    assert_close(found["3.weight"], one_by_one(model, images, labels)["3.weight"])


def test_a_penalty_on_a_weight_counts():
    def penalised(model, images, labels):
        return per_example_loss(model, images, labels) + model[1].weight.square().sum()

    model = linear_net(12, 5, True, nn.Tanh)
    images, labels = pictures(2, 2, 3, 2, 2)
    found = victim_gradients(model, images, labels, loss=penalised).dense()
    expected = one_by_one(model, images, labels)
    expected["1.weight"] += 2 * model[1].weight.detach()
    for name, term in expected.items():
        assert_close(found[name], term, **TIGHT)


def test_a_layer_with_a_forward_of_its_own_has_no_rule():
    assert rule_for(nn.Linear(2, 2)) is not None
    assert rule_for(Doubled(2, 2)) is None
    model = nn.Sequential(nn.Flatten(), Doubled(12, 3)).double()
    assert_agrees(model, *pictures(2, 2, 3, 2, 2))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def doubled_rule(layer, x, delta, num_victims):
    return linear_rule(layer, x, 2 * delta, num_victims)


def scaled_rule(layer, x, delta, num_victims):
    products = (x * delta).flatten(2).sum(2)
    return {"scale": products.view(num_victims, -1, 3, 1, 1).sum(1)}


OWN = {Doubled: doubled_rule, Scaled: scaled_rule}


def own_layers():
    torch.manual_seed(0)
    layers = nn.Flatten(), Doubled(108, 20), nn.Tanh(), nn.Linear(20, 3)
    return nn.Sequential(Scaled(), *layers).double()


@pytest.mark.parametrize("batch", [1, 2])
def test_a_rule_from_outside_gives_the_same_gradients_and_factors(batch):
    model, (images, labels) = own_layers(), pictures(3, batch, 3, 6, 6)
    plain, own = Capture(model), Capture(model, rules=OWN)
    expected, found = plain(images, labels), own(images, labels)
    assert isinstance(found["2.weight"], Outer)
    assert not isinstance(expected["2.weight"], Outer)
    assert list(found) == list(expected)
    for name, term in found.dense().items():
        assert_close(term, expected.dense()[name], **TIGHT)


def test_a_rule_from_outside_is_followed_without_a_second_pass(monkeypatch):
    capture = Capture(own_layers(), rules=OWN)
    monkeypatch.setattr(capture, "_dense", None)  # cannot be called
    capture(*pictures(2, 1, 3, 6, 6))


def test_slopes_flow_through_a_rule_from_outside():
    model, (images, labels) = own_layers(), pictures(2, 2, 3, 6, 6)
    target = victim_gradients(model, *pictures(2, 2, 3, 6, 6, seed=1))
    x = images.clone().requires_grad_()
    objective = squared_distance(Capture(model, rules=OWN)(x, labels), target)
    (slope,) = torch.autograd.grad(objective.sum(), x)
    expected = dense_slope(model, images, labels, target, squared_distance)
    assert_close(slope, expected, rtol=1e-8, atol=1e-10)


def test_a_rule_from_outside_goes_before_the_librarys_own():
    def nothing(layer, x, delta, num_victims):
        terms = linear_rule(layer, x, 0 * delta, num_victims)
        return {role: term for role, term in terms.items() if role == "bias"}

    model = linear_net(12, 5, True, nn.Tanh)
    images, labels = pictures(2, 1, 3, 2, 2)
    found = Capture(model, rules={nn.Linear: nothing})(images, labels).dense()
    assert (found["1.bias"] == 0).all()
    # What a rule leaves out is taken the slow way.
    assert_close(
        found["1.weight"], victim_gradients(model, images, labels).dense()["1.weight"]
    )


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ({Scaled: lambda layer, x: {}}, TypeError, "a rule must take .layer, x, delta"),
        ({"Scaled": scaled_rule}, TypeError, "classes of layers, got one for 'Scaled'"),
        (
            {Scaled: lambda *given: {"scales": given[2]}},
            ValueError,
            "rule of Scaled answers for 'scales'.* Did you mean 'scale'",
        ),
        (
            {Scaled: lambda *given: {"scale": given[2].sum((0, 2, 3))}},
            ValueError,
            r"give 'scale' of 2 victims as \(2, 3, 1, 1\), got \(3,\)",
        ),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(rules, error, message):
    with pytest.raises(error, match=message):
        Capture(own_layers(), rules=rules)(*pictures(2, 1, 3, 6, 6))


def test_one_picture_through_linear_layers_stays_factored():
    model = linear_net(48, 20, True, nn.ReLU)
    found = victim_gradients(model, *pictures(4, 1, 3, 4, 4))
    assert isinstance(found["1.weight"], Outer)
    assert found["1.weight"].right.shape == (4, 1, 48)
    big = victim_gradients(model, *pictures(2, 30, 3, 4, 4))
    assert not isinstance(big["1.weight"], Outer)  # 30 (20 + 48) > 20 * 48


# --- randomness and modes ------------------------------------------------------------


def bottleneck_net(extra=()):
    torch.manual_seed(0)
    body = nn.Flatten(), *extra, nn.Linear(108, 6), VariationalBottleneck(6, k=4)
    return nn.Sequential(*body, nn.Tanh(), nn.Linear(6, 3)).double()


@pytest.mark.parametrize("scaled", [False, True], ids=["ruled", "with a custom layer"])
def test_a_bottleneck_uses_the_given_noise_and_its_kl_counts(generator, scaled):
    model = bottleneck_net()
    model = nn.Sequential(Scaled(), model).double() if scaled else model
    images, labels = pictures(3, 2, 3, 6, 6)
    noise = [torch.randn(3, 2, 4, generator=generator).double()]
    found = assert_agrees(model, images, labels, noise)
    model_beta = [m for m in model.modules() if isinstance(m, VariationalBottleneck)]
    model_beta[0].beta = 0.0
    flat = [noise[0].flatten(0, 1)]
    without = victim_gradients(model, images, labels, noise=flat)
    name = next(n for n in found if n.endswith("encoder.bias"))
    assert (found[name] - without[name]).abs().max() > 1e-6


def test_both_passes_see_the_same_noise():
    model = nn.Sequential(Scaled(), bottleneck_net()).double()
    images, labels = pictures(2, 1, 3, 6, 6)
    seeded = torch.Generator().manual_seed(5)
    found = victim_gradients(model, images, labels, noise=seeded)
    noise = torch.randn(2, 4, generator=torch.Generator().manual_seed(5)).double()
    redrawn = victim_gradients(model, images, labels, noise=[noise])
    if torch.equal(found["1.1.bias"], redrawn["1.1.bias"]):
        assert_close(found["0.scale"], redrawn["0.scale"])
    else:  # the generator draws in float64 directly
        noise = torch.randn(
            2, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64
        )
        redrawn = victim_gradients(model, images, labels, noise=[noise])
        assert_close(found["0.scale"], redrawn["0.scale"])
        assert_close(found["1.1.bias"], redrawn["1.1.bias"])


@pytest.mark.parametrize("scaled", [False, True], ids=["ruled", "with a custom layer"])
def test_who_listens_hears_each_noise_once(scaled):
    model = bottleneck_net()
    model = nn.Sequential(Scaled(), model).double() if scaled else model
    images, labels = pictures(3, 2, 3, 6, 6)
    with recorded_noise() as noise, kl_terms() as terms:
        found = victim_gradients(model, images, labels).dense()
    assert [len(n) for n in noise] == [len(t) for t in terms] == [6]
    again = victim_gradients(model, images, labels, noise=noise).dense()
    for name, term in found.items():
        assert torch.equal(term, again[name])


def test_training_mode_normalises_each_victims_own_batch():
    torch.manual_seed(0)
    model = norm_net(nn.BatchNorm2d(4)).double().train()
    before = copy.deepcopy(model.state_dict())
    images, labels = pictures(3, 4, 3, 6, 6)
    found = victim_gradients(model, images, labels)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    for name, term in one_by_one(model, images, labels).items():
        assert_close(found.dense()[name], term, **TIGHT)


def test_statistics_that_are_not_tracked_are_the_batchs_own():
    torch.manual_seed(0)
    model = norm_net(nn.BatchNorm2d(4, track_running_stats=False)).double().eval()
    assert_agrees(model, *pictures(3, 4, 3, 6, 6))


class FunctionalDropout(nn.Module):
    def forward(self, x):
        return F.dropout(x, training=self.training)


@pytest.mark.parametrize("dropout", [nn.Dropout, FunctionalDropout])
@pytest.mark.parametrize("custom", [False, True])
def test_dropout_drops_the_same_units_for_every_parameter(custom, dropout):
    torch.manual_seed(0)
    first = Scaled() if custom else nn.Identity()
    layers = nn.Flatten(), nn.Linear(108, 50), dropout(), nn.Linear(50, 3)
    model = nn.Sequential(first, *layers).double().train()
    found = victim_gradients(model, *pictures(2, 1, 3, 6, 6)).dense()
    dropped = (found["4.weight"] == 0).all(1)  # columns of dropped units
    assert 0 < dropped.sum() < dropped.numel()
    assert torch.equal(dropped, found["2.bias"] == 0)
    if custom:  # the custom layer's slope is made of the units that were kept
        weight, bias = model[2].weight.detach(), found["2.bias"]
        images, _ = pictures(2, 1, 3, 6, 6)
        expected = (bias @ weight).view(2, 3, 36) * images.view(2, 3, 36)
        assert_close(found["0.scale"].flatten(1), expected.sum(2))


def test_without_gradients_wanted_there_is_no_graph():
    model = linear_net(12, 5, True, nn.Tanh)
    images, labels = pictures(2, 1, 3, 2, 2)
    found = victim_gradients(model, images, labels)
    assert not any(t.requires_grad for t in found.dense().values())
    with torch.no_grad():
        images.requires_grad_()
        assert not victim_gradients(model, images, labels)["1.bias"].requires_grad
    assert victim_gradients(model, images, labels)["1.bias"].requires_grad
    fixed = victim_gradients(model, images, labels, create_graph=False)
    assert not fixed["1.bias"].requires_grad


def test_probabilities_serve_as_labels_and_can_be_differentiated():
    model = linear_net(12, 5, True, nn.Tanh)
    images, labels = pictures(2, 2, 3, 2, 2)
    soft = F.one_hot(labels, 3).double().requires_grad_()
    found = victim_gradients(model, images, soft)
    hard = victim_gradients(model, images, labels)
    assert_close(found.dense()["1.weight"], hard.dense()["1.weight"])
    (slope,) = torch.autograd.grad(found["1.bias"].square().sum(), soft)
    assert slope.abs().max() > 0


# --- what it leaves behind -----------------------------------------------------------


def hooks_of(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_the_model_its_hooks_modes_and_grads_stay_as_they_were():
    torch.manual_seed(0)
    model = Residual().double().train()
    model.fc.register_forward_hook(lambda *_: None)
    before, hooks = copy.deepcopy(model.state_dict()), hooks_of(model)
    rng = torch.get_rng_state()
    capture = Capture(model)
    capture(*pictures(2, 2, 3, 6, 6))
    assert capture.activation_bytes(*pictures(2, 2, 3, 6, 6)) > 0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert hooks_of(model) == hooks
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training
    assert torch.equal(torch.get_rng_state(), rng)


def test_an_error_on_the_way_leaves_no_hooks_behind():
    model = linear_net(12, 5, True, nn.Tanh)
    hooks = hooks_of(model)
    images, labels = pictures(2, 1, 3, 2, 2)
    capture = Capture(model)
    capture(images, labels)
    with pytest.raises((IndexError, ValueError)):
        capture(images, labels + 7)
    with pytest.raises((RuntimeError, ValueError)):
        capture(images[..., :1], labels)
    assert hooks_of(model) == hooks


def test_activation_bytes_grow_with_the_batch():
    capture = Capture(linear_net(12, 5, True, nn.Tanh))
    # Two linear layers: 12 -> 5 -> 3 numbers in and out, 8 bytes each.
    assert capture.activation_bytes(*pictures(4, 1, 3, 2, 2)) == (12 + 5 + 5 + 3) * 8
    assert capture.activation_bytes(*pictures(4, 3, 3, 2, 2)) == 3 * 25 * 8


def test_a_loss_that_averages_is_refused():
    with pytest.raises(ValueError, match=r"one number per example, \(2,\)"):
        victim_gradients(
            linear_net(12, 5, True, nn.Tanh), *pictures(2, 2, 3, 2, 2), loss=loss
        )


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(2, 3, 4, 4), torch.zeros(2, 1).long(), "victims x pictures"),
        (torch.zeros(1, 1, 3, 2, 2).long(), torch.zeros(1, 1).long(), "floating"),
        (torch.rand(0, 1, 3, 2, 2), torch.zeros(0, 1).long(), "no picture: .*0, 1, 3"),
        (torch.rand(3, 2, 2), torch.zeros(1, 1).long(), r"it is images\[None, None\]"),
        (
            torch.rand(2, 3, 2, 2),
            torch.zeros(2).long(),
            r"each picture: images\[:, None\]",
        ),
        (torch.rand(2, 12), torch.zeros(2).long(), r"rows\[:, None\]; one for all"),
        (torch.rand(2, 1, 3, 2, 2), torch.zeros(2).long(), r"labels must be \(V, B\)"),
        (torch.rand(2, 1, 3, 2, 2), torch.zeros(1, 2).long(), r"= \(2, 1\)"),
    ],
)
def test_pictures_and_labels_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        victim_gradients(linear_net(12, 5, True, nn.Tanh), images, labels)


def test_arrays_and_lists_are_refused_by_name():
    images, labels = torch.rand(1, 1, 3, 8, 8), torch.zeros(1, 1, dtype=torch.int64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(
        TypeError, match="images must be a Tensor, got nd.*torch.as_tensor"
    ):
        victim_gradients(model, images.numpy(), labels)
    with pytest.raises(TypeError, match="labels must be a Tensor, got list"):
        victim_gradients(model, images, labels.tolist())
    with pytest.raises(TypeError, match="got the class Flatten"):
        victim_gradients(nn.Flatten, images, labels)
    with pytest.raises(TypeError, match="per_example_loss, got CrossEntropyLoss"):
        victim_gradients(model, images, labels, loss=nn.CrossEntropyLoss())
