"""How fast one version of the library is beside another, on the same work in turns.

    git worktree add ../before b182b81
    python benchmarks/versions.py ../before .

Two processes, one for each folder, take turns at every job, and a table shows the
median over the rounds of how many times longer the second took, with the middle half
of the rounds. Time is the process's own on one thread, for what else the machine does
changes it least. The jobs ask only for names that both versions have.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

Job = Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.work:
        work()
        return
    folders = options.folders * (2 if len(options.folders) == 1 else 1)
    workers = [Worker(folder) for folder in folders]
    print(f"{'job':28}{'ms':>10}{'ms':>10}{'ratio':>9}{'middle half':>16}")
    for job in options.jobs:
        row = compare(job, workers, options.rounds, options.seconds)
        print(as_line(row), flush=True)
    for worker in workers:
        worker.close()


class Worker:
    """A process that runs jobs with the library of one folder, when it is asked to."""

    def __init__(self, folder: Path):
        command = [sys.executable, __file__, "--work"]
        places = {"PYTHONPATH": str(folder.resolve()), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        env = {**os.environ, **places}
        self._folder = folder
        self._process = subprocess.Popen(command, env=env, cwd=folder, **pipes)
        library = self._answer()
        if not Path(library).is_relative_to(folder.resolve()):
            self.close()
            raise RuntimeError(f"{folder} was asked for, {library} imported.")

    def seconds(self, job: str, repeats: int) -> float:
        """Of the process's own, for one run of the job on average."""
        self._process.stdin.write(json.dumps([job, repeats]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self._folder} ended; see above.")
        return json.loads(line)


def compare(job: str, workers: Sequence[Worker], rounds: int, seconds: float) -> dict:
    """Both versions' seconds in every round; who begins changes with each."""
    for worker in workers:
        worker.seconds(job, 1)  # the first time, memory is allocated
    repeats = max(1, round(seconds / workers[0].seconds(job, 1)))
    table = []
    for turn in range(rounds):
        took = [0.0, 0.0]
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            took[which] = workers[which].seconds(job, repeats)
        table.append(took)
    ratios = [later / before for before, later in table]
    low, _, high = quantiles(ratios, n=4)
    return {
        "job": job,
        "ms": [1e3 * median(column) for column in zip(*table, strict=True)],
        "ratio": median(ratios),
        "half": [low, high],
    }


def as_line(row: dict) -> str:
    before, later = row["ms"]
    low, high = row["half"]
    return (
        f"{row['job']:28}{before:10.2f}{later:10.2f}{row['ratio']:9.3f}"
        f"{f'{low:.3f} to {high:.3f}':>16}"
    )


# --- what is measured, in a process of its own ------------------------------------


def work() -> None:
    """Say which library this is, and then, for every line that comes, how long."""
    import torch

    import precode_lib

    torch.set_num_threads(1)
    print(json.dumps(precode_lib.__file__), flush=True)
    made: dict[str, Job] = {}
    for line in sys.stdin:
        name, repeats = json.loads(line)
        if name not in made:
            made[name] = JOBS[name]()
        start = time.process_time()
        for _ in range(repeats):
            made[name]()
        print(json.dumps((time.process_time() - start) / repeats), flush=True)


def step(model: str, victims: int, noise: float = 0.0) -> Job:
    """One step of the search for all victims."""
    from cases import Case, make_scene, our_steps

    steps = our_steps(make_scene(Case(model, victims, noise=noise)))
    return lambda: next(steps)


def observed(model: str, victims: int) -> Job:
    """What these victims send, listened to."""
    import torch

    from precode_lib import models
    from precode_lib.federated import observe

    generator = torch.Generator().manual_seed(0)
    network = getattr(models, model)((3, 32, 32), generator=generator).eval()
    images = torch.randn(victims, 1, 3, 32, 32, generator=generator)
    labels = (torch.arange(victims) % 10).view(-1, 1)
    return lambda: observe(network, images, labels)


def epoch(model: str, pictures: int, **options) -> Job:
    """An epoch of a training, its test on a few pictures included."""
    import torch

    from precode_lib import models
    from precode_lib.data import Pictures, Splits
    from precode_lib.training import PAPER, fit

    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(pictures, 3, 32, 32, generator=generator)
    labels, names = torch.arange(pictures) % 10, tuple("abcdefghij")
    made_up = Pictures(pixels, labels, names, "made up")
    network = getattr(models, model)((3, 32, 32), generator=generator, **options)
    endless = replace(PAPER, epochs=10**6)
    epochs = fit(network, Splits(made_up, made_up[:100]), endless)
    return lambda: next(epochs)


def cell() -> Job:
    """An attack's cell at scale smoke, from its plan to its file."""
    from precode_lib.experiments import SMOKE, Lab, Store, reproduce

    folder = Path(tempfile.mkdtemp())
    lab = Lab(folder / "work")
    attack = SMOKE.attack(SMOKE.setup("cifar10", "dmlp", "precode"))
    numbers = iter(range(10**9))

    def run() -> None:
        store = Store(folder / str(next(numbers)))
        ends = [e.state for e in reproduce([attack], store, lab) if e.state]
        if ends != ["finished"]:
            raise RuntimeError(f"the cell ended as {ends}.")

    return run


JOBS: dict[str, Callable[[], Job]] = {
    "step, dmlp, 16": lambda: step("dmlp", 16),
    "step, dmlp noisy, 16": lambda: step("dmlp", 16, noise=1e-3),
    "step, lenet, 1": lambda: step("lenet", 1),
    "step, lenet, 16": lambda: step("lenet", 16),
    "observe, dmlp, 128": lambda: observed("dmlp", 128),
    "epoch, lenet, 1000": lambda: epoch("lenet", 1000),
    "epoch, smlp, 1000": lambda: epoch("smlp", 1000, width=256),
    "cell, smoke": cell,
}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folders", nargs="*", type=Path, help="of the two versions; one: with itself")
    add("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS), metavar="JOB")
    add("--rounds", type=int, default=15, help="how often each job gets its turn")
    add("--seconds", type=float, default=1.0, help="how long a turn takes, about")
    add("--work", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
