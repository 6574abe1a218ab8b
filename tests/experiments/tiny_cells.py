"""Cells that run within a tenth of a second, one of each kind."""

from dataclasses import replace

from precode_lib.experiments import (
    KINDS,
    AtsCell,
    AttackCell,
    NoiseCell,
    Setup,
    TrainingCell,
)

SETUP = Setup("photos", "smlp", "precode", width=16, k=4)
TRAINING = TrainingCell(SETUP, epochs=3, train_pictures=130, test_pictures=20)
ATTACK = AttackCell(SETUP, victims=4, iterations=12, patience=12)
TRAINED = replace(ATTACK, epoch=2, training=TRAINING)
ATS = AtsCell(
    Setup("photos", "resnet", width=4), "3-1-7", True, victims=2, iterations=4
)
NOISE = NoiseCell(SETUP, victims=4, draws=3)
EVERY_KIND = {
    "training": TRAINING,
    "attack": ATTACK,
    "trained": TRAINED,
    "noise": NOISE,
    "ats": ATS,
}


def of(cell, **changes):
    """The cell with another setup."""
    return replace(cell, setup=replace(cell.setup, **changes))


def raised(monkeypatch, kind: str, version: int):
    """Let the results of a kind be of another version."""
    later = replace(KINDS[kind], version=version)
    monkeypatch.setitem(KINDS.data, kind, later)
