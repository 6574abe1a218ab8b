import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precode_lib.ats import OPERATIONS, Policy, Variant, apply_each, augment, in_turn
from precode_lib.data import victims

indices = st.integers(0, 49)
alternatives = st.lists(indices, max_size=4).map(tuple)
policies = st.lists(alternatives, min_size=1, max_size=3).map(
    lambda listed: Policy(tuple(listed))
)


@pytest.fixture(scope="module")
def levels() -> torch.Tensor:
    return victims("photos", 10).stored


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(policies)
def test_a_policy_survives_being_written_and_read(policy):
    assert Policy.parse(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3-1-7", ((3, 1, 7),)),
        ("3-1-7+43-18-18", ((3, 1, 7), (43, 18, 18))),
        (" 3-1-7 + 43-18-18 ", ((3, 1, 7), (43, 18, 18))),
        ("-1", ((),)),
        ("3--1-7", ((3, 7),)),
        ("-1--1-5+-1", ((5,), ())),
        ("0-49", ((0, 49),)),
    ],
)
def test_policies_are_read_as_the_paper_writes_them(text, expected):
    assert Policy.parse(text).alternatives == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "such as '3-1-7'"),
        ("3-1-", "cannot read '3-1-'"),
        ("3,1,7", "cannot read '3,1,7'"),
        ("3-1-7+", "cannot read ''"),
        ("-2", "cannot read '-2'"),
        ("3-1-50", "no operation 50: they are numbered from 0 to 49"),
    ],
)
def test_a_string_that_is_no_policy_is_refused_with_an_example(text, message):
    with pytest.raises(ValueError, match=message):
        Policy.parse(text)


def test_what_is_no_policy_at_all_is_refused():
    with pytest.raises(TypeError, match="use Policy.parse"):
        Policy("3-1-7")
    with pytest.raises(TypeError, match="written as a string"):
        Policy.parse(317)
    with pytest.raises(TypeError, match="whole number"):
        Policy(((3, 1.5),))
    with pytest.raises(ValueError, match="at least -1"):
        Policy(((3, -2),))
    with pytest.raises(ValueError, match="needs an alternative"):
        Policy(())
    with pytest.raises(TypeError):
        Policy(((3,),)) + "43-18-18"


def test_the_sum_of_policies_is_their_hybrid():
    assert str(Policy.parse("3-1-7") + Policy.parse("43-18-18")) == "3-1-7+43-18-18"


@settings(max_examples=30)
@given(policies, st.integers(0, 10))
def test_a_policy_gives_what_one_of_its_variants_gives(policy, seed):
    levels = victims("photos", 2, size=16).pixels
    found = policy(levels, seeded(seed))
    for before, after in zip(levels, found, strict=True):
        before, after = before[None], after[None]
        assert any(
            torch.equal(apply_each(before, [variant]), after)
            for variant in policy.variants
        )


def test_operations_of_a_policy_apply_in_the_order_in_which_they_are_written(levels):
    # Inverting first and shifting then leaves black; the reverse leaves white.
    shift_last = Policy.parse("0-21")(levels, seeded())
    shift_first = Policy.parse("21-0")(levels, seeded())
    corners = torch.stack([shift_last, shift_first])[..., 16, [0, -1]]
    assert (corners[0] == 0).any(-1).all()
    assert (corners[1] == 255).any(-1).all()


def test_every_operation_of_a_policy_always_fires(levels):
    for index in (0, 29, 47):  # published with the probabilities 0.1, 0.0 and 0.1
        assert torch.equal(Policy(((index,),))(levels, seeded()), 255 - levels)


def test_signs_are_drawn_for_each_picture_and_evenly(levels):
    draws = Policy.parse("3").draw(1000, seeded())
    signs = torch.tensor([variant.steps[0][1] for variant in draws]).float()
    assert set(signs.tolist()) == {-1, 1}
    assert abs(signs.mean()) < 0.1  # three standard deviations


def test_alternatives_of_a_hybrid_are_drawn_for_each_picture_and_evenly():
    draws = Policy.parse("0+8+-1").draw(1500, seeded())
    lengths = [len(variant.steps) for variant in draws]
    assert 400 < lengths.count(0) < 600
    starts = [variant.steps[0][0] for variant in draws if variant.steps]
    assert 400 < starts.count(0) < 600
    assert 400 < starts.count(8) < 600


def test_signs_of_operations_without_direction_do_not_make_variants():
    assert len(Policy.parse("0-8-9").variants) == 1
    assert len(Policy.parse("3-0-28").variants) == 2
    assert len(Policy.parse("3-1-7").variants) == 8
    assert len(Policy.parse("3-1-7+43-18-18").variants) == 16
    assert len(Policy.parse("39-28+-1").variants) == 2


def test_equal_seeds_give_equal_pictures_and_the_global_generator_is_left_alone(levels):
    policy = Policy.parse("3-1-7+43-18-18")
    state = torch.get_rng_state()
    first, second = policy(levels, seeded(3)), policy(levels, seeded(3))
    augment(levels, seeded())
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(policy(levels, seeded(4)), first)


def test_a_policy_keeps_type_and_range_and_leaves_its_input_alone(levels):
    policy = Policy.parse("3-1-7+43-18-18")
    for pixels in (levels, levels.float() / 255, levels.double() / 255):
        before = pixels.clone()
        after = policy(pixels, seeded())
        assert after.dtype == pixels.dtype
        assert after.shape == pixels.shape
        assert torch.equal(pixels, before)
    assert torch.equal(
        policy(levels.float() / 255, seeded()), policy(levels, seeded()).float() / 255
    )


def test_the_empty_policy_gives_a_copy(levels):
    after = Policy.parse("-1")(levels, seeded())
    assert torch.equal(after, levels)
    assert after.data_ptr() != levels.data_ptr()


def test_variants_say_what_they_do():
    assert str(Variant(((3, 1), (1, -1), (8, 1)))) == "3+, 1-, 8"
    assert str(Variant(())) == "unchanged"


def test_each_picture_gets_its_own_variant(levels):
    keep, negative = Variant(()), Variant(((0, 1),))
    after = apply_each(levels[:3], [keep, negative, keep])
    expected = torch.stack([levels[0], 255 - levels[1], levels[2]])
    assert torch.equal(after, expected)
    with pytest.raises(ValueError, match="2 variants for 3 pictures"):
        apply_each(levels[:3], [keep, negative])


def test_augment_shows_a_window_of_the_padded_picture_or_its_mirror_image(levels):
    moved = augment(levels, seeded(), padding=2)
    padded = torch.nn.functional.pad(levels, [2] * 4)
    seen = set()
    for picture, after in zip(padded, moved, strict=True):
        windows = {
            (down, right, is_flipped): window.flip(-1) if is_flipped else window
            for down in range(5)
            for right in range(5)
            for is_flipped in (False, True)
            for window in [picture[:, down : down + 32, right : right + 32]]
        }
        found = [key for key, window in windows.items() if torch.equal(window, after)]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 5
    assert {key[2] for key in seen} == {False, True}


def test_augment_without_padding_only_mirrors(levels):
    pixels = levels.float() / 255
    moved = augment(pixels, seeded(), padding=0)
    is_same = (moved == pixels).flatten(1).all(1)
    is_mirrored = (moved == pixels.flip(-1)).flatten(1).all(1)
    assert (is_same ^ is_mirrored).all()
    assert is_same.any()
    assert is_mirrored.any()
    assert augment(levels, seeded()).dtype == torch.uint8


def test_augment_moves_by_up_to_the_padding_each_way_and_evenly():
    spot = torch.zeros(4000, 1, 9, 9)
    spot[:, :, 4, 4] = 1
    rows = augment(spot, seeded(), padding=2).sum((0, 1))
    assert rows[:2].sum() == 0
    assert rows[2:7, 2:7].min() > 100  # 160 on average
    assert rows[2:7, 2:7].max() < 220


def test_a_chain_applies_from_left_to_right(levels):
    policy = Policy.parse("3-1-7")
    generator = seeded()
    expected = policy(augment(levels, generator), generator)
    assert torch.equal(in_turn(augment, policy)(levels, seeded()), expected)
    assert torch.equal(in_turn()(levels, seeded()), levels)


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (torch.rand(3, 8, 8), ValueError, r"use pixels\[None\]"),
        (torch.rand(1, 2, 8, 8), ValueError, "1 or 3 channels"),
        (torch.rand(0, 3, 8, 8), ValueError, "at least one"),
        (torch.rand(1, 3, 8, 8) - 1, ValueError, "before the normalisation"),
        (torch.rand(1, 3, 8, 8) + 1, ValueError, "before the normalisation"),
        (torch.full((1, 3, 8, 8), torch.nan), ValueError, "NaN"),
        (torch.ones(1, 3, 8, 8, dtype=torch.int64), TypeError, "int64"),
        ([[1]], TypeError, "torch.Tensor, got list"),
    ],
)
def test_what_are_no_pixels_is_refused(pixels, error, message):
    for transform in (Policy.parse("3-1-7"), augment):
        with pytest.raises(error, match=message):
            transform(pixels, seeded())


def test_a_seed_instead_of_a_generator_is_refused(levels):
    for transform in (Policy.parse("3-1-7"), augment):
        with pytest.raises(TypeError, match=r"manual_seed\(0\) makes one"):
            transform(levels, 0)


def test_negative_padding_and_counts_are_refused(levels):
    with pytest.raises(ValueError, match="padding"):
        augment(levels, seeded(), padding=-1)
    with pytest.raises(ValueError, match="count"):
        Policy.parse("3").draw(0, seeded())


def test_all_operations_serve_as_policies(levels):
    for operation in OPERATIONS:
        after = Policy(((operation.index,),))(levels, seeded())
        assert after.shape == levels.shape


def test_a_policy_cannot_be_changed_and_may_be_a_key():
    policy = Policy.parse("3-1-7")
    with pytest.raises(AttributeError):
        policy.alternatives = ()
    assert {policy: 1}[Policy.parse("3-1-7")] == 1


def test_the_usual_augmentation_moves_by_up_to_four_pixels():
    spot = torch.zeros(1000, 1, 11, 11)
    spot[:, :, 5, 5] = 1
    rows = augment(spot, seeded()).sum((0, 1, 3))
    assert (rows > 0).tolist() == [False] + [True] * 9 + [False]
