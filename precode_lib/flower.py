"""The clients in Flower live in `rounds.flower`; this is their old address."""

from precode_lib.rounds.flower import (
    CuriousFedAvg,
    PictureClient,
    load_arrays,
    to_arrays,
)

__all__ = [
    "CuriousFedAvg",
    "PictureClient",
    "load_arrays",
    "to_arrays",
]
