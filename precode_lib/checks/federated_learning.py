"""Markers for the exercises on federated learning."""

from functools import cache

import torch
from torch import Tensor

from precode_lib.attacks.closed_form import isolated_inputs
from precode_lib.data import Pictures
from precode_lib.federated import LocalTraining, observe
from precode_lib.marking import (
    exercise,
    expect,
    expect_close,
    expect_number,
    open_question,
)
from precode_lib.models import smlp

NOTEBOOKS_USE = ["COUNTS", "exposed"]
COUNTS = [1, 2, 3, 4, 6, 8, 12, 16]


def train(
    theta: Tensor, inputs: Tensor, targets: Tensor, lr: float, steps: int
) -> Tensor:
    """The weights (n,) after gradient steps on half the mean squared error."""
    weights = theta.clone().requires_grad_()
    optimizer = torch.optim.SGD([weights], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (inputs @ weights - targets).square().mean()).backward()
        optimizer.step()
    return weights.detach()


@exercise
def by_hand(g, Delta, theta, generator):
    """Train the two clients of the text with PyTorch's optimizer."""
    start, n = torch.zeros(1), torch.tensor([1.0, 3.0])
    # Minimising half of (theta - a) squared: an input of 1, a target of a.
    targets = [torch.tensor([4.0]), torch.tensor([8.0])]
    ends = [train(start, torch.ones(1, 1), a, 0.5, 2) for a in targets]
    updates = start - torch.cat(ends)
    gradients = -torch.cat(targets)
    share = n / n.sum()
    _mean_gradient(g, gradients, share, n)
    last = torch.cat([train(start, torch.ones(1, 1), a, 0.5, 1) for a in targets])
    expect_close(
        Delta,
        updates,
        what="Delta",
        secret=True,
        hint="take two steps from θ = 0; Δ is where the client began minus where it "
        "ended.",
        mistakes={
            "this is where the clients end; Δ is the start minus that.": -updates,
            "this is after one step; each client takes two.": -last,
            "the second step's gradient is taken where the first step ended.": (
                gradients
            ),
        },
    )
    new = (start - share @ updates).item()
    expect_number(
        theta,
        new,
        what="theta",
        secret=True,
        hint="θ minus the mean of the two Δ, weighted by 1 and 3.",
        mistakes={
            "the second client has three of the four pictures; weigh it so.": (
                -updates.mean().item()
            ),
            "the sign: the server subtracts Δ.": -new,
            "the weights are n_v / n: divide by n = 4.": -(n @ updates).item(),
        },
    )


def _mean_gradient(g, gradients: Tensor, share: Tensor, n: Tensor) -> None:
    right = (share @ gradients).item()
    expect_number(
        g,
        right,
        what="g",
        secret=True,
        hint="the gradients at θ = 0 are -4 and -8; weigh them by pictures.",
        mistakes={
            "the second client has three of the four pictures; weigh it so.": (
                gradients.mean().item()
            ),
            "the sign: the gradient of ½(θ - a)² is θ - a.": -right,
            "the weights are n_v / n: divide by n = 4.": (n @ gradients).item(),
        },
    )


@exercise
def fedavg(learner, generator):
    """Compare with PyTorch's optimizer, for clients of different sizes."""
    for sizes, steps in [((2, 5), 1), ((4,), 3), ((1, 6, 3), 4)]:
        theta = torch.randn(3, generator=generator)
        clients = [
            (
                torch.randn(size, 3, generator=generator),
                torch.randn(size, generator=generator),
            )
            for size in sizes
        ]
        lr = 0.1
        ends = [train(theta, *client, lr, steps) for client in clients]
        new = _mean(ends, sizes)
        expect_close(
            learner(theta, clients, lr, steps),
            new,
            what="the server's weights",
            given={"pictures of each client": sizes, "steps": steps, "lr": lr},
            hint="each client starts from the server's theta; the gradient of its "
            "loss is X^T (X θ - t) / n_v.",
            mistakes=_rounds_gone_wrong(theta, clients, lr, steps, sizes),
        )


def _rounds_gone_wrong(theta, clients, lr, steps, sizes) -> dict[str, Tensor]:
    ends = [train(theta, *client, lr, steps) for client in clients]
    new = _mean(ends, sizes)
    first = [
        theta + steps * (train(theta, *client, lr, 1) - theta) for client in clients
    ]
    in_turn = theta
    for client in clients:
        in_turn = train(in_turn, *client, lr, steps)
    sums = [
        train(theta, X, t, lr * len(t), steps)  # a sum is the mean, times n_v
        for X, t in clients
    ]
    return {
        "all clients weigh the same here; weigh them by their pictures.": (
            torch.stack(ends).mean(0)
        ),
        "this is the mean update Δ; the server subtracts it from theta.": theta - new,
        "this went the wrong way: Δ is the start minus the end.": 2 * theta - new,
        "every step needs the gradient at the client's own new weights.": (
            _mean(first, sizes)
        ),
        "here one client goes on where another ended; all start from theta.": in_turn,
        "the client's loss is a mean over its pictures, not a sum.": _mean(sums, sizes),
        "this is a single local step.": _mean(
            [train(theta, *client, lr, 1) for client in clients], sizes
        ),
    }


def _mean(tensors: list[Tensor], sizes) -> Tensor:
    weighted = [size * each for size, each in zip(sizes, tensors, strict=True)]
    return torch.stack(weighted).sum(0) / sum(sizes)


@exercise
def masked(learner, generator):
    """Each row against the definition; and the sum must be what it was."""
    for num_clients in (2, 3, 5):
        messages = torch.randn(num_clients, 4, generator=generator)
        masks = 10 * torch.randn(num_clients, num_clients, 4, generator=generator)
        above = torch.ones(num_clients, num_clients).triu(1)[..., None] * masks
        plus, minus = above.sum(1), above.sum(0)
        hint = (
            "of each pair the client with the smaller number adds the mask, the "
            "other one subtracts the same."
        )
        came = expect_close(
            learner(messages, masks),
            messages + plus - minus,
            what="what the clients send",
            given={"messages": messages, "masks": masks},
            hint=hint,
            atol=1e-4,
            mistakes={
                "nothing is subtracted here, so nothing cancels in the sum.": (
                    messages + plus
                ),
                "nothing is added here; of each pair one client adds.": (
                    messages - minus
                ),
                "use masks[v, w] with v < w only; the others are not agreed on.": (
                    messages + masks.sum(1) - masks.sum(0)
                ),
                "signs: the client with the *smaller* number adds.": (
                    messages - plus + minus
                ),
                "these are the masks; the messages have to be in there, too.": (
                    plus - minus
                ),
            },
        )
        expect(
            torch.allclose(came.sum(0).float(), messages.sum(0), atol=1e-3),
            "the sum over the clients has changed.",
            hint=hint,
        )
    return (
        "Real protocols count modulo a large number, with uniform masks: then a "
        "message by itself says nothing at all."
    )


def exposed(crowd: Pictures, count: int, width: int, steps: int) -> Tensor:
    """Pictures (N, C, H, W) of the first `count` that one client's message shows."""
    own = crowd[:count]
    seen = observe(
        smlp(width=width, generator=torch.Generator().manual_seed(0)),
        own.images[None],
        own.labels[None],
        labels_known=False,
        local=LocalTraining(steps, lr=0.05),
        normalisation=own.normalisation,
    )
    found = isolated_inputs(seen)[0].images
    return own.normalisation.denormalise(found).clamp(0, 1)


@cache
def found_in_crowds(width: int) -> dict[int, int]:
    """How many pictures of each crowd one gradient shows."""
    from precode_lib.data import victims

    crowd = victims("photos", 16, seed=0)
    return {count: len(exposed(crowd, count, width, 1)) for count in COUNTS}


@exercise
def crowds(narrow, wide, generator):
    """Attack every crowd, in both networks."""
    for count, width, what in ((narrow, 64, "narrow"), (wide, 1024, "wide")):
        found = found_in_crowds(width)
        hidden = [n for n in COUNTS if found[n] == 0]
        mixed = [n for n in COUNTS if found[n] < n]
        expect_number(
            count,
            hidden[0],
            what=what,
            secret=True,
            hint=f"set the first layer to {width} units, and move to the first "
            "number of pictures of which none is found.",
            mistakes={
                "from here on some are hidden; asked is where all are.": mixed[0],
                "some are still found here; one further.": COUNTS[
                    COUNTS.index(hidden[0]) - 1
                ],
                "none is found here, but that begins earlier.": COUNTS[-1],
            },
        )


@exercise
def promises(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="for each measure against whom it helps: encryption against those on "
        "the line and not against the server; local steps against nobody by "
        "themselves; the sum against a curious server with this chapter's attack, as "
        "long as enough clients are real and the first layer is not wide enough to "
        "give each picture a unit of its own; other attacks take whole batches apart, "
        "so a sum is no promise. And that the server may be more than curious.",
        mistakes=[
            '"ten steps mix the pictures": units that one picture alone switches on '
            "add up multiples of that picture.",
            '"the sum hides everything": it is the gradient of one large batch.',
        ],
    )
