"""Pairing against brute force over all orders."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from precode_lib.metrics import mse, pair, psnr, reorder, ssim


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@given(order=st.permutations(range(6)))
@settings(max_examples=20)
def test_pairing_undoes_any_shuffle(order):
    batch = rand(6, 3, 7, 9)
    permutation = pair(batch, batch[list(order)])
    assert torch.equal(reorder(batch[list(order)], permutation), batch)


@given(seed=st.integers(0, 2**32), size=st.integers(1, 5))
@settings(max_examples=20)
def test_pairing_has_the_least_total_cost_of_all_orders(seed, size):
    originals, recovered = rand(2, size, 1, 7, 7, seed=seed)
    for cost in (mse, lambda x, y: -ssim(x, y)):
        totals = [
            cost(originals, recovered[list(order)]).sum()
            for order in itertools.permutations(range(size))
        ]
        found = reorder(recovered, pair(originals, recovered, cost=cost))
        assert cost(originals, found).sum() == pytest.approx(min(totals))


def test_the_default_cost_of_pairing_is_mse():
    original = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    assert pair(original, original.flip(0)).tolist() == [1, 0]
    worst = pair(original, original.flip(0), cost=lambda x, y: -mse(x, y))
    assert worst.tolist() == [0, 1]


def test_every_victims_batch_is_paired_by_itself(generator):
    victims = rand(3, 4, 3, 8, 8)
    orders = torch.stack([torch.randperm(4, generator=generator) for _ in range(3)])
    shuffled = reorder(victims, orders)
    for v, b in itertools.product(range(3), range(4)):
        assert torch.equal(shuffled[v, b], victims[v, orders[v, b]])
    permutation = pair(victims, shuffled)
    assert permutation.shape == (3, 4)
    assert torch.equal(reorder(shuffled, permutation), victims)


def test_pairing_favours_even_pure_noise():
    originals, noise = rand(2, 8, 1, 7, 7)
    lucky = reorder(noise, pair(originals, noise))
    assert mse(originals, lucky).mean() < mse(originals, noise).mean()


def test_pairing_accepts_guesses_that_carry_a_graph():
    originals, guesses = rand(2, 3, 1, 7, 7).float()
    assert sorted(pair(originals, guesses.requires_grad_()).tolist()) == [0, 1, 2]


def test_an_infinite_cost_is_refused():
    pixels = rand(2, 3, 7, 7)
    with pytest.raises(ValueError, match=r"finite.*use mse"):
        pair(pixels, pixels, cost=lambda x, y: -psnr(x, y))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 1)])
def test_reorder_refuses_a_permutation_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"one index per picture, \(4,\)"):
        reorder(rand(4, 3, 7, 7), torch.zeros(shape, dtype=torch.int64))


def test_reorder_refuses_a_list():
    with pytest.raises(TypeError, match="permutation must be a torch.Tensor, got list"):
        reorder(rand(2, 3, 7, 7), [1, 0])


def test_victims_of_other_counts_are_not_paired():
    victims = rand(3, 2, 3, 8, 8)
    with pytest.raises(ValueError, match="same shape"):
        pair(victims, victims.reshape(2, 3, 3, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        pair(victims, victims * math.nan)
