"""A newcomer's only file: a U-Net whose labels are masks, and its loss."""

import torch
from torch import nn
from torch.nn import functional as F

from precode_lib.data import Examples, split
from precode_lib.experiments import (
    DATASETS,
    MODELS,
    Architecture,
    AttackCell,
    Dataset,
    Setup,
    Table,
)


def cells_of_tissue(path):
    """Pictures of one channel, and for each of their pixels whether it is a cell's."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(30, 1, 8, 8, generator=generator)
    masks = (pictures[:, 0] > 0.5).long()
    return split(Examples(pictures, masks, ("around", "cell"), "tissue"))


def mask_loss(model, pictures, masks):
    """Of each picture, the mean cross-entropy of its pixels."""
    return F.cross_entropy(model(pictures), masks, reduction="none").mean((1, 2))


class UNet(nn.Module):
    """Down, up, and a bridge over both."""

    def __init__(self, shape, classes, *, width, generator):
        super().__init__()
        self.down = nn.Conv2d(shape[0], width, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.out = nn.Conv2d(width + shape[0], classes, 1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)

    def forward(self, pictures):
        deep = torch.sigmoid(self.up(torch.sigmoid(self.down(pictures))))
        return self.out(torch.cat([pictures, deep], 1))


DATASETS["tissue"] = Dataset("tissue", cells_of_tissue, loss=mask_loss)
MODELS["u-net"] = Architecture("U-Net", UNet, width=4)


def cells(scale):
    """One picture for each gradient, and two."""
    setup = Setup("tissue", "u-net")
    usual = {"victims": 4, "iterations": 20, "patience": 20, "lr": 1.0}
    return [AttackCell(setup, "lbfgs", batch_size=size, **usual) for size in (1, 2)]


TABLE = Table("tissue", "Masks", cells)
