"""What each defense costs in accuracy, and what an attack still gets: a table, a plot.

    python examples/privacy_accuracy.py            # minutes on two cores
    python examples/privacy_accuracy.py --quick    # seconds; only shows that it runs

Each row trains the same network on the embedded photographs for the same few epochs,
with the defense in every step. Then clients share the untrained network's gradient of
one photograph each, behind the same defense, and two attackers who know the label try
their luck: IGA, and the division of the first layer's weight by its bias gradient.
IGA's failure promises nothing, as PRECODE's row shows. One run, one seed. Soteria is
left out because it needs a backward pass for every feature in every step.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from precode_lib.attacks import iga
from precode_lib.attacks.closed_form import invert_linear
from precode_lib.bottleneck import with_precode
from precode_lib.data import Splits, photos, victims
from precode_lib.defenses import (
    ClientStep,
    Defense,
    Encoding,
    add_laplace_noise,
    add_noise,
    as_bitmap,
    as_floats,
    as_steps,
    bytes_on_wire,
    clip,
    dp_sgd_step,
    prune,
    quantise,
    round_to,
)
from precode_lib.federated import Observation, observe
from precode_lib.metrics import score
from precode_lib.models import smlp
from precode_lib.plots import plot_dots
from precode_lib.training import PAPER, Randomness, fit


@dataclass(frozen=True)
class Setting:
    """How large the experiment is."""

    splits: Splits
    width: int = 256
    epochs: int = 6
    num_victims: int = 16
    iterations: int = 500


@dataclass(frozen=True)
class Case:
    """One row: what the client does to its model, its step, its gradient, its bytes."""

    name: str
    defense: Defense | None = None
    client_step: ClientStep | None = None
    insert: Callable[..., nn.Module] | None = None
    encoding: Encoding = as_floats


@dataclass(frozen=True)
class Row:
    """What came of it; accuracy and rates in [0, 1]."""

    name: str
    accuracy: float
    iga_asr: float
    iga_ssim: float
    division_asr: float
    num_bytes: int


def cases(generator: torch.Generator) -> list[Case]:
    """The rows; noise is drawn from the generator."""
    gaussian = partial(add_noise, generator=generator)
    laplace = partial(add_laplace_noise, std=1e-2, generator=generator)
    dp = partial(dp_sgd_step, clip_norm=1.0, noise_multiplier=0.5, generator=generator)
    half = partial(round_to, dtype=torch.float16)
    return [
        Case("no defense"),
        Case("fp16", half, encoding=partial(as_floats, bits=16)),
        Case("int8", partial(quantise, bits=8), encoding=as_steps),
        Case("prune 10 %", partial(prune, ratio=0.1), encoding=as_bitmap),
        Case("prune 90 %", partial(prune, ratio=0.9), encoding=as_bitmap),
        Case("clip to norm 1", partial(clip, max_norm=1.0)),
        Case("Gaussian noise 1e-3", partial(gaussian, std=1e-3)),
        Case("Gaussian noise 1e-2", partial(gaussian, std=1e-2)),
        Case("Laplace noise 1e-2", laplace),
        Case("DP-SGD, clip 1, noise 0.5", client_step=dp),
        Case("PRECODE", insert=partial(with_precode, before="fc")),
    ]


def measure(setting: Setting, seed: int = 0) -> Iterator[Row]:
    """Train and attack row by row; every row sees the same shuffles and weights."""
    names = [case.name for case in cases(torch.Generator())]
    for index in range(len(names)):
        random = Randomness.seeded(seed)
        yield _row(cases(random.defense)[index], setting, random)


def _row(case: Case, setting: Setting, random: Randomness) -> Row:
    weights = torch.Generator().manual_seed(random.shuffle.initial_seed())
    shape = setting.splits.train.image_shape
    classes = setting.splits.train.num_classes
    model = smlp(shape, classes, width=setting.width, generator=weights)
    if case.insert is not None:
        model = case.insert(model, generator=weights)
    seen, originals = _listen(case, model, setting, random)
    found, division = _attacks(seen, setting)
    protocol = replace(PAPER, epochs=setting.epochs)
    defenses = {"defense": case.defense, "client_step": case.client_step}
    *_, last = fit(model, setting.splits, protocol, random=random, **defenses)
    by_iga, by_division = score(originals, found), score(originals, division)
    return Row(
        name=case.name,
        accuracy=last.test_accuracy,
        iga_asr=by_iga.asr,
        iga_ssim=by_iga.mean.ssim,
        division_asr=by_division.asr,
        num_bytes=int(bytes_on_wire(seen.shared, case.encoding).double().mean()),
    )


def _listen(case: Case, model: nn.Module, setting: Setting, random: Randomness):
    """What clients with one photograph each send, and the photographs."""
    chosen = victims(setting.splits.train, setting.num_victims)
    seen = observe(
        model,
        chosen.images[:, None],
        chosen.labels[:, None],
        defense=case.defense,
        client_step=case.client_step,
        normalisation=chosen.normalisation,
        noise=random.noise,
    )
    return seen, chosen.pixels


def _attacks(seen: Observation, setting: Setting):
    """The pixels that IGA and the division find, (N, C, H, W) in [0, 1] each."""
    generator = torch.Generator().manual_seed(1)
    search = iga(seen, generator=generator, iterations=setting.iterations)
    for _ in search:
        pass
    divided = seen.normalisation.clip(invert_linear(seen).images)
    pixels = seen.normalisation.denormalise(divided).clamp(0, 1)
    return search.result.pixels[:, 0], pixels


HEAD = f"{'':24}accuracy   IGA: ASR   SSIM   division: ASR   bytes sent"


def line(row: Row) -> str:
    """One line of the table."""
    return (
        f"{row.name:24}{row.accuracy:>7.1%}{row.iga_asr:>12.1%}{row.iga_ssim:>8.2f}"
        f"{row.division_asr:>13.1%}{row.num_bytes:>16,}"
    )


def draw(rows: list[Row], file: Path) -> None:
    """A line for each defense: how well it trains, what the two attackers get."""
    values = {
        "test accuracy": ("original", [row.accuracy for row in rows]),
        "SSIM of IGA": ("leaked", [row.iga_ssim for row in rows]),
        "ASR of division": ("neutral", [row.division_asr for row in rows]),
    }
    axes = plot_dots(values, names=[row.name for row in rows])
    axes.figure.savefig(file, dpi=150)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Print the table as it grows, and save the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny, in seconds")
    parser.add_argument("--plot", type=Path, default=Path("privacy_accuracy.png"))
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        tiny = photos(size=16, num_train=64, num_test=20)
        setting = Setting(tiny, width=16, epochs=1, num_victims=3, iterations=3)
    else:
        setting = Setting(photos())
    print(HEAD)
    rows = []
    for row in measure(setting, chosen.seed):
        rows.append(row)
        print(line(row), flush=True)
    draw(rows, chosen.plot)
    print(f"drawn to {chosen.plot}")
    return rows


if __name__ == "__main__":
    main()
