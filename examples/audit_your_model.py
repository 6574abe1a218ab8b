"""Audit a model of your own: what attackers get out of one picture's gradient.

    python examples/audit_your_model.py            # minutes on two cores
    python examples/audit_your_model.py --quick    # seconds; only shows that it runs

Change `make_model` and `make_pictures`; the rest is one table. A line is an attack, a
column a way to train; the number says how many clients' pictures or labels came back,
each from the gradient of that picture alone. A dash means that the attack does not
apply to this model, which is no reason to trust it. What the table cannot say, and how
to write an attack that knows your model, is in the book's page "Audit your own model".
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from precode_lib.attacks import bias_sign_labels, iga, invert_linear
from precode_lib.bottleneck import with_precode
from precode_lib.data import Pictures, victims
from precode_lib.defenses import before_bottleneck, dp_sgd_step
from precode_lib.federated import Observation, observe
from precode_lib.metrics import score

Attack = Callable[[Observation], Tensor]  # what V clients sent -> pixels (V, C, H, W)


def make_model() -> nn.Module:
    """Yours: any module from images to logits, with the weights that clients get."""
    torch.manual_seed(0)
    layers = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))


def make_pictures(count: int) -> Pictures:
    """Yours: `precode_lib.data.image_folder`, with your model's normalisation."""
    return victims("photos", count)


def divided(seen: Observation) -> Tensor:
    """One division in the first linear layer."""
    return seen.normalisation.denormalise(invert_linear(seen).images).clamp(0, 1)


def searched(seen: Observation, **options) -> Tensor:
    """A search for the pictures whose gradients point the same way."""
    search = iga(seen, generator=torch.Generator().manual_seed(0), **options)
    for _ in search:
        pass
    return search.result.pixels[:, 0]


def searched_before_the_noise(seen: Observation, **options) -> Tensor:
    """The same by someone who leaves out what a bottleneck's noise touches."""
    names = before_bottleneck(seen.model, torch.zeros(1, *seen.image_shape))
    return searched(seen, layers=lambda shared: shared.select(*names), **options)


def listen(model: nn.Module, pictures: Pictures) -> dict[str, Observation]:
    """What the server sees of one picture per client, for each way to train.

    Clients train in training mode. In evaluation mode, batch norm and dropout do not
    stand in an attacker's way: a defense that fails there is not what protects you.
    """
    generator = torch.Generator().manual_seed(0)
    options = {"clip_norm": 1.0, "noise_multiplier": 0.5, "generator": generator}
    see = partial(
        observe,
        images=pictures.images[:, None],
        labels=pictures.labels[:, None],
        normalisation=pictures.normalisation,
        noise=generator,
    )
    return {
        "training mode": see(model.train()),
        "evaluation mode": see(model.eval()),
        "PRECODE": see(with_precode(model, generator=generator)),
        "DP-SGD": see(model, client_step=partial(dp_sgd_step, **options)),
    }


def count(attack: Attack, seen: Observation, pictures: Pictures) -> str:
    """How many pictures come back with an SSIM of 0.6 or more."""
    try:
        pixels = attack(seen)
    except ValueError:  # it says why; print it while you are looking at one attack
        return "-"
    return f"{int(score(pictures.pixels, pixels).success.sum())} of {len(pictures)}"


def audit(model: nn.Module, pictures: Pictures, iterations: int) -> list[list[str]]:
    """The table, line by line, with its head."""
    observations = listen(model, pictures)
    strong = {"iterations": iterations, "prior_weight": 1e-2}
    attacks = {
        "picture, divided": divided,
        "picture, searched for": partial(searched, iterations=iterations),
        "... with a strong prior": partial(searched, **strong),
        "... before the noise": partial(searched_before_the_noise, **strong),
    }
    labels = [bias_sign_labels(seen) for seen in observations.values()]
    right = [int((found[:, 0] == pictures.labels).sum()) for found in labels]
    table = [["what the server looks for", *observations]]
    table += [["label", *(f"{n} of {len(pictures)}" for n in right)]]
    for name, attack in attacks.items():
        cells = [count(attack, seen, pictures) for seen in observations.values()]
        table.append([name, *cells])
    return table


def main(arguments: list[str] | None = None) -> list[list[str]]:
    """Print the table, and return it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    quick = parser.parse_args(arguments).quick
    pictures = make_pictures(2 if quick else 4)
    table = audit(make_model(), pictures, iterations=5 if quick else 400)
    for line in table:
        print(f"{line[0]:26}" + "".join(f"{cell:>17}" for cell in line[1:]))
    most = 1 - 0.05 ** (1 / len(pictures))
    print(
        f"0 of {len(pictures)} allows a rate of up to {most:.0%} for that attack with "
        "these settings (95 % confidence), and says nothing of other attacks."
    )
    return table


if __name__ == "__main__":
    main()
