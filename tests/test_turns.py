"""Two threads on one model get what each would get alone."""

import threading

import pytest
import torch
from torch import nn

from precode_lib.federated import Client, LocalTraining
from precode_lib.gradients import one_at_a_time, victim_gradients

PATIENCE = 0.3  # seconds; whoever has to wait for a turn is seen waiting


class Guests:
    """Two threads in one model: the second comes while the first is in, and stays.

    Args:
        second: what the second does.
        visits: on which of its visits the first, and the second, meets the other.
    """

    def __init__(self, second, visits):
        self.found = None
        self._left = dict(zip(("first", "second"), visits, strict=True))
        self._second = threading.Thread(target=self._run, args=[second], daemon=True)
        self._is_in, self._may_leave = threading.Event(), threading.Event()

    def _run(self, work):
        try:
            self.found = work()
        except Exception as error:
            self.found = error
        self._is_in.set()

    def meet(self):
        who = "second" if threading.current_thread() is self._second else "first"
        self._left[who] -= 1
        if self._left[who] != 0:
            return
        if who == "second":
            self._is_in.set()
            self._may_leave.wait(PATIENCE)
        else:
            self._second.start()
            self._is_in.wait(PATIENCE)

    def part(self):
        self._may_leave.set()
        self._second.join(20)
        return self.found


class MeetingPlace(nn.Module):
    """Changes nothing; lets guests meet."""

    guests = None

    def forward(self, x):
        if self.guests is not None:
            self.guests.meet()
        return x


def model_with(*extra):
    torch.manual_seed(0)
    front, back = nn.Linear(12, 5), nn.Linear(5, 3)
    return nn.Sequential(
        nn.Flatten(), front, *extra, MeetingPlace(), nn.Sigmoid(), back
    )


def pictures(victims):
    drawn = torch.Generator().manual_seed(victims)
    images = torch.rand(victims, 4, 3, 2, 2, generator=drawn)
    return images, torch.randint(3, (victims, 4), generator=drawn)


def at_once(model, first, second, visits):
    """What the two give when the second enters the model while the first is in it."""
    place = next(m for m in model if isinstance(m, MeetingPlace))
    place.guests = Guests(second, visits)
    found = first()
    other = place.guests.part()
    place.guests = None
    return found, other


def same(ours, theirs):
    for name, term in ours.dense().items():
        torch.testing.assert_close(term, theirs.dense()[name])


KINDS = {
    "hooks": (model_with, None, (1, 1)),
    "buffers": (lambda: model_with(nn.BatchNorm1d(5)).train(), None, (1, 1)),
    # Before it trains, such a client looks for bottlenecks, once for each step.
    "weights": (model_with, LocalTraining(steps=2, lr=0.1), (3, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_gradients_at_once_are_what_each_is_alone(kind):
    build, local, visits = KINDS[kind]
    model = build()
    client = Client(model, local=local)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    alone = [client(*pictures(victims)) for victims in (1, 3)]
    together = at_once(
        model, lambda: client(*pictures(1)), lambda: client(*pictures(3)), visits
    )
    for ours, theirs in zip(together, alone, strict=True):
        same(ours, theirs)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_model_may_be_run_while_another_thread_takes_its_gradient():
    model, images = model_with(), pictures(3)[0][0]
    run = torch.no_grad()(lambda: model(images))
    alone, logits = victim_gradients(model, *pictures(1)), run()
    # On its first visit it only looks at the model.
    gradients, other = at_once(
        model, lambda: victim_gradients(model, *pictures(1)), run, (2, 1)
    )
    same(gradients, alone)
    assert torch.equal(other, logits)


def test_a_turn_can_be_taken_twice_and_ends_with_an_error():
    @one_at_a_time
    def outer():
        return inner()

    @one_at_a_time
    def inner():
        raise KeyError("inside")

    with pytest.raises(KeyError):
        outer()
    found = []
    other = threading.Thread(target=one_at_a_time(lambda: found.append("mine")))
    other.start()
    other.join(20)
    assert found == ["mine"]
