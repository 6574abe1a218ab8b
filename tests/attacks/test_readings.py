"""What goes into any matrix, read off its gradient; and when that is proven."""

from dataclasses import replace

import pytest
import torch
from plain import (
    Column,
    Turned,
    Twice,
    TwoInputs,
    drawn,
    fresh,
    lora,
    seeded,
    watched,
    words,
)
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from precode_lib.attacks import (
    direction_of_input,
    features_of,
    input_of,
    invert_linear,
    isolated_inputs,
    largest_row,
    span,
    total_least_squares,
)
from precode_lib.attacks.traces import trace_of
from precode_lib.bottleneck import with_precode
from precode_lib.data import IDENTITY, PHOTOS
from precode_lib.federated import LocalTraining, observe
from precode_lib.models import lenet, mlp, smlp

PICTURES, LABELS = drawn(3, 1, 3, 8, 8), words(3, 1, size=10)
FLAT = PICTURES.flatten(1)


def seen_of(make, *args, **options):
    return watched(fresh(make, *args), PICTURES, LABELS, **options)


def linear(*before):
    return nn.Sequential(*before, nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 10))


def full_convolution():
    return nn.Sequential(
        nn.Conv2d(3, 16, 8), nn.Flatten(), nn.ReLU(), nn.Linear(16, 10)
    )


class Normalises(nn.Module):
    """Its first layer sees pixels shifted and scaled, channel by channel."""

    def __init__(self):
        super().__init__()
        self.model = linear(nn.Flatten())

    def forward(self, x):
        mean, std = torch.tensor([[0.4, 0.5, 0.6], [0.2, 0.3, 0.25]], dtype=x.dtype)
        return self.model((x - mean[:, None, None]) / std[:, None, None])


# --- exactly ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (lambda: linear(nn.Flatten()), "1.weight"),
        (lambda: linear(nn.Unfold(4, stride=4), nn.Flatten()), "2.weight"),
        (lambda: linear(nn.BatchNorm2d(3), nn.Flatten()).eval(), "2.weight"),
        (Normalises, "model.1.weight"),
        (full_convolution, "0.weight"),
        (Column, "A"),
        (Turned, "weight"),
    ],
    ids=["linear", "permuted", "BatchNorm", "rescaled", "convolution", "A x", "turned"],
)
def test_a_matrix_with_a_bias_gives_the_picture_back(make, parameter):
    found = input_of(seen_of(make))
    assert (found.parameter, found.gives) == (parameter, "picture")
    assert_close(found.images, PICTURES[:, 0], rtol=0, atol=1e-9)
    assert found.is_exact
    assert found.certified.all()
    assert not found.silent.any()


def test_single_precision_is_enough():
    model = fresh(linear, nn.Flatten()).float()
    found = input_of(watched(model, PICTURES.float(), LABELS))
    assert found.certified.all()
    assert_close(found.images, PICTURES[:, 0].float(), rtol=0, atol=1e-4)


def test_a_branch_gives_its_part_of_the_example_and_says_which():
    packed = drawn(3, 1, 197)
    seen = watched(fresh(TwoInputs), packed, LABELS)
    found = input_of(seen)
    assert (found.parameter, found.gives) == ("table.weight", "part")
    assert found.places.tolist() == [*range(192, 197)]
    assert_close(found.values, packed[:, 0, 192:], rtol=0, atol=1e-9)
    assert found.certified.all()
    assert found.images is None
    with pytest.raises(ValueError, match="no pixels, but part"):
        _ = found.pixels


def test_the_last_layer_gives_its_features_and_calls_them_so():
    model = fresh(lenet, (3, 32, 32), generator=seeded())
    pictures = drawn(2, 1, 3, 32, 32)
    found = features_of(watched(model, pictures, LABELS[:2]))
    assert (found.parameter, found.gives) == ("fc.weight", "features")
    assert found.images is None
    assert_close(found.values, model.features(pictures[:, 0]), rtol=0, atol=1e-9)
    assert found.certified.all()


def test_where_all_but_the_last_layer_are_frozen_its_features_leak():
    model = fresh(lenet, (3, 32, 32), generator=seeded())
    model.features.requires_grad_(False)
    pictures = drawn(2, 1, 3, 32, 32)
    seen = watched(model, pictures, LABELS[:2])
    assert {*seen.shared} == {"fc.weight", "fc.bias"}
    found = input_of(seen)
    assert_close(found.values, model.features(pictures[:, 0]), rtol=0, atol=1e-9)


def test_behind_precode_the_features_are_those_of_its_sample():
    model = with_precode(fresh(smlp, (3, 8, 8), width=24), k=8, generator=seeded())
    noise = torch.randn(3, 8, generator=seeded(5), dtype=torch.float64)
    seen = observe(model, PICTURES, LABELS, noise=[noise])
    assert_close(input_of(seen).images, PICTURES[:, 0], rtol=0, atol=1e-9)
    last = features_of(seen)
    assert last.certified.all()
    hidden = model.features(PICTURES[:, 0])
    assert (last.values - hidden).abs().max() > 0.01


# --- up to a factor -----------------------------------------------------------------


def test_an_adapter_gives_the_picture_up_to_a_factor():
    images = PHOTOS.normalise(PICTURES)
    seen = watched(fresh(lora), images, LABELS, normalisation=PHOTOS)
    assert not any("frozen" in name for name in seen.shared)
    found = input_of(seen)
    assert (found.parameter, found.gives, found.is_exact) == ("1.A", "picture", False)
    cosines = F.cosine_similarity(found.values, images.flatten(1))
    assert_close(cosines.abs(), torch.ones(3).double(), rtol=0, atol=1e-12)
    assert found.certified.all()
    # The multiple that fills the box is the picture, if that has black and white.
    assert_close(found.pixels, PICTURES[:, 0], rtol=0, atol=0.05)


def test_a_fresh_adapter_is_silent_and_nothing_is_certified():
    found = input_of(seen_of(lora_fresh), "1.A")
    assert found.silent.all()
    assert not found.certified.any()


def lora_fresh():
    return lora(is_fresh=True)


def test_a_bias_that_was_not_sent_leaves_the_direction():
    seen = seen_of(linear, nn.Flatten())
    found = input_of(replace(seen, shared=seen.shared.drop("1.bias")))
    assert not found.is_exact
    overlap = (found.values * FLAT).sum(1).abs() / FLAT.norm(dim=1)
    assert_close(overlap, torch.ones(3).double(), rtol=0, atol=1e-12)


def test_an_unknown_factor_of_a_rescaled_picture_gives_no_picture():
    seen = seen_of(Normalises)
    found = input_of(replace(seen, shared=seen.shared.drop("model.1.bias")))
    assert found.gives == "picture"
    assert found.certified.all()
    assert found.images is None


# --- no proof -----------------------------------------------------------------------


def noisy(shared, std=1e-4):
    generator = seeded(9)
    return shared.map(
        lambda g: g + std * torch.randn(g.shape, generator=generator).to(g)
    )


def test_noise_takes_the_proof_away():
    for make in (lambda: linear(nn.Flatten()), lora):
        seen = seen_of(make)
        assert input_of(seen).certified.all()
        assert not input_of(replace(seen, shared=noisy(seen.shared))).certified.any()


def test_behind_noise_total_least_squares_errs_less():
    seen = seen_of(linear, nn.Flatten())
    seen = replace(seen, shared=noisy(seen.shared, 1e-3))
    one, all_rows = (
        (input_of(seen, estimate=e).values - FLAT).norm()
        for e in (largest_row, total_least_squares)
    )
    assert all_rows < 0.8 * one


def test_dropout_in_front_makes_features_of_the_picture():
    dropped = fresh(linear, nn.Flatten(), nn.Dropout(0.5))
    assert input_of(watched(dropped.eval(), PICTURES, LABELS)).gives == "picture"
    found = input_of(watched(dropped.train(), PICTURES, LABELS), "2.weight")
    assert found.gives == "features"
    assert found.certified.all()  # of what went in, half of it zero
    assert 0.3 < (found.values == 0).double().mean() < 0.7


def test_batch_statistics_are_no_fixed_scale():
    model = fresh(linear, nn.BatchNorm2d(3), nn.Flatten()).train()
    assert input_of(watched(model, PICTURES, LABELS)).gives == "features"


def test_features_move_between_local_steps_and_are_proven_after_one_only():
    # Of two classes all slopes have one direction, so a mixture fits as well.
    model = fresh(smlp, (3, 8, 8), 2, width=24, generator=seeded())
    for steps, proven in ((1, True), (3, False)):
        seen = observe(model, PICTURES, LABELS % 2, local=LocalTraining(steps, 0.1))
        assert input_of(seen).certified.all()  # the picture stays
        assert bool(features_of(seen).certified.all()) == proven


def test_a_weight_of_two_products_is_refused():
    seen = seen_of(Twice)
    with pytest.raises(ValueError, match="'first.weight' is multiplied with 2 inputs"):
        input_of(seen, "first.weight")
    assert not invert_linear(seen).exact.any()


def test_a_bias_that_two_layers_share_proves_nothing():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(192, 16), nn.Linear(16, 16)
            self.two.bias = self.one.bias
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            return self.head(self.two(self.one(x.flatten(1)).relu()))

    found = input_of(seen_of(Shared), "one.weight")
    assert not found.certified.any()
    assert (found.values - FLAT).abs().max() > 0.1


def test_a_bias_that_is_added_twice_halves_the_input_and_proves_nothing():
    class Twofold(Column):
        def forward(self, x):
            hidden = self.A @ x.flatten(1)[..., None] + self.b + self.b
            return self.head(hidden.squeeze(2).relu())

    found = input_of(seen_of(Twofold), "A")
    assert_close(2 * found.values, FLAT, rtol=0, atol=1e-9)
    assert not found.certified.any()


def test_what_bends_the_picture_is_no_scale():
    found = input_of(seen_of(linear, nn.Flatten(), nn.Tanh()), "2.weight")
    assert found.gives == "features"
    assert_close(found.values, FLAT.tanh(), rtol=0, atol=1e-9)


def test_two_pictures_are_no_input_of_one():
    batch, labels = drawn(2, 2, 3, 8, 8), words(2, 2, size=10)
    seen = watched(fresh(linear, nn.Flatten()), batch, labels)
    with pytest.raises(ValueError, match="2 examples of 1 inputs.*span"):
        input_of(seen)
    with pytest.raises(ValueError, match="2 examples"):
        features_of(seen)


# --- batches, by parameter ----------------------------------------------------------


def test_the_span_of_an_adapter_holds_its_batch():
    batch = drawn(2, 3, 3, 8, 8)
    seen = watched(fresh(lora), batch, words(2, 3, size=10))
    found = span(seen, parameter="1.A")
    assert found.rank.tolist() == [3, 3]
    assert found.distance(batch).max() < 1e-9
    assert found.distance(drawn(2, 3, 3, 8, 8, seed=7)).min() > 0.2


def test_the_span_of_a_layer_on_positions_has_a_direction_for_each():
    model = nn.Sequential(nn.Unflatten(1, (4, 48)), nn.Linear(48, 30), nn.Flatten())
    model.append(nn.Linear(120, 10))
    rows = drawn(2, 3, 192)
    seen = watched(model.double(), rows, words(2, 3, size=10))
    found = span(seen, parameter="1.weight")
    assert found.rank.tolist() == [12, 12]
    assert found.distance(rows.view(2, 12, 48)).max() < 1e-9


def test_isolated_inputs_of_a_permuted_picture_are_put_in_order():
    make = lambda: nn.Sequential(  # noqa: E731
        *(nn.Unfold(4, stride=4), nn.Flatten()),
        *(nn.Linear(192, 256), nn.ReLU()),
        *(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10)),
    )
    batch = drawn(2, 3, 3, 8, 8)
    seen = watched(fresh(make), batch, words(2, 3, size=10))
    for found, own in zip(
        isolated_inputs(seen, parameter="2.weight"), batch, strict=True
    ):
        assert len(found) == 3
        deviations = (found.images[:, None] - own).abs().amax((2, 3, 4)).amin(1)
        assert deviations.max() < 1e-6
        assert found.certified.all()


def test_a_certificate_tells_pictures_from_mixtures_that_agree_too():
    # With two classes and one hidden layer units agree on mixtures.
    model = mlp((3, 8, 8), 2, depth=1, width=256, generator=seeded()).double()
    batch = drawn(6, 4, 3, 8, 8)
    seen = watched(model, batch, words(6, 4, size=2))
    verdicts = []
    for found, own in zip(isolated_inputs(seen), batch, strict=True):
        deviations = (found.images[:, None] - own).abs().amax((2, 3, 4)).amin(1)
        verdicts.append(torch.stack([found.certified, deviations < 1e-6]))
    certified, right = torch.cat(verdicts, 1)
    assert certified.any()
    assert right[certified].all()
    assert not right.all()


@pytest.mark.parametrize("near", (0.03, 0.3, 1.0))
def test_no_mixture_of_pictures_alike_is_certified_behind_two_classes(near):
    certified, wrong = 0, 0
    for seed in range(20):
        generator = seeded(seed)
        first = torch.rand(1, 1, 1, 4, 4, generator=generator).double()
        batch = first + near * torch.rand(1, 3, 1, 4, 4, generator=generator).double()
        model = fresh(mlp, (1, 4, 4), 2, depth=1, width=64, generator=generator)
        seen = watched(model, batch, words(1, 3, size=2))
        (found,) = isolated_inputs(seen)
        if len(found):
            away = torch.cdist(found.images.flatten(1), batch[0].flatten(1))
            is_wrong = away.amin(1) > 1e-6
            wrong += int(is_wrong.sum())
            certified += int(found.certified.sum())
            assert not (found.certified & is_wrong).any()
    assert wrong > 10
    assert certified or near < 1


def test_a_batch_through_a_deep_net_is_certified_in_single_precision():
    model = fresh(smlp, (3, 8, 8), width=256, generator=seeded()).float()
    batch = drawn(3, 4, 3, 8, 8).float()
    for found in isolated_inputs(watched(model, batch, words(3, 4, size=10))):
        assert len(found) == 4
        assert found.certified.all()


def test_multiples_from_a_weight_used_twice_are_not_certified():
    for found in isolated_inputs(seen_of(Twice)):
        assert not found.certified.any()


def test_half_pictures_from_a_bias_added_twice_are_not_certified():
    # All biases are zero still, so a half would leave the same units silent.
    class Twofold(nn.Module):
        def __init__(self):
            super().__init__()
            self.A = nn.Parameter(torch.randn(192, 128) / 14)
            self.b = nn.Parameter(torch.zeros(128))
            self.rest = nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10))

        def forward(self, x):
            return self.rest(((x.flatten(1) @ self.A + self.b) + self.b).relu())

    batch = drawn(2, 3, 3, 8, 8) - 0.5
    seen = watched(fresh(Twofold), batch, words(2, 3, size=10))
    for found, own in zip(isolated_inputs(seen, parameter="A"), batch, strict=True):
        deviations = (2 * found.images[:, None] - own).abs().amax((2, 3, 4)).amin(1)
        assert len(found) > 0
        assert deviations.max() < 1e-6
        assert not found.certified.any()


def test_without_a_relu_nothing_is_certified():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.LeakyReLU())
    model = model.append(nn.Linear(64, 10)).double()
    seen = watched(model, PICTURES, LABELS)
    for found in isolated_inputs(seen):
        assert len(found) == 1
        assert not found.certified.any()


# --- which parameter ----------------------------------------------------------------


def test_refusals_name_what_would_do():
    said = {
        lora: "shared no gradient of '1.frozen.weight'.*'1.A' sees it: input_of",
        lambda: linear(nn.BatchNorm2d(3), nn.Flatten()).eval(): (
            "runs: '0', BatchNorm2d.*'2.weight' sees it, moved or rescaled: input_of"
        ),
        lambda: linear(nn.BatchNorm2d(3), nn.Flatten()): "give layer='2' if it sees",
        lambda: linear(
            nn.Unfold(4, stride=4), nn.Flatten()
        ): "'2.weight' sees it, moved",
        Turned: "'weight' sees it: input_of",
    }
    for make, pattern in said.items():
        with pytest.raises(ValueError, match=pattern) as refusal:
            invert_linear(seen_of(make))
        assert "no closed form" not in str(refusal.value)
    with pytest.raises(
        ValueError, match=r"no layer '3' fits here.*input_of\(.*3.weight"
    ):
        invert_linear(seen_of(lora), layer="3")
    named = invert_linear(
        seen_of(lambda: linear(nn.BatchNorm2d(3), nn.Flatten()).eval()), layer="2"
    )
    assert named.exact.all()


def test_a_convolution_as_large_as_the_picture_is_a_linear_layer():
    seen = observe(fresh(full_convolution), PICTURES, LABELS)
    for observation in (seen, replace(seen, shared=seen.shared.dense())):
        for layer in (None, "0"):
            found = invert_linear(observation, layer=layer)
            assert_close(found.images, PICTURES[:, 0], rtol=0, atol=1e-9)
            assert found.exact.all()


def test_what_is_no_matrix_is_refused_by_name():
    seen = seen_of(linear, nn.Flatten(), nn.LayerNorm(192))
    with pytest.raises(ValueError, match="'1.weight' is multiplied with 0 inputs"):
        input_of(seen, "1.weight")
    with pytest.raises(
        ValueError, match="no parameter '2.wight'.*Did you mean '2.weight'"
    ):
        input_of(seen, "2.wight")
    in_groups = nn.Sequential(nn.Conv2d(3, 6, 8, groups=3), nn.Flatten())
    grouped = watched(in_groups.append(nn.Linear(6, 10)).double(), PICTURES, LABELS)
    with pytest.raises(ValueError, match="'0.weight' is multiplied with 0 inputs"):
        input_of(grouped, "0.weight")
    with pytest.raises(ValueError, match="no gradient of '1.frozen.weight'"):
        input_of(seen_of(lora), "1.frozen.weight")
    with pytest.raises(ValueError, match="a layer or a parameter, not both"):
        span(seen, layer="2", parameter="2.weight")
    with pytest.raises(ValueError, match="'1.A' has no bias"):
        isolated_inputs(seen_of(lora), parameter="1.A")
    with pytest.raises(TypeError, match="takes an Observation"):
        input_of(seen.shared)


def test_a_model_that_does_not_run_on_noise_says_so():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear(nn.Flatten())

        def forward(self, x):
            if x.min() < 0:
                raise RuntimeError("pixels only")
            return self.net(x)

    seen = seen_of(Picky)
    with pytest.raises(ValueError, match="does not run on noise.*pixels only"):
        input_of(seen)
    assert invert_linear(seen, layer="net.1").exact.all()  # whose layer is known
    assert direction_of_input(seen, layer="net.1").shape == (3, 3, 8, 8)


def test_looking_leaves_the_model_and_the_random_numbers_alone():
    model = fresh(linear, nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5)).train()
    seen = watched(model, PICTURES, LABELS)
    before, state = (
        {n: b.clone() for n, b in model.named_buffers()},
        torch.get_rng_state(),
    )
    trace_of(seen)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_a_reading_tells_itself_in_one_line():
    seen = seen_of(lora, normalisation=IDENTITY)
    assert repr(input_of(seen)) == (
        "Leaked('1.A': picture (3, 192), up to a factor, 3 of 3 certified)"
    )
    with pytest.raises(ValueError, match="picture up to a factor"):
        _ = input_of(seen_of(lora)).pixels
    with pytest.raises(ValueError, match="no normalisation, so pixels are unknown"):
        _ = input_of(seen_of(linear, nn.Flatten())).pixels
