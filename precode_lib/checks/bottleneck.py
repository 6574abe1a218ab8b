"""Markers for the exercises on the bottleneck."""

import copy
import math
from functools import cache

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from precode_lib.bottleneck import with_precode
from precode_lib.data import victims
from precode_lib.federated import observe
from precode_lib.gradients import Gradients, cosine_similarity
from precode_lib.marking import (
    exercise,
    expect_close,
    expect_number,
    expect_repeatable,
    open_question,
)
from precode_lib.models import smlp

NOTEBOOKS_USE = ["SHIFTS", "two_gradients"]
SHIFTS = [0, 1, 2, 3, 4, 5, 6]


@exercise
def by_hand(u, h_hat, kl, generator):
    """Compare with the module of the text, computed by PyTorch."""
    mean, epsilon = torch.tensor([1.0, -1.0]), torch.tensor([0.5, -1.0])
    decoder = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    raw = torch.full((2,), math.log(math.e - 1))
    std = F.softplus(raw)
    right_u = mean + std * epsilon
    right_kl = _divergence(mean, std).sum().item()
    expect_close(
        u,
        right_u,
        what="u",
        secret=True,
        hint="first μ, then s = ln(1 + eʳ); the noise is multiplied by s.",
        mistakes={
            "this is μ; the noise is missing.": mean,
            "the noise is multiplied by s, not by r.": mean + raw * epsilon,
            "the noise is added, not subtracted.": mean - std * epsilon,
            "s is ln(1 + eʳ), not eʳ.": mean + raw.exp() * epsilon,
        },
    )
    expect_close(
        h_hat,
        decoder @ right_u,
        what="ĥ",
        secret=True,
        hint="row i of the decoder times u is entry i.",
        mistakes={
            "this decodes μ; the decoder is given the sample u.": decoder @ mean,
            "the decoder's columns were used as its rows.": decoder.T @ right_u,
        },
    )
    expect_number(
        kl,
        right_kl,
        what="the KL",
        secret=True,
        hint="with s = 1 only the squares of μ are left in the bracket.",
        mistakes={
            "this is in bits; in nats nothing is divided by ln 2.": (
                right_kl / math.log(2)
            ),
            "this is the mean over the entries; the KL is their sum.": right_kl / 2,
            "the one half in front of the sum is missing.": 2 * right_kl,
            "these are the squares of the sample u; the KL is that of μ and s.": (
                right_u.square().sum().item() / 2
            ),
        },
    )


@exercise
def sample(learner, generator):
    """Try small codes and large ones, quiet noise and raw spreads up to 100."""
    for batch, k, loudest in [(1, 1, 1.0), (3, 4, 2.0), (2, 3, 100.0)]:
        mean = torch.randn(batch, k, generator=generator)
        raw = loudest * (2 * torch.rand(batch, k, generator=generator) - 1)
        raw[0, 0] = loudest
        epsilon = 0.1 + torch.rand(batch, k, generator=generator)
        encoded = torch.cat([mean, raw], dim=1)
        std = torch.logaddexp(raw, torch.zeros(()))
        mistakes = {
            "s is ln(1 + eʳ), not eʳ.": mean + raw.exp() * epsilon,
            "the raw spread r is used as it is; s is ln(1 + eʳ).": mean + raw * epsilon,
            "s is a spread, not a variance: no root of it.": mean
            + std.sqrt() * epsilon,
            "s is squared here; the noise is multiplied by s itself.": mean
            + std.square() * epsilon,
            "the halves are swapped: the means come first.": raw
            + torch.logaddexp(mean, torch.zeros(())) * epsilon,
            "this is the mean; the noise is missing.": mean,
        }
        if loudest > 50:
            mistakes = {
                "eʳ leaves single precision at r = 89: compute ln(1 + eʳ) another "
                "way, or let PyTorch.": mean + (1 + raw.exp()).log() * epsilon
            } | mistakes
        expect_close(
            expect_repeatable(learner, encoded, epsilon),
            mean + std * epsilon,
            what="the sample",
            given={"encoded": encoded, "epsilon": epsilon},
            hint="cut the columns in two halves; u is the first plus s times ε.",
            mistakes=mistakes,
        )


@exercise
def kl(learner, generator):
    """Compare with torch.distributions, for quiet codes, loud ones and free ones."""
    for batch, k, spread in [(4, 3, 1.0), (2, 7, 0.1), (3, 1, 3.0)]:
        mu = torch.randn(batch, k, generator=generator)
        s = spread * (0.5 + torch.rand(batch, k, generator=generator))
        entries = _divergence(mu, s)
        right = entries.sum(1)
        expect_close(
            learner(mu, s),
            right,
            what="the KL",
            given={"mu": mu, "s": s},
            rtol=1e-3,
            hint="square, add and take logarithms entry by entry; then sum each row.",
            mistakes={
                "this is in bits; leave the ln 2 out.": right / math.log(2),
                "this is the mean over the k entries; the KL is their sum.": (
                    entries.mean(1)
                ),
                "s is a spread: its square belongs into the sum, and 2 ln s.": (
                    _divergence(mu, s.sqrt()).sum(1)
                ),
                "the one half is missing.": 2 * right,
                "this is one number for the batch; each picture has a KL.": right.sum(),
                "this is the mean over the batch; each picture has a KL.": right.mean(),
                "this has one number per entry; sum over the entries.": entries,
                "these are sums over the pictures; sum over the entries.": entries.sum(
                    0
                ),
                "the logarithm counts twice: minus 2 ln s.": (
                    right + s.log().sum(1) / 2
                ),
                "the 1 is subtracted once for each entry, inside the sum.": (
                    right + (k - 1) / 2
                ),
                "this is the negative of the KL.": -right,
                "the logarithm has the other sign.": right + 2 * s.log().sum(1),
                "the two distributions are swapped: the code's comes first.": (
                    _divergence(mu, s, swapped=True).sum(1)
                ),
            },
        )


def _divergence(mean: Tensor, std: Tensor, swapped: bool = False) -> Tensor:
    """Of each entry from the standard normal distribution, in nats."""
    pair = Normal(mean, std), Normal(torch.zeros(()), torch.ones(()))
    return kl_divergence(*(pair[::-1] if swapped else pair))


def quieter(model: nn.Module, shift: float) -> nn.Module:
    """A copy whose raw spreads are lower by `shift`, as in many other bottlenecks."""
    model = copy.deepcopy(model)
    bias = model.fc.bottleneck.encoder.bias
    with torch.no_grad():
        bias[len(bias) // 2 :] -= shift
    return model


def two_gradients(shift: float) -> tuple[Gradients, Gradients]:
    """What ten clients send, and send again, with spreads of ln(1 + exp(r - shift))."""
    weights, noise = Generator().manual_seed(0), Generator().manual_seed(1)
    model = with_precode(smlp(width=256, generator=weights), "fc", generator=weights)
    model, pictures = quieter(model, shift), victims("photos", 10)
    once, again = (
        observe(
            model, pictures.images[:, None], pictures.labels[:, None], noise=noise
        ).shared
        for _ in range(2)
    )
    return once, again


@cache
def _cosine(shift: float) -> float:
    return cosine_similarity(*two_gradients(shift)).mean().item()


@exercise
def quiet_start(shift, generator):
    """Compute the cosine at every position of the slider."""
    above = [shift for shift in SHIFTS if _cosine(shift) > 0.5]
    expect_number(
        shift,
        above[0],
        what="the shift",
        secret=True,
        hint="move the slider from the left, and stop where the cosine of the whole "
        "gradients is above 0.5.",
        mistakes={
            "here the cosine is still below 0.5; one step further.": above[0] - 1.0,
            "above 0.5, but not the first such value.": above[0] + 1.0,
            "this is the end of the slider, where nothing is left of the noise; the "
            "cosine passes 0.5 earlier.": float(SHIFTS[-1]),
            "this is where the chapter's bottleneck starts: there the gradients "
            "hardly agree.": float(SHIFTS[0]),
        },
    )


@exercise
def after_training(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that training makes the picture heard in the code, so two samples u "
        "agree more, and two decoded samples ĥ even more; that these samples are "
        "factors of the two weights behind the noise, which therefore change most; "
        "and that the randomness is greatest at the start of training.",
        mistakes=[
            '"the layers up to the encoder": their cosine was high already, for the '
            "noise never was more than a part of what they get.",
            '"all the same, it is always as random": β prices what the code tells, '
            "and the cross-entropy pays for some of it.",
        ],
    )
