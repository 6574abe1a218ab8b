"""Small nets on which every attack succeeds within seconds."""

from types import SimpleNamespace

import torch
from torch import nn

from precode_lib.bottleneck import VariationalBottleneck
from precode_lib.data import PHOTOS
from precode_lib.federated import observe


def make_net(*, bottleneck=False, activation=nn.Sigmoid, dtype=torch.float64):
    """A convolution and a linear layer on 3x8x8 pictures, with lively weights."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), activation(), nn.Flatten()]
    layers += [nn.Linear(8 * 64, 16), activation()]
    layers += [VariationalBottleneck(16, k=8)] if bottleneck else []
    model = nn.Sequential(*layers, nn.Linear(16, 4)).to(dtype).eval()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def make_scene(victims=2, batch=1, *, dtype=torch.float64, seed=0, **options):
    """A net, V x B random smooth pictures with labels, and what a listener sees."""
    model = make_net(dtype=dtype, **options)
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(victims * batch, 3, 3, 3, generator=generator)
    pixels = nn.functional.interpolate(coarse, size=8, mode="bilinear")
    pixels = pixels.unflatten(0, (victims, batch)).to(dtype)
    labels = torch.arange(victims * batch).view(victims, batch) % 4
    images = PHOTOS.normalise(pixels)
    seen = observe(model, images, labels, normalisation=PHOTOS, noise=torch.zeros_like)
    return SimpleNamespace(
        model=model, pixels=pixels, images=images, labels=labels, seen=seen
    )
