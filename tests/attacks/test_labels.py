"""Label rules: where they are right, and the cases where each is known to fail."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from precode_lib.attacks.labels import (
    bias_corrected_labels,
    bias_sign_labels,
    expected_count_labels,
    known_labels,
    label_accuracy,
    output_layer,
    row_sum_labels,
)
from precode_lib.bottleneck import with_precode
from precode_lib.data import PHOTOS
from precode_lib.federated import LocalTraining, observe
from precode_lib.gradients import Gradients, Outer
from precode_lib.models import convnet, mlp

SHAPE = (3, 6, 6)
CLASSES = 10
SINGLE = (row_sum_labels, bias_sign_labels)
COUNTS = (bias_corrected_labels, expected_count_labels)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def net(activation=nn.ReLU, width=64, seed=0):
    return mlp(
        SHAPE,
        CLASSES,
        depth=2,
        width=width,
        activation=activation,
        generator=seeded(seed),
    )


def victims(batch=1, count=24, seed=1, labels=None):
    generator = seeded(seed)
    images = torch.randn(count, batch, *SHAPE, generator=generator)
    if labels is None:
        labels = torch.randint(CLASSES, (count, batch), generator=generator)
    return images, labels


def seen_of(model, pair, **options):
    return observe(model, *pair, labels_known=False, noise=seeded(2), **options)


def noise(std, seed=3):
    def defend(gradients):
        generator = seeded(seed)
        return gradients.map(
            lambda t: t + std * torch.randn(t.shape, generator=generator)
        )

    return defend


def accuracy(rule, model, pair, **options):
    return label_accuracy(rule(seen_of(model, pair, **options)), pair[1]).mean().item()


def proven(seen, victim):
    """The classes of negative bias gradient, beyond rounding."""
    negative = seen.shared["fc.bias"][victim] < -1e-6
    return set(negative.nonzero().flatten().tolist())


def confident(model, factor=30.0):
    """The same model after some training: sure of itself, and wrong."""
    with torch.no_grad():
        model.fc.weight.mul_(factor)
    return model


# --- one picture --------------------------------------------------------------------


@pytest.mark.parametrize("rule", (*SINGLE, *COUNTS))
def test_every_rule_finds_the_label_of_one_picture_behind_relu(rule):
    pair = victims()
    assert torch.equal(rule(seen_of(net(), pair)), pair[1])


def test_row_sums_fail_behind_precode_where_the_bias_is_always_right():
    model, pair = with_precode(net(), k=16, generator=seeded(4)), victims()
    wrong = row_sum_labels(seen_of(model, pair)) != pair[1]
    assert 3 <= wrong.sum() <= 21
    assert accuracy(bias_sign_labels, model, pair) == 1


def test_row_sums_fail_behind_tanh_where_the_bias_is_always_right():
    model, pair = net(nn.Tanh), victims()
    assert accuracy(row_sum_labels, model, pair) < 0.8
    assert accuracy(bias_sign_labels, model, pair) == 1


def test_row_sums_are_right_exactly_where_the_features_have_a_positive_sum():
    model, pair = net(nn.Tanh), victims(count=60)
    features = model.features(pair[0].flatten(0, 1)).sum(1)
    right = (row_sum_labels(seen_of(model, pair)) == pair[1]).flatten()
    assert right[features > 0].all()
    assert not right[features < 0].any()


@pytest.mark.parametrize("rule", (bias_sign_labels, *COUNTS))
def test_one_label_shows_however_sure_the_model_is(rule):
    assert accuracy(rule, confident(net()), victims()) == 1


def test_without_an_output_bias_only_row_sums_are_left():
    model, pair = net(), victims()
    model.fc.bias = None
    assert accuracy(row_sum_labels, model, pair) == 1
    for rule in (bias_sign_labels, *COUNTS):
        with pytest.raises(ValueError, match="'fc' has no bias.*row_sum_labels"):
            rule(seen_of(model, pair))


def test_noise_hides_the_label_once_it_is_larger_than_the_bias_gradient():
    model, pair = net(), victims(count=100)
    for rule in (bias_sign_labels, expected_count_labels):
        assert accuracy(rule, model, pair, defense=noise(0.05)) == 1
        assert accuracy(rule, model, pair, defense=noise(5.0)) < 0.4


def test_noise_hides_row_sums_as_their_entries_add_up():
    # 64 entries of noise 0.1 have a sum of standard deviation 0.8.
    model, pair = net(), victims(count=100)
    assert accuracy(row_sum_labels, model, pair, defense=noise(0.5)) < 0.6
    assert accuracy(bias_sign_labels, model, pair, defense=noise(0.1)) == 1


@pytest.mark.parametrize("rule", SINGLE)
def test_rules_for_one_picture_refuse_batches(rule):
    with pytest.raises(ValueError, match="each victim has 2; use expected_count"):
        rule(seen_of(net(), victims(batch=2)))


def test_row_sums_agree_between_factored_and_dense_terms():
    seen = seen_of(net(), victims())
    assert isinstance(seen.shared["fc.weight"], Outer)
    dense = replace(seen, shared=seen.shared.dense())
    assert torch.equal(row_sum_labels(seen), row_sum_labels(dense))


def test_a_silent_victim_is_named_rather_than_guessed():
    seen = seen_of(net(), victims(count=3))
    bias = seen.shared["fc.bias"].clone()
    bias[1] = 0
    silent = replace(seen, shared=Gradients({**seen.shared, "fc.bias": bias}))
    for rule in (bias_sign_labels, bias_corrected_labels):
        with pytest.raises(ValueError, match=r"zero for victims \[1\].*take"):
            rule(silent)
    bias[1, 0] = torch.nan
    for rule in (bias_sign_labels, *COUNTS):
        with pytest.raises(ValueError, match="'fc.bias' holds NaN"):
            rule(silent)


# --- batches ------------------------------------------------------------------------


@pytest.mark.parametrize("batch", (2, 8, 16))
def test_expected_counts_find_a_whole_batch_of_an_untrained_model(batch):
    assert accuracy(expected_count_labels, net(), victims(batch)) == 1


# Behind a last layer of zeros nothing but the bias has a slope, which is enough here.
@pytest.mark.filterwarnings("ignore::precode_lib.federated.VacuousGradientWarning")
@pytest.mark.parametrize("local", [None, LocalTraining(steps=4, lr=0.01)])
@pytest.mark.parametrize("batch", [7, 10])
def test_expected_counts_of_a_sure_and_wrong_model_are_not_rounded_up(batch, local):
    # Its p is 0, so g_c = -n_c / B: in float32, B times it is a hair above n_c.
    model = net()
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.zero_()[9] = 1000.0
    labels = torch.arange(24 * batch).view(24, batch).sort().values % 3
    shared = (-F.one_hot(labels, CLASSES).float()).sum(1) / batch
    shared = (shared * (1 + 4 * torch.finfo().eps)) * (0.04 if local else 1)
    shared[:, 9] = -shared.sum(1)
    seen = seen_of(model, victims(batch, labels=labels), local=local)
    bias = Gradients({**seen.shared, "fc.bias": shared})
    found = expected_count_labels(replace(seen, shared=bias))
    assert torch.equal(found, labels.sort().values)


def test_expected_counts_see_through_precode():
    model = with_precode(net(), k=16, generator=seeded(4))
    assert accuracy(expected_count_labels, model, victims(16)) == 1


@pytest.mark.parametrize("rule", COUNTS)
@pytest.mark.parametrize("labels", ([5, 5, 5, 5], [1, 1, 1, 7], [0, 0, 9, 9]))
def test_repeated_labels_are_counted(rule, labels):
    pair = victims(4, labels=torch.tensor([labels]).expand(24, -1))
    assert torch.equal(rule(seen_of(net(), pair)), pair[1])


def test_the_bias_corrected_rule_does_well_on_small_batches_and_less_on_large():
    accuracies = [accuracy(bias_corrected_labels, net(), victims(b)) for b in (4, 16)]
    assert accuracies[0] > 0.95
    assert 0.4 < accuracies[1] < 0.9


def test_the_bias_corrected_rule_does_not_repeat_one_class_in_its_second_stage():
    # A stale index there would hand everything that is left to one class.
    labels = torch.tensor([[2] * 6 + [4] * 6]).expand(24, -1)
    found = bias_corrected_labels(seen_of(net(), victims(12, labels=labels)))
    assert label_accuracy(found, labels).min() >= 10 / 12


def with_bias_gradient(values, batch):
    seen = seen_of(net(), victims(batch, count=1))
    bias = torch.tensor([values + [0.1] * (CLASSES - len(values))])
    return replace(seen, shared=Gradients({**seen.shared, "fc.bias": bias}))


def test_bias_correction_on_gradients_done_by_hand():
    # The negative entries add up to -0.6, so one of four occurrences is worth 0.15.
    # One for each negative class leaves (-0.21, -0.09), then (-0.06, -0.09).
    seen = with_bias_gradient([-0.36, 0.1, -0.24], 4)
    assert bias_corrected_labels(seen).tolist() == [[0, 0, 2, 2]]
    # A negative class occurs, however small it is.
    seen = with_bias_gradient([-0.59, -0.01], 4)
    assert bias_corrected_labels(seen).tolist() == [[0, 0, 0, 1]]


def test_the_least_entry_is_a_label_even_where_float32_rounds_it_to_zero():
    for label in range(CLASSES):
        values = [1e-9] * CLASSES
        values[label] = 0.0
        seen = with_bias_gradient(values, 1)
        assert expected_count_labels(seen).tolist() == [[label]]
        assert bias_sign_labels(seen).tolist() == [[label]]


def test_a_late_model_hides_the_counts_but_not_which_label_is_there():
    model, pair = confident(net(), 100), victims(16)
    assert accuracy(expected_count_labels, model, pair) < 0.9
    assert accuracy(bias_corrected_labels, model, pair) < 0.9
    seen = seen_of(model, pair)
    found = expected_count_labels(seen)
    # A negative entry is proof of a label, and the rule keeps to it.
    for v in range(24):
        assert proven(seen, v) <= set(found[v].tolist())
        assert proven(seen, v) <= set(pair[1][v].tolist())


def test_own_pictures_show_what_a_late_model_thinks_of_pictures():
    model, pair = confident(net(), 100), victims(16)
    images = pair[0] * 0.2 + 1  # pictures of a kind that noise is not
    pair = images, pair[1]
    like = torch.randn(400, *SHAPE, generator=seeded(9)) * 0.2 + 1
    informed = partial(expected_count_labels, images=like)
    assert accuracy(informed, model, pair) > accuracy(
        expected_count_labels, model, pair
    )


@pytest.mark.parametrize("rule", COUNTS)
def test_noise_never_makes_more_labels_than_pictures(rule):
    pair = victims(2)
    found = rule(seen_of(net(), pair, defense=noise(3.0)))
    assert found.shape == (24, 2)
    assert found.dtype == torch.int64


@pytest.mark.parametrize("steps", (1, 3))
def test_counts_come_through_local_training(steps):
    local = LocalTraining(steps=steps, lr=0.01)
    assert accuracy(expected_count_labels, net(), victims(8), local=local) == 1


def test_the_fate_of_local_mini_batches_is_that_of_all_pictures():
    local = LocalTraining(steps=4, lr=0.01, batch_size=2)
    assert accuracy(expected_count_labels, net(), victims(8), local=local) == 1


@settings(max_examples=25)
@given(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=20))
def test_any_multiset_of_labels_is_found_on_an_untrained_model(labels):
    pair = victims(len(labels), 1, labels=torch.tensor([sorted(labels)]))
    seen = seen_of(net(), pair)
    assert torch.equal(expected_count_labels(seen), pair[1])
    assert proven(seen, 0) <= set(labels)


# --- the model on other pictures ----------------------------------------------------


def test_expected_counts_are_repeatable_and_leave_the_global_generator_alone():
    model = with_precode(confident(net(), 100), k=16, generator=seeded(4))
    seen = seen_of(model.train(), victims(16))
    before = torch.get_rng_state()
    first = expected_count_labels(seen)
    assert torch.equal(first, expected_count_labels(seen))
    assert torch.equal(first, expected_count_labels(seen, generator=seeded(0)))
    assert torch.equal(before, torch.get_rng_state())


def test_the_generator_also_draws_the_noise_of_bottlenecks():
    seen = seen_of(with_precode(net(), k=16, generator=seeded(4)), victims(4))
    generator = seeded(7)
    expected_count_labels(seen, images=torch.zeros(2, *SHAPE), generator=generator)
    assert not torch.equal(generator.get_state(), seeded(7).get_state())


def test_dropout_in_train_mode_is_repeatable_too():
    model = confident(net(), 100)
    model.features.add_module("dropout", nn.Dropout(0.5))
    seen = seen_of(model.train(), victims(16))
    before = torch.get_rng_state()
    first = expected_count_labels(seen)
    assert torch.equal(first, expected_count_labels(seen))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    assert torch.equal(first, expected_count_labels(seen))


def test_expected_counts_leave_the_model_alone():
    model = convnet((3, 9, 9), CLASSES, width=2, generator=seeded()).train()
    images = torch.randn(3, 8, 3, 9, 9, generator=seeded(1))
    labels = torch.randint(CLASSES, (3, 8), generator=seeded(2))
    seen = observe(model, images, labels)
    before = {n: t.clone() for n, t in seen.model.state_dict().items()}
    assert label_accuracy(expected_count_labels(seen), labels).mean() > 0.7
    after = seen.model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_noise_pictures_fill_the_box_where_it_is_known():
    drawn = []
    model, pair = net(), victims(2, count=1)
    seen = seen_of(model, pair, normalisation=PHOTOS)
    seen.model.register_forward_hook(lambda m, inputs, out: drawn.append(inputs[0]))
    expected_count_labels(seen, num_images=100)
    images = torch.cat(drawn)
    lower, upper = PHOTOS.box
    assert len(images) == 100
    assert ((images >= lower) & (images <= upper)).all()
    middle = images.mean((0, 2, 3))[:, None, None]
    assert torch.allclose(middle, (lower + upper) / 2, atol=0.1)


# --- which layer, known labels, accuracy --------------------------------------------


def test_known_labels_are_those_of_the_observation():
    pair = victims(3)
    assert torch.equal(known_labels(observe(net(), *pair)), pair[1])
    with pytest.raises(ValueError, match="no labels.*bias_sign_labels"):
        known_labels(seen_of(net(), pair))


def test_the_output_layer_is_the_last_with_a_row_for_each_class():
    twins = mlp(SHAPE, CLASSES, depth=2, width=CLASSES, generator=seeded())
    assert output_layer(seen_of(twins, victims())) == "fc"
    behind = with_precode(net(), k=8, generator=seeded())
    assert output_layer(seen_of(behind, victims())) == "fc.layer"


def test_the_output_layer_can_be_named():
    twins = mlp(SHAPE, CLASSES, depth=2, width=CLASSES, generator=seeded())
    seen = seen_of(twins, victims())
    assert output_layer(seen, "features.hidden1") == "features.hidden1"
    for rule in (*SINGLE, *COUNTS):
        assert torch.equal(rule(seen, layer="fc"), rule(seen))
        with pytest.raises(ValueError, match="no layer 'fx'.*Did you mean 'fc'"):
            rule(seen, layer="fx")
    behind = seen_of(with_precode(net(), k=8, generator=seeded()), victims())
    with pytest.raises(ValueError, match="no layer 'fc'.*Did you mean 'fc.layer'"):
        bias_sign_labels(behind, layer="fc")
    with pytest.raises(ValueError, match="no layer 'features.hidden1' fits"):
        bias_sign_labels(behind, layer="features.hidden1")


def test_a_model_without_an_output_layer_is_refused():
    seen = replace(seen_of(net(), victims()), num_classes=11)
    with pytest.raises(ValueError, match="each of the 11 classes"):
        bias_sign_labels(seen)


def test_a_frozen_output_layer_is_called_so():
    model = net()
    model.fc.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="no gradient of 'fc.bias': it is frozen"):
        bias_sign_labels(seen_of(model, victims()))


def test_bare_gradients_are_refused():
    shared = seen_of(net(), victims()).shared
    for rule in (known_labels, *SINGLE, *COUNTS):
        with pytest.raises(TypeError, match="takes an Observation, got Gradients"):
            rule(shared)


def test_pictures_of_another_kind_are_refused():
    seen = seen_of(net(), victims())
    with pytest.raises(ValueError, match=r"images must be \(N, 3, 6, 6\)"):
        expected_count_labels(seen, images=torch.zeros(2, 3, 5, 5))
    with pytest.raises(ValueError, match=r"images must have shape \(N, C, H, W\)"):
        expected_count_labels(seen, images=torch.zeros(3, 6, 6))
    with pytest.raises(TypeError, match="generator must be a torch.Generator, got int"):
        expected_count_labels(seen, generator=0)
    with pytest.raises(ValueError, match="num_images must be at least 1"):
        expected_count_labels(seen, num_images=0)


def test_accuracy_counts_the_overlap_of_multisets():
    truth = torch.tensor([[1, 1, 2, 3], [0, 0, 0, 0]])
    found = torch.tensor([[3, 1, 2, 2], [4, 4, 4, 0]])
    assert label_accuracy(found, truth).tolist() == [0.75, 0.25]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_accuracy_does_not_depend_on_the_order_or_the_side(pairs):
    a, b = torch.tensor(pairs).T
    forward = label_accuracy(a[None], b[None])
    assert torch.equal(forward, label_accuracy(a.flip(0)[None], b[None]))
    assert torch.equal(forward, label_accuracy(b[None], a[None]))
    assert forward >= (a == b).double().mean()


def test_accuracy_refuses_what_are_no_labels():
    good = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"found must be integer labels \(V, B\)"):
        label_accuracy(good[0], good)
    with pytest.raises(ValueError, match="truth must be integer labels.*float32"):
        label_accuracy(good, good.float())
    with pytest.raises(ValueError, match="must agree"):
        label_accuracy(good, good[:, :2])
    with pytest.raises(TypeError, match="truth must be a torch.Tensor, got list"):
        label_accuracy(good, good.tolist())
