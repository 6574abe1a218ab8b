"""What a defense is, and how to put several together."""

from collections.abc import Callable

from precode_lib.gradients import Gradients, matching

Defense = Callable[[Gradients], Gradients]

# (capture, images (V, B, C, H, W), labels (V, B), *, noise) -> what V clients share.
# A `Capture` called with the rest is the step without any defense.
ClientStep = Callable[..., Gradients]


def chain(*defenses: Defense) -> Defense:
    """Apply the defenses from left to right; chain() changes nothing."""
    for defense in defenses:
        _check_defense(defense)

    def defend(gradients: Gradients) -> Gradients:
        for defense in defenses:
            gradients = defense(gradients)
        return gradients

    return defend


def only(defense: Defense, *patterns: str) -> Defense:
    """Apply the defense to the parameters whose names match a pattern, such as "fc.*".

    It sees these parameters alone: a norm or a share is theirs. The others stay as
    they are, in their layout.
    """
    _check_defense(defense)
    _check_patterns(patterns)
    return lambda gradients: _defend(defense, gradients, matching(gradients, patterns))


def ignoring(defense: Defense, *patterns: str) -> Defense:
    """Apply the defense to all parameters but those whose names match a pattern."""
    _check_defense(defense)
    _check_patterns(patterns)
    return lambda gradients: _defend(
        defense, gradients, set(gradients) - matching(gradients, patterns)
    )


def _defend(defense: Defense, gradients: Gradients, chosen: set[str]) -> Gradients:
    """Replace the chosen terms; one that the defense withholds is left out."""
    if not chosen:
        raise ValueError(
            f"the patterns match all {len(gradients)} parameters, so there is none "
            "left to defend."
        )
    part = Gradients({name: gradients[name] for name in gradients if name in chosen})
    defended = defense(part)
    return Gradients(
        {
            name: defended[name] if name in chosen else term
            for name, term in gradients.items()
            if name not in chosen or name in defended
        }
    )


def _check_defense(defense: Defense) -> None:
    if not callable(defense):
        raise TypeError(
            "a defense is a function of gradients, such as partial(prune, ratio=0.9); "
            f"got {type(defense).__name__}."
        )


def _check_patterns(patterns: tuple[str, ...]) -> None:
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            "name the parameters by at least one pattern, such as 'features.*'; got "
            f"{patterns}."
        )
