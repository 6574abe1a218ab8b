"""How well a model does is measured in `training`; this is its old address."""

from precode_lib.training import Evaluation, LoadedPictures, evaluate

__all__ = [
    "Evaluation",
    "LoadedPictures",
    "evaluate",
]
