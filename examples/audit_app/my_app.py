"""What `precode audit` asks of an app: a model, examples, and its loss if it has one.

In this folder:

    precode audit my_app:make_model --data my_app:make_examples \
        --loss my_app:per_example

Put your own in their place. A name is all that the command needs; the functions may lie
in any module that can be imported from where it is given.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from precode_lib.data import Pictures, victims


def make_model() -> nn.Module:
    """The model as clients get it; here from images (N, 3, 32, 32) to ten logits."""
    layers = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))


def make_examples() -> Pictures:
    """What clients have: pictures, or (inputs, labels) of anything else."""
    return victims("photos", 8)


def per_example(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The loss that clients train with, (N,): cross-entropy with soft labels."""
    options = {"label_smoothing": 0.1, "reduction": "none"}
    return F.cross_entropy(model(images), labels, **options)


def rounded(gradients):
    """A defense of one's own: the message in half precision."""
    return gradients.map(lambda values: values.to(torch.float16).to(values.dtype))
