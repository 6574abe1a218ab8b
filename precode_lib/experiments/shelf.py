"""What the book reads from finished cells: tables side by side, curves, pictures.

Nothing is computed here that is not in a file; a cell without a file says "not run".
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import precode_lib
from precode_lib.data import Pictures
from precode_lib.experiments.cells import Cell, reseeded
from precode_lib.experiments.gallery import Gallery
from precode_lib.experiments.kinds.attack import AttackCell
from precode_lib.experiments.kinds.training import TrainingCell
from precode_lib.experiments.names.attacks import ATTACKS
from precode_lib.experiments.names.defenses import DEFENSES
from precode_lib.experiments.names.models import MODELS
from precode_lib.experiments.protocol import Scale
from precode_lib.experiments.store import RESULTS, Finished, Store, find
from precode_lib.experiments.tables import TABLES, Row, rows
from precode_lib.metrics import SUCCESS_SSIM

METRICS = {
    "mse": "MSE",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "asr": "ASR, %",
    "train_accuracy": "train, %",
    "test_accuracy": "test, %",
    "relative_error": "relative error",
    "first": "rank 1, %",
    "rank": "median rank",
    "cosine": "cosine of two gradients",
    "psnr against the original": "PSNR against the original, dB",
    "ssim against the original": "SSIM against the original",
}
NOT_RUN = "not run"
PUBLISHED = "as published"  # a line without changes among lines with some


def results_folder() -> Path:
    """Where the shipped results are: in the repository that the library lies in."""
    folder = Path(precode_lib.__file__).parents[1] / RESULTS
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the results are part of the book's repository, and {folder} is not "
            "there; clone the repository and install the library from it (pip "
            "install --editable .), or name another folder."
        )
    return folder


@dataclass(frozen=True)
class Ends:
    """How the searches of one attack ended, all seeds together.

    Args:
        plateaus: how many ended because their objective had not fallen for long.
        steps: how many each search made, one per gradient and seed.
        successes: of each seed: victims with an SSIM of 0.6 or more.
    """

    plateaus: int
    steps: list[int]
    successes: list[int]


@dataclass(frozen=True)
class Shelf:
    """The finished cells of one scale, read once.

    Args:
        scale: whose cells.
        found: the finished ones, by cell.
    """

    scale: Scale
    found: Mapping[Cell, Finished]

    @classmethod
    def of(cls, scale: Scale, folder: Path | None = None) -> "Shelf":
        """Read all tables' cells of a scale from a folder of results."""
        folder = results_folder() if folder is None else folder
        cells = (c for t in TABLES.values() for c in t.all_cells(scale))
        return cls(scale, find(cells, Store(folder / scale.name)))

    def rows(self, table: str) -> list[Row]:
        """A table's rows, as far as they were run."""
        return rows(TABLES[table], self.scale, self.found)

    def seeds_of(self, cell: Cell) -> list[Finished]:
        """The finished seeds of a cell that is given with any seed."""
        seeds = (self.found.get(reseeded(cell, seed)) for seed in self.scale.seeds)
        return [finished for finished in seeds if finished is not None]

    def cells(self, table: str) -> list[Cell]:
        """A table's cells, with seed 0."""
        return list(dict.fromkeys(TABLES[table].cells(self.scale)))

    def accuracy_curves(self, cell: TrainingCell, part: str) -> list[list[float]]:
        """`train` or `test` accuracy in percent after each epoch, one list per seed."""
        name = f"{part}_accuracy"
        found = self.seeds_of(cell)
        return [[100 * value for value in f.result[name]] for f in found]

    def ssim(self, cell: AttackCell) -> list[float]:
        """The SSIM of every victim, all seeds together."""
        return [value for f in self.seeds_of(cell) for value in f.result["ssim"]]

    def ends(self, cell: AttackCell) -> Ends:
        """How the searches of a cell ended, all seeds together."""
        results = [finished.result for finished in self.seeds_of(cell)]
        outcomes = [end for result in results for end in result["outcomes"]]
        return Ends(
            plateaus=outcomes.count("plateau"),
            steps=[step for result in results for step in result["iterations"]],
            successes=[sum(v >= SUCCESS_SSIM for v in r["ssim"]) for r in results],
        )

    def provenance(self, table: str) -> dict[str, list[str]]:
        """On what, with what and when a table's cells were run: each fact once."""
        used = [f for cell in self.cells(table) for f in self.seeds_of(cell)]
        made = [f.made for f in used]
        return {
            "pictures": _once(_described(p) for f in used for p in f.pictures),
            "torch": _once(m["torch"] for m in made),
            "device": _once(m["device"] for m in made),
            "date": _once(m["date"] for m in made),
            "core hours": [f"{sum(m['processor_seconds'] for m in made) / 3600:.2f}"],
        }


def side_by_side(
    table_rows: Sequence[Row],
) -> tuple[list[str], list[list[str | tuple[str, str]]]]:
    """Heads and lines of a table: a line per condition, a pair (ours, paper) a metric.

    Attack metrics and accuracies of one setup share their line.
    """
    lines = _lines(table_rows)
    metrics = list(dict.fromkeys(row.metric for row in table_rows))
    has_variants = any(condition for _, condition, _ in lines)
    attacks = {attack for _, _, attack in lines if attack}
    heads = ["attack"] if len(attacks) > 1 else []
    heads += ["model", "defense", *(["variant"] if has_variants else [])]
    heads += [METRICS.get(metric, metric) for metric in metrics]
    body = []
    for (setup, condition, attack), entries in lines.items():
        names = [ATTACKS.title(attack) or "-"] if len(attacks) > 1 else []
        names += [MODELS.title(setup.model), DEFENSES.title(setup.defense)]
        usual = PUBLISHED if attack else "training"
        names += [condition or usual] if has_variants else []
        cells = [_pair(entries[m]) if m in entries else "" for m in metrics]
        body.append([*names, *cells])
    return heads, body


def _lines(table_rows: Sequence[Row]) -> dict[tuple, dict[str, Row]]:
    """Rows by setup, condition and attack; accuracies join their setup's attack."""
    lines: dict[tuple, dict[str, Row]] = {}
    for row in table_rows:
        who = (row.setup, row.condition)
        attacked = next((line for line in lines if line[:2] == who and line[2]), None)
        joins = not row.attack and attacked is not None
        line = attacked if joins else (*who, row.attack)
        lines.setdefault(line, {})[row.metric] = row
    return lines


def pictures_of(finished: Finished) -> dict[int, Tensor]:
    """The stored reconstructions: index of the victim -> pixels (C, H, W) in [0, 1]."""
    result = finished.result
    shown = zip(result.get("shown", []), result.get("pictures", []), strict=True)
    return {index: _decoded(text) for index, text in shown}


def nearest(pictures: Pictures, among: Pictures) -> Tensor:
    """RMS distance of each picture to the most similar other, pixels in [0, 1]: (N,).

    A picture that is among the others, perhaps as JPEG, is nearer than a twentieth.
    """
    here, there = (p.pixels.flatten(1) for p in (pictures, among))
    return torch.cdist(here, there).amin(1) / here.shape[1] ** 0.5


def originals(cell: AttackCell) -> Tensor:
    """The pixels of a cell's victims; its data set must be here."""
    return Gallery().victims(cell.setup.dataset, cell.victims).pixels


def variant(cell: Cell, **changes) -> Cell:
    """The cell with other fields of its setup."""
    return replace(cell, setup=replace(cell.setup, **changes))


def _pair(row: Row) -> tuple[str, str]:
    published = "" if row.paper is None else f"{row.paper:.2f}"
    if row.mean is None:
        return NOT_RUN, published
    spread = "" if row.spread is None else f" ± {row.spread:.2f}"
    return f"{row.mean:.2f}{spread}", published


def _described(pictures: Mapping[str, object]) -> str:
    return f"{pictures['number']:,} of {pictures['name']} ({pictures['fidelity']})"


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _decoded(text: str) -> Tensor:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        array = np.array(image, dtype=np.float32) / 255
    return torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1)
