"""Federated rounds: a server, its clients, and who listens.

`splits` deals the pictures out, `participation` is what a client does in a round and
what it sends, `federation` goes from round to round. `flower` does the same inside
Flower, the framework; it is a door of its own, because only it needs Flower.
"""

from precode_lib.basics.resuming import progress

from .federation import Federation, OnMessage, Round
from .participation import (
    Algorithm,
    ClientTask,
    FedAvg,
    FedSGD,
    Message,
    observed,
    participate,
)
from .splits import iid_split, label_skewed_split

__all__ = [
    "Algorithm",
    "ClientTask",
    "FedAvg",
    "FedSGD",
    "Federation",
    "Message",
    "OnMessage",
    "Round",
    "iid_split",
    "label_skewed_split",
    "observed",
    "participate",
    "progress",
]
