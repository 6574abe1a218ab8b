"""What a client does with its pictures, and what of it crosses the wire.

`observe` plays V clients of one federated step at once and returns an `Observation`:
all that an honest-but-curious server, or whoever listens on the line, gets to see.
Every assumption of a threat model is a field of it, and attacks take nothing else.
`clients` is what each of them runs, `local` its training, `health` whether what it sent
says anything, `aggregating` what is left to see of a sum, `suspicions` what a client
could notice in a model that a cheating server sent.
"""

from .aggregating import aggregated
from .clients import Client
from .health import Health, VacuousGradientWarning, health_of
from .local import LocalTraining
from .observing import Observation, observe
from .suspicions import Signs, signs

__all__ = [
    "Client", "Health", "LocalTraining", "Observation", "Signs",
    "VacuousGradientWarning", "aggregated", "observe", "signs",
]  # fmt: skip
