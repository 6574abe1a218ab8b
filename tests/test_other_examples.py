"""Examples that are no pictures, and labels that are no classes.

A table, a U-Net with masks, several labels at once, a regression, sound and volumes:
all go through the same doors, with the same three calls that a picture takes.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from precode_lib.attacks import (
    Recipe,
    Search,
    VictimLBFGS,
    bias_sign_labels,
    invert_linear,
    known_labels,
)
from precode_lib.attacks.objectives import squared_distance
from precode_lib.attacks.starts import normal, patterned
from precode_lib.bottleneck import per_example_loss, with_precode
from precode_lib.data import PHOTOS
from precode_lib.defenses import add_noise, prune
from precode_lib.federated import Client, LocalTraining, observe
from precode_lib.gradients import Outer, victim_gradients

MATCHED = Recipe(
    name="matched",
    distance=squared_distance,
    optimizer=partial(VictimLBFGS, lr=1.0, longest=1.0),
    labels=known_labels,
    iterations=20,
)


def relative_error(found, truth):
    return ((found - truth).norm() / truth.norm()).item()


def by_hand(model, images, labels, loss):
    """Each victim's gradient by one `backward`: the oracle."""
    rows = []
    for x, y in zip(images, labels, strict=True):
        model.zero_grad()
        loss(model, x, y).mean().backward()
        rows.append([p.grad.clone() for p in model.parameters()])
    return [torch.stack(column) for column in zip(*rows, strict=True)]


class TinyUNet(nn.Module):
    """Down, up, and a bridge over both: masks (N, classes, H, W) for pictures."""

    def __init__(self, classes=2):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.out = nn.Conv2d(5, classes, 1)

    def forward(self, pictures):
        deep = torch.sigmoid(self.middle(torch.sigmoid(self.down(pictures))))
        return self.out(torch.cat([pictures, torch.sigmoid(self.up(deep))], 1))


def mask_loss(model, pictures, masks):
    """Of each picture, the mean cross-entropy of its pixels."""
    return F.cross_entropy(model(pictures), masks, reduction="none").mean((1, 2))


def several_labels_loss(model, rows, labels):
    """Of each row, the sum over its yes-or-no labels."""
    logits = model(rows)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)


def number_loss(model, sounds, numbers):
    """Of each sound, how far its number is missed."""
    return (model(sounds).squeeze(1) - numbers).square()


def volume_model():
    return nn.Sequential(
        nn.Conv3d(1, 6, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(6 * 8, 3)
    )


def case(name):
    """(model, examples (V, B, ...), labels (V, B, ...), loss or None), in float64."""
    torch.manual_seed(3)
    table = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Linear(16, 3))
    several = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Linear(16, 4))
    sound = nn.Sequential(
        nn.Conv1d(1, 4, 5), nn.Sigmoid(), nn.Flatten(), nn.Linear(4 * 12, 1)
    )
    several_labels = torch.randint(2, (3, 2, 4)).double()
    model, examples, labels, loss = {
        "table": (table, torch.randn(3, 2, 6), torch.randint(3, (3, 2)), None),
        "u-net": (
            TinyUNet(),
            torch.rand(2, 1, 1, 8, 8),
            torch.randint(2, (2, 1, 8, 8)),
            mask_loss,
        ),
        "several": (several, torch.randn(3, 2, 6), several_labels, several_labels_loss),
        "number": (sound, torch.randn(2, 1, 1, 16), torch.randn(2, 1), number_loss),
        "volume": (volume_model(), torch.randn(2, 1, 1, 3, 3, 3),
                   torch.randint(3, (2, 1)), None),
    }[name]  # fmt: skip
    model = model.double().eval()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    if labels.is_floating_point():
        labels = labels.double()
    return model, examples.double(), labels, loss


def options_of(loss):
    return {} if loss is None else {"loss": loss}


ALL = ["table", "u-net", "several", "number", "volume"]


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_any_examples_are_those_of_one_backward_each(name):
    model, examples, labels, loss = case(name)
    found = victim_gradients(model, examples, labels, **options_of(loss))
    expected = by_hand(model, examples, labels, loss or per_example_loss)
    for term, truth in zip(found.dense().values(), expected, strict=True):
        torch.testing.assert_close(term, truth)


@pytest.mark.parametrize("name", ALL)
def test_any_examples_are_observed_and_found_by_the_search(name):
    model, examples, labels, loss = case(name)
    seen = observe(model, examples[:, :1], labels[:, :1], **options_of(loss))
    generator = torch.Generator().manual_seed(0)
    search = Search(seen, MATCHED, generator=generator)
    objectives = torch.stack([step.objective for step in search])
    assert (objectives[-1] < 1e-4 * objectives[0]).all()
    assert search.result.images.shape == examples[:, :1].shape
    # Masks say little of a pixel far from an edge: that search is slow, not wrong.
    most = {"u-net": 0.7}.get(name, 0.05)
    assert relative_error(search.result.images, examples[:, :1]) < most


@pytest.mark.parametrize("name", ALL)
def test_a_search_for_any_examples_goes_on_exactly_where_it_stopped(name):
    model, examples, labels, loss = case(name)
    seen = observe(model, examples, labels, **options_of(loss))
    recipe = MATCHED

    def begun():
        return Search(seen, recipe, generator=torch.Generator().manual_seed(1))

    whole, first, second = begun(), begun(), begun()
    for _ in range(4):
        next(whole)
    for _ in range(2):
        next(first)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        next(second)
    assert torch.equal(whole.result.last_images, second.result.last_images)


@pytest.mark.parametrize("name", ALL)
def test_results_for_any_examples_do_not_depend_on_the_size_of_the_chunks(name):
    model, examples, labels, loss = case(name)
    seen = observe(model, examples, labels, **options_of(loss))
    ends = []
    for chunk_bytes in (1, 2**30):
        generator = torch.Generator().manual_seed(1)
        search = Search(seen, MATCHED, generator=generator, chunk_bytes=chunk_bytes)
        for _ in range(3):
            next(search)
        ends.append(search.result.last_images)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_defenses_and_local_steps_take_any_examples(name):
    model, examples, labels, loss = case(name)
    generator = torch.Generator().manual_seed(0)
    noisy = partial(add_noise, std=0.1, generator=generator)
    for defense in (partial(prune, ratio=0.5), noisy):
        seen = observe(model, examples, labels, defense=defense, **options_of(loss))
        assert seen.shared.num_victims == len(examples)
    local = LocalTraining(steps=2, lr=0.1)
    seen = observe(model, examples, labels, local=local, **options_of(loss))
    client = Client(model, local=local, **options_of(loss))
    again = client(examples, labels)
    for name_, term in again.dense().items():
        torch.testing.assert_close(seen.shared.dense()[name_], term)


def test_a_row_of_a_table_is_read_off_the_first_layer_by_a_division():
    model, rows, labels, _ = case("table")
    seen = observe(model, rows[:, :1], labels[:, :1], labels_known=False)
    torch.testing.assert_close(invert_linear(seen).images, rows[:, 0])
    assert torch.equal(bias_sign_labels(seen), labels[:, :1])


def test_precode_goes_into_a_model_of_rows():
    model, rows, labels, _ = case("table")
    protected = with_precode(model, k=4, example=rows[0])
    seen = observe(protected.double(), rows, labels)
    assert any("bottleneck" in name for name in seen.shared)


def test_num_classes_is_that_of_logits_and_otherwise_none():
    for name, expected in (("table", 3), ("several", 4), ("u-net", None)):
        model, examples, labels, loss = case(name)
        seen = observe(model, examples, labels, **options_of(loss))
        assert seen.num_classes == expected


class TestWhatIsForPicturesOnlySaysSo:
    def seen(self, name="table"):
        model, examples, labels, loss = case(name)
        return observe(model, examples, labels, **options_of(loss))

    def test_total_variation(self):
        smooth = Recipe(labels=known_labels, prior_weight=0.1)
        with pytest.raises(ValueError, match="pictures .* prior_weight=0"):
            Search(self.seen(), smooth, generator=torch.Generator())

    def test_a_patterned_start(self):
        tiled = Recipe(labels=known_labels, start=patterned(2))
        with pytest.raises(ValueError, match="pictures .* start=normal"):
            Search(self.seen(), tiled, generator=torch.Generator())

    def test_a_box_without_a_normalisation(self):
        boxed = Recipe(labels=known_labels, boxed=True)
        with pytest.raises(ValueError, match="boxed=False"):
            Search(self.seen(), boxed, generator=torch.Generator())

    def test_a_normalisation_of_pictures(self):
        model, rows, labels, _ = case("table")
        with pytest.raises(ValueError, match="box is .* an example"):
            observe(model, rows, labels, normalisation=PHOTOS)

    def test_a_search_for_labels_that_are_no_classes(self):
        with pytest.raises(ValueError, match="logits .*=known_labels"):
            Search(self.seen("u-net"), Recipe(), generator=torch.Generator())

    def test_a_rule_that_reads_classes_off_the_output_layer(self):
        with pytest.raises(ValueError, match="logits .*=known_labels"):
            bias_sign_labels(self.seen("u-net"))


def test_a_box_of_ones_own_holds_for_rows():
    model, rows, labels, _ = case("table")

    class Between:
        box = (torch.full((6,), -0.5), torch.full((6,), 0.5))

        def denormalise(self, images):
            return images

    rows = rows.clamp(-0.5, 0.5)
    seen = observe(model, rows, labels, normalisation=Between())
    boxed = Recipe(labels=known_labels, boxed=True, iterations=3, start=normal)
    search = Search(seen, boxed, generator=torch.Generator().manual_seed(0))
    for step in search:
        assert step.iteration == 0 or step.images.abs().max() <= 0.5


@pytest.mark.parametrize(
    ("images", "labels", "hint"),
    [
        ((4, 3, 8, 8), (4,), "images\\[:, None\\]"),
        ((3, 8, 8), (1,), "images\\[None, None\\]"),
        ((5, 6), (5,), "rows\\[:, None\\]"),
        ((5,), (5,), "rows of a table"),
        ((2, 3, 6), (2, 4), "labels .*\\(2, 4\\)"),
    ],
)
def test_missing_axes_are_named(images, labels, hint):
    model = nn.Linear(6, 2)
    with pytest.raises(ValueError, match=hint):
        observe(model, torch.zeros(images), torch.zeros(labels, dtype=torch.int64))


class Sine(nn.Module):
    """A layer that the library has never heard of: sin(W x)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / 3)

    def forward(self, x):
        return (x @ self.weight.T).sin()


def sine_rule(layer, x, delta, num_victims):
    slope = delta * (x @ layer.weight.T).cos()
    left, right = (t.unflatten(0, (num_victims, -1)) for t in (slope, x))
    return {"weight": Outer(left, right, layer.weight.shape)}


def test_a_layer_from_outside_brings_its_rule_to_victim_and_attacker_alike():
    torch.manual_seed(0)
    model = nn.Sequential(Sine(6, 16), nn.Linear(16, 3)).double()
    rows, labels = torch.randn(2, 1, 6).double(), torch.tensor([[0], [2]])
    plain = observe(model, rows, labels)
    ruled = observe(model, rows, labels, rules={Sine: sine_rule})
    for name, term in ruled.shared.dense().items():
        torch.testing.assert_close(term, plain.shared.dense()[name])
    guess = ruled.client()(rows, labels)
    assert isinstance(guess["0.weight"], Outer)
    assert not isinstance(plain.client()(rows, labels)["0.weight"], Outer)
    search = Search(ruled, MATCHED, generator=torch.Generator().manual_seed(0))
    for _ in search:
        pass
    assert relative_error(search.result.images, rows) < 0.05
