"""A newcomer's only file: rows with classes, an MLP, trained and attacked."""

import torch
from torch import nn

from precode_lib.data import Examples, split
from precode_lib.experiments import (
    DATASETS,
    MODELS,
    Architecture,
    AttackCell,
    Dataset,
    Setup,
    Table,
    TrainingCell,
)


def irises(path):
    """Four lengths of each flower, of three kinds."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(90) % 3
    lengths = torch.randn(90, 4, generator=generator) + 2 * kinds[:, None]
    return split(Examples(lengths, kinds, ("a", "b", "c"), "irises"))


def mlp(shape, classes, *, width, generator):
    """Weights from the generator, so that a seed is a seed."""
    model = nn.Sequential(
        nn.Linear(*shape, width), nn.Sigmoid(), nn.Linear(width, classes)
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    return model


DATASETS["irises"] = Dataset("irises", irises)
MODELS["mlp"] = Architecture("MLP", mlp, width=16)


def cells(scale):
    """Learnt, and attacked before and after."""
    setup = Setup("irises", "mlp")
    training = TrainingCell(setup, epochs=3)
    usual = {"victims": 4, "iterations": 30, "patience": 30, "lr": 1.0}
    return [
        training,
        AttackCell(setup, "lbfgs", **usual),
        AttackCell(setup, "lbfgs", epoch=2, training=training, **usual),
        AttackCell(setup, "divide", victims=4),
    ]


TABLE = Table("irises", "Rows of a table", cells)
