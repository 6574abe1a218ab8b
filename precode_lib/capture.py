"""Taking gradients lives in `gradients`; this is its old address."""

from precode_lib.gradients import Capture, victim_by_victim, victim_gradients

__all__ = [
    "Capture",
    "victim_by_victim",
    "victim_gradients",
]
