"""A question with options to choose from, answered by the page alone."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from precode_lib.plots import style_html

FEWEST, MOST = 2, 4

_CODE = re.compile(r"`([^`]+)`")
# A star between two words or numbers multiplies them.
_STRESSED = re.compile(r"(?<!\w)\*(?=\S)([^*]+)(?<=\S)\*(?!\w)")


@dataclass(frozen=True)
class Option:
    """One answer to a quiz, and what its reader is told on choosing it."""

    text: str
    why: str
    is_right: bool

    def __post_init__(self) -> None:
        if not self.text.strip() or not self.why.strip():
            raise ValueError(
                "an option needs a text and a reason, got "
                f"{self.text!r} and {self.why!r}."
            )


def right(text: str, why: str) -> Option:
    """The option that is right, with the reason."""
    return Option(text, why, True)


def wrong(text: str, why: str) -> Option:
    """An option that is wrong, with what speaks against it."""
    return Option(text, why, False)


@dataclass(frozen=True)
class Quiz:
    """A question and its options; `quiz` makes one.

    It needs neither kernel nor script nor network: style alone shows what is said of
    the option that is chosen. On paper there are only the question and the options.
    """

    question: str
    options: Sequence[Option]

    def __post_init__(self) -> None:
        num_options, num_right = (
            len(self.options),
            sum(o.is_right for o in self.options),
        )
        if not FEWEST <= num_options <= MOST or num_right != 1:
            raise ValueError(
                f"a quiz has {FEWEST} to {MOST} options, exactly one of them right; "
                f"got {num_options} options, {num_right} of them right, at "
                f"{self.question!r}."
            )
        if len({option.text for option in self.options}) < num_options:
            raise ValueError(f"two options of {self.question!r} are the same.")

    def __repr__(self) -> str:
        # Not the dataclass's: that would say which option is right.
        texts = "".join(f"\n  ( ) {option.text}" for option in self.options)
        return f"{self.question}{texts}"

    def _repr_html_(self) -> str:
        return (
            f'<div class="precode-figure precode-quiz">{style_html()}{self.fieldset}'
            "</div>"
        )

    @property
    def fieldset(self) -> str:
        """The question and its options as HTML, without the style."""
        options = "".join(
            _option_html(option, self._name, index)
            for index, option in enumerate(self.options)
        )
        legend = f"<legend>{inline(self.question)}</legend>"
        return f"<fieldset>{legend}{options}</fieldset>"

    @property
    def _name(self) -> str:
        # Of the text alone, so that a page does not change from one build to the next.
        text = "\n".join([self.question, *(option.text for option in self.options)])
        return f"quiz-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def quiz(question: str, *options: Option) -> Quiz:
    """A question whose answer is chosen in the notebook or on the page.

    Each option says why it is right or wrong as soon as it is chosen. In all texts
    `code` stands in backticks and *emphasis* in stars; the rest is shown as it is.

    Args:
        question: asks for one of the options.
        options: 2 to 4 of `right(text, why)` and `wrong(text, why)`, one of them right.
    """
    for option in options:
        if not isinstance(option, Option):
            raise TypeError(
                f"an option is right(text, why) or wrong(text, why), got {option!r}."
            )
    return Quiz(question, options)


def _option_html(option: Option, name: str, index: int) -> str:
    # JupyterLab takes the arrow keys from an input that does not carry this mark.
    mark = 'data-lm-suppress-shortcuts="true"'
    kind, icon, verdict = (
        ("right", "✓", "Right.") if option.is_right else ("wrong", "✗", "Not quite.")
    )
    # The status is there from the start: screen readers read out what appears in it.
    return (
        f'<div class="precode-option"><input type="radio" name="{name}" '
        f'id="{name}-{index}" value="{index}" autocomplete="off" {mark}>'
        f'<label for="{name}-{index}">{inline(option.text)}</label>'
        f'<div role="status"><p class="precode-feedback precode-{kind}">'
        f'<span class="precode-icon" aria-hidden="true">{icon}</span>'
        f"<strong>{verdict}</strong> {inline(option.why)}</p></div></div>"
    )


def inline(text: str) -> str:
    """Text as HTML: escaped, with code in backticks and emphasis in stars."""
    parts = _CODE.split(escape(text))  # text, code, text, ...
    parts[::2] = [_STRESSED.sub(r"<em>\1</em>", part) for part in parts[::2]]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts)
