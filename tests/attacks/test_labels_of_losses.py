"""Label rules read what the loss wrote, and nothing where it wrote something else."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from precode_lib.attacks.labels import (
    bias_corrected_labels,
    bias_sign_labels,
    expected_count_labels,
    multi_hot_labels,
    row_sum_labels,
)
from precode_lib.federated import LocalTraining, observe

SINGLE = [row_sum_labels, bias_sign_labels]
COUNTS = [bias_corrected_labels, expected_count_labels]


def cross_entropy(model, x, y, **options):
    return F.cross_entropy(model(x), y, reduction="none", **options)


def cross_entropy_of_logits(model, x, y):
    return F.cross_entropy(model(x)["logits"], y, reduction="none")


def focal(model, x, y):
    likelihood = model(x).log_softmax(1).gather(1, y[:, None]).squeeze(1)
    return -((1 - likelihood.exp()) ** 2) * likelihood


def yes_or_no(model, x, y):
    return F.binary_cross_entropy_with_logits(model(x), y, reduction="none").mean(1)


def number(model, x, y):
    return (model(x).squeeze(1) - y).square()


def distances(model, x, y):
    return (model(x) - y).square().sum(1)


class InADict(nn.Sequential):
    def forward(self, x):
        return {"logits": super().forward(x)}


def net(outputs=7, kind=nn.Sequential):
    torch.manual_seed(0)
    return kind(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))


def rows(victims=9, batch=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(victims, batch, 6, generator=generator)


def classes(batch=1):
    return torch.arange(9 * batch).view(9, batch) % 7


def several(batch=1):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(2, (9, batch, 7), generator=generator).float()


def seen_under(loss, labels, **options):
    model = net(1 if loss is number else 7, options.pop("kind", nn.Sequential))
    examples = rows(batch=labels.shape[1])
    return observe(model, examples, labels, loss=loss, labels_known=False, **options)


CLASS_LOSSES = [
    cross_entropy,
    partial(cross_entropy, weight=torch.linspace(1, 2, 7)),
    partial(cross_entropy, label_smoothing=0.1),
    focal,
]


@pytest.mark.parametrize("loss", CLASS_LOSSES)
@pytest.mark.parametrize("rule", SINGLE)
def test_a_single_class_is_read_off_any_loss_that_picks_one(rule, loss):
    found = rule(seen_under(loss, classes()))
    assert torch.equal(found, classes())


def test_logits_in_a_dict_change_nothing():
    seen = seen_under(cross_entropy_of_logits, classes(), kind=InADict)
    assert torch.equal(bias_sign_labels(seen), classes())
    assert expected_count_labels(seen).shape == (9, 1)


@pytest.mark.parametrize("rule", COUNTS)
def test_counts_are_read_off_plain_cross_entropy_only(rule):
    assert rule(seen_under(cross_entropy, classes(3))).shape == (9, 3)
    for loss in CLASS_LOSSES[1:]:
        with pytest.raises(ValueError, match="in units of cross-entropy's slope"):
            rule(seen_under(loss, classes(3)))


@pytest.mark.parametrize("local", [None, LocalTraining(3, 0.1)])
def test_several_labels_are_read_off_the_signs(local):
    found = multi_hot_labels(seen_under(yes_or_no, several(), local=local))
    assert torch.equal(found, several())


@pytest.mark.parametrize("rule", [*SINGLE, *COUNTS])
def test_one_class_is_not_read_off_another_loss(rule):
    with pytest.raises(ValueError, match="asks yes or no .* multi_hot_labels"):
        rule(seen_under(yes_or_no, several()))
    for loss, labels in ((number, torch.randn(9, 1)), (distances, several())):
        with pytest.raises(ValueError, match="something else: search with known_lab"):
            rule(seen_under(loss, labels))


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (cross_entropy, classes()),
        (number, torch.randn(9, 1)),
        (distances, several()),
        (cross_entropy, several().softmax(-1)),
    ],
)
def test_several_labels_are_not_read_off_another_loss(loss, labels):
    with pytest.raises(ValueError, match="asks yes or no .* does something else"):
        multi_hot_labels(seen_under(loss, labels))


def test_several_labels_of_several_examples_are_mixed_and_refused():
    with pytest.raises(ValueError, match="single picture, but each victim has 2"):
        multi_hot_labels(seen_under(yes_or_no, several(2)))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_counts_after_local_steps_know_how_far_momentum_carries(momentum):
    local = LocalTraining(5, 1e-3, optimizer=partial(SGD, momentum=momentum))
    # Of slopes that stay, step t moves (1 - m^t) / (1 - m) times one.
    total = sum((1 - momentum**t) / (1 - momentum) for t in range(1, 6))
    assert local.gain == pytest.approx(1e-3 * total)
    seen = seen_under(cross_entropy, classes(3), local=local)
    plain = seen_under(cross_entropy, classes(3))
    assert torch.equal(expected_count_labels(seen), expected_count_labels(plain))


def test_steps_that_forget_the_size_of_a_slope_leave_no_counts():
    local = LocalTraining(2, 1e-3, optimizer=Adam)
    seen = seen_under(cross_entropy, classes(3), local=local)
    with pytest.raises(ValueError, match="does not keep the size of a gradient"):
        expected_count_labels(seen)
