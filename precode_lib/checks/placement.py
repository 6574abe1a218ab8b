"""Markers for the exercises on where to put PRECODE."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from precode_lib.attacks import IGA, Search
from precode_lib.attacks.closed_form import invert_linear
from precode_lib.bottleneck import with_precode
from precode_lib.data import victims
from precode_lib.federated import observe
from precode_lib.gradients import Gradients
from precode_lib.marking import (
    exercise,
    expect,
    expect_choice,
    expect_close,
    expect_number,
    listed,
    open_question,
)
from precode_lib.metrics import score
from precode_lib.models import lenet, mlp

NOTEBOOKS_USE = ["ARRANGEMENTS", "ATTACKERS", "leaked", "names_of", "network"]
ARRANGEMENTS = {
    "output": [3],
    "layer 1": [1],
    "layer 1 and output": [1, 3],
    "front and output": [0, 3],
}
ATTACKERS = ["matches all layers", "matches the layers before the noise", "divides"]


def network(
    places: Sequence[int], *, shape=(3, 16, 16), width=64, k=32, classes=10, seed=2
) -> nn.Module:
    """An MLP of three hidden layers, with PRECODE behind some; 0 is the front."""
    generator = torch.Generator().manual_seed(seed)
    plain = mlp(shape, classes, depth=3, width=width, generator=generator)
    return with_precode(
        plain,
        before="features.hidden1" if 0 in places else None,
        after=[f"features.activation{place}" for place in places if place] or None,
        k=k,
        generator=generator,
    )


def names_of(model: nn.Module) -> list[str]:
    """The parameters' names, in the order of the layers."""
    return [name for name, _ in model.named_parameters()]


def _before_the_noise(names: Sequence[str]) -> list[str]:
    last = next(i for i, n in enumerate(names) if n.endswith("bottleneck.encoder.bias"))
    return list(names[: last + 1])


@exercise
def by_hand(in_front, behind_first, behind_last, generator):
    """Count the parameters of the network in the text."""
    where = [
        (in_front, 0, "in front"),
        (behind_first, 1, "behind hidden layer 1"),
        (behind_last, 3, "behind hidden layer 3"),
    ]
    for came, place, name in where:
        model = network([place], shape=(1, 2, 3), width=4, k=2, classes=3)
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        kept = _before_the_noise(list(sizes))
        right = sum(sizes[n] for n in kept)
        encoder = sum(sizes[n] for n in kept[-2:])
        biases = sum(sizes[n] for n in kept if n.endswith("bias"))
        decoder = sum(size for n, size in sizes.items() if "decoder" in n)
        expect_number(
            came,
            right,
            what=f"the number {name}",
            secret=True,
            hint="count weights and biases of each layer up to the encoder.",
            mistakes={
                "the encoder is missing; its input has not met the noise.": (
                    right - encoder
                ),
                "the biases are missing.": right - biases,
                "the encoder has 2k outputs: k for the mean, k for the spread.": (
                    right - encoder // 2
                ),
                "the decoder comes behind the noise.": right + decoder,
                "these are all parameters of the network.": sum(sizes.values()),
            },
        )


@exercise
def before_the_noise(learner, generator):
    """Try one bottleneck at each place, several, and a convolutional network."""
    models = [network(places, width=8) for places in ([3], [1], [0], [2, 3], [0, 2])]
    convolutional = lenet(generator=torch.Generator().manual_seed(0))
    for model in [*models, with_precode(convolutional, before="fc")]:
        names = names_of(model)
        right = _before_the_noise(names)
        answer = learner(names)
        came = listed(answer)
        expect(
            came is not None and all(isinstance(name, str) for name in came),
            f"the result should be a list of names; got {answer!r:.60}.",
            hint="choose from the list that you are given.",
        )
        if sorted(came) == sorted(right):
            continue
        places = [n for n in names if n.endswith("encoder.weight")]
        expect(
            False,
            f"not right yet. With bottlenecks at {places}: "
            f"{_amiss('missing', set(right) - set(came))}"
            f"{_amiss('too many', set(came) - set(right))}",
            hint=_hint_on_names(came, names, right),
        )


def _amiss(what: str, names: set[str]) -> str:
    return f"{what}: {', '.join(sorted(names))}. " if names else ""


def _hint_on_names(came: Sequence[str], names: list[str], right: list[str]) -> str:
    first = names.index(right[-2])
    encoders = [n for n in names if ".encoder." in n]
    last = names.index(encoders[-2])
    decoder = [n for n in names if ".decoder." in n][:2]
    mistakes = {
        "nothing is left out yet.": names,
        "the encoder's input has not met the noise: keep it.": names[:first],
        "the decoder sees the sample: leave it out.": right + decoder,
        "layers behind the bottleneck are kept; cut the list off.": [
            n for n in names if ".bottleneck." not in n
        ],
        "layers behind the decoder meet the noise, too: cut the list off.": [
            n for n in names if ".decoder." not in n
        ],
        "the noise begins at the first bottleneck, not at the last.": names[: last + 2],
        "the first bottleneck's encoder only: a later one sees noise.": sorted(
            {*right, *encoders}
        ),
        "the encoder has a bias as well.": right[:-1],
    }
    for hint, wrong in mistakes.items():
        if sorted(came) == sorted(wrong):
            return hint
    return "all names in order, up to the first bottleneck's encoder."


@exercise
def without_bias(learner, generator):
    """Try encoders whose units answer with both signs, some not, and all in balance."""
    for units, pixels in [(4, 6), (7, 30), (3, 12)]:
        x = torch.rand(pixels, generator=generator)
        x[1], x[2] = 0, 1
        delta = -0.1 - torch.rand(units, generator=generator)
        delta[0] = 0
        delta[1] = -delta[2:].sum()  # the column sums of dW are 0
        delta = delta[torch.cat([torch.zeros(1).long(), _shuffled(units, generator)])]
        dW = torch.outer(delta, x)
        row = dW[dW.abs().sum(1).argmax()]
        expect_close(
            learner(dW),
            x,
            what="the picture",
            given={"dW": dW},
            hint="a row that is not zero, without its sign, over its largest entry.",
            rtol=1e-3,
            atol=1e-4,
            mistakes={
                "the negative: no pixel is below 0, which tells the sign.": -x,
                "row 0 is empty here: choose another.": torch.full_like(x, torch.nan),
                "a row as it was sent: what do you know of the brightest pixel?": row,
                "positive, but not stretched: the brightest pixel is 1.": row.abs(),
                "of length 1; but it is the brightest pixel that is 1.": x / x.norm(),
                "the length is 1 and the sign is wrong.": -x / x.norm(),
                "here the largest entry is negative, so all rows turned over.": (
                    row / row.max() if row.max() > 0 else -x
                ),
            },
        )


def _shuffled(units: int, generator: torch.Generator) -> Tensor:
    return 1 + torch.randperm(units - 1, generator=generator)


@cache
def leaked(arrangement: str, attacker: str) -> Tensor:
    """Pixels (4, 3, 16, 16) that one attacker gets from one arrangement."""
    photos = victims("photos", 4, size=16)
    generator = torch.Generator().manual_seed(101)
    seen = observe(
        network(ARRANGEMENTS[arrangement]),
        photos.images[:, None],
        photos.labels[:, None],
        noise=generator,
        normalisation=photos.normalisation,
    )
    if attacker == "divides":
        pixels = photos.normalisation.denormalise(invert_linear(seen).images)
        return pixels.clamp(0, 1)
    layers = _without_noise if attacker == ATTACKERS[1] else None
    recipe = replace(IGA, iterations=80, layers=layers)
    search = Search(seen, recipe, generator=generator)
    for _ in search:
        pass
    return search.result.pixels[:, 0]


def _without_noise(gradients: Gradients) -> Gradients:
    return gradients.select(*_before_the_noise(list(gradients)))


@exercise
def second_thoughts(by_first, by_both, generator):
    """Run both searches on all arrangements."""
    photos = victims("photos", 4, size=16)

    def ssim(name: str, attacker: str) -> float:
        return score(photos.pixels, leaked(name, attacker)).ssim.mean().item()

    first = {name: ssim(name, ATTACKERS[0]) for name in ARRANGEMENTS}
    both = {n: max(value, ssim(n, ATTACKERS[1])) for n, value in first.items()}
    right = max(first, key=first.get), max(both, key=both.get)
    expect_choice(
        by_first,
        right[0],
        dict.fromkeys(
            set(ARRANGEMENTS) - {right[0]},
            "choose the attacker who matches all layers; one arrangement shows him "
            "more than a shadow.",
        ),
        what="the worst by the first search",
    )
    hints = dict.fromkeys(
        set(ARRANGEMENTS) - {right[1]}, "here the second search sees less than there."
    )
    hints[right[0]] = "that is the worst by the first search; try the second one, too."
    hints.pop(right[1], None)
    expect_choice(by_both, right[1], hints, what="the worst by the better search")


@exercise
def a_bet(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the attacker chooses after the defender; that the place which "
        "is best against the search over all layers is the worst against the one that "
        "ignores the noisy layers; that a division succeeds at every place of an MLP; "
        "and a test against attackers who know the defense, before a place is praised.",
        mistakes=[
            '"the supplement measured wrongly": it measured one attacker, rightly.',
            '"then put it in front": its own encoder is a linear layer with a bias.',
        ],
    )
