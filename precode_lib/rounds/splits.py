"""Who has which pictures: alike for all, or few classes each."""

import numpy as np
import torch

from precode_lib.basics.validation import check_count, check_range
from precode_lib.data import Pictures

_TRIES = 1000


def iid_split(pictures: Pictures, num_clients: int, *, seed: int = 0) -> list[Pictures]:
    """Deal the pictures out at random; the clients' numbers differ by one at most."""
    _check_enough(pictures, num_clients, 1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pictures), generator=generator)
    return [pictures[rows] for rows in order.tensor_split(num_clients)]


def label_skewed_split(
    pictures: Pictures,
    num_clients: int,
    *,
    alpha: float,
    min_size: int = 1,
    seed: int = 0,
) -> list[Pictures]:
    """Deal each class out in shares drawn from a Dirichlet distribution.

    Small `alpha` gives each client few classes, large `alpha` the same mixture to all
    (Hsu et al. 2019). Every picture goes to exactly one client.

    Args:
        alpha: of the symmetric Dirichlet distribution; 0.1 is skewed, 100 is not.
        min_size: pictures of each client; the shares are drawn again until it holds.
    """
    check_range(alpha, "alpha", 0, open_low=True)
    check_count(min_size, "min_size")
    _check_enough(pictures, num_clients, min_size)
    random = np.random.default_rng(seed)
    labels = pictures.labels.cpu().numpy()
    for _ in range(_TRIES):
        owners = _skewed_owners(labels, num_clients, alpha, random)
        if np.bincount(owners, minlength=num_clients).min() >= min_size:
            return [
                pictures[torch.from_numpy(np.flatnonzero(owners == client))]
                for client in range(num_clients)
            ]
    raise ValueError(
        f"{_TRIES} draws with alpha={alpha} left some of {num_clients} clients with "
        f"fewer than min_size={min_size} pictures; raise alpha or ask for less."
    )


def _skewed_owners(
    labels: np.ndarray, num_clients: int, alpha: float, random: np.random.Generator
) -> np.ndarray:
    """The client of each picture."""
    owners = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet(np.full(num_clients, alpha))
        ends = np.round(shares.cumsum()[:-1] * len(members)).astype(int)
        for client, part in enumerate(np.split(members, ends)):
            owners[part] = client
    return owners


def _check_enough(pictures: Pictures, num_clients: int, min_size: int) -> None:
    check_count(num_clients, "num_clients")
    if len(pictures) < num_clients * min_size:
        raise ValueError(
            f"{len(pictures)} pictures do not suffice for {num_clients} clients with "
            f"{min_size} or more."
        )
