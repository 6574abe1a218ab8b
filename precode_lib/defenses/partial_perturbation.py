"""PPP: noise on the parameters that a bottleneck leaves without any of its own.

Scheliga et al. 2022 (arXiv 2208.04767): a bottleneck makes its own and all later
gradients random, so an attack drops those; noise on the ones before it answers that.
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import check_generator, check_images, check_range
from precode_lib.bottleneck import Bottleneck, quiet
from precode_lib.defenses.combinators import Defense, only
from precode_lib.defenses.noise import add_noise
from precode_lib.gradients import trainable


def ppp(
    model: nn.Module, images: Tensor, std: float, *, generator: torch.Generator
) -> Defense:
    """The defense that adds N(0, std²) to the parameters before the bottleneck only.

    The bottleneck's own encoder is not perturbed, and its gradient still is an outer
    product with the features that enter it.

    Args:
        model: with a bottleneck.
        images: any (N, C, H, W) that the model takes, for a dry run.
        std: of the noise.
        generator: draws the noise.
    """
    check_range(std, "std", 0)
    check_generator(generator)
    noisy = partial(add_noise, std=std, generator=generator)
    return only(noisy, *before_bottleneck(model, images))


def before_bottleneck(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """The names of the trained parameters that the first bottleneck's input depends on.

    Changes nothing: a copy of the model runs, in evaluation mode.
    """
    check_images(images)
    probe, entering = copy.deepcopy(model).eval(), []
    bottlenecks = [m for m in probe.modules() if isinstance(m, Bottleneck)]
    if not bottlenecks:
        raise ValueError("the model has no bottleneck; with_precode puts one into it.")
    for bottleneck in bottlenecks:
        bottleneck.register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    with quiet(probe), torch.enable_grad():
        probe(images)
    if not entering or not entering[0].requires_grad:
        raise ValueError(
            "no trained parameter lies before the bottleneck, so there is nothing to "
            "perturb: it stands at the picture, what is before it is frozen, or it "
            "never runs."
        )
    trained = trainable(probe)
    ones = torch.ones_like(entering[0])
    slopes = torch.autograd.grad(
        entering[0], list(trained.values()), ones, allow_unused=True
    )
    return tuple(name for name, s in zip(trained, slopes, strict=True) if s is not None)
