"""Markers for the exercises on searching for the picture."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from precode_lib.attacks.objectives import scaled, squared_distance
from precode_lib.attacks.recipes import dlg
from precode_lib.data import IDENTITY, Pictures
from precode_lib.federated import observe
from precode_lib.marking import exercise, expect_close, expect_number, open_question
from precode_lib.metrics import score
from precode_lib.models import lenet, uniform

NOTEBOOKS_USE = ["FACTORS", "SPANS", "search_in"]
SPANS = [0.02, 0.5]  # weights are drawn from ± this
FACTORS = [1, 100, 10_000, 1_000_000]  # D is multiplied by this


@exercise
def by_hand(g, D, slope, twin, generator):
    """Compare with autograd in the network of one weight."""
    secret = torch.tensor(2.0)
    x = torch.tensor(1.0, requires_grad=True)
    target, guess = _gradient_of_weight(secret), _gradient_of_weight(x)
    distance = (guess - target) ** 2
    right_slope = torch.autograd.grad(distance, x)[0].item()
    target, guess, distance = target.item(), guess.item(), distance.item()
    expect_number(
        g,
        target,
        what="g",
        secret=True,
        hint="differentiate ½ (wx)² by w, at w = 1 and x = 2.",
        mistakes={
            "this is the loss, or its derivative by x; the client sends that by w.": (
                0.5 * secret.item() ** 2
            ),
            "the factor ½ cancels the 2 of the square.": 2 * target,
            "this is the gradient of the guess.": guess,
        },
    )
    expect_number(
        D,
        distance,
        what="D",
        secret=True,
        hint="the square of the difference of the two gradients.",
        mistakes={
            "D is the *squared* distance.": guess - target,
            "this compares the pictures; the attacker knows gradients only.": 1.0,
            "D is the squared distance; this is the distance.": target - guess,
        },
    )
    expect_number(
        slope,
        right_slope,
        what="slope",
        secret=True,
        hint="D(x') = (x'² - g)²: the chain rule, twice.",
        mistakes={
            "the sign: at x' = 1 a larger x' makes D smaller.": -right_slope,
            "a factor 2 is missing: (...)² brings one, and x'² inside another.": (
                right_slope / 2
            ),
        },
    )
    expect_number(
        twin,
        -secret.item(),
        what="twin",
        secret=True,
        hint="which other x' has x'² = g?",
        mistakes={
            "this is the client's own picture; asked is another one.": secret.item(),
            "the slope of D is zero there, but D is not.": 0.0,
            "x'² should be g, not x'.": target,
        },
    )


def _gradient_of_weight(x: Tensor) -> Tensor:
    weight = torch.tensor(1.0, requires_grad=True)
    loss = 0.5 * (weight * x) ** 2
    return torch.autograd.grad(loss, weight, create_graph=True)[0]


Layer = tuple[Tensor, Tensor]


def shared_gradient(weight: Tensor, bias: Tensor, x: Tensor, label: Tensor) -> Layer:
    """A linear layer's two gradients by autograd, for a label of probabilities (K,)."""
    weight, bias = (each.clone().requires_grad_() for each in (weight, bias))
    loss = torch.nn.functional.cross_entropy((weight @ x + bias)[None], label[None])
    return torch.autograd.grad(loss, [weight, bias])


@exercise
def distance(learner, generator):
    """Compare with autograd, for networks of several sizes and guesses near and far."""
    for num_classes, num_pixels, far in [(3, 3, 1.0), (4, 7, 1.0), (10, 2, 0.1)]:
        W = torch.randn(num_classes, num_pixels, generator=generator)
        b = torch.randn(num_classes, generator=generator)
        secret = torch.randn(num_pixels, generator=generator)
        own = torch.eye(num_classes)[1]
        g = shared_gradient(W, b, secret, own)
        x = secret + far * torch.randn(num_pixels, generator=generator)
        y = torch.randn(num_classes, generator=generator)
        guess = shared_gradient(W, b, x, y.softmax(0))
        apart = _apart(guess, g)
        hard = torch.eye(num_classes)[y.argmax()]
        expect_number(
            learner(W, b, x, y, *g),
            apart.sum().item(),
            what="D",
            given={"W": W, "b": b, "x": x, "y": y},
            rtol=1e-3,
            hint="the guess's gradients are δ xᵀ and δ, with δ = p - softmax(y).",
            mistakes={
                "this is the distance itself; D is its square.": (
                    apart.sum().sqrt().item()
                ),
                "the bias has a gradient, too; add its share of D.": apart[0].item(),
                "the weights have a gradient, too; add their share of D.": (
                    apart[1].item()
                ),
                "D is a sum over all entries, not a mean.": (
                    apart.sum() / (W.numel() + b.numel())
                ).item(),
                "the guessed label is softmax(y), not the class of the largest y.": (
                    _apart(shared_gradient(W, b, x, hard), g).sum().item()
                ),
                "y holds logits; the guessed label is softmax(y).": (
                    _apart(_as_it_stands(W, b, x, y), g).sum().item()
                ),
            },
        )


def _apart(guess: Layer, target: Layer) -> Tensor:
    pairs = zip(guess, target, strict=True)
    return torch.stack([(mine - theirs).square().sum() for mine, theirs in pairs])


def _as_it_stands(W: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Layer:
    delta = (W @ x + b).softmax(0) - y
    return torch.outer(delta, x), delta


@exercise
def slope(learner, generator):
    """Compare with finite differences of D, in float64."""
    for num_pixels, width in [(2, 3), (5, 4)]:
        sizes = [(width, num_pixels), (width,), (3, width), (3,)]
        theta = [_draw(size, generator) for size in sizes]
        secret, x = _draw((num_pixels,), generator), _draw((num_pixels,), generator)
        label = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        g = sigmoid_gradient(theta, secret, label)
        right = finite_differences(
            lambda at, theta=theta, g=g, label=label: sum(
                (mine - theirs).square().sum()
                for mine, theirs in zip(
                    sigmoid_gradient(theta, at, label), g, strict=True
                )
            ),
            x,
        )
        of_loss = finite_differences(
            lambda at, theta=theta, label=label: _loss(theta, at, label), x
        )
        expect_close(
            learner(theta, x, label, g),
            right,
            what="the slope of D",
            given={"x": x},
            rtol=1e-3,
            atol=1e-6,
            hint="first the guess's gradient with create_graph=True, then D, then the "
            "derivative of D by x.",
            mistakes={
                "this is the slope of the *loss*; asked is that of D.": of_loss,
                "the sign: asked is the slope, not the step against it.": -right,
                "half of it: differentiate the square, not half the square.": right / 2,
            },
        )


def _draw(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(size, generator=generator, dtype=torch.float64)


def _loss(theta: list[Tensor], x: Tensor, label: Tensor) -> Tensor:
    W1, b1, W2, b2 = theta
    logits = W2 @ (W1 @ x + b1).sigmoid() + b2
    return -(label * logits.log_softmax(0)).sum()


def sigmoid_gradient(theta: list[Tensor], x: Tensor, label: Tensor) -> list[Tensor]:
    """The gradients of W1, b1, W2, b2 by the chain rule, written out."""
    W1, b1, W2, b2 = theta
    h = (W1 @ x + b1).sigmoid()
    out = (W2 @ h + b2).softmax(0) - label
    hidden = (W2.T @ out) * h * (1 - h)
    return [torch.outer(hidden, x), hidden, torch.outer(out, h), out]


def finite_differences(
    function: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-5
) -> Tensor:
    """The slope (n,) of a function of x (n,), by central differences."""
    steps = h * torch.eye(len(x), dtype=x.dtype)
    return torch.stack([(function(x + s) - function(x - s)) / (2 * h) for s in steps])


def search_in(photo: Pictures, span: float, factor: float) -> tuple[Tensor, float]:
    """DLG with factor * D on one photograph, weights within ± span.

    Returns the pixels (1, C, H, W) and D in its own units.
    """
    network = lenet(
        photo.image_shape,
        init=uniform(span),
        generator=torch.Generator().manual_seed(0),
    )
    seen = observe(
        network,
        photo.pixels[:, None],
        photo.labels[:, None],
        labels_known=False,
        normalisation=IDENTITY,
    )
    start = torch.Generator().manual_seed(2)
    distance = scaled(squared_distance, factor)
    search = dlg(seen, generator=start, iterations=10, distance=distance)
    for _ in search:
        pass
    found = search.result
    return found.pixels[:, 0], found.objective.item() / factor


@cache
def searches() -> dict[tuple[float, float], float]:
    """SSIM of the search for each pair of the sliders' values."""
    from precode_lib.data import victims

    photo = victims("photos", 10, size=12)[[2]]
    pairs = [(span, factor) for span in SPANS for factor in FACTORS]
    found = {pair: search_in(photo, *pair)[0] for pair in pairs}
    return {
        pair: score(photo.pixels, pixels).ssim.item() for pair, pixels in found.items()
    }


@exercise
def which_units(unmoved, needed, generator):
    """Run the search for every pair of the sliders' values."""
    found = searches()
    there = {s: [f for f in FACTORS if found[s, f] > 0.9] for s in SPANS}
    always = [span for span in SPANS if there[span] == FACTORS]
    small = SPANS[0]
    expect_number(
        unmoved,
        always[0],
        what="unmoved",
        secret=True,
        hint="in which network is the photograph found, whatever D is multiplied by?",
        mistakes={"here the photograph is found with some multiples only.": small},
    )
    first = there[small][0]
    expect_number(
        needed,
        first,
        what="needed",
        secret=True,
        hint="within ±0.02, move the slider from the left: where does SSIM come "
        "close to 1?",
        mistakes={
            "the photograph is found here, but with a smaller multiple, too.": (
                FACTORS[-1]
            ),
            "look at SSIM: a likeness, but not yet close to 1.": (
                FACTORS[FACTORS.index(first) - 1]
            ),
            "within ±0.02 D as it is finds nothing.": 1,
        },
    )


@exercise
def a_safe_network(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that one attack failed, not all: ReLU makes D jump, which L-BFGS "
        "cannot follow, and another distance, optimizer or start may succeed; that the "
        "gradient was not shown to hold less; that D should have been reported, the "
        "same search tried on a thousand times D, and "
        "the other attacks (matching directions, the division) tried.",
        mistakes=[
            '"ReLU hides the picture": it hinders this search.',
            '"hundred pictures are enough": a hundred failures of the same kind say '
            "no more than one.",
        ],
    )
