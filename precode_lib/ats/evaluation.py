"""How pictures under an ATS policy fare against attacks, one that adapts included.

Gao et al. 2021 compare a reconstruction with the *transformed* picture. Here it is
compared with that and with the original: the first says whether the gradient was
inverted, the second what an onlooker learns. The policy is taken to be public; a secret
that every client shares is none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor, nn

from precode_lib.ats import NO_POLICY, Policy, Variant, apply_each
from precode_lib.attacks import IGA, Recipe, Reconstruction, Search
from precode_lib.basics.validation import check_range
from precode_lib.data import Normalisation, Pictures
from precode_lib.federated import Observation, observe
from precode_lib.gradients import first_parameter
from precode_lib.metrics import Scores, score

__all__ = [
    "IGA_ATS",
    "SCOUTING",
    "Deterministic",
    "PolicyAttack",
    "PolicyEvaluation",
    "PolicyGuess",
    "adaptive",
    "compare",
    "evaluate_policy",
    "plain",
    "through",
]  # fmt: skip

# Gao et al. 2021, section 5: Geiping's attack with a fifth of its iterations.
IGA_ATS = replace(IGA, name="IGA (ATS paper)", iterations=4_800)
SCOUTING = 0.1  # share of the iterations after which an adaptive attacker decides

Deterministic = Callable[[Tensor], Tensor]  # pixels (N, C, H, W) -> pixels


@dataclass(frozen=True, repr=False)
class PolicyGuess:
    """What an attacker believes: the picture before and after the transformation."""

    original: Tensor  # (V, C, H, W) pixels in [0, 1]
    transformed: Tensor  # (V, C, H, W) pixels in [0, 1]; what its gradient speaks of
    objective: Tensor  # (V,)
    chosen: Tensor | None = None  # (V,): which of the transformations it tried


PolicyAttack = Callable[[Observation, Generator], PolicyGuess]


@dataclass(frozen=True, repr=False)
class PolicyEvaluation:
    """An attack on pictures under a policy, scored against both truths."""

    policy: Policy
    originals: Tensor  # (V, C, H, W) pixels in [0, 1]
    transformed: Tensor  # (V, C, H, W) pixels in [0, 1]: the clients' real inputs
    variants: tuple[Variant, ...]  # what happened to each picture
    guess: PolicyGuess
    against_original: Scores
    against_transformed: Scores

    def __repr__(self) -> str:
        original = _short(self.against_original)
        transformed = _short(self.against_transformed)
        return (
            f"PolicyEvaluation({self.policy}: against the original {original}; "
            f"against the transformed {transformed})"
        )


def evaluate_policy(
    model: nn.Module,
    pictures: Pictures,
    policy: Policy,
    *,
    generator: Generator,
    attack: PolicyAttack | None = None,
) -> PolicyEvaluation:
    """Transform each picture, let a client of its own share the gradient, attack it.

    Args:
        model: in the mode in which clients run it; evaluation mode as published.
        policy: `NO_POLICY` for none.
        generator: draws the transformation, then whatever the attack draws.
        attack: `plain` by default.
    """
    variants = tuple(policy.draw(len(pictures), generator))
    originals = pictures.pixels
    transformed = apply_each(originals, variants)
    like = first_parameter(model)
    observation = observe(
        model,
        pictures.normalisation.normalise(transformed.to(like))[:, None],
        pictures.labels.to(like.device)[:, None],
        normalisation=pictures.normalisation,
        noise=generator,
    )
    guess = (plain if attack is None else attack)(observation, generator)
    return PolicyEvaluation(
        policy=policy,
        originals=originals,
        transformed=transformed,
        variants=variants,
        guess=guess,
        against_original=score(originals, guess.original),
        against_transformed=score(transformed, guess.transformed),
    )


evaluate = evaluate_policy  # its old name, under which the experiments ask for it


def compare(
    model: nn.Module,
    pictures: Pictures,
    policy: Policy,
    *,
    generator: Generator,
    recipe: Recipe = IGA_ATS,
) -> dict[str, PolicyEvaluation]:
    """The same attack without the policy, with it, and adapted to it.

    All three begin with the generator in its present state, so the last two attack the
    very same transformed pictures.
    """
    state = generator.get_state()
    cases = {
        "no policy": (NO_POLICY, partial(plain, recipe=recipe)),
        "policy": (policy, partial(plain, recipe=recipe)),
        "policy, adaptive attacker": (
            policy,
            partial(adaptive, transforms=policy.variants, recipe=recipe),
        ),
    }
    found = {}
    for name, (each, attack) in cases.items():
        generator.set_state(state)
        found[name] = evaluate_policy(
            model, pictures, each, generator=generator, attack=attack
        )
    return found


def plain(
    observation: Observation, generator: Generator, *, recipe: Recipe = IGA_ATS
) -> PolicyGuess:
    """Search for the picture behind the gradient, and take it for the original."""
    found = _run(observation, recipe, generator)
    pixels = _pixels(found)
    return PolicyGuess(pixels, pixels, found.objective.cpu())


def adaptive(
    observation: Observation,
    generator: Generator,
    *,
    transforms: Sequence[Deterministic],
    recipe: Recipe = IGA_ATS,
    scouting: float = SCOUTING,
) -> PolicyGuess:
    """Search for the picture before the transformation, through the transformation.

    The candidate passes a differentiable transformation on its way into the model. A
    policy has few outcomes, so each is tried with a share of the iterations from the
    same start, and every victim's best one goes on. What the transformation removes
    (what it shifts out of sight) no gradient tells; there the prior decides.

    The published adaptive attacker (Taboada Warmerdam et al. 2022) learns a
    translation instead, which is all its policies need.

    Args:
        transforms: the policy's `variants`, or whatever the attacker thinks possible.
        scouting: share of the recipe's iterations for the decision.
    """
    if not transforms:
        raise ValueError(
            "an adaptive attacker needs a transformation to try, got none."
        )
    if observation.num_examples != 1:
        raise ValueError(
            "the adaptive attacker tries one transformation per victim, so one picture "
            f"each; got {observation.num_examples}."
        )
    check_range(scouting, "scouting", 0, 1, open_low=True)
    state = generator.get_state()
    chosen = _scout(observation, generator, transforms, recipe, scouting)
    generator.set_state(state)
    shape = (observation.num_victims, *observation.image_shape)
    original, transformed = torch.empty(2, *shape)
    objective = torch.empty(len(chosen))
    for index in chosen.unique().tolist():
        (rows,) = torch.where(chosen == index)
        transform = transforms[index]
        target = through(transform, observation.take(rows.to(_device(observation))))
        found = _run(target, recipe, generator)
        original[rows] = _pixels(found)
        transformed[rows] = transform(original[rows]).clamp(0, 1)
        objective[rows] = found.objective.cpu().float()
    return PolicyGuess(original, transformed, objective, chosen)


def through(transform: Deterministic, observation: Observation) -> Observation:
    """The same observation for an attacker whose candidates pass `transform` first.

    It is put into the loss, so any attack that calls the loss can adapt.
    """
    normalisation = _normalisation(observation)
    loss = observation.loss

    def transformed_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        pixels = transform(normalisation.denormalise(images))
        return loss(model, normalisation.normalise(pixels), labels)

    return replace(observation, loss=transformed_loss)


def _scout(
    observation: Observation,
    generator: Generator,
    transforms: Sequence[Deterministic],
    recipe: Recipe,
    scouting: float,
) -> Tensor:
    """For each victim the transformation of the lowest objective: (V,)."""
    if len(transforms) == 1:
        return torch.zeros(observation.num_victims, dtype=torch.int64)
    short = replace(recipe, iterations=max(1, int(scouting * recipe.iterations)))
    state = generator.get_state()
    objectives = []
    for transform in transforms:
        generator.set_state(state)  # the same start for each
        found = _run(through(transform, observation), short, generator)
        objectives.append(found.objective.cpu())
    return torch.stack(objectives).argmin(0)


def _run(
    observation: Observation, recipe: Recipe, generator: Generator
) -> Reconstruction:
    search = Search(observation, recipe, generator=generator)
    for _ in search:
        pass
    return search.result


def _pixels(found: Reconstruction) -> Tensor:
    """(V, C, H, W) float32 on the CPU, of victims with one picture each."""
    return found.pixels[:, 0].cpu().float()


def _normalisation(observation: Observation) -> Normalisation:
    if observation.normalisation is None:
        raise ValueError(
            "the observation has no normalisation, so the attacker cannot transform "
            "pixels; give `observe` one (data.IDENTITY if the model sees pixels)."
        )
    return observation.normalisation


def _device(observation: Observation) -> torch.device:
    return first_parameter(observation.model).device


def _short(scores: Scores) -> str:
    mean = scores.mean
    return f"PSNR {mean.psnr:.2f} dB, SSIM {mean.ssim:.3f}, ASR {scores.asr:.0%}"
