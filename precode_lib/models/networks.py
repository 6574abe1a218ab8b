"""The networks of the papers, for any image size, channels and number of classes.

Each is features → fc, so that a bottleneck reads `with_precode(model, before="fc")`.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import check_count

from .initialisation import Init, built, pytorch_default, uniform

__all__ = [
    "DLG_INIT",
    "Activation",
    "Classifier",
    "Init",
    "Norm",
    "convnet",
    "dmlp",
    "lenet",
    "mlp",
    "pytorch_default",
    "resnet",
    "resnet20_4",
    "smlp",
    "uniform",
]

Shape = tuple[int, int, int]  # (C, H, W)
Activation = Callable[[], nn.Module]  # makes a new module for each place
Norm = Callable[[int], nn.Module]  # from the number of channels to a module
DLG_INIT = uniform(0.5)


class Classifier(nn.Module):
    """features → fc: images (B, *image_shape) to logits (B, num_classes)."""

    def __init__(self, features: nn.Module, fc: nn.Module, image_shape: Shape):
        super().__init__()
        self.features, self.fc = features, fc
        self.image_shape = tuple(image_shape)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, *image_shape), normalised, to logits (B, num_classes)."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(
                f"this model takes images of shape (B, {expected}), got "
                f"{tuple(images.shape)}."
            )
        return self.fc(self.features(images))


def mlp(
    image_shape: Shape = (3, 32, 32),
    num_classes: int = 10,
    *,
    depth: int,
    width: int = 1024,
    activation: Activation = nn.ReLU,
    init: Init = pytorch_default,
    generator: torch.Generator | None = None,
) -> Classifier:
    """A multilayer perceptron of `depth` hidden layers (hidden1, activation1, ...)."""
    check_count(depth, "depth")
    check_count(width, "width")

    def features() -> nn.Module:
        layers = OrderedDict(flatten=nn.Flatten())
        num_inputs = image_shape[0] * image_shape[1] * image_shape[2]
        for i in range(1, depth + 1):
            layers[f"hidden{i}"] = nn.Linear(num_inputs, width)
            layers[f"activation{i}"] = _made(activation)
            num_inputs = width
        return nn.Sequential(layers)

    return _classifier(features, width, image_shape, num_classes, init, generator)


def smlp(
    image_shape: Shape = (3, 32, 32),
    num_classes: int = 10,
    *,
    width: int = 1024,
    activation: Activation = nn.ReLU,
    init: Init = pytorch_default,
    generator: torch.Generator | None = None,
) -> Classifier:
    """The shallow MLP of the PRECODE paper: two hidden layers.

    >>> import torch
    >>> from precode_lib.models import smlp
    >>> model = smlp((1, 28, 28), num_classes=10, width=32)
    >>> model(torch.rand(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """
    return mlp(
        image_shape,
        num_classes,
        depth=2,
        width=width,
        activation=activation,
        init=init,
        generator=generator,
    )


def dmlp(
    image_shape: Shape = (3, 32, 32),
    num_classes: int = 10,
    *,
    width: int = 1024,
    activation: Activation = nn.ReLU,
    init: Init = pytorch_default,
    generator: torch.Generator | None = None,
) -> Classifier:
    """The deep MLP of the PRECODE paper: four hidden layers."""
    return mlp(
        image_shape,
        num_classes,
        depth=4,
        width=width,
        activation=activation,
        init=init,
        generator=generator,
    )


def lenet(
    image_shape: Shape = (3, 32, 32),
    num_classes: int = 10,
    *,
    num_convs: int = 3,
    activation: Activation = nn.Sigmoid,
    norm: Norm | None = None,
    init: Init = DLG_INIT,
    generator: torch.Generator | None = None,
) -> Classifier:
    """The LeNet of DLG and iDLG: 12-channel 5x5 convolutions, strides 2, 2, 1, ...

    Its usual weights are uniform within ±0.5; `init=pytorch_default` is the other
    choice, and easier to attack. CPL adds a fourth convolution. A `norm`, such as
    nn.BatchNorm2d, follows each of them; the published network has none.

    >>> from precode_lib.models import lenet
    >>> sum(parameter.numel() for parameter in lenet().parameters())
    15826
    """
    check_count(num_convs, "num_convs", 2)

    def features() -> nn.Module:
        layers, channels = OrderedDict(), image_shape[0]
        for i in range(1, num_convs + 1):
            stride = 2 if i <= 2 else 1
            layers[f"conv{i}"] = nn.Conv2d(channels, 12, 5, stride, padding=2)
            if norm is not None:
                layers[f"norm{i}"] = norm(12)
            layers[f"activation{i}"] = _made(activation)
            channels = 12
        layers["flatten"] = nn.Flatten()
        return nn.Sequential(layers)

    _, height, width = _checked_shape(image_shape)
    num_features = 12 * -(-height // 4) * -(-width // 4)  # rounded up
    return _classifier(
        features, num_features, image_shape, num_classes, init, generator
    )


def convnet(
    image_shape: Shape = (3, 32, 32),
    num_classes: int = 10,
    *,
    width: int = 64,
    activation: Activation = nn.ReLU,
    init: Init = pytorch_default,
    generator: torch.Generator | None = None,
) -> Classifier:
    """The ConvNet of Geiping et al. 2020: eight 3x3 convolutions with BatchNorm.

    Two 3x3 poolings follow the sixth and the eighth, so images are 9x9 at least.
    """
    check_count(width, "width")
    _, image_height, image_width = _checked_shape(image_shape)
    if min(image_height, image_width) < 9:
        raise ValueError(
            f"convnet pools 3x3 twice and needs images of 9x9 at least, got "
            f"{image_height}x{image_width}."
        )

    def features() -> nn.Module:
        layers, channels = OrderedDict(), image_shape[0]
        for i, factor in enumerate((1, 2, 2, 4, 4, 4, 4, 4), start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, factor * width, 3, padding=1)
            layers[f"norm{i}"] = nn.BatchNorm2d(factor * width)
            layers[f"activation{i}"] = _made(activation)
            channels = factor * width
            if i in (6, 8):
                layers[f"pool{i}"] = nn.MaxPool2d(3)
        layers["flatten"] = nn.Flatten()
        return nn.Sequential(layers)

    num_features = 4 * width * (image_height // 9) * (image_width // 9)
    return _classifier(
        features, num_features, image_shape, num_classes, init, generator
    )


def resnet(
    image_shape: Shape = (3, 32, 32),
    num_classes: int = 10,
    *,
    blocks_per_stage: int,
    width: int,
    activation: Activation = nn.ReLU,
    init: Init = pytorch_default,
    generator: torch.Generator | None = None,
) -> Classifier:
    """A CIFAR ResNet of three stages; its depth is 6 · blocks_per_stage + 2.

    He et al. 2016, with 1x1 convolutions where a shortcut changes shape.
    """
    check_count(blocks_per_stage, "blocks_per_stage")
    check_count(width, "width")

    def features() -> nn.Module:
        layers = OrderedDict(
            conv=nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(width),
            activation=_made(activation),
        )
        for stage in (1, 2, 3):
            sizes = (max(1, stage - 1) * width, 2 ** (stage - 1) * width)
            layers[f"stage{stage}"] = _stage(*sizes, blocks_per_stage, activation)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        return nn.Sequential(layers)

    return _classifier(features, 4 * width, image_shape, num_classes, init, generator)


def resnet20_4(
    image_shape: Shape = (3, 32, 32),
    num_classes: int = 10,
    *,
    activation: Activation = nn.ReLU,
    init: Init = pytorch_default,
    generator: torch.Generator | None = None,
) -> Classifier:
    """The ResNet20 of fourfold width of IGA and ATS: 64, 128 and 256 channels."""
    return resnet(
        image_shape,
        num_classes,
        blocks_per_stage=3,
        width=64,
        activation=activation,
        init=init,
        generator=generator,
    )


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut around them."""

    def __init__(self, num_in: int, num_out: int, activation: Activation):
        super().__init__()
        stride = 1 if num_in == num_out else 2
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(num_out)
        self.activation1 = _made(activation)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(num_out)
        self.shortcut = nn.Identity()
        if stride == 2:
            conv = nn.Conv2d(num_in, num_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(
                OrderedDict(conv=conv, norm=nn.BatchNorm2d(num_out))
            )
        self.activation2 = _made(activation)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.activation1(self.norm1(self.conv1(maps)))
        return self.activation2(self.norm2(self.conv2(inner)) + self.shortcut(maps))


def _stage(
    num_in: int, num_out: int, num_blocks: int, activation: Activation
) -> nn.Module:
    later = [_Block(num_out, num_out, activation) for _ in range(num_blocks - 1)]
    return nn.Sequential(_Block(num_in, num_out, activation), *later)


def _classifier(
    features: Callable[[], nn.Module],
    num_features: int,
    image_shape: Shape,
    num_classes: int,
    init: Init,
    generator: torch.Generator | None,
) -> Classifier:
    _checked_shape(image_shape)
    check_count(num_classes, "num_classes")
    return built(
        lambda: Classifier(
            features(), nn.Linear(num_features, num_classes), image_shape
        ),
        init=init,
        generator=generator,
    )


def _checked_shape(image_shape: Shape) -> Shape:
    if not isinstance(image_shape, tuple | list) or len(image_shape) != 3:
        raise ValueError(f"image_shape must be (C, H, W), got {image_shape!r}.")
    for size in image_shape:
        check_count(size, "each entry of image_shape (C, H, W)")
    return image_shape


def _made(activation: Activation) -> nn.Module:
    made = None if isinstance(activation, nn.Module) else activation()
    if not isinstance(made, nn.Module):
        raise TypeError(
            "activation must be a function that makes a module, such as nn.ReLU or "
            f"lambda: nn.LeakyReLU(0.1), got {activation!r}."
        )
    return made
