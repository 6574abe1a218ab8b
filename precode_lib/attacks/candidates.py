"""Which of N candidates was it? The attacker that a guarantee is measured against.

Someone who holds the candidates needs no search: the noise is Gaussian and the same in
every entry, so the likeliest candidate is the one whose message is nearest.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from precode_lib.attacks.observed import check_observation
from precode_lib.basics.validation import check_finite, check_range, check_tensor
from precode_lib.defenses import ClientStep, check_client_step
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients, check_victims

_CHUNK_BYTES = 256 * 2**20


class Likeliest(NamedTuple):
    """The best guess for each of V victims, and how the N candidates compare.

    Args:
        index: (V,), of the likeliest candidate.
        scores: (V, N), the log-likelihoods times the noise's variance, up to a term
            that all candidates of a victim share.
    """

    index: Tensor
    scores: Tensor

    def posterior(self, std: float, prior: Tensor | None = None) -> Tensor:
        """How probable each candidate is, given the message: (V, N).

        Args:
            std: of the noise in every entry of what was sent.
            prior: (N,), how probable each was before; the same for all by default.
        """
        check_range(std, "std", 0, open_low=True)
        logs = self.scores / std**2
        if prior is not None:
            _check_prior(prior, logs.shape[1])
            logs = logs + prior.log()
        return logs.softmax(1)


def likeliest_candidate(
    observation: Observation,
    candidates: Tensor,
    labels: Tensor,
    *,
    client_step: ClientStep | None = None,
) -> Likeliest:
    """Guess which of N candidates each victim sent, behind Gaussian noise.

    No guess is right more often if all candidates are equally probable and the client
    draws nothing else. Behind DP-SGD it stays below `reconstruction_bound(1 / N)`, and
    comes near where the candidates' gradients are long and far apart.

    Args:
        candidates: (N, B, C, H, W), what may have gone into a message; of a batch,
            each candidate stands among the other examples, which this attacker knows.
        labels: (N, B), or as the loss takes them.
        client_step: what the client did, without its noise, such as
            `partial(dp_sgd_step, clip_norm=C, noise_multiplier=0, generator=None)`;
            None for a plain gradient or update.
    """
    check_observation(observation)
    check_victims(candidates, labels)
    check_finite(candidates, "candidates")
    expected = observation.num_examples, *observation.image_shape
    if candidates.shape[1:] != expected:
        raise ValueError(
            f"a message of this observation is made from examples {tuple(expected)}, "
            f"a candidate here has {tuple(candidates.shape[1:])}."
        )
    client = observation.client()
    share = client
    if client_step is not None:
        check_client_step(client_step)
        share = partial(client_step, client.capture)
    seen = _rows(observation.shared, [*observation.shared])
    check_finite(seen, "what the victims shared")
    size = max(1, _CHUNK_BYTES // (seen.shape[1] * seen.element_size()))
    scores = []
    for pair in zip(candidates.split(size), labels.split(size), strict=True):
        sent = _rows(share(*pair).detach(), [*observation.shared]).to(seen)
        # The seen gradient's own square is common to all, and would drown the rest.
        scores.append(seen @ sent.T - sent.square().sum(1) / 2)
    scores = torch.cat(scores, 1)
    return Likeliest(scores.argmax(1), scores)


def _check_prior(prior: Tensor, count: int) -> None:
    check_tensor(prior, "prior")
    if prior.shape != (count,) or not (prior >= 0).all() or not prior.sum() > 0:
        raise ValueError(
            f"prior must be a probability for each of {count} candidates, none below "
            f"0, not all 0; got {prior!s:.80}."
        )


def _rows(gradients: Gradients, names: list[str]) -> Tensor:
    """All entries of each victim in a row."""
    terms = gradients.dense()
    return torch.cat([terms[name].flatten(1) for name in names], 1)
