import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from precode_lib.ats import (
    ACCURACY_FLOOR,
    Policy,
    accuracy_score,
    mean_layer_cosine,
    privacy_scores,
    similarity_profile,
)
from precode_lib.bottleneck import with_precode
from precode_lib.data import PHOTOS, victims
from precode_lib.gradients import Capture, cosine_similarity

POLICY = Policy.parse("3-1-7+43-18-18")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_net(*, norm=True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU()]
    layers = layers if norm else [layers[0], layers[2]]
    layers += [nn.Flatten(), nn.Linear(4 * 49, 10)]
    return nn.Sequential(*layers).double().eval()


@pytest.fixture(scope="module")
def pictures():
    return victims("photos", 6, size=16)


def slow_profile(model, pictures, transform, generator, num_intervals, similarity):
    """One picture and one point at a time, with plain autograd."""
    noise = torch.rand(pictures.pixels.shape, generator=generator)
    ends = transform(pictures.pixels, generator)
    rows = []
    for x0, x1, label in zip(noise, ends, pictures.labels, strict=True):
        x0, x1 = (PHOTOS.normalise(x.double())[None] for x in (x0, x1))

        def gradient(image, label=label):
            loss = F.cross_entropy(model(image), label[None])
            return torch.autograd.grad(loss, list(model.parameters()))

        target = gradient(x1)
        shares = [i / num_intervals for i in range(num_intervals + 1)]
        points = [gradient(share * x1 + (1 - share) * x0) for share in shares]
        rows.append([similarity(point, target) for point in points])
    return torch.tensor(rows)


def slow_mean_cosine(a, b):
    cosines = [F.cosine_similarity(x.flatten(), y.flatten(), 0) for x, y in zip(a, b)]  # noqa: B905
    return sum(cosines) / len(cosines)


def slow_cosine(a, b):
    a, b = (torch.cat([x.flatten() for x in side]) for side in (a, b))
    return F.cosine_similarity(a, b, 0)


@pytest.mark.parametrize(
    ("fast", "slow"),
    [(mean_layer_cosine, slow_mean_cosine), (cosine_similarity, slow_cosine)],
)
def test_the_profile_agrees_with_plain_autograd_point_by_point(pictures, fast, slow):
    model = make_net()
    found = similarity_profile(
        model, pictures.pixels, pictures.labels, POLICY,
        normalisation=PHOTOS, generator=seeded(1), num_intervals=5, similarity=fast,
    )  # fmt: skip
    expected = slow_profile(model, pictures, POLICY, seeded(1), 5, slow)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:, -1], torch.ones(6).double())
    assert found[:, 0].max() < 0.9


def test_the_privacy_score_is_the_trapezoid_mean_of_21_points(pictures):
    args = make_net(), pictures.pixels, pictures.labels, POLICY
    options = {"normalisation": PHOTOS}
    profile = similarity_profile(*args, generator=seeded(2), **options)
    assert profile.shape == (6, 21)
    expected = torch.tensor(
        [sum((a + b) / 2 for a, b in pairwise(row)) / 20
         for row in profile.tolist()]
    )  # fmt: skip
    found = privacy_scores(*args, generator=seeded(2), **options)
    torch.testing.assert_close(found.float(), expected)


def test_scores_do_not_depend_on_how_much_fits_into_memory(pictures):
    args = make_net(), pictures.pixels, pictures.labels, POLICY
    found = [
        similarity_profile(
            *args, generator=seeded(), normalisation=PHOTOS, chunk_bytes=size
        )
        for size in (1, 2**19, 2**30)
    ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_a_picture_that_gives_noise_away_scores_one():
    """Along a path that stands still all gradients are the same."""
    model, pixels = make_net(), torch.rand(2, 3, 16, 16, generator=seeded(5))

    def stand_still(pixels, generator):
        return pixels

    found = privacy_scores(
        model, pixels, torch.tensor([0, 1]), stand_still,
        normalisation=PHOTOS, generator=seeded(5),
    )  # fmt: skip
    torch.testing.assert_close(found, torch.ones(2).double())


def test_equal_seeds_compare_policies_on_equal_noise(pictures):
    """The first step from noise is nearly the same, whatever the policy."""
    model = make_net()
    drawn = []

    def spy(pixels, generator):
        drawn.append(generator.get_state())
        return pixels

    for _ in range(2):
        privacy_scores(
            model, pictures.pixels, pictures.labels, spy,
            normalisation=PHOTOS, generator=seeded(3),
        )  # fmt: skip
    assert torch.equal(drawn[0], drawn[1])
    fresh = seeded(3)
    torch.rand(pictures.pixels.shape, generator=fresh)
    assert torch.equal(drawn[0], fresh.get_state())


def test_scores_leave_the_model_and_the_global_generator_as_they_were(pictures):
    model = make_net()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    privacy_scores(
        model, pictures.pixels, pictures.labels, POLICY,
        normalisation=PHOTOS, generator=seeded(),
    )  # fmt: skip
    accuracy_score(
        model, pictures.pixels, POLICY, normalisation=PHOTOS, generator=seeded()
    )
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_of_a_model_with_a_bottleneck_follow_the_seed(pictures):
    model = with_precode(make_net(norm=False), k=4, example=(3, 16, 16))
    args = model, pictures.pixels, pictures.labels, POLICY
    state = torch.get_rng_state()
    first, second, other = (
        privacy_scores(*args, normalisation=PHOTOS, generator=seeded(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def slow_accuracy_score(model, pixels, transform, generator):
    images = PHOTOS.normalise(transform(pixels, generator).double())
    rows = []
    for image in images:
        image = image[None].requires_grad_()
        rows.append(torch.autograd.grad(model(image).sum(), image)[0].flatten())
    correlations = np.corrcoef(torch.stack(rows).numpy())
    eigenvalues = np.linalg.eigvals(correlations).real
    return -np.sum(np.log(eigenvalues + 1e-5) + 1 / (eigenvalues + 1e-5))


def test_the_accuracy_score_agrees_with_numpy(pictures):
    model = make_net()
    found = accuracy_score(
        model, pictures.pixels, POLICY, normalisation=PHOTOS, generator=seeded(4)
    )
    expected = slow_accuracy_score(model, pictures.pixels, POLICY, seeded(4))
    assert found == pytest.approx(expected, rel=1e-9)
    assert found < -6  # the bound that ln v + 1/v >= 1 sets


def test_unrelated_pictures_score_minus_n_and_equal_ones_far_less():
    class Squares(nn.Module):
        """Its Jacobian is twice the picture."""

        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, images):
            return (self.one * images.square()).flatten(1).sum(1, keepdim=True)

    def keep(pixels, generator):
        return pixels

    class Keep:
        normalise = staticmethod(lambda pixels: pixels)

    basis = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]])
    walsh = torch.stack([basis[0], basis[1], torch.tensor([1.0, 0, 0, 1])])
    options = {"normalisation": Keep(), "generator": seeded()}
    # Rows +--+ / ++-- / +-+-: centred and orthogonal, so the eigenvalues are all 1.
    score = accuracy_score(Squares(), walsh.view(3, 1, 2, 2), keep, **options)
    assert score == pytest.approx(-3, abs=1e-6)
    twins = walsh[[0, 0, 1]].view(3, 1, 2, 2)
    assert accuracy_score(Squares(), twins, keep, **options) < -50_000


def test_a_model_in_training_mode_is_refused(pictures):
    model = make_net().train()
    options = {"normalisation": PHOTOS, "generator": seeded()}
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        privacy_scores(model, pictures.pixels, pictures.labels, POLICY, **options)
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        accuracy_score(model, pictures.pixels, POLICY, **options)


def test_scores_refuse_what_they_cannot_rate(pictures):
    options = {"normalisation": PHOTOS, "generator": seeded()}
    model = make_net()
    with pytest.raises(ValueError, match="two pictures"):
        accuracy_score(model, pictures.pixels[:1], POLICY, **options)
    with pytest.raises(ValueError, match="labels must have shape"):
        privacy_scores(model, pictures.pixels, pictures.labels[:2], POLICY, **options)
    with pytest.raises(ValueError, match="num_intervals"):
        privacy_scores(
            model, pictures.pixels, pictures.labels, POLICY, num_intervals=0, **options
        )
    with torch.no_grad():
        model[-1].weight.zero_()
    with pytest.raises(ValueError, match="does not depend on 6 of 6"):
        accuracy_score(model, pictures.pixels, POLICY, **options)


def test_levels_and_pixels_score_the_same(pictures):
    options = {"normalisation": PHOTOS}
    stored = (pictures.pixels * 255).round().to(torch.uint8)
    found = [
        privacy_scores(
            make_net(), pixels, pictures.labels, POLICY, generator=seeded(), **options
        )
        for pixels in (stored, stored.float() / 255)
    ]
    torch.testing.assert_close(*found)


def test_two_pictures_are_enough_for_a_correlation(pictures):
    found = accuracy_score(
        make_net(), pictures.pixels[:2], POLICY,
        normalisation=PHOTOS, generator=seeded(),
    )  # fmt: skip
    assert -100 < found < -2


def test_scores_refuse_normalised_images_whatever_the_transformation(pictures):
    def keep(pixels, generator):
        return pixels

    options = {"normalisation": PHOTOS, "generator": seeded()}
    with pytest.raises(ValueError, match="before the normalisation"):
        privacy_scores(make_net(), pictures.images, pictures.labels, keep, **options)
    with pytest.raises(ValueError, match="before the normalisation"):
        accuracy_score(make_net(), pictures.images, keep, **options)


def test_the_accuracy_floor_is_the_published_one_for_each_picture():
    assert round(ACCURACY_FLOOR * 63.4, 6) == -85  # for as many pictures


def test_the_memory_bound_limits_how_many_pictures_go_at_once(pictures, monkeypatch):
    sizes = []
    call = Capture.__call__

    def record(self, images, *args, **kwargs):
        sizes.append(len(images))
        return call(self, images, *args, **kwargs)

    monkeypatch.setattr(Capture, "__call__", record)
    found = {}
    for chunk_bytes in (1, 3 * 2**20, 2**30):
        sizes.clear()
        privacy_scores(
            make_net(), pictures.pixels, pictures.labels, POLICY,
            normalisation=PHOTOS, generator=seeded(), chunk_bytes=chunk_bytes,
        )  # fmt: skip
        found[chunk_bytes] = sizes[1:]  # the first looks how large one victim is
    assert found[1] == [21] * 6
    assert found[2**30] == [126]
    # A victim's gradients and targets take 2 x 17 kB, its layers 2 x about 25 kB.
    assert 1 < len(found[3 * 2**20]) < 6


def test_accuracy_scores_need_no_surrounding_graph_and_follow_the_seed(pictures):
    model = with_precode(make_net(norm=False), k=4, example=(3, 16, 16))
    with torch.no_grad():
        first, second, other = (
            accuracy_score(
                model, pictures.pixels, Policy.parse("0"),
                normalisation=PHOTOS, generator=seeded(seed),
            )
            for seed in (0, 0, 1)
        )  # fmt: skip
    assert first == second
    assert first != other
