"""A picture out of its patches, where learned positions are sent; and where not."""

from dataclasses import replace

import pytest
import torch
from plain import Positions, drawn, fresh, seeded, vit, watched, words
from torch import nn
from torch.testing import assert_close

from precode_lib.attacks import invert_linear, patches_of
from precode_lib.attacks.patches import solved
from precode_lib.bottleneck import with_precode
from precode_lib.federated import LocalTraining, observe

PICTURES, LABELS = drawn(2, 1, 3, 32, 32), words(2, 1, size=10)


class Maps(nn.Module):
    """Positions added to maps of a convolution, before they become a row of tokens."""

    def __init__(self, width=48):
        super().__init__()
        self.proj = nn.Conv2d(3, width, 8, 8)
        self.places = nn.Parameter(torch.randn(1, width, 4, 4) / 10)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head((self.proj(x) + self.places).relu().mean((2, 3)))


class Normalised(nn.Module):
    """A transformer that normalises its pixels itself."""

    def __init__(self):
        super().__init__()
        self.model = vit()

    def forward(self, x):
        return self.model((x - 0.4) / 0.2)


def test_a_vision_transformer_gives_its_picture_away():
    for make in (vit, Positions, Maps, Normalised):
        found = patches_of(watched(fresh(make), PICTURES, LABELS))
        assert found.gives == "picture"
        assert found.values.shape == (2, 16, 192)
        assert_close(found.images, PICTURES[:, 0], rtol=0, atol=1e-8)
        assert found.certified.all()


def test_the_equations_are_those_of_all_patches():
    slopes, patches = drawn(2, 5, 9), drawn(2, 5, 12, seed=2)
    found, held = solved(slopes, slopes.mT @ patches)
    assert_close(found, patches, rtol=0, atol=1e-10)
    assert held.all()
    _, held = solved(slopes, slopes.mT @ patches + 1e-4 * drawn(2, 9, 12, seed=3))
    assert not held.any()
    square = drawn(2, 9, 9)  # as many equations as unknowns: one solution, no proof
    found, held = solved(square, square.mT @ drawn(2, 9, 12, seed=2))
    assert_close(found, drawn(2, 9, 12, seed=2), rtol=0, atol=1e-8)
    assert not held.any()


def test_precode_at_the_end_hides_no_patch():
    model = with_precode(fresh(vit), k=8, generator=seeded())
    seen = observe(model, PICTURES, LABELS, noise=seeded(3))
    found = patches_of(seen)
    assert_close(found.images, PICTURES[:, 0], rtol=0, atol=1e-7)
    assert found.certified.all()


def test_single_precision_is_enough():
    found = patches_of(watched(fresh(vit).float(), PICTURES.float(), LABELS))
    assert_close(found.images, PICTURES[:, 0].float(), rtol=0, atol=1e-3)
    assert found.certified.all()


def test_behind_a_head_of_zeros_there_is_silence_and_no_certificate():
    # Torchvision's own start.
    found = patches_of(watched(fresh(vit, head=0), PICTURES, LABELS))
    assert found.silent.all()
    assert not found.certified.any()
    assert (found.images == 0).all()


def test_of_two_pictures_a_mixture_is_not_certified():
    batch = drawn(2, 2, 3, 32, 32)
    found = patches_of(watched(fresh(vit), batch, words(2, 2, size=10)))
    assert not found.certified.any()
    assert (found.images[:, None] - batch).abs().amax((2, 3, 4)).min() > 0.1


def test_more_patches_than_entries_have_many_solutions():
    for width, proven in ((16, False), (32, True)):  # of 16 patches
        model = fresh(Maps, width)
        found = patches_of(watched(model, PICTURES, LABELS))
        assert found.certified.tolist() == [proven] * 2


def test_one_block_and_one_query_make_the_slopes_dependent():
    # All patches reach the one that is read through a few directions of two heads.
    model = fresh(Positions, reads_first=True)
    found = patches_of(watched(model, PICTURES, LABELS))
    assert not found.certified.any()
    assert (found.images - PICTURES[:, 0]).abs().max() > 0.1


def test_positions_that_are_added_twice_prove_nothing():
    class Twofold(Maps):
        def forward(self, x):
            hidden = self.proj(x) + self.places + self.places
            return self.head(hidden.relu().mean((2, 3)))

    found = patches_of(watched(fresh(Twofold), PICTURES, LABELS))
    assert_close(2 * found.images, PICTURES[:, 0], rtol=0, atol=1e-8)
    assert not found.certified.any()


def test_noise_and_local_steps_take_the_proof_away():
    seen = observe(fresh(vit), PICTURES, LABELS)
    assert patches_of(seen).certified.all()
    noisy = seen.shared.map(
        lambda g: g + 1e-5 * torch.randn(g.shape, generator=seeded(4)).to(g)
    )
    assert not patches_of(replace(seen, shared=noisy)).certified.any()
    moved = observe(fresh(vit), PICTURES, LABELS, local=LocalTraining(3, 0.1))
    found = patches_of(moved)
    assert not found.certified.any()
    # Yet near: the slopes hardly moved.
    assert (found.images - PICTURES[:, 0]).abs().max() < 1e-2


def test_positions_that_are_not_sent_leave_more_unknowns_than_equations():
    seen = watched(fresh(vit), PICTURES, LABELS)
    without = replace(seen, shared=seen.shared.drop("encoder.pos_embedding"))
    with pytest.raises(ValueError, match="more unknowns than equations"):
        patches_of(without)
    with pytest.raises(ValueError, match="'conv_proj.weight' sees it in patches"):
        invert_linear(seen)
    with pytest.raises(ValueError, match="What goes into others") as refusal:
        invert_linear(without)
    assert "patches" not in str(refusal.value)
