"""Pictures: where they come from, how they are normalised, and which are attacked."""

from precode_lib.data.cache import cache_folder
from precode_lib.data.datasets import cifar10, cifar100, medical_mnist, paper_victims
from precode_lib.data.encoding import png_base64
from precode_lib.data.examples import Examples
from precode_lib.data.folders import image_folder
from precode_lib.data.loose import Loose, loose_pictures
from precode_lib.data.normalisation import (
    CIFAR10,
    CIFAR100,
    FACES,
    IDENTITY,
    MEDICAL_MNIST,
    PHOTOS,
    Normalisation,
)
from precode_lib.data.photographs import faces, photos
from precode_lib.data.pictures import Pictures, Splits, measure, split
from precode_lib.data.sources import MissingDataError
from precode_lib.data.victims import victim_indices, victims

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "FACES",
    "IDENTITY",
    "MEDICAL_MNIST",
    "PHOTOS",
    "Examples",
    "Loose",
    "MissingDataError",
    "Normalisation",
    "Pictures",
    "Splits",
    "cache_folder",
    "cifar10",
    "cifar100",
    "faces",
    "image_folder",
    "loose_pictures",
    "measure",
    "medical_mnist",
    "paper_victims",
    "photos",
    "split",
    "victim_indices",
    "victims",
]
