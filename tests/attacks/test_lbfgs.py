"""The vectorised L-BFGS against torch's own, one problem at a time, in float64."""

import pytest
import torch
from torch.testing import assert_close

from precode_lib.attacks import VictimLBFGS


def rosenbrock(x):
    """(V, N) -> (V,): a curved valley with its floor at 1."""
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def quadratic(x):
    """(V, N) -> (V,): badly scaled, with its minimum at 0."""
    weights = torch.logspace(0, 2, x.shape[1], dtype=x.dtype)
    return (weights * x.square()).sum(1)


def wavy(x):
    """(V, N) -> (V,): with hills, where a pair of gradients tells of no valley."""
    return (torch.cos(3 * x) + 0.1 * x.square()).sum(1)


def starts(num_problems, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_problems, size, generator=generator).double()


def all_at_once(function, x, steps, **options):
    """Where L-BFGS of all problems together ends, and what each step began with."""
    x = x.clone().requires_grad_()
    optimizer = VictimLBFGS([x], **options)

    def closure():
        value = function(x)
        (x.grad,) = torch.autograd.grad(value.sum(), x)
        return value

    firsts = [optimizer.step(closure) for _ in range(steps)]
    return x.detach(), torch.stack(firsts)


def one_by_one(function, x, steps, **options):
    rows, firsts = [], []
    for row in x.split(1):
        row = row.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([row], **options)

        def closure(row=row):
            value = function(row).sum()
            (row.grad,) = torch.autograd.grad(value, row)
            return value

        firsts.append(torch.stack([optimizer.step(closure) for _ in range(steps)]))
        rows.append(row.detach())
    return torch.cat(rows), torch.stack(firsts, 1).detach()


@pytest.mark.parametrize("history_size", [3, 100])
@pytest.mark.parametrize(
    ("function", "lr", "steps"),
    [(quadratic, 0.5, 6), (rosenbrock, 0.05, 4), (wavy, 0.2, 6)],
)
def test_every_problem_moves_as_if_it_were_alone(function, lr, steps, history_size):
    x = starts(5, 6)
    options = {"lr": lr, "max_iter": 7, "history_size": history_size}
    found, firsts = all_at_once(function, x, steps, absolute=True, **options)
    expected, wanted = one_by_one(function, x, steps, **options)
    assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert_close(firsts, wanted, rtol=1e-8, atol=1e-10)


def test_a_problem_that_rests_keeps_its_memory_while_others_fill_theirs():
    # Without it, it would begin anew; tolerance_change lets the first one rest often.
    options = {"lr": 0.05, "max_iter": 7, "history_size": 5, "tolerance_change": 1e-2}
    x = starts(4, 6, seed=3)
    found, _ = all_at_once(rosenbrock, x, 12, absolute=True, **options)
    expected, _ = one_by_one(rosenbrock, x, 12, **options)
    assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_problem_at_its_minimum_rests_while_others_move():
    x = torch.cat([torch.zeros(1, 4).double(), starts(1, 4)])
    found, _ = all_at_once(quadratic, x, 30, lr=1.0)
    assert torch.equal(found[0], torch.zeros(4).double())
    assert found[1].abs().max() < 1e-4


def test_a_problem_that_meets_nan_does_not_spoil_its_neighbour():
    def broken(x):
        value = quadratic(x)
        return torch.cat([value[:1] * torch.nan, value[1:]])

    x = starts(2, 4)
    found, firsts = all_at_once(broken, x, 20, lr=1.0)
    assert firsts[0, 0].isnan()
    alone, _ = all_at_once(quadratic, x[1:], 20, lr=1.0)
    assert_close(found[1:], alone)


def test_several_parameters_of_one_problem_share_its_curvature():
    x = starts(3, 6)
    together, _ = all_at_once(quadratic, x, 3, lr=0.5)
    a, b = (x[:, :2].clone().requires_grad_(), x[:, 2:].clone().requires_grad_())
    optimizer = VictimLBFGS([a, b], lr=0.5)

    def closure():
        value = quadratic(torch.cat([a, b], 1))
        a.grad, b.grad = torch.autograd.grad(value.sum(), (a, b))
        return value

    for _ in range(3):
        optimizer.step(closure)
    assert_close(torch.cat([a, b], 1).detach(), together)


def test_tolerances_end_a_step_early():
    x, calls = starts(2, 4).requires_grad_(), []

    def closure():
        calls.append(1)
        value = quadratic(x)
        (x.grad,) = torch.autograd.grad(value.sum(), x)
        return value

    torch_like = {"max_iter": 50, "absolute": True}
    VictimLBFGS([x], **torch_like, tolerance_change=1e9).step(closure)
    assert len(calls) == 1  # no direction promises so much
    VictimLBFGS([x], **torch_like, tolerance_grad=1e9).step(closure)
    assert len(calls) == 2
    VictimLBFGS([x], max_iter=50, tolerance_change=1e9).step(closure)
    assert len(calls) == 3  # nor so many times the objective itself


def scaled(function, factor):
    return lambda x: factor * function(x)


# A power of two changes no digit, so that the searches must agree to the last bit.
@pytest.mark.parametrize("factor", [2.0**-60, 2.0**-20, 2.0**40])
@pytest.mark.parametrize("function", [quadratic, rosenbrock, wavy])
def test_the_units_of_the_objective_change_nothing(function, factor):
    x = starts(5, 6)
    options = {"lr": 0.2, "max_iter": 7, "history_size": 4}
    found, firsts = all_at_once(function, x, 8, **options)
    other, others = all_at_once(scaled(function, factor), x, 8, **options)
    assert not torch.equal(found, x)
    assert torch.equal(other, found)
    assert torch.equal(others, factor * firsts)


def test_torchs_own_rules_take_a_small_objective_for_zero():
    x = starts(5, 6)
    tiny = scaled(quadratic, 1e-10)
    stuck, _ = all_at_once(tiny, x, 30, lr=1.0, absolute=True)
    assert torch.equal(stuck, x)
    found, _ = all_at_once(tiny, x, 30, lr=1.0)
    assert found.abs().max() < 1e-6


def test_a_problem_that_knows_no_curvature_moves_by_lr_in_all():
    # On the hills of `wavy` the first pairs tell of no valley, and none is kept.
    x = torch.full((1, 4), 0.1, dtype=torch.float64)
    moves, before = [], x
    for steps in (1, 2):
        after, _ = all_at_once(wavy, x, steps, lr=0.02, max_iter=1)
        moves.append((after - before).abs().sum())
        before = after
    assert_close(torch.stack(moves), torch.full((2,), 0.02, dtype=torch.float64))


def test_no_entry_moves_further_than_the_longest_move():
    x = 3 * starts(5, 6)
    before = x
    for steps in range(1, 9):
        options = {"lr": 1.0, "max_iter": 1, "longest": 0.25}
        after, _ = all_at_once(rosenbrock, x, steps, **options)
        assert (after - before).abs().max() <= 0.25 + 1e-12
        before = after
    free, _ = all_at_once(rosenbrock, x, 8, lr=1.0, max_iter=1)
    assert (free - x).abs().max() > 8 * 0.25


def test_several_groups_are_refused():
    groups = [{"params": [torch.ones(1, 2, requires_grad=True)]} for _ in range(2)]
    with pytest.raises(ValueError, match="one group"):
        VictimLBFGS(groups)
