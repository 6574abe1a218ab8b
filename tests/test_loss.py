"""One loss for trainer, victim and attacker: additive, differentiable, composable."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.func import functional_call, vmap
from torch.func import grad as func_grad
from torch.nn import functional as F

from precode_lib.bottleneck import (
    VariationalBottleneck,
    kl_terms,
    kl_to_standard_normal,
    loss,
    noise_from,
    per_example_loss,
    recorded_noise,
)

NUM_CLASSES = 3


@pytest.fixture
def model(generator):
    layers = [
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.Tanh(),
        VariationalBottleneck(8, k=4, beta=0.5, generator=generator),
        nn.Linear(8, 5),
        VariationalBottleneck(5, k=2, beta=0.25, generator=generator),
        nn.Linear(5, NUM_CLASSES),
    ]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return model


@pytest.fixture
def batch(generator):
    images = torch.randn(5, 3, 2, 2, generator=generator).double()
    labels = torch.randint(NUM_CLASSES, (5,), generator=generator)
    noises = [torch.randn(5, k, generator=generator).double() for k in (4, 2)]
    return images, labels, noises


def test_it_is_cross_entropy_plus_beta_times_kl_written_out(model, batch):
    """Oracle: the forward pass by hand, with torch.distributions for the KL."""
    images, labels, noises = batch
    features, expected = images.flatten(1), 0.0
    noise = iter(noises)
    for layer in model[1:]:
        if not isinstance(layer, VariationalBottleneck):
            features = layer(features)
            continue
        mean, raw = layer.encoder(features).chunk(2, dim=1)
        code = torch.distributions.Normal(mean, raw.exp().log1p())
        kl = torch.distributions.kl_divergence(code, torch.distributions.Normal(0, 1))
        expected = expected + layer.beta * kl.sum(dim=1)
        features = layer.decoder(code.loc + code.scale * next(noise))
    expected = expected - features.log_softmax(1)[torch.arange(5), labels]
    with noise_from(noises):
        losses = per_example_loss(model, images, labels)
    torch.testing.assert_close(losses, expected)
    with noise_from(noises):
        torch.testing.assert_close(loss(model, images, labels), expected.mean())


def test_gradient_of_the_smallest_bottleneck_is_the_closed_form():
    """One feature, one code, one class pair: every derivative by hand."""
    beta, x, noise = 0.3, 0.7, -0.4
    model = nn.Sequential(nn.Flatten(), VariationalBottleneck(1, k=1, beta=beta))
    model = model.append(nn.Linear(1, 2, bias=False)).double()
    bottleneck, head = model[1], model[2]
    weights = {"m": 0.9, "s": -0.6, "d": 1.3, "b": 0.2}
    with torch.no_grad():
        bottleneck.encoder.weight.copy_(torch.tensor([[weights["m"]], [weights["s"]]]))
        bottleneck.encoder.bias.zero_()
        bottleneck.decoder.weight.fill_(weights["d"])
        bottleneck.decoder.bias.fill_(weights["b"])
        head.weight.copy_(torch.tensor([[0.0], [1.0]]))
    with noise_from([torch.tensor([[noise]])]):
        value = loss(model, torch.tensor([[[[x]]]]).double(), torch.tensor([1]))
    mean, raw = weights["m"] * x, weights["s"] * x
    std, slope = math.log1p(math.exp(raw)), 1 / (1 + math.exp(-raw))
    logit = weights["d"] * (mean + std * noise) + weights["b"]
    kl = 0.5 * (mean**2 + std**2 - 2 * math.log(std) - 1)
    assert value.item() == pytest.approx(math.log1p(math.exp(-logit)) + beta * kl)
    d_logit = -1 / (1 + math.exp(logit))
    d_mean = d_logit * weights["d"] + beta * mean
    d_std = d_logit * weights["d"] * noise + beta * (std - 1 / std)
    by_hand = torch.tensor([[d_mean * x], [d_std * slope * x]]).double()
    (by_autograd,) = grad(value, bottleneck.encoder.weight)
    torch.testing.assert_close(by_autograd, by_hand)


def test_each_example_has_the_loss_it_has_alone(model, batch):
    images, labels, noises = batch
    with noise_from(noises):
        together = per_example_loss(model, images, labels)
    for i in range(len(images)):
        with noise_from([noise[i : i + 1] for noise in noises]):
            alone = per_example_loss(model, images[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-12, atol=0)


def test_the_gradient_of_the_sum_is_the_sum_of_the_gradients(model, batch):
    images, labels, noises = batch
    with noise_from(noises):
        losses = per_example_loss(model, images, labels)
    parameters = list(model.parameters())
    whole = grad(losses.sum(), parameters, retain_graph=True)
    parts = [grad(one, parameters, retain_graph=True) for one in losses]
    for i, gradient in enumerate(whole):
        torch.testing.assert_close(gradient, sum(part[i] for part in parts))


def test_classes_and_one_hot_probabilities_have_the_same_loss(model, batch):
    images, labels, noises = batch
    with noise_from(noises):
        by_class = per_example_loss(model, images, labels)
    one_hot = F.one_hot(labels, NUM_CLASSES)
    for dtype in (torch.float32, torch.float64):
        with noise_from(noises):
            by_probability = per_example_loss(model, images, one_hot.to(dtype))
        torch.testing.assert_close(by_probability, by_class)


def test_probabilities_may_be_searched_for(model, batch):
    images, _, noises = batch
    labels = torch.full((5, NUM_CLASSES), 1 / 3).double().requires_grad_()
    with noise_from(noises):
        value = loss(model, images, labels)
    (by_autograd,) = grad(value, labels, retain_graph=True)
    with noise_from(noises):
        logits = model(images)
    torch.testing.assert_close(by_autograd, -logits.log_softmax(1) / 5)


def test_a_plain_model_has_plain_cross_entropy(batch, generator):
    images, labels, _ = batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, NUM_CLASSES)).double()
    expected = F.cross_entropy(model(images), labels, reduction="none")
    assert torch.equal(per_example_loss(model, images, labels), expected)
    torch.testing.assert_close(loss(model, images, labels), expected.mean())


def test_finite_differences_agree_with_two_derivatives(model, batch):
    images, labels, noises = (part[:2] for part in batch)
    noises = [noise[:2] for noise in noises]

    def value(images, noise):
        with noise_from([noise, noises[1]]):
            return per_example_loss(model, images, labels)

    inputs = (images.requires_grad_(), noises[0].requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_gradient_matching_differentiates_a_second_time(model, batch):
    images, labels, noises = batch
    images = images.requires_grad_()
    with noise_from(noises):
        value = loss(model, images, labels)
    gradients = grad(value, list(model.parameters()), create_graph=True)
    (slope,) = grad(sum(g.square().sum() for g in gradients), images)
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0


def test_per_example_gradients_by_torch_func_equal_autograd(model, batch):
    images, labels, noises = batch
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def one(parameters, image, label, *noise):
        call = partial(functional_call, model, parameters)
        with noise_from([n[None] for n in noise]):
            return per_example_loss(call, image[None], label[None])[0]

    by_func = vmap(func_grad(one), (None, 0, 0, 0, 0))(
        parameters, images, labels, *noises
    )
    with noise_from(noises):
        losses = per_example_loss(model, images, labels)
    for i, value in enumerate(losses):
        by_autograd = grad(value, list(model.parameters()), retain_graph=True)
        for a, b in zip(by_func.values(), by_autograd, strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_vmap_may_draw_the_noise_itself(model, batch, randomness):
    images, labels, _ = batch

    def one(image, label):
        return per_example_loss(model, image[None], label[None])[0]

    with noise_from(torch.Generator().manual_seed(1)):
        losses = vmap(one, randomness=randomness)(images[[0, 0]], labels[[0, 0]])
    assert (losses[0] == losses[1]).item() == (randomness == "same")


def test_soft_labels_work_under_vmap(model, batch):
    images, labels, noises = batch
    soft = F.one_hot(labels, NUM_CLASSES).double()

    def one(image, label, *noise):
        with noise_from([n[None] for n in noise]):
            return per_example_loss(model, image[None], label[None])[0]

    with noise_from(noises):
        expected = per_example_loss(model, images, labels)
    torch.testing.assert_close(vmap(one)(images, soft, *noises), expected)


@pytest.mark.slow
# torch's own compiler looks at .grad of inner tensors and warns itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_loss_still_obeys_the_open_context(model, batch):
    images, labels, noises = batch
    compiled = torch.compile(partial(per_example_loss, model), backend="eager")
    for factor in (1, 2):
        scaled = [factor * noise for noise in noises]
        with noise_from(scaled):
            expected = per_example_loss(model, images, labels)
        with noise_from(scaled), recorded_noise() as recorded, kl_terms() as terms:
            torch.testing.assert_close(compiled(images, labels), expected)
        assert len(recorded) == len(terms) == 2


def test_terms_can_be_watched_from_outside(model, batch):
    images, labels, noises = batch
    with noise_from(noises), kl_terms() as terms:
        losses = per_example_loss(model, images, labels)
    with noise_from(noises):
        logits = model(images)
    cross_entropy = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(losses - cross_entropy, terms[0] + terms[1])
    mean, raw = model[3].encoder(model[:3](images)).chunk(2, dim=1)
    expected = 0.5 * kl_to_standard_normal(mean, F.softplus(raw))
    torch.testing.assert_close(terms[0], expected)


def plain(images):
    return images.flatten(1)[:, :NUM_CLASSES]


IMAGES = torch.zeros(2, 3, 1, 1)
LABELS = torch.tensor([0, 2])


@pytest.mark.parametrize("bad", [3, -1, -100, 10**6])
def test_a_label_without_a_logit_is_refused_even_minus_100(bad):
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, .* 3 logits"):
        loss(plain, IMAGES, torch.tensor([0, bad]))


@pytest.mark.parametrize(
    ("model", "labels", "error", "message"),
    [
        (plain, LABELS[:1], ValueError, r"shape \(2,\) for 2 examples .*, got \(1,\)"),
        (plain, torch.zeros(2, 4), ValueError, r"\(2, 3\) for 2 examples and 3 cl"),
        (plain, LABELS.int(), TypeError, r"int64, got torch\.int32"),
        (lambda x: (plain(x),), LABELS, TypeError, r"got tuple.* `loss` of your own"),
        (lambda x: x, LABELS, ValueError, r"logits \(2, .* got shape \(2, 3, 1, 1\)"),
        (lambda x: plain(x)[:1], LABELS, ValueError, r"for 2 images, got shape \(1, 3"),
        (lambda x: plain(x)[0], LABELS, ValueError, r"got shape \(3,\)"),
    ],
)
def test_bad_input_is_refused_with_the_reason(model, labels, error, message):
    with pytest.raises(error, match=message):
        loss(model, IMAGES, labels)


def test_a_bottleneck_that_does_not_see_the_examples_is_refused(generator):
    bottleneck = VariationalBottleneck(1, k=2, generator=generator)

    def folded(images):
        return bottleneck(images.reshape(-1, 1)).reshape(2, 3)

    with pytest.raises(ValueError, match=r"a batch of 6 .* given 2 images"):
        loss(folded, IMAGES, LABELS)
