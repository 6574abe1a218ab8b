"""What an update of weights says about the gradients behind it.

A division reads a gradient; clients send weights before minus after. What an optimizer
adds to the slopes is known to the server, and some of it can be taken away again.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW

from precode_lib.attacks.observed import check_observation
from precode_lib.federated import LocalTraining, Observation
from precode_lib.gradients import Gradients, dense


def without_decay(observation: Observation) -> Observation:
    """The observation less what weight decay alone would have moved.

    SGD is linear, momentum or not: after any number of steps a weight is what decay
    leaves of the first one, minus a mixture of the slopes that is the same for all
    weights. So a single picture divides out of the rest exactly. For closed forms only:
    a search imagines the client, which decays as well, and needs the update as it came.
    """
    local = _local_of(observation)
    if not isinstance(local.started([_nothing()]), SGD):
        raise ValueError(
            "only SGD keeps decay and slopes apart: Adam divides the slopes by their "
            "sizes. gradient_of_step undoes a single step of it."
        )
    lost = 1 - _left_of(local)
    weights = _weights(observation)
    shared = {
        name: dense(term) - lost * weights[name].to(dense(term))
        for name, term in observation.shared.items()
    }
    return replace(observation, shared=Gradients(shared))


def gradient_of_step(
    observation: Observation, *, momentum_buffer: Mapping[str, Tensor] | None = None
) -> Observation:
    """The observation as if its clients had sent the gradient of their single step.

    Of SGD exact, with weight decay and momentum. Of Adam's and AdamW's first step only
    where rounding lets it: it moves each weight by lr |g| / (|g| + eps), and what is
    missing to lr tells |g| of slopes that are not far above eps. Others come back as
    large numbers of the right sign, at most eps over the precision of the type.

    Args:
        momentum_buffer: torch's, by parameter, (V, ...) or (...), of a client whose
            momentum outlives the round: last round's update over lr, without Nesterov.
    """
    local = _local_of(observation)
    if local.steps != 1:
        raise ValueError(
            f"{local.steps} steps have as many gradients, and only their sum was sent; "
            "without_decay leaves a mixture of them."
        )
    optimizer = local.started([_nothing()])
    (options,) = optimizer.param_groups
    _check_buffer(momentum_buffer, options, observation)
    weights, past = _weights(observation), momentum_buffer or {}
    undone = {}
    for name, term in observation.shared.items():
        moved = dense(term)
        step, weight = moved / options["lr"], weights[name].to(moved)
        decay = options["weight_decay"] * weight
        if isinstance(optimizer, SGD):
            undone[name] = _of_sgd(step, past.get(name), options) - decay
        elif isinstance(optimizer, AdamW):  # before Adam, whose kind it may be
            undone[name] = _of_adam(step - decay, options["eps"])
        else:
            undone[name] = _of_adam(step, options["eps"]) - decay
    return replace(observation, shared=Gradients(undone), local=None)


def _of_sgd(step: Tensor, past: Tensor | None, options: dict[str, Any]) -> Tensor:
    """The slope behind one step of torch's SGD, decay included."""
    momentum, nesterov = options["momentum"], options["nesterov"]
    if past is None:  # the first buffer is the slope itself, and never damped
        return step / (1 + momentum) if nesterov else step
    if nesterov:  # slope + momentum * (momentum * past + slope)
        return (step - momentum**2 * past.to(step)) / (1 + momentum)
    return (step - momentum * past.to(step)) / (1 - options["dampening"])


def _of_adam(step: Tensor, eps: float) -> Tensor:
    """The slope behind Adam's first step, g / (|g| + eps)."""
    missing = (1 - step.abs()).clamp(min=torch.finfo(step.dtype).eps)
    return eps * step / missing


def _check_buffer(
    momentum_buffer: Mapping[str, Tensor] | None,
    options: dict[str, Any],
    observation: Observation,
) -> None:
    if momentum_buffer is None:
        return
    if not options.get("momentum"):
        raise ValueError(
            "momentum_buffer is of SGD with momentum; this client's steps have none, "
            "or are Adam's, of which only the first can be undone."
        )
    for name in observation.shared:
        if name not in momentum_buffer:
            raise ValueError(
                f"momentum_buffer has nothing of {name!r}, which was sent."
            )


def _local_of(observation: Observation) -> LocalTraining:
    check_observation(observation)
    if observation.local is None:
        raise ValueError("this observation is of a gradient already, not of an update.")
    return observation.local


def _nothing() -> Tensor:
    return torch.zeros(1, requires_grad=True)


def _weights(observation: Observation) -> dict[str, Tensor]:
    named = observation.model.named_parameters()
    return {name: parameter.detach()[None] for name, parameter in named}


def _left_of(local: LocalTraining) -> float:
    """What training without any slope leaves of a weight of 1."""
    update, weight, state = local.update(), torch.ones(()).double(), {}
    for step in range(1, local.steps + 1):
        weight, state = update(weight, torch.zeros_like(weight), state, step)
    return weight.item()
