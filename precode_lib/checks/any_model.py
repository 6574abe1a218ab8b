"""Markers for the exercises on inserting the bottleneck into any network."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from precode_lib.bottleneck import (
    VariationalBottleneck,
    noise_from,
    with_cvb,
    with_precode,
)
from precode_lib.marking import (
    exercise,
    expect,
    expect_choice,
    expect_close,
    expect_number,
    open_question,
)
from precode_lib.models import lenet, resnet20_4

NOTEBOOKS_USE = ["KS", "PLACES", "added", "network", "size"]
PLACES = ["activation", "stage1", "stage2", "stage3"]  # of a ResNet20-4, in order
KS = [4, 16, 64, 256]
TRIED = {"names", "old_names", "new", "old"}  # what a trial of an insertion returns

Weights = Mapping[str, Tensor]  # as in a state dict


@exercise
def by_hand(encoder, decoder, largest, generator):
    """Count the parameters of a real bottleneck, and of real ones beside LeNet."""
    n, k = 4, 3
    with torch.device("meta"):
        module = VariationalBottleneck(n, k)
    right_encoder, right_decoder = size(module.encoder), size(module.decoder)
    expect_number(
        encoder,
        right_encoder,
        what="the encoder's count",
        secret=True,
        hint="it has n inputs; count its outputs, one weight for each pair, and the "
        "biases.",
        mistakes={
            "an entry of the code has a mean and a raw spread: 2k outputs.": (
                k * n + k
            ),
            "the biases are missing: one for each of the 2k outputs.": 2 * k * n,
            "one bias for each output, not for each input.": 2 * k * n + n,
        },
    )
    expect_number(
        decoder,
        right_decoder,
        what="the decoder's count",
        secret=True,
        hint="it has k inputs and n outputs, with biases.",
        mistakes={
            "the decoder gets one sample of k entries, not means and spreads.": (
                2 * k * n + n
            ),
            "the biases are missing: one for each of the n outputs.": k * n,
            "one bias for each output, not for each input.": k * n + k,
            "this is the count of both layers; their sum is not asked for.": (
                right_encoder + right_decoder
            ),
        },
    )
    right = _largest_k_beside_lenet()
    expect_number(
        largest,
        right,
        what="the largest k",
        secret=True,
        hint="put n = 768 into 3kn + 2k + n, and solve for k.",
        mistakes={
            "here the module is larger than LeNet already; round down.": right + 1,
            "this solves 2kn for the encoder alone; the decoder counts, too.": 10,
            "one or more would still fit below LeNet's count.": right - 1,
        },
    )


@cache
def _largest_k_beside_lenet() -> int:
    with torch.device("meta"):
        model = lenet()
        host, k = size(model), 1
        while size(with_precode(model, k=k + 1)) - host < host:
            k += 1
    return k


def size(model: nn.Module) -> int:
    """How many parameters it has."""
    return sum(p.numel() for p in model.parameters())


@exercise
def forward(learner, generator):
    """Compare with the library's module, for vectors, feature maps and one picture."""
    for shape, k in [((3, 5), 2), ((2, 2, 3, 2), 4), ((1, 6), 3)]:
        features = torch.randn(shape, generator=generator)
        module = VariationalBottleneck(features[0].numel(), k, generator=generator)
        weights, noise = _drawn(module, generator), _noise(shape[0], k, generator)
        with torch.no_grad(), noise_from([noise]):
            right = module(features)
        wrong = {
            "s is ln(1 + eʳ), not eʳ.": _passed(features, weights, noise, torch.exp),
            "r is used as it is; s is ln(1 + eʳ).": _passed(
                features, weights, noise, lambda raw: raw
            ),
            "the halves are swapped: the means come first.": _passed(
                features, weights, noise, is_swapped=True
            ),
            "this decodes the mean; the noise is missing.": _passed(
                features, weights, torch.zeros_like(noise)
            ),
            "the encoder's bias is missing.": _passed(
                features,
                {**weights, "encoder.bias": torch.zeros(2 * k)},
                noise,
            ),
            "the decoder's bias is missing.": right
            - weights["decoder.bias"].view(shape[1:]),
        }
        if len(shape) > 2:
            wrong["flat: give the sample the shape that the features had."] = (
                right.flatten(1)
            )
        expect_close(
            learner(features, weights, noise),
            right,
            what="what leaves the bottleneck",
            given={"features": features, "noise": noise},
            rtol=1e-3,
            atol=1e-4,
            hint="flatten each example, encode, cut in two halves, sample, decode, and "
            "restore the shape.",
            mistakes=wrong,
        )


def _drawn(module: nn.Module, generator: Generator) -> dict[str, Tensor]:
    """Give the module weights of some size, so that a missing one shows."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.3 + 0.5 * torch.rand(p.shape, generator=generator))
    return {name: value.clone() for name, value in module.state_dict().items()}


def _noise(batch: int, k: int, generator: Generator) -> Tensor:
    return 0.5 + torch.rand(batch, k, generator=generator)


def _passed(
    features: Tensor,
    weights: Weights,
    noise: Tensor,
    spread: Callable[[Tensor], Tensor] = F.softplus,
    is_swapped: bool = False,
) -> Tensor:
    encoded = F.linear(
        features.flatten(1), weights["encoder.weight"], weights["encoder.bias"]
    )
    mean, raw = encoded.chunk(2, dim=1)[:: -1 if is_swapped else 1]
    code = mean + spread(raw) * noise
    decoded = F.linear(code, weights["decoder.weight"], weights["decoder.bias"])
    return decoded.view(features.shape)


def network(weights: Weights | None = None) -> nn.Module:
    """A small perceptron for pictures (1, 2, 3), four classes and these weights."""
    features = OrderedDict(
        flatten=nn.Flatten(),
        hidden1=nn.Linear(6, 5),
        activation1=nn.ReLU(),
        hidden2=nn.Linear(5, 5),
        activation2=nn.ReLU(),
    )
    model = nn.Sequential(
        OrderedDict(features=nn.Sequential(features), fc=nn.Linear(5, 4))
    )
    if weights is not None:
        model.load_state_dict(dict(weights))
    return model


@exercise
def insertion(tried, generator):
    """Compare with with_precode, before a layer at the top and a nested one."""
    for name in ("fc", "features.hidden2"):
        host, k = network(), 3
        weights = _drawn(host, generator)
        inside = _drawn(VariationalBottleneck(5, k), generator)
        images = torch.rand(2, 1, 2, 3, generator=generator)
        noise = _noise(2, k, generator)
        came = tried(name, weights, inside, images, noise)
        expect(
            isinstance(came, dict) and set(came) == TRIED,
            "`tried` should return its dictionary of four values.",
            hint="leave the cell with `tried` as it was given, and run it again.",
        )
        _expect_a_copy(came, host, images)
        right = _inserted(name, weights, inside)
        _expect_names(came["names"], right, name)
        wrong = {
            "these are the old logits: the bottleneck does not run.": _logits(
                host, images
            )
        }
        if name != "fc":  # behind it are logits, too few for this bottleneck
            behind = _inserted(name, weights, inside, "after")
            wrong["the bottleneck stands behind the layer, not before."] = _logits(
                behind, images, noise
            )
        expect_close(
            came["new"],
            _logits(right, images, noise),
            what=f"the logits with a bottleneck before {name!r}",
            rtol=1e-3,
            hint="the features pass the bottleneck first, then the old layer with its "
            "old weights.",
            mistakes=wrong,
        )


def _inserted(
    name: str, weights: Weights, inside: Weights, side: str = "before"
) -> nn.Module:
    model = with_precode(network(weights), **{side: name}, k=3, example=(1, 2, 3))
    model.get_submodule(name).bottleneck.load_state_dict(dict(inside))
    return model


def _logits(model: nn.Module, images: Tensor, *noises: Tensor) -> Tensor:
    with torch.no_grad(), noise_from(noises):
        return model(images)


def _expect_a_copy(came: dict, host: nn.Module, images: Tensor) -> None:
    expect(
        came["old_names"] == list(host.state_dict()),
        "not right yet. The network that was given has changed: its parameters now are "
        f"{came['old_names']}.",
        hint="insert into a copy, as `copy.deepcopy` makes it.",
    )
    expect_close(
        came["old"],
        _logits(host, images),
        what="what the old network says, after all weights of the new one became 0",
        hint="the two networks share tensors; copy deeply.",
    )


def _expect_names(names: list, right: nn.Module, name: str) -> None:
    wanted = list(right.state_dict())
    behind = [n for n in wanted if n.startswith(name) and "layer" in n]
    expect(
        set(names) == set(wanted),
        f"not right yet. With a bottleneck before {name!r} the parameters should be "
        f"{wanted}, got {names}.",
        hint=f"the layer becomes a Sequential of two with the names `bottleneck` and "
        f"`layer`, so that its weights are found at {behind[0]!r}.",
    )


@cache
def added(place: str, k: int) -> tuple[int, int]:
    """Parameters of a linear and of a convolutional bottleneck after this place.

    The network is a ResNet20-4. k is the linear one's; the convolutional one takes
    half the channels.
    """
    with torch.device("meta"):
        model = resnet20_4()
        after = f"features.{place}"
        linear = with_precode(model, after=after, k=k)
        maps = with_cvb(model, after=after)
    return size(linear) - size(model), size(maps) - size(model)


@exercise
def smaller_kind(place, generator):
    """Count both kinds at every place."""
    smaller = [p for p in PLACES if added(p, 16)[0] < added(p, 16)[1]]
    large = "here the linear one is still the larger of the two."
    hints = dict.fromkeys(PLACES, large)
    hints |= dict.fromkeys(smaller[1:], "the linear one is smaller already before.")
    expect_choice(
        place,
        smaller[0],
        {p: hint for p, hint in hints.items() if p != smaller[0]},
        what="the place",
    )


@exercise
def at_the_picture(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the first linear layer which sees the picture now is the "
        "bottleneck's own encoder, that its weight gradient is δ times the picture "
        "like that of any linear layer, and that the noise enters behind the encoder, "
        "so it changes δ, which the division removes.",
        mistakes=[
            '"the server sees only a noisy sample": it sees gradients, the encoder\'s '
            "included.",
            '"noise on the picture itself": the picture enters the encoder clean.',
        ],
    )
