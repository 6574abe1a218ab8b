"""A list of rules that readers apply, each with what we found."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from precode_lib.plots import style_html

from .quiz import Quiz, inline, quiz, right, wrong

ANSWERS = ("yes", "in part", "no")


@dataclass(frozen=True)
class Item:
    """One line of a checklist.

    Args:
        name: a few words that the line is known by.
        question: is answered by yes, in part or no.
        answer: ours, one of `ANSWERS`.
        why: what it rests on.
    """

    name: str
    question: str
    answer: str
    why: str

    def __post_init__(self) -> None:
        if self.answer not in ANSWERS:
            raise ValueError(
                f"the answer to an item is one of {ANSWERS}, got {self.answer!r} at "
                f"{self.name!r}."
            )

    @property
    def quiz(self) -> Quiz:
        """The question, with the same reason whatever a reader chooses."""
        told = f"We say *{self.answer}*: {self.why}"
        options = (
            right(word, told) if word == self.answer else wrong(word, told)
            for word in ANSWERS
        )
        return quiz(self.question, *options)


@dataclass(frozen=True)
class Checklist:
    """Rules, applied to one thing; `checklist` makes one.

    It needs neither kernel nor script nor network. On paper it is the list of
    questions, with nothing given away.
    """

    subject: str
    items: Sequence[Item]

    def __repr__(self) -> str:
        # Not the dataclass's: that would say our answers.
        lines = (f"\n  {n}. {i.name}. {i.question}" for n, i in self._numbered)
        return f"{self.subject}{''.join(lines)}"

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<details><summary>{number}. <strong>{escape(item.name)}.</strong> "
            f"{inline(item.question)}</summary>{item.quiz.fieldset}</details>"
            for number, item in self._numbered
        )
        return (
            f'<div class="precode-figure precode-checklist">{style_html()}'
            f'<p class="precode-question">{escape(self.subject)}</p>{lines}</div>'
        )

    @property
    def _numbered(self) -> Sequence[tuple[int, Item]]:
        return [*enumerate(self.items, 1)]


def checklist(subject: str, *items: Item) -> Checklist:
    """Rules to be applied by the reader, who opens one, answers, and is told ours.

    Args:
        subject: what they are applied to, such as "The paper, by the rules".
        items: in their order; no two of one name or one question.
    """
    for one in ("name", "question"):
        said = [getattr(item, one) for item in items]
        if len({*said}) < len(said):
            raise ValueError(f"two items of {subject!r} have the same {one}: {said}.")
    if not items:
        raise ValueError(f"a checklist needs items, got none for {subject!r}.")
    return Checklist(subject, items)
