"""A Dask cluster of two workers, one of which is killed in the middle of a cell.

A script of its own, so that the cluster's threads, sockets and warnings stay out of the
tests' process. Prints what happened as JSON.
"""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import torch
from distributed import Client, LocalCluster

from precode_lib import cli
from precode_lib.experiments import (
    AttackCell,
    Lab,
    Setup,
    Store,
    TrainingCell,
    reproduce,
    reproduce_with,
)
from precode_lib.experiments.cells import key_of

SETUP = Setup("photos", "smlp", "precode", width=64, k=8)
TRAINING = TrainingCell(SETUP, epochs=3, train_pictures=300, test_pictures=50)
# Long enough to be in the middle of it when its checkpoint appears.
LONG = AttackCell(SETUP, victims=8, iterations=250, patience=250)
TRAINED = replace(LONG, iterations=20, epoch=2, training=TRAINING)
GOOD = [LONG, replace(LONG, iterations=240), TRAINED, replace(LONG, iterations=15)]
BAD_SETUP = replace(SETUP, defense="no such defense")
BAD_TRAINING = replace(TRAINING, setup=BAD_SETUP)
BAD = [
    replace(LONG, setup=BAD_SETUP, iterations=3),
    replace(TRAINED, setup=BAD_SETUP, training=BAD_TRAINING),
]


def kill_one(client: Client, work: Path, killed: list[str]) -> None:
    """Kill the first worker whose cell has left a checkpoint."""
    processes = client.run(os.getpid)
    while not killed:
        time.sleep(0.02)
        for address, keys in client.processing().items():
            for key in keys:
                file = work / f"{key.removeprefix('precode-')}.pt"
                if "attack" in key and file.exists() and not killed:
                    os.kill(processes[address], signal.SIGKILL)
                    killed.append(key)


def watched(client: Client, events, lab: Lab, held: list[str]):
    """The events; notes finished cells that the cluster has still to keep."""
    for event in events:
        if event.state == "finished":
            key = f"precode-{key_of(event.cell, lab.digest(event.cell))}"
            time.sleep(0.2)  # the client lets go in its own thread
            held += [key] if key in client.futures else []
        yield event


def outcomes(events) -> list[tuple[str, str, str]]:
    return [(str(e.cell), e.state, e.problem) for e in events if e.state]


def main(folder: Path) -> dict:
    """Run the cells on the cluster and without it; then the command on the cluster."""
    local = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    killed: list[str] = []
    held: list[str] = []
    with local, Client(local, set_as_default=False) as client:
        lab = Lab(work=folder / "work", every=0.02)
        killer = threading.Thread(target=kill_one, args=(client, lab.work, killed))
        killer.start()
        store = Store(folder / "cluster")
        events = reproduce_with(client, [*GOOD, *BAD], store, lab)
        cluster = outcomes(watched(client, events, lab, held))
        again = outcomes(reproduce_with(client, GOOD, store, lab))
        killer.join()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            places = ["--results", f"{folder}/cli", "--work", f"{folder}/cli-work"]
            where = ["--scheduler", local.scheduler_address, "--json", "--quiet"]
            code = cli.main(["reproduce", "table4", *where, *places])
    alone = outcomes(
        reproduce(GOOD, Store(folder / "alone"), Lab(work=folder / "alone-work"))
    )
    return {
        "killed": killed,
        "held": held,
        "cluster": cluster,
        "again": again,
        "alone": alone,
        "code": code,
        "rows": json.loads(printed.getvalue()),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]))))
