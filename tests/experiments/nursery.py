"""Processes that run `precode reproduce` on tiny cells, and are disturbed at it.

Run as a script: it imports torch once and forks, so that a process which is killed
costs milliseconds instead of seconds. Prints what happened as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from precode_lib import cli, data, experiments
from precode_lib.experiments import (
    TABLES,
    AttackCell,
    Lab,
    Setup,
    Table,
    TrainingCell,
    queue,
)
from precode_lib.experiments.runs import training

torch.set_num_threads(1)
KILLS = 10
SETUP = Setup("photos", "smlp", "precode", width=64, k=8)
TRAINING = TrainingCell(SETUP, epochs=6, train_pictures=600, test_pictures=100)
ATTACK = AttackCell(
    replace(SETUP, defense="ng-3"), victims=8, iterations=100, patience=100
)
TRAINED = replace(ATTACK, setup=SETUP, epoch=5, training=TRAINING)
SHORT = [replace(ATTACK, iterations=n) for n in range(10, 16)]


def prepare() -> None:
    """Offer the cells as tables, with a checkpoint at almost every step."""
    splits = data.photos()
    data.photos = lambda: splits
    experiments.Lab = partial(Lab, every=0.005)
    training.EVERY_STEPS = 3
    TABLES["killed"] = Table("killed", "", lambda scale: [TRAINED, TRAINING, ATTACK])
    TABLES["shared"] = Table("shared", "", lambda scale: [*SHORT, TRAINED])


def note_runs(file: Path) -> None:
    """Append a line to a file for every cell that is run, from any process."""
    original = queue.run

    def run(cell, lab, key, **options):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{key}\n".encode())
        os.close(descriptor)
        return original(cell, lab, key, **options)

    queue.run = run


def begin(table: str, folder: Path) -> int:
    """Run a table in a process of its own; returns its id."""
    process = os.fork()
    if process:
        return process
    log = os.open(folder.parent / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    places = ["--results", str(folder), "--work", str(folder / "work")]
    os._exit(cli.main(["reproduce", table, "--quiet", *places]))


def end(process: int) -> int:
    """Its exit code; -9 if it was killed."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def disturbed(folder: Path) -> dict:
    """One run in peace, and one that is killed and begun again ten times."""
    start = time.monotonic()
    peace = end(begin("killed", folder / "peace"))
    took = time.monotonic() - start
    delays = random.Random(0)
    codes = []
    for _ in range(KILLS):
        process = begin("killed", folder / "killed")
        time.sleep(took * delays.uniform(0.02, 0.3))
        os.kill(process, signal.SIGKILL)
        codes.append(end(process))
    last = end(begin("killed", folder / "killed"))
    return {"peace": peace, "codes": codes, "last": last}


def together(folder: Path) -> dict:
    """Two processes with the same cells and folders, at the same time."""
    peace = end(begin("shared", folder / "peace"))
    note_runs(folder / "runs.txt")
    both = [begin("shared", folder / "shared") for _ in range(2)]
    return {"peace": peace, "codes": [end(process) for process in both]}


if __name__ == "__main__":
    what, where = sys.argv[1:]
    prepare()
    print(json.dumps({"disturbed": disturbed, "together": together}[what](Path(where))))
