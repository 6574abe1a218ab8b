import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from precode_lib.ats import OPERATION_KINDS, OPERATIONS
from precode_lib.ats.operations import to_levels
from precode_lib.data import victims


@pytest.fixture(scope="module")
def levels() -> torch.Tensor:
    """Ten photographs, smooth noise and hard cases: uint8 (14, 3, 32, 32)."""
    photographs = victims("photos", 10).stored
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    two = torch.where(torch.arange(32) < 20, 3, 250).to(torch.uint8)
    return torch.cat([photographs, noise, flat, two.expand(1, 3, 32, 32)])


def to_pil(picture: torch.Tensor) -> Image.Image:
    array = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)


def from_pil(image: Image.Image) -> torch.Tensor:
    array = np.atleast_3d(np.asarray(image))
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def affine(image: Image.Image, numbers, resample) -> Image.Image:
    black = 0 if image.mode == "L" else (0, 0, 0)
    return image.transform(image.size, Image.AFFINE, numbers, resample, fillcolor=black)


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    turned = image.convert("RGBA").rotate(degrees)
    grey = Image.new("RGBA", image.size, (128,) * 4)
    return Image.composite(turned, grey, turned).convert(image.mode)


# What the published code calls, for one picture and one sign.
PIL = {
    "shear_y": lambda i, m: affine(i, (1, 0, 0, m, 1, 0), Image.BICUBIC),
    "translate_x": lambda i, m: affine(
        i, (1, 0, m * i.size[0], 0, 1, 0), Image.NEAREST
    ),
    "translate_y": lambda i, m: affine(
        i, (1, 0, 0, 0, 1, m * i.size[1]), Image.NEAREST
    ),
    "rotate": rotated,
    "brightness": lambda i, m: ImageEnhance.Brightness(i).enhance(1 + m),
    "color": lambda i, m: ImageEnhance.Color(i).enhance(1 + m),
    "contrast": lambda i, m: ImageEnhance.Contrast(i).enhance(1 + m),
    "sharpness": lambda i, m: ImageEnhance.Sharpness(i).enhance(1 + m),
    "posterize": lambda i, m: ImageOps.posterize(i, int(m)),
    "solarize": ImageOps.solarize,
    "autocontrast": lambda i, m: ImageOps.autocontrast(i),
    "equalize": lambda i, m: ImageOps.equalize(i),
    "invert": lambda i, m: ImageOps.invert(i),
}
# Greatest difference in levels; what is not listed agrees exactly. PIL rounds the mean
# grey to a whole number, and truncates where torchvision rounds (or the reverse).
TOLERANCE = {"shear_y": 1, "color": 1, "contrast": 1, "sharpness": 1, "autocontrast": 1}


def assert_like_pil(operation, sign, levels):
    name, magnitude = operation.kind.name, operation.magnitude
    if operation.kind.signed:
        magnitude = sign * magnitude
    expected = torch.stack(
        [from_pil(PIL[name](to_pil(picture), magnitude)) for picture in levels]
    )
    found = operation(levels, sign)
    assert found.dtype == torch.uint8
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= TOLERANCE.get(name, 0), difference.float().mean()


SIGNS = pytest.mark.parametrize("sign", [1, -1])
EACH = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.index}")


@SIGNS
@EACH
def test_every_operation_does_what_pil_does(operation, sign, levels):
    assert_like_pil(operation, sign, levels)


@SIGNS
@EACH
def test_operations_on_grey_pictures_of_other_sizes_do_what_pil_does(operation, sign):
    generator = torch.Generator().manual_seed(1)
    for shape in [(2, 1, 28, 28), (1, 1, 17, 23), (1, 3, 64, 40)]:
        noise = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        assert_like_pil(operation, sign, noise)


@EACH
def test_operations_leave_their_input_alone_and_share_no_memory(operation, levels):
    for pixels in (levels, levels.double() / 255):
        before = pixels.clone()
        result = operation(pixels)
        result.zero_()
        assert torch.equal(pixels, before)


@SIGNS
@EACH
def test_float_pixels_give_the_same_picture_up_to_rounding(operation, sign, levels):
    if operation.kind.name == "contrast":
        levels = levels[:12]  # on the flat picture a mean of its own moves nothing
    found = operation(levels.double() / 255, sign) * 255
    expected = operation(levels, sign)
    assert (found - expected).abs().max() < 2.5


@EACH
def test_float_pixels_can_be_differentiated_once(operation):
    generator = torch.Generator().manual_seed(2)
    pixels = torch.rand(2, 3, 12, 12, generator=generator).double().requires_grad_()
    (slope,) = torch.autograd.grad(operation(pixels).square().sum(), pixels)
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0


SMOOTH = [0, 1, 2, 3, 4, 6, 7, 12, 13, 37]


@pytest.mark.parametrize("index", SMOOTH)
def test_derivatives_of_smooth_operations_are_those_of_finite_differences(index):
    generator = torch.Generator().manual_seed(3)
    # Away from 0 and 1, where values are clamped, and from solarize's threshold.
    pixels = 0.3 + 0.2 * torch.rand(1, 3, 5, 5, generator=generator).double()
    assert torch.autograd.gradcheck(OPERATIONS[index], pixels.requires_grad_())


@pytest.mark.parametrize("name", ["posterize", "autocontrast", "equalize"])
def test_operations_on_levels_pass_the_derivative_straight_through(name):
    operation = next(o for o in OPERATIONS if o.kind.name == name)
    pixels = torch.rand(1, 3, 8, 8).requires_grad_()
    (slope,) = torch.autograd.grad(operation(pixels).sum(), pixels)
    assert torch.equal(slope, torch.ones_like(pixels))


def test_only_29_of_the_50_operations_differ():
    assert len(OPERATIONS) == 50
    assert [o.index for o in OPERATIONS] == list(range(50))
    assert len({(o.kind.name, o.magnitude) for o in OPERATIONS}) == 29


def test_28_and_39_change_nothing(levels):
    assert [o.index for o in OPERATIONS if o.is_identity] == [28, 39]
    for index in (28, 39):
        assert torch.equal(OPERATIONS[index](levels, -1), levels)


def test_all_other_operations_change_a_picture_of_all_levels_but_black_and_white():
    picture = torch.arange(1, 255).repeat(13)[: 3 * 32 * 32].to(torch.uint8)
    picture = picture.view(1, 3, 32, 32)
    for operation in OPERATIONS:
        is_same = torch.equal(operation(picture), picture)
        assert is_same == operation.is_identity, operation


def test_the_table_has_the_published_counts():
    names = [o.kind.name for o in OPERATIONS]
    counts = {name: names.count(name) for name in OPERATION_KINDS}
    assert counts == {
        "equalize": 9, "autocontrast": 7, "sharpness": 5, "translate_y": 5, "color": 5,
        "brightness": 4, "solarize": 4, "invert": 3, "contrast": 2, "translate_x": 2,
        "shear_y": 2, "rotate": 1, "posterize": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("index", "magnitude"),
    [
        (1, 0.333), (2, 6.67), (3, 0.453), (4, 0.0556), (5, 0.167), (6, 0.067),
        (7, 0.101), (10, 0.167), (11, 6), (12, 0.167), (13, 0.278), (14, 0.5),
        (15, 0.5), (18, 0.389), (21, 0.252), (24, 0.151), (27, 0.444), (28, 256),
        (37, 142.2), (40, 227.6), (43, 0.151), (45, 227.6),
    ],
)  # fmt: skip
def test_magnitudes_are_the_published_ones(index, magnitude):
    assert OPERATIONS[index].magnitude == pytest.approx(magnitude, rel=5e-3)


def test_operations_say_in_words_what_they_do():
    assert repr(OPERATIONS[3]) == "Operation(3: translate_x ±0.453)"
    assert repr(OPERATIONS[2]) == "Operation(2: rotate 6.67)"
    assert repr(OPERATIONS[9]) == "Operation(9: equalize)"


def test_to_levels_rounds_and_keeps_what_is_already_one(levels):
    assert to_levels(levels) is levels
    assert torch.equal(to_levels(levels.float() / 255), levels)
    assert torch.equal(to_levels(levels.half() / 255), levels)
