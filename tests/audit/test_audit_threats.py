"""The letters of the survey, what each knows, and who is not played."""

from itertools import pairwise

import pytest

from precode_lib.audit import THREATS, threat
from precode_lib.audit.threats import ACTIVE, BOX, LABELS, PUBLIC, STATISTICS, TRAINING


def test_each_letter_knows_all_that_the_one_before_knows():
    known = [THREATS[letter].knows for letter in "ABCDE"]
    assert all(less < more for less, more in pairwise(known))
    assert known[0] == set() and known[-1] == {BOX, TRAINING, PUBLIC, STATISTICS}


def test_what_is_lacking_is_named_in_one_order():
    needs = frozenset({PUBLIC, BOX, TRAINING})
    assert threat("A").lacks(needs) == [BOX, TRAINING, PUBLIC]
    assert threat("c").lacks(needs) == [PUBLIC]
    assert threat("E").lacks(needs) == []
    assert LABELS in threat("E").lacks(frozenset({LABELS}))  # given or not, apart


@pytest.mark.parametrize("letter", sorted(ACTIVE))
def test_those_who_act_are_refused_with_a_reason(letter):
    with pytest.raises(ValueError, match="no attack here does that"):
        threat(letter)


def test_no_such_letter():
    with pytest.raises(ValueError, match="one of A, B, C, D, E"):
        threat("Z")
