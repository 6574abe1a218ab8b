"""No marker refuses a right answer, however it is written and whatever is drawn."""

import pytest
import torch
from right_answers import CHAPTERS, answers, failures, solved, unusual

# Of "Explore" nothing is drawn and much is computed: the chapters' own tests do it.
QUICK = ("By hand", "Implement", "Open question")


def refused(chapter, draws, kinds):
    found = {}
    for name, what, given in answers(chapter):
        if solved(chapter)[name.partition(".")[2]][0] in kinds:
            found[name, what] = failures(name, given, draws)
    return {key: messages[0] for key, messages in found.items() if messages}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_right_answer_in_any_form_is_right(chapter):
    assert refused(chapter, 4, QUICK) == {}


@pytest.mark.classroom_all
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_right_answer_is_right_three_hundred_times(chapter):
    torch.set_num_threads(1)
    assert refused(chapter, 300, (*QUICK, "Explore")) == {}


def test_every_function_has_two_unusual_answers_and_every_chapter_is_there():
    assert len(CHAPTERS) >= 19
    kinds = {f"{c}.{n}": kind for c in CHAPTERS for n, (kind, _) in solved(c).items()}
    functions = {name for name, kind in kinds.items() if kind == "Implement"}
    assert functions == {*unusual.RIGHT}
    assert min(map(len, unusual.RIGHT.values())) == 2
