"""Metrics against scikit-image, numpy by hand, and the traps the book warns of."""

import itertools
import json
import math
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data, metrics, transform
from torch import Tensor

from precode_lib.metrics import (
    NOTEBOOK,
    PAPER,
    PSNR_CAP,
    UNIT,
    Scores,
    is_success,
    mse,
    pair,
    psnr,
    reference_ssim,
    score,
    ssim,
)


class Standardise:
    """A normalisation made from the pictures themselves; per channel, zero mean."""

    def __init__(self, pixels: Tensor) -> None:
        self.mean = pixels.mean(dim=(0, 2, 3), keepdim=True)
        self.std = pixels.std(dim=(0, 2, 3), keepdim=True)

    def normalise(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std

    def denormalise(self, images: Tensor) -> Tensor:
        return images * self.std + self.mean


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Photographs that ship with scikit-image, quartered: (12, 3, 32, 32)."""
    photographs = (data.astronaut(), data.coffee(), data.chelsea())
    small = [transform.resize(p, (64, 64), anti_aliasing=True) for p in photographs]
    whole = torch.stack([torch.tensor(p).permute(2, 0, 1) for p in small])
    quarters = whole.unfold(2, 32, 32).unfold(3, 32, 32)
    return quarters.permute(0, 2, 3, 1, 4, 5).reshape(12, 3, 32, 32).clamp(0, 1)


@pytest.fixture(scope="module")
def normalisation(pixels: Tensor) -> Standardise:
    return Standardise(pixels)


@pytest.fixture
def noisy(pixels: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(pixels.shape, generator=generator, dtype=pixels.dtype)
    strength = torch.linspace(0.02, 0.4, len(pixels), dtype=pixels.dtype)
    return (pixels + strength[:, None, None, None] * noise).clamp(0, 1)


def random_pair(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator, dtype=dtype) for _ in range(2)]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(
        st.integers(1, 3), st.integers(1, 4), st.integers(7, 20), st.integers(7, 20)
    ),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    low=st.floats(-3, 1),
    span=st.floats(0, 5),
    mix=st.floats(0, 1),
    data_range=st.floats(0.1, 255),
)
def test_ssim_is_that_of_scikit_image(seed, shape, dtype, low, span, mix, data_range):
    first, second = (low + span * x for x in random_pair(seed, shape, dtype))
    second = mix * first + (1 - mix) * second
    ours = ssim(first, second, data_range=data_range)
    reference = reference_ssim(first, second, data_range=data_range)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-7)


def test_ssim_of_photographs_is_that_of_a_direct_call_to_scikit_image(pixels, noisy):
    for data_range in (1.0, 2.0):
        direct = [
            metrics.structural_similarity(
                original.permute(1, 2, 0).numpy(),
                recovered.permute(1, 2, 0).numpy(),
                channel_axis=-1,
                data_range=data_range,
            )
            for original, recovered in zip(pixels, noisy, strict=True)
        ]
        expected = torch.tensor(direct, dtype=torch.float64)
        for compute in (ssim, reference_ssim):
            values = compute(pixels, noisy, data_range=data_range)
            torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)


def test_the_default_data_range_is_that_of_pixels(pixels, noisy):
    for compute in (ssim, reference_ssim):
        torch.testing.assert_close(
            compute(pixels, noisy), compute(pixels, noisy, data_range=1.0)
        )


def test_mse_and_psnr_are_those_of_scikit_image(pixels, noisy):
    for i, (x, y) in enumerate(zip(pixels.numpy(), noisy.numpy(), strict=True)):
        assert mse(pixels, noisy)[i] == pytest.approx(metrics.mean_squared_error(x, y))
        for peak in (1.0, 4.1):
            expected = metrics.peak_signal_noise_ratio(x, y, data_range=peak)
            assert psnr(pixels, noisy, peak=peak)[i] == pytest.approx(expected)
    torch.testing.assert_close(psnr(pixels, noisy), psnr(pixels, noisy, peak=1.0))


def test_a_batch_larger_than_a_chunk_scores_like_its_pictures_one_by_one(pixels, noisy):
    many, others = pixels.repeat(5, 1, 1, 1), noisy.repeat(5, 1, 1, 1)
    for compute in (mse, psnr, ssim):
        one_by_one = [
            compute(a[None], b[None]) for a, b in zip(pixels, noisy, strict=True)
        ]
        torch.testing.assert_close(compute(many, others), torch.cat(one_by_one * 5))


def test_float32_pictures_are_measured_in_float64():
    bright = torch.full((1, 1, 8, 8), 1000.0)
    barely_off = bright + torch.eye(8) / 64
    for compute in (mse, psnr, ssim, reference_ssim):
        value = compute(bright, barely_off)
        exact = compute(bright.double(), barely_off.double())
        torch.testing.assert_close(value, exact, rtol=0, atol=0)


def test_the_metrics_leave_the_pictures_alone(pixels, noisy, normalisation):
    before = pixels.clone(), noisy.clone()
    for convention in (UNIT, PAPER, NOTEBOOK):
        score(pixels, noisy, convention=convention, normalisation=normalisation)
    reference_ssim(pixels, noisy)
    assert torch.equal(pixels, before[0])
    assert torch.equal(noisy, before[1])


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_an_exact_constant_picture_has_no_error_and_full_similarity(level):
    flat = torch.full((2, 3, 7, 9), level)
    assert mse(flat, flat).tolist() == [0, 0]
    assert psnr(flat, flat).tolist() == [math.inf, math.inf]
    assert ssim(flat, flat).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("convention", [UNIT, PAPER, NOTEBOOK])
def test_constant_pictures_have_finite_scores(pixels, normalisation, convention):
    grey = torch.full_like(pixels, 0.5)
    for one, other in itertools.permutations((pixels, grey)):
        scores = score(one, other, convention=convention, normalisation=normalisation)
        for values in (scores.mse, scores.psnr, scores.ssim):
            assert values.isfinite().all()
        assert scores.asr == 0


def test_a_constant_image_becomes_ones_when_scaled():
    identity = Standardise(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))
    flat, ramp = torch.full((1, 1, 8, 8), 0.2), torch.linspace(0, 1, 64)
    scores = score(
        flat, ramp.view(1, 1, 8, 8), convention=PAPER, normalisation=identity
    )
    expected = -10 * math.log10((1 - ramp).square().mean())
    assert scores.psnr.item() == pytest.approx(expected, rel=1e-6)


def test_an_ssim_equal_to_the_threshold_is_a_success():
    similarity = torch.tensor([0.59, 0.6, 0.61], dtype=torch.float64)
    assert is_success(similarity).tolist() == [False, True, True]
    assert is_success(similarity, threshold=0.61).tolist() == [False, False, True]


def by_hand(image: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """The paper's three numbers, in numpy, one picture (C, H, W) at a time."""
    scaled = [(x - x.min()) / (x.max() - x.min()) for x in (image, other)]
    similarity = metrics.structural_similarity(*scaled, channel_axis=0, data_range=2)
    return {
        "mse": ((image - other) ** 2).mean(),
        "psnr": 10 * np.log10(1 / ((scaled[0] - scaled[1]) ** 2).mean()),
        "ssim": max(0, similarity),
    }


def test_paper_is_normalised_mse_and_scaled_psnr_and_ssim(pixels, noisy, normalisation):
    scores = score(pixels, noisy, convention=PAPER, normalisation=normalisation)
    images, others = normalisation.normalise(pixels), normalisation.normalise(noisy)
    for i in range(len(pixels)):
        for metric, expected in by_hand(images[i].numpy(), others[i].numpy()).items():
            assert getattr(scores, metric)[i].item() == pytest.approx(expected)


def test_unit_measures_pixels_and_needs_no_normalisation(pixels, noisy, normalisation):
    scores = score(pixels, noisy)
    torch.testing.assert_close(scores.mse, mse(pixels, noisy))
    torch.testing.assert_close(scores.psnr, psnr(pixels, noisy, peak=1))
    torch.testing.assert_close(scores.ssim, ssim(pixels, noisy, data_range=1))
    assert torch.equal(scores.success, scores.ssim >= 0.6)
    assert 0 < scores.asr < 1, "the noise should be strong enough to matter"
    ignored = score(pixels, noisy, normalisation=normalisation)
    assert ignored.to_dict() == scores.to_dict()


def test_notebook_measures_normalised_images_but_psnr(pixels, normalisation):
    shuffled = pixels.roll(1, dims=0)
    scores = score(pixels, shuffled, convention=NOTEBOOK, normalisation=normalisation)
    images, others = normalisation.normalise(pixels), normalisation.normalise(shuffled)
    torch.testing.assert_close(scores.mse, mse(images, others))
    torch.testing.assert_close(scores.psnr, psnr(pixels, shuffled))
    similarity = ssim(images, others, data_range=2)
    assert 0 < (similarity < 0).sum() < len(pixels), "some should need clipping"
    torch.testing.assert_close(scores.ssim, similarity.clamp(min=0))


def test_a_convention_is_a_value_to_vary(pixels, noisy):
    strict = replace(UNIT, name="strict", success_ssim=0.95, peak=2.0, data_range=0.5)
    assert pickle.loads(pickle.dumps(UNIT)) == UNIT
    scores = score(pixels, noisy, convention=strict)
    assert torch.equal(scores.success, scores.ssim >= 0.95)
    torch.testing.assert_close(scores.psnr, psnr(pixels, noisy, peak=2.0))
    torch.testing.assert_close(scores.ssim, ssim(pixels, noisy, data_range=0.5))
    assert scores.to_dict()["convention"] == "strict"


def test_a_photographic_negative_fails_in_unit_and_succeeds_in_normalised_space(
    pixels, normalisation
):
    images = normalisation.normalise(pixels)
    negative = normalisation.denormalise(-images).clamp(0, 1)

    def similarity(convention) -> Tensor:
        return score(
            pixels, negative, convention=convention, normalisation=normalisation
        ).ssim

    assert similarity(UNIT).mean() < -0.4
    assert (similarity(PAPER) == 0).all()
    assert similarity(NOTEBOOK).mean() > 0.6
    assert score(pixels, 1 - pixels).mean.ssim < -0.4
    assert score(pixels, 1 - pixels).asr == 0


def test_paper_is_blind_to_contrast_where_mse_is_not(pixels, normalisation):
    images = normalisation.normalise(pixels)
    faded = normalisation.denormalise(images / 2)
    scores = score(pixels, faded, convention=PAPER, normalisation=normalisation)
    assert scores.psnr.min() > PSNR_CAP
    assert scores.ssim.tolist() == pytest.approx([1] * len(pixels))
    torch.testing.assert_close(scores.mse, images.square().mean(dim=(1, 2, 3)) / 4)
    assert score(pixels, faded).ssim.max() < 0.95


def test_clipping_hides_dissimilarity_only_where_a_convention_says_so(
    pixels, normalisation
):
    clipped = replace(UNIT, clip_ssim=True)
    raw, hidden = (
        score(pixels, 1 - pixels),
        score(pixels, 1 - pixels, convention=clipped),
    )
    assert raw.ssim.max() < 0
    assert hidden.ssim.tolist() == [0] * len(pixels)


@pytest.fixture
def half_exact(pixels) -> Scores:
    """Two exact pictures, and two that are off by 0.1 and by 0.2 everywhere."""
    originals = pixels[:4] * 0.5
    offsets = torch.tensor([0, 0, 0.1, 0.2], dtype=pixels.dtype).view(4, 1, 1, 1)
    return score(originals, originals + offsets)


def test_exact_pictures_report_infinite_psnr_and_count_as_the_cap(half_exact):
    assert half_exact.psnr[:2].tolist() == [math.inf, math.inf]
    assert half_exact.num_capped == 2
    off_by = [20.0, -10 * math.log10(0.2**2)]
    assert half_exact.mean.psnr == pytest.approx(np.mean([100, 100, *off_by]))
    assert half_exact.std.psnr == pytest.approx(np.std([100, 100, *off_by], ddof=1))


def test_only_a_psnr_above_the_cap_is_capped(half_exact):
    values = torch.tensor([PSNR_CAP, PSNR_CAP + 1, 10.0], dtype=torch.float64)
    scores = replace(half_exact, psnr=values)
    assert scores.num_capped == 1
    assert scores.mean.psnr == pytest.approx((2 * PSNR_CAP + 10) / 3)


def test_neither_a_convention_nor_scores_change_after_the_fact(half_exact):
    with pytest.raises(FrozenInstanceError):
        PAPER.data_range = 1.0
    with pytest.raises(FrozenInstanceError):
        half_exact.ssim = half_exact.psnr
    assert half_exact != replace(half_exact), "tensors have no single equality"


def test_mean_and_spread_are_over_pictures(half_exact):
    assert len(half_exact) == 4
    assert half_exact.mean.mse == pytest.approx((0.1**2 + 0.2**2) / 4)
    assert half_exact.std.mse == pytest.approx(np.std([0, 0, 0.01, 0.04], ddof=1))
    assert half_exact.mean.ssim == pytest.approx(half_exact.ssim.mean().item())
    assert half_exact.std.ssim == pytest.approx(np.std(half_exact.ssim.numpy(), ddof=1))
    assert half_exact.asr == (half_exact.ssim >= 0.6).sum() / 4


def test_two_pictures_have_a_spread_and_one_has_none(pixels, noisy):
    assert score(pixels[:2], noisy[:2]).std.mse > 0
    single = score(pixels[:1], noisy[:1])
    assert all(math.isnan(spread) for spread in single.std)
    assert single.to_dict()["std"] == {"mse": None, "psnr": None, "ssim": None}


def test_a_results_file_holds_every_number_in_strict_json(half_exact):
    kept = json.loads(json.dumps(half_exact.to_dict(), allow_nan=False))
    assert kept == {
        "convention": "unit",
        "asr": half_exact.asr,
        "mean": dict(zip(("mse", "psnr", "ssim"), half_exact.mean, strict=True)),
        "std": dict(zip(("mse", "psnr", "ssim"), half_exact.std, strict=True)),
        "psnr_cap": 100.0,
        "num_capped": 2,
        "mse": half_exact.mse.tolist(),
        "psnr": [None, None, *half_exact.psnr[2:].tolist()],
        "ssim": half_exact.ssim.tolist(),
        "success": half_exact.success.tolist(),
    }


def test_the_repr_is_one_line_that_names_the_convention_and_the_capped(
    half_exact, pixels, noisy
):
    text = repr(half_exact)
    assert text.startswith("Scores(unit, N=4: MSE 0.0125 ± 0.019, PSNR 58.49 ± ")
    assert "dB (2 capped), SSIM" in text
    assert "capped" not in repr(score(pixels, noisy))
    assert "\n" not in text


def test_scores_are_float64_on_the_cpu_and_hold_no_graph(pixels, noisy):
    guess = noisy.float().requires_grad_()
    scores = score(pixels.float(), guess)
    for values in (scores.mse, scores.psnr, scores.ssim):
        assert values.dtype == torch.float64
        assert values.shape == (len(pixels),)
        assert not values.requires_grad
    assert reference_ssim(pixels, guess).shape == (len(pixels),)


GOOD = torch.full((2, 3, 8, 8), 0.5)
PUBLIC = (mse, psnr, ssim, reference_ssim, score, pair)


@pytest.mark.parametrize("compute", PUBLIC)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (GOOD.tolist(), TypeError, "torch.Tensor, got list"),
        (GOOD.numpy(), TypeError, "torch.Tensor, got ndarray"),
        (GOOD.mul(255).byte(), TypeError, "uint8"),
        (GOOD[0], ValueError, r"\(N, C, H, W\)"),
        (GOOD[:0], ValueError, "empty"),
        (GOOD * math.nan, ValueError, "NaN"),
        (GOOD / 0, ValueError, "NaN or inf"),
        (GOOD[:1], ValueError, "same shape"),
        (GOOD[:, :1], ValueError, "same shape"),
        (GOOD[..., :7], ValueError, "same shape"),
    ],
)
def test_bad_pictures_are_refused_on_either_side(compute, bad, error, message):
    with pytest.raises(error, match=message):
        compute(GOOD, bad)
    with pytest.raises(error, match=message):
        compute(bad, GOOD)


def test_the_side_that_is_wrong_is_named():
    with pytest.raises(ValueError, match="^originals must have shape"):
        mse(GOOD[0], GOOD)
    with pytest.raises(ValueError, match="^recovered must have shape"):
        mse(GOOD, GOOD[0])


@pytest.mark.parametrize("compute", [mse, psnr, ssim, reference_ssim, score])
def test_victims_with_batches_are_refused_where_pictures_are_meant(compute):
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        compute(GOOD[None], GOOD[None])


@pytest.mark.parametrize("side", ["originals", "recovered"])
@pytest.mark.parametrize("convention", [UNIT, PAPER, NOTEBOOK])
@pytest.mark.parametrize("level", [-0.0011, 1.0011, -2.0, 255.0])
def test_normalised_images_are_not_taken_for_pixels(side, convention, level):
    bad = GOOD.clone()
    bad[1, 2, 3, 4] = level
    pictures = {"originals": GOOD, "recovered": GOOD, side: bad}
    with pytest.raises(ValueError, match=f"{side} must be pixels.*probably normalised"):
        score(**pictures, convention=convention, normalisation=Standardise(pixels=GOOD))


def test_the_name_of_a_convention_is_not_one():
    with pytest.raises(TypeError, match="convention must be .* such as PAPER, got str"):
        score(GOOD, GOOD, convention="paper")


def test_rounding_beyond_the_unit_range_is_forgiven():
    for level in (-0.001, 1.001):
        outside = torch.full_like(GOOD, level, dtype=torch.float64)
        assert score(GOOD, outside).mse.isfinite().all()


@pytest.mark.parametrize("convention", [PAPER, NOTEBOOK])
def test_a_convention_on_images_asks_for_the_normalisation(convention):
    with pytest.raises(ValueError, match=r"normalisation is None.*UNIT"):
        score(GOOD, GOOD, convention=convention)


@pytest.mark.parametrize("compute", [ssim, reference_ssim, score])
@pytest.mark.parametrize("size", [(6, 8), (8, 6)])
def test_pictures_smaller_than_the_window_are_refused(compute, size):
    small = torch.zeros(1, 3, *size)
    with pytest.raises(ValueError, match=rf"at least 7x7 pixels, got \({size[0]}"):
        compute(small, small)
    assert mse(small, small).tolist() == [0]


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_a_peak_or_a_data_range_must_be_above_zero(value):
    with pytest.raises(ValueError, match="peak"):
        psnr(GOOD, GOOD, peak=value)
    for compute in (ssim, reference_ssim):
        with pytest.raises(ValueError, match="data_range"):
            compute(GOOD, GOOD, data_range=value)


def test_importing_metrics_loads_neither_scikit_image_nor_scipy():
    code = (
        "import sys, precode_lib.metrics\n"
        "heavy = {'skimage', 'scipy', 'torchvision', 'precode_lib.data'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
