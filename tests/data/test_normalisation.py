import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from precode_lib.data import CIFAR10, IDENTITY, Normalisation

numbers = st.floats(-2, 2)
spreads = st.floats(0.01, 3)
channels = st.integers(1, 4)


@st.composite
def normalisations(draw, num_channels=channels):
    count = draw(num_channels)
    return Normalisation(
        tuple(draw(numbers) for _ in range(count)),
        tuple(draw(spreads) for _ in range(count)),
    )


@given(normalisations(), st.integers(0, 2**32))
def test_denormalising_undoes_normalising(normalisation, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, len(normalisation.mean), 3, 4)
    pixels = torch.rand(shape, generator=generator, dtype=torch.float64)
    back = normalisation.denormalise(normalisation.normalise(pixels))
    torch.testing.assert_close(back, pixels, rtol=0, atol=1e-13)


def test_every_8_bit_level_survives_float32_normalisation():
    levels = torch.arange(256).repeat(3, 1)[:, None]  # (3, 1, 256)
    images = CIFAR10.normalise(levels.float() / 255)
    back = (CIFAR10.denormalise(images) * 255).round().long()
    assert torch.equal(back, levels)


@given(normalisations())
def test_the_box_holds_exactly_the_images_of_black_and_white(normalisation):
    lower, upper = normalisation.box
    shape = (len(normalisation.mean), 1, 1)
    assert torch.equal(lower, normalisation.normalise(torch.zeros(shape)))
    assert torch.equal(upper, normalisation.normalise(torch.ones(shape)))
    assert (lower < upper).all()


def test_values_agree_with_the_formula_channel_by_channel(generator):
    pixels = torch.rand(5, 3, 2, 2, generator=generator)
    images = CIFAR10.normalise(pixels)
    for c in range(3):
        expected = (pixels[:, c] - CIFAR10.mean[c]) / CIFAR10.std[c]
        torch.testing.assert_close(images[:, c], expected)


def test_clipping_moves_only_what_is_outside_the_box(generator):
    images = 3 * torch.randn(4, 3, 5, 5, generator=generator)
    clipped = CIFAR10.clip(images)
    pixels = CIFAR10.denormalise(images)
    inside = (pixels > 1e-6) & (pixels < 1 - 1e-6)
    assert torch.equal(clipped[inside], images[inside])
    back = CIFAR10.denormalise(clipped)
    torch.testing.assert_close(back, pixels.clamp(0, 1), rtol=0, atol=1e-6)


def test_clipping_keeps_the_precision_of_the_images():
    images = torch.full((1, 3, 1, 1), 9.0, dtype=torch.float64)
    assert CIFAR10.clip(images).dtype == torch.float64


def test_the_identity_returns_equal_values_in_new_memory(generator):
    pixels = torch.rand(1, 2, 3, 3, generator=generator)
    for result in (IDENTITY.normalise(pixels), IDENTITY.denormalise(pixels)):
        assert torch.equal(result, pixels)
        assert result.data_ptr() != pixels.data_ptr()


@pytest.mark.parametrize("step", ["normalise", "denormalise", "clip"])
def test_no_step_changes_its_argument(step, generator):
    values = 5 * torch.randn(2, 3, 4, 4, generator=generator)
    before = values.clone()
    getattr(CIFAR10, step)(values)
    assert torch.equal(values, before)


def test_victims_of_a_batch_dimension_more_are_normalised_alike(generator):
    pixels = torch.rand(2, 5, 3, 4, 4, generator=generator)
    expected = CIFAR10.normalise(pixels.flatten(0, 1)).reshape(pixels.shape)
    assert torch.equal(CIFAR10.normalise(pixels), expected)


def test_a_normalisation_is_frozen_and_compares_by_value():
    assert Normalisation([0.5], [0.25]) == Normalisation((0.5,), (0.25,))
    with pytest.raises(AttributeError):
        CIFAR10.mean = (0.0,)


def test_the_box_of_the_papers_victims_is_the_measured_one():
    # facts of the published victim file: its values range from -1.9895 to 2.1264
    lower, upper = CIFAR10.box
    assert lower.min().item() == pytest.approx(-1.9895, abs=1e-4)
    assert upper.max().item() == pytest.approx(2.1265, abs=2e-4)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5,), (0.1, 0.2), "one number per channel"),
        ((), (), "one number per channel"),
        ((0.5,), (0.0,), "std must be positive"),
        ((0.5,), (float("nan"),), "std must be positive"),
        ((float("inf"),), (1.0,), "mean must be finite"),
    ],
)
def test_impossible_statistics_are_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalisation(mean, std)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), ((0.5,), 0.25), ("a", "b")])
def test_statistics_that_are_no_sequence_of_numbers_are_refused(mean, std):
    with pytest.raises(TypeError, match=r"one number per channel, such as \(0\.5,\)"):
        Normalisation(mean, std)


def test_8_bit_levels_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match="divide 8-bit values by 255"):
        CIFAR10.normalise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (4, 4), (3,)])
def test_a_wrong_number_of_channels_is_refused(shape):
    with pytest.raises(ValueError, match=r"images must be \(\.\.\., 3, H, W\)"):
        CIFAR10.denormalise(torch.zeros(shape))
