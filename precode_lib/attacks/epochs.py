"""Local epochs whose order nobody told: the set of pictures is the same in each.

A client that shuffles its pictures before every epoch leaves the attacker with one
picture for each place of each epoch. `per_epoch` makes them all unknowns, and a prior
pulls the epochs together by what does not depend on their order (Dimitrov et al. 2022).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from precode_lib.attacks.objectives import Prior
from precode_lib.attacks.observed import check_observation
from precode_lib.basics.validation import check_count, check_function
from precode_lib.federated import LocalTraining, Observation

# Pictures (S, epochs, B, ...) -> (S, epochs, ...), whatever the order of the B.
Summary = Callable[[Tensor], Tensor]


def mean_picture(epochs: Tensor) -> Tensor:
    """The mean of each epoch's pictures: what every order leaves as it is."""
    return epochs.mean(2)


def sorted_pixels(epochs: Tensor) -> Tensor:
    """Each pixel's values over an epoch's pictures, in rising order.

    Tells sets apart that have the same mean, though not which values belong together.
    """
    return epochs.sort(2).values


def same_pictures(epochs: int, *, summary: Summary = sorted_pixels) -> Prior:
    """A prior on (S, epochs * B, ...): how far epochs are from holding the same set.

    The mean square by which the summaries of the epochs differ from their mean; 0 if
    every epoch has the same pictures, in any order.
    """
    check_count(epochs, "epochs", 2)
    check_function(summary, "summary", "mean_picture")

    def prior(images: Tensor) -> Tensor:
        told = summary(_by_epoch(images, epochs))
        return (told - told.mean(1, keepdim=True)).square().flatten(1).mean(1)

    return prior


def per_epoch(observation: Observation, epochs: int) -> Observation:
    """The same update of clients who had one picture for each place of each epoch.

    For searches for (V, epochs * B) pictures, with `same_pictures` as a prior. Labels
    are repeated as they come: where the order is unknown, they fit only if all pictures
    of a client have the same, or if the recipe searches for them.
    """
    check_observation(observation)
    check_count(epochs, "epochs")
    local, num_examples = observation.local, observation.num_examples
    if local is None:
        raise ValueError("a single gradient has no epochs.")
    size = local.batch_size
    whole = LocalTraining.of_epochs(epochs, num_examples, local.lr, batch_size=size)
    if local.steps != whole.steps:
        raise ValueError(
            f"{epochs} epochs take {whole.steps} steps, the clients made {local.steps}."
        )
    places = range(epochs * num_examples)
    order = [places[e * num_examples : (e + 1) * num_examples] for e in range(epochs)]
    labels = observation.labels
    if labels is not None:
        labels = torch.cat([labels] * epochs, 1)
    return replace(
        observation,
        num_examples=len(places),
        labels=labels,
        local=replace(local, order=order),
    )


def one_set(images: Tensor, epochs: int) -> Tensor:
    """From pictures of all epochs (S, epochs * B, ...) to one set of them, (S, B, ...).

    The pictures of each epoch go to the nearest of the first one's, one to one, and
    what came together is averaged.
    """
    from scipy.optimize import linear_sum_assignment  # heavy, and only needed here

    sets = _by_epoch(images, epochs)
    merged = []
    for first, *others in sets:
        total = first.clone()
        for other in others:
            away = torch.cdist(first.flatten(1), other.flatten(1))
            total += other[linear_sum_assignment(away.detach().cpu().numpy())[1]]
        merged.append(total / epochs)
    return torch.stack(merged)


def _by_epoch(images: Tensor, epochs: int) -> Tensor:
    check_count(epochs, "epochs")
    if images.shape[1] % epochs:
        raise ValueError(
            f"{images.shape[1]} pictures are no {epochs} epochs of the same number."
        )
    return images.unflatten(1, (epochs, -1))
