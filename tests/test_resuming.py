"""What all runs share: their length, their truth, their state, and their bar."""

import io
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from precode_lib.ats import PolicySearch
from precode_lib.attacks import IGA, Search
from precode_lib.basics.resuming import Resumable, progress
from precode_lib.data import Normalisation, Pictures, Splits
from precode_lib.federated import observe
from precode_lib.rounds import Federation, FedSGD, iid_split
from precode_lib.training import PAPER, fit

SIZE, NORMALISATION = 12, Normalisation((0.5,) * 3, (0.25,) * 3)


def pictures(count=8):
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (count, 3, SIZE, SIZE), generator=generator).byte()
    labels = torch.arange(count) % 2
    return Pictures(levels, labels, ("a", "b"), "noise", "", NORMALISATION)


def net():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(3 * SIZE**2, 4), nn.Sigmoid(), nn.Linear(4, 2)
    return nn.Sequential(*layers).double().eval()


def seeded():
    return torch.Generator().manual_seed(0)


def search(steps):
    pixels = pictures(1).pixels.double().unsqueeze(0)
    images, labels = NORMALISATION.normalise(pixels), torch.zeros(1, 1).long()
    seen = observe(net(), images, labels, normalisation=NORMALISATION)
    return Search(seen, replace(IGA, iterations=steps), generator=seeded())


def policy_search(steps):
    return PolicySearch(
        trained=net().float(),
        untrained=net().float(),
        pictures=pictures(),
        generator=seeded(),
        num_candidates=steps,
        num_per_class=2,
        num_batches=1,
        accuracy_floor=-1e6,
    )


def training(steps):
    splits = Splits(pictures(), pictures())
    return fit(net(), splits, replace(PAPER, epochs=steps, batch_size=4))


def federation(steps):
    sgd = partial(torch.optim.SGD, lr=0.1)
    given = {"rounds": steps, "server": sgd, "algorithm": FedSGD()}
    return Federation(net(), iid_split(pictures(), 2), pictures(), **given)


RUNS = [search, policy_search, training, federation]
each = pytest.mark.parametrize("make", RUNS, ids=lambda make: make.__name__)


@each
def test_a_run_counts_down_and_is_something_when_it_is_over(make):
    run = make(3)
    assert isinstance(run, Resumable)
    assert [len(run), *(len(run) for _ in run)] == [3, 2, 1, 0]
    assert bool(run) is True
    with pytest.raises(StopIteration):
        next(run)


@each
def test_a_run_that_is_resumed_with_fewer_steps_is_over(make):
    first = make(3)
    for _ in range(2):
        next(first)
    resumed = make(1)
    resumed.load_state_dict(first.state_dict())
    assert len(resumed) == 0
    assert list(resumed) == []
    assert resumed


@each
def test_one_bar_shows_any_run(make):
    shown, run = io.StringIO(), make(3)
    assert len(list(progress(run, file=shown, mininterval=0))) == 3
    assert "3/3" in shown.getvalue()
    unit = {search: "step", policy_search: "policy", training: "epoch"}
    assert unit.get(make, "round") in shown.getvalue()
    assert len(run) == 0


@each
def test_a_bar_looks_as_often_as_it_is_told(make):
    run, looks = make(4), []
    run._note = lambda step: looks.append(step) or ""
    steps = list(progress(run, every=3, file=io.StringIO()))
    assert looks == [steps[0], steps[3]]
