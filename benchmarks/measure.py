"""Clocks, floating-point operations and memory."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
Job = Callable[[], object]


class Clock:
    """Seconds of a job: on the wall, or of this process on all cores."""

    def __init__(self, kind: str = "wall", device: str = "cpu"):
        self._now, self._cuda = CLOCKS[kind], device.startswith("cuda")

    def seconds(self, job: Job, repeats: int = 1) -> float:
        """Of one of `repeats` runs, on average."""
        self._wait()
        start = self._now()
        for _ in range(repeats):
            job()
        self._wait()
        return (self._now() - start) / repeats

    def repeats(self, job: Job, seconds: float) -> int:
        """How often the job must run to fill so many seconds; runs it twice."""
        job()  # the first time, memory is allocated and kernels are chosen
        return max(1, round(seconds / max(self.seconds(job), 1e-6)))

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def interleave(
    jobs: Sequence[Job], clock: Clock, *, rounds: int, seconds: float
) -> list[list[float]]:
    """Seconds of every job in every round; the jobs take turns, whatever else runs."""
    repeats = [clock.repeats(job, seconds) for job in jobs]
    pairs = list(zip(jobs, repeats, strict=True))
    table = [[clock.seconds(*pair) for pair in pairs] for _ in range(rounds)]
    return [list(column) for column in zip(*table, strict=True)]


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median over the rounds of how many times longer the slow one took."""
    return median(s / f for s, f in zip(slow, fast, strict=True))


def matmul_job(device: str = "cpu", size: int = 1024) -> tuple[Job, float]:
    """A square float32 product, large enough for the full rate, and its operations."""
    a, b = (torch.rand(size, size, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out), 2.0 * size**3


def count_flops(job: Job) -> int:
    """Multiplications and additions of all matrix products and convolutions.

    Everything else (activations, norms, the optimizer) is not counted, so a rate made
    of this is a lower bound.
    """
    counter = FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten.convolution_backward: _conv_backward_flops},
    )
    with counter:
        job()
    return counter.get_total_flops()


def _conv_backward_flops(delta, x, kernels, *args, out_shape=None, **options) -> int:
    # torch's formula takes every pair of channels, also of different groups.
    mask, transposed = args[-1], args[4]
    if transposed:
        raise NotImplementedError("transposed convolutions are not counted.")
    per_product = 2 * delta[0] * torch.Size(delta[2:]).numel()
    return sum(mask[:2]) * per_product * torch.Size(kernels).numel()


def peak_bytes() -> int:
    """The most memory this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux its peak begins at that of the parent process.
        lines = status.read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
