"""Compute data/client-224: what comes back of photographs of 224 x 224 pixels.

Run it by hand: about ten minutes of one core. Each result is written down
when it is there, and not computed again while its settings stay the same.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam
from torchvision.models import resnet18, vit_b_16

import precode_lib
from precode_lib.attacks import IGA, Search, invert_linear, patches_of
from precode_lib.attacks.objectives import (
    balanced_cosine_distance,
    squared_distance,
)
from precode_lib.data import victims
from precode_lib.federated import Observation, observe
from precode_lib.metrics import psnr, ssim

FOLDER = Path(__file__).resolve().parents[2] / "data" / "client-224"
SIZE, LABEL = 224, 7
VICTIMS = {"cat": 1, "coffee": 2}  # both CC0
SEARCHED = ["cat"]  # for what takes minutes
OTHERS = [0, 3, 5, 6, 7, 8, 9]  # what the running statistics are of
SEARCH = {"iterations": 400, "prior_weight": 0.1, "lr": 0.1}
RECIPE = replace(
    IGA,
    name="IGA, balanced",
    distance=balanced_cosine_distance,
    optimizer=partial(Adam, lr=SEARCH["lr"]),
    iterations=SEARCH["iterations"],
    prior_weight=SEARCH["prior_weight"],
)
PHOTOS = victims("photos", 10, size=SIZE)
# What came back, in [0, 1]: (3, H, W); and what else there is to say.
Found = tuple[Tensor, dict[str, float | bool | int]]


def mlp() -> nn.Module:
    """Its first layer sees the whole picture."""
    layers = [nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 1000)).eval()


def transformer() -> nn.Module:
    """Fresh; not the last layer of zeros that torchvision begins with."""
    model = vit_b_16().eval()
    nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


def residual(training: bool) -> nn.Module:
    """Fresh; its running statistics are those of seven other photographs."""
    model = resnet18()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average
    with torch.no_grad():
        model.train()(PHOTOS.images[OTHERS])
    for norm in norms:
        norm.momentum = 0.1
    return model.train(training)


def heard(model: nn.Module, name: str) -> Observation:
    image = PHOTOS.images[VICTIMS[name]][None, None]
    labels = torch.tensor([[LABEL]])
    return observe(model, image, labels, normalisation=PHOTOS.normalisation)


def divided(name: str) -> Found:
    found = invert_linear(heard(mlp(), name))
    return pixels_of(found.images), {"certified": bool(found.exact)}


def patched(name: str) -> Found:
    found = patches_of(heard(transformer(), name))
    return pixels_of(found.images), {"certified": bool(found.certified)}


def searched(name: str, *, training: bool) -> Found:
    seen = heard(residual(training), name)
    search = Search(seen, RECIPE, generator=torch.Generator().manual_seed(1))
    for _ in search:
        pass
    result = search.result
    truth = PHOTOS.images[VICTIMS[name]][None, None]
    oracle = Search(
        seen,
        replace(RECIPE, prior_weight=0.0, distance=squared_distance),
        generator=torch.Generator().manual_seed(1),
        start=truth,
    )
    squares = seen.shared.squared_norms().sum()
    at_truth = next(oracle).objective / squares
    said = {
        "objective": float(result.objective),
        "at the truth": float(at_truth),
    }
    return pixels_of(result.images[:, 0]), said


def grey(name: str) -> Found:
    """What needs no gradient: the mean colour of all photographs."""
    return pixels_of(torch.zeros(1, 3, SIZE, SIZE)), {}


def pixels_of(images: Tensor) -> Tensor:
    return PHOTOS.normalisation.denormalise(images)[0].clamp(0, 1)


CELLS: dict[str, tuple[Callable[[str], Found], dict]] = {
    "no gradient": (grey, {}),
    "MLP, division": (divided, {}),
    "ViT-B/16, patches": (patched, {}),
    "ResNet-18, evaluation mode, search": (
        partial(searched, training=False),
        SEARCH,
    ),
    "ResNet-18, training mode, search": (
        partial(searched, training=True),
        SEARCH,
    ),
}


def computed(cell: str, name: str) -> dict:
    compute, settings = CELLS[cell]
    torch.manual_seed(
        0
    )  # torchvision's weights come from the global generator
    began = process_time()
    found, said = compute(name)
    seconds = process_time() - began
    truth = PHOTOS.pixels[VICTIMS[name]]
    save(f"{slug(cell)}-{name}", found)
    return {
        "cell": cell,
        "victim": name,
        "settings": settings,
        "psnr": round(float(psnr(truth[None], found[None])), 3),
        "ssim": round(float(ssim(truth[None], found[None])), 4),
        **said,
        "seconds of one core": round(seconds, 1),
        "date": str(date.today()),
        "versions": {
            "precode_lib": precode_lib.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }


def slug(cell: str) -> str:
    return "-".join(cell.lower().replace(",", "").replace("/", "-").split())


def save(name: str, pixels: Tensor) -> None:
    levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0)
    Image.fromarray(np.asarray(levels)).save(
        FOLDER / f"{name}.png", optimize=True
    )


def main() -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / "results.json"
    results = (
        json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    )
    for name, index in VICTIMS.items():
        save(f"original-{name}", PHOTOS.pixels[index])
        for cell, (_, settings) in CELLS.items():
            if settings and name not in SEARCHED:
                continue
            known = [
                r for r in results if (r["cell"], r["victim"]) == (cell, name)
            ]
            if known and known[0]["settings"] == settings:
                continue
            results = [r for r in results if r not in known]
            results.append(computed(cell, name))
            file.write_text(
                json.dumps(results, indent=1) + "\n", encoding="utf-8"
            )


if __name__ == "__main__":
    main()
