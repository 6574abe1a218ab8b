"""What server and clients agree on: the model, the local training, whose picture."""

import torch
from torch import nn

from precode_lib.bottleneck import with_precode
from precode_lib.data import Pictures, victims
from precode_lib.models import smlp
from precode_lib.rounds import FedAvg

Config = dict[str, bool | float | int | str]


def make_model(config: Config) -> nn.Module:
    """A network for 32 x 32 photographs, behind PRECODE if asked for."""
    generator = torch.Generator().manual_seed(0)
    model = smlp(width=256, generator=generator)
    if config["precode"]:
        return with_precode(model, before="fc", generator=generator)
    return model


def make_algorithm(config: Config) -> FedAvg:
    """What a client does in a round: one step with all that it has."""
    return FedAvg(lr=float(config["lr"]))


def pictures_of(client: int) -> Pictures:
    """The one photograph of this client; put your own data in its place."""
    return victims("photos", 10)[client : client + 1]
