"""What a defense is, and how to put several together."""

from collections.abc import Callable

from precode_lib.basics.validation import check_takes, closest
from precode_lib.gradients import Gradients, matching

Defense = Callable[[Gradients], Gradients]

# (capture, images (V, B, C, H, W), labels (V, B), *, noise) -> what V clients share.
# A `Capture` called with the rest is the step without any defense.
ClientStep = Callable[..., Gradients]


def chain(*defenses: Defense) -> Defense:
    """Apply the defenses from left to right; chain() changes nothing.

    >>> from functools import partial
    >>> import torch
    >>> from precode_lib.defenses import chain, clip, prune
    >>> from precode_lib.gradients import Gradients
    >>> defense = chain(partial(prune, ratio=0.5), partial(clip, max_norm=1.0))
    >>> defense(Gradients({"bias": torch.tensor([[3.0, -1.0, 2.0, -4.0]])}))["bias"]
    tensor([[ 0.6000,  0.0000,  0.0000, -0.8000]])
    """
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


def defended(defense: Defense, gradients: Gradients) -> Gradients:
    """What a client sends of this gradient; refuses what no server could use."""
    _check_defense(defense)
    sent = defense(gradients)
    if not isinstance(sent, Gradients):
        raise TypeError(
            f"a defense returns Gradients, got {type(sent).__name__}; map, select and "
            "drop of the ones it is given make some."
        )
    shapes = gradients.shapes
    for name, shape in sent.shapes.items():
        if name not in shapes:
            raise ValueError(
                f"the defense sends {name!r}, which the model does not have."
                f"{closest(name, shapes)}"
            )
        if shapes[name] != shape:
            raise ValueError(
                f"the defense sends {name!r} of shape {tuple(shape)}, the model's is "
                f"{tuple(shapes[name])}."
            )
    return sent


def _check_defense(defense: Defense) -> None:
    check_takes(defense, "a defense", "partial(prune, ratio=0.9)", "gradients")


def check_client_step(client_step: object) -> None:
    """Refuse what does not take a client's pictures, such as an unfinished partial."""
    given = "capture", "images", "labels", "*", "noise"
    check_takes(client_step, "client_step", "partial(dp_sgd_step, ...)", *given)


def _check_patterns(patterns: tuple[str, ...]) -> None:
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            "name the parameters by at least one pattern, such as 'features.*'; got "
            f"{patterns}."
        )
