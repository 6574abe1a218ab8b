"""Distances, priors and starts against the formulas written out."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from precode_lib.attacks import objectives as O
from precode_lib.attacks.starts import normal, patterned, uniform, zeros
from precode_lib.gradients import Gradients


def pair(generator):
    shapes = {"w": (2, 4, 3), "b": (2, 4)}
    return [
        Gradients({n: torch.randn(s, generator=generator) for n, s in shapes.items()})
        for _ in range(2)
    ]


def test_the_cosine_distance_joins_all_parameters(generator):
    a, b = pair(generator)
    x, y = (torch.cat([t.flatten(1) for t in g.values()], 1) for g in (a, b))
    assert_close(O.cosine_distance(a, b), 1 - F.cosine_similarity(x, y))
    assert_close(O.cosine_distance(a, a), torch.zeros(2), atol=1e-6, rtol=0)


def test_the_layerwise_distance_averages_over_parameters(generator):
    a, b = pair(generator)
    each = [
        1 - F.cosine_similarity(a[n].flatten(1), b[n].flatten(1)) for n in ("w", "b")
    ]
    assert_close(O.layerwise_cosine_distance(a, b), (each[0] + each[1]) / 2)
    weights = torch.tensor([3.0, 1.0])
    weighed = O.layerwise_cosine_distance(a, b, weights=weights)
    assert_close(weighed, (3 * each[0] + each[1]) / 4)


def test_weights_fall_from_one(generator):
    a, _ = pair(generator)
    assert_close(O.linear_weights(a), torch.tensor([1.0, 0.5]))
    assert_close(O.exponential_weights(a), torch.tensor([1.0, 0.36787944]))


def test_total_variation_is_the_mean_step_across_plus_the_mean_step_down():
    image = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    images = torch.stack([image, torch.ones(2, 3)])[:, None, None]
    # across: (1 + 2 + 0 + 0) / 4, down: (0 + 1 + 3) / 3
    assert_close(O.total_variation(images), torch.tensor([3 / 4 + 4 / 3, 0.0]))


def test_a_picture_of_one_row_varies_along_it_only():
    row = torch.tensor([[[[[0.0, 1.0, 3.0]]]]], requires_grad=True)  # also tables' rows
    for images in (row, row.transpose(-1, -2)):
        (slope,) = torch.autograd.grad(O.total_variation(images).sum(), row)
        assert_close(O.total_variation(images), torch.tensor([1.5]))
        assert_close(slope.flatten(), torch.tensor([-0.5, 0.0, 0.5]))


def test_the_slope_of_total_variation_is_that_of_its_formula(generator):
    images = torch.randn(2, 3, 1, 5, 4, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(O.total_variation, (images,))


def test_the_label_error_is_the_squared_distance_to_one_hot():
    logits = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]])
    labels = torch.tensor([[0, 1]])
    expected = torch.tensor([(0 + 0 + 4 + 0 + 1 + 0) / 2])
    assert_close(O.squared_label_error(logits, labels), expected)
    soft = F.one_hot(labels, 3).float()
    assert_close(O.squared_label_error(logits, soft), expected)


def test_starts_have_the_stated_distribution(generator):
    shape = (8, 2, 3, 16, 16)
    images = normal(shape, generator)
    assert images.shape == shape
    assert abs(images.mean()) < 0.05
    assert abs(images.std() - 1) < 0.05
    images = uniform(shape, generator)
    assert -1 <= images.min() < -0.99
    assert 0.99 < images.max() <= 1
    assert not zeros(shape, generator).any()


@pytest.mark.parametrize("size", [1, 4, 6, 16])
def test_a_patterned_start_repeats_its_patch(generator, size):
    images = patterned(size)((2, 1, 3, 10, 13), generator)
    assert images.shape == (2, 1, 3, 10, 13)
    assert torch.equal(images[..., size:, :], images[..., : max(0, 10 - size), :])
    assert torch.equal(images[..., size:], images[..., : max(0, 13 - size)])
    assert images.min() >= 0
    assert images.max() <= 1
    assert not torch.equal(images[0], images[1])


def test_a_patch_without_pixels_is_refused():
    with pytest.raises(ValueError, match="got size 0"):
        patterned(0)


def test_the_balanced_cosine_divides_each_parameters_products_by_its_norm(generator):
    a, b = pair(generator)
    x, y = (
        torch.cat(
            [t.flatten(1) / b[n].flatten(1).norm(dim=1, keepdim=True).sqrt()
             for n, t in g.items()], 1
        )
        for g in (a, b)
    )  # fmt: skip
    assert_close(O.balanced_cosine_distance(a, b), 1 - F.cosine_similarity(x, y))


def test_a_parameter_that_is_silent_in_the_target_counts_for_nothing(generator):
    a, b = pair(generator)
    silent = Gradients({"w": b["w"], "b": torch.zeros_like(b["b"])})
    alone = O.cosine_distance(a.select("w"), b.select("w"))
    assert_close(O.balanced_cosine_distance(a, silent), alone)


def test_entries_that_the_client_pruned_are_left_out(generator):
    a, b = pair(generator)
    kept = {n: torch.rand(t.shape, generator=generator) > 0.5 for n, t in b.items()}
    pruned = Gradients({n: t * kept[n] for n, t in b.items()})
    seen = Gradients({n: t * kept[n] for n, t in a.items()})
    over_entries = O.where_shared(O.cosine_distance)
    assert_close(over_entries(a, pruned), O.cosine_distance(seen, pruned))
    assert (over_entries(b, pruned) < 1e-6).all()
    assert (O.cosine_distance(b, pruned) > 0.01).all()
