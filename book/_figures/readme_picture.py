"""Draw book/_static/readme.png: what comes back from a gradient.

Run it by hand after a change to the attacks; it takes minutes on a laptop.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from precode_lib.attacks import iga
from precode_lib.attacks.closed_form import invert_linear
from precode_lib.bottleneck import with_precode
from precode_lib.data import victims
from precode_lib.federated import observe
from precode_lib.metrics import score
from precode_lib.models import smlp
from precode_lib.plots import colour

TARGET = Path(__file__).resolve().parents[1] / "_static" / "readme.png"
SIGMA = 0.1
ITERATIONS = 600


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    photos = victims("photos", 10)[torch.tensor([1, 2, 6])]  # CC0, all three
    images = photos.normalisation.normalise(photos.pixels)[:, None]
    labels = photos.labels[:, None]
    model = smlp(generator=generator)
    protected = with_precode(model, before="fc", generator=generator)

    def noisy(gradients):
        return gradients.map(
            lambda g: g + SIGMA * torch.randn(g.shape, generator=generator)
        )

    def listen(model, defense=None):
        return observe(
            model,
            images,
            labels,
            defense=defense,
            noise=generator,
            normalisation=photos.normalisation,
        )

    def search(seen):
        attack = iga(seen, generator=generator, iterations=ITERATIONS)
        for _ in attack:
            pass
        return attack.result.pixels[:, 0]

    behind_precode = listen(protected)
    divided = invert_linear(behind_precode).images
    columns = [
        ("the client's\nphotograph", "original", photos.pixels),
        ("a search finds,\nundefended", "leaked", search(listen(model))),
        (
            f"a search finds,\nnoise σ = {SIGMA:g}",
            "defended",
            search(listen(model, noisy)),
        ),
        (
            "a search finds,\nPRECODE",
            "defended",
            search(behind_precode),
        ),
        (
            "one division finds,\nPRECODE",
            "leaked",
            photos.normalisation.denormalise(divided).clamp(0, 1),
        ),
    ]
    draw(columns, photos.pixels).savefig(TARGET, dpi=110)


def draw(columns, originals) -> Figure:
    """One column of pictures for each result, with its mean SSIM below."""
    rows = len(originals)
    figure = Figure(
        figsize=(8.6, 6.2), layout="constrained", facecolor="white"
    )
    axes = figure.subplots(rows, len(columns))
    for column, (title, role, pixels) in enumerate(columns):
        for row in range(rows):
            ax = axes[row, column]
            ax.imshow(pixels[row].permute(1, 2, 0), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        axes[0, column].set_title(title, color=colour(role), fontsize=11)
        similarity = score(originals, pixels).ssim.mean()
        label = "SSIM" if column == 0 else f"{similarity:.2f}"
        axes[-1, column].set_xlabel(label, fontsize=11)
    return figure


if __name__ == "__main__":
    main()
