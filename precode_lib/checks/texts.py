"""Open questions: a person reads the answer; here it is only seen that there is one."""

from collections.abc import Sequence
from typing import Any

from .exercise import HANDED_IN, HandedIn, NotSolved, unanswered

FEWEST = 25  # words; two or three sentences


def open_question(
    answer: Any, *, mentions: str, mistakes: Sequence[str] = (), fewest: int = FEWEST
) -> HandedIn:
    """Refuse an answer too short to be one; otherwise say what a good one mentions.

    Args:
        answer: the learner's, in words.
        mentions: what a good answer contains, for comparing it oneself.
        mistakes: common misconceptions, for the same purpose.
        fewest: words below which it is no answer.
    """
    if not isinstance(answer, str):
        raise NotSolved(f"the answer should be text, got a {type(answer).__name__}.")
    if answer.strip().strip(".").upper() in ("", "TODO"):
        raise unanswered()
    words = [word for word in answer.split() if any(map(str.isalnum, word))]
    if len(set(map(str.lower, words))) < fewest * 0.6 or len(words) < fewest:
        raise NotSolved(
            f"{len(words)} words are few for an open question; at least {fewest} "
            "different enough ones are expected.\n"
            "Where to look: say what you would expect, why, and what would change it."
        )
    remarks = [f"{HANDED_IN} A good answer mentions {mentions}"]
    remarks += [f"Often misunderstood: {mistake}" for mistake in mistakes]
    return HandedIn("\n".join(remarks))
