"""The networks of the papers, for any image size, and how their weights begin.

`networks` are features → fc, so that a bottleneck reads `with_precode(model,
before="fc")`; `initialisation` fills them. `packing` makes one input of several,
and `texts` has a small network for words.
"""

from .initialisation import Init, built, pytorch_default, uniform
from .networks import (
    DLG_INIT,
    Activation,
    Classifier,
    Norm,
    convnet,
    dmlp,
    lenet,
    mlp,
    resnet,
    resnet20_4,
    smlp,
)
from .packing import Inputs, PackedNormalisation, Packing, packed
from .texts import Adapter, Writer, adapted, writer

__all__ = [
    "DLG_INIT",
    "Activation",
    "Adapter",
    "Classifier",
    "Init",
    "Norm",
    "Packing",
    "Writer",
    "adapted",
    "convnet",
    "dmlp",
    "lenet",
    "mlp",
    "packed",
    "pytorch_default",
    "resnet",
    "resnet20_4",
    "smlp",
    "uniform",
    "writer",
]
