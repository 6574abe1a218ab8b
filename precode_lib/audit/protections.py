"""Defenses by the names that a command line can give, or functions of one's own.

`noise:1e-3` is the library's `add_noise` with a standard deviation of 1e-3. A defense
of one's own is a function from `Gradients` to `Gradients`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

import torch
from torch import nn

from precode_lib import defenses
from precode_lib.basics.validation import check_takes
from precode_lib.bottleneck import with_precode
from precode_lib.defenses import ClientStep, Defense


@dataclass(frozen=True)
class Protection:
    """What stands between a client's gradient and the wire.

    Args:
        name: as it was asked for.
        insert: (model, example, generator) -> the model with a layer that protects it.
        change: from a generator to what is done to the gradient before it is sent.
        step: from a generator to what clients compute instead of their gradient.
        is_factor: whether it is one factor for all of the gradient, as clipping is.
        noise_multiplier: of DP-SGD, for which there is a proof.
        advice: what attackers who know it do, as a hint for the report.
    """

    name: str
    insert: Callable[..., nn.Module] | None = None
    change: Callable[[torch.Generator], Defense] | None = None
    step: Callable[[torch.Generator], ClientStep] | None = None
    is_factor: bool = False
    noise_multiplier: float | None = None
    advice: str = ""

    @property
    def keeps_proofs(self) -> bool:
        """Whether the form of what is sent still proves what it was computed from.

        Rows that were rounded to signs agree, too: about a pattern, not a picture.
        """
        return self.is_factor or (self.change is None and self.step is None)


NONE = Protection("none")


def protection(asked: "str | Defense | Protection") -> Protection:
    """What a name such as "noise:1e-3" stands for, or a function of one's own."""
    if isinstance(asked, Protection):
        return asked
    if callable(asked):
        check_takes(asked, "a defense", "partial(add_noise, std=1e-3)", "gradients")
        name = getattr(asked, "__name__", type(asked).__name__)
        return Protection(name, change=lambda generator: asked)
    name, _, rest = str(asked).partition(":")
    if name not in _NAMED:
        near = get_close_matches(name, _NAMED, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no defense {name!r}.{hint} There are: {', '.join(_FORMS.values())}; or a "
            "function of your own, my_app.defense:blur."
        )
    values = [_number(part, asked) for part in rest.split(":")] if rest else []
    try:
        return _NAMED[name](str(asked), *values)
    except TypeError as problem:
        if "positional argument" not in str(problem):
            raise
        raise ValueError(
            f"the defense {asked!r} is not complete: write {_FORMS[name]}."
        ) from None


def _number(text: str, asked: object) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"the defense {asked!r} has {text!r} where a number is wanted."
        ) from None


def _noise(name: str, std: float, *, function=defenses.add_noise, option="std"):
    def change(generator):
        return partial(function, **{option: std}, generator=generator)

    advice = "noise of one size averages out over rows, steps and rounds"
    return _checked(Protection(name, change=change, advice=advice))


def _laplace(name: str, scale: float) -> Protection:
    return _noise(name, scale, function=defenses.add_laplace_noise, option="scale")


def _clip(name: str, norm: float) -> Protection:
    made = Protection(
        name,
        change=lambda generator: partial(defenses.clip, max_norm=norm),
        is_factor=True,
        advice="clipping is one factor, which a ratio or a cosine does not see",
    )
    return _checked(made)


def _prune(name: str, share: float) -> Protection:
    made = Protection(
        name,
        change=lambda generator: partial(defenses.prune, ratio=share),
        advice="zeros say where they are: an attacker compares the rest",
    )
    return _checked(made)


def _quantise(name: str, bits: float) -> Protection:
    made = Protection(
        name,
        change=lambda generator: partial(defenses.quantise, bits=int(bits)),
        advice="rounding is noise of a known size",
    )
    return _checked(made)


def _precode(name: str, k: float = 256, beta: float = 1e-3) -> Protection:
    def insert(model, example, generator):
        return with_precode(
            model, k=int(k), beta=beta, example=example, generator=generator
        )

    return Protection(
        name,
        insert=insert,
        advice="attackers leave out what the noise touches, or search for the noise",
    )


def _dp_sgd(name: str, clip_norm: float, noise_multiplier: float) -> Protection:
    def step(generator):
        return partial(
            defenses.dp_sgd_step,
            clip_norm=clip_norm,
            noise_multiplier=noise_multiplier,
            generator=generator,
        )

    return Protection(
        name,
        step=step,
        noise_multiplier=noise_multiplier,
        advice="its proof bounds whoever sees this one answer; see the bound",
    )


def _checked(made: Protection) -> Protection:
    """Refuse an option out of its range now, and not after the first attack."""
    from precode_lib.gradients import Gradients

    probe = Gradients({"weight": torch.ones(1, 2, 2)})
    made.change(torch.Generator())(probe)
    return made


_NAMED = {
    "none": lambda name: NONE,
    "noise": _noise,
    "laplace": _laplace,
    "clip": _clip,
    "prune": _prune,
    "quantise": _quantise,
    "precode": _precode,
    "dp-sgd": _dp_sgd,
}
_FORMS = {
    "none": "none",
    "noise": "noise:STD",
    "laplace": "laplace:SCALE",
    "clip": "clip:NORM",
    "prune": "prune:SHARE",
    "quantise": "quantise:BITS",
    "precode": "precode:K:BETA",
    "dp-sgd": "dp-sgd:CLIP:MULTIPLIER",
}
NAMES = frozenset(_NAMED)
