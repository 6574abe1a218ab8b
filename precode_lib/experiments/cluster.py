"""Several processes: a Dask cluster on this machine, or one that is there already."""

import logging
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from precode_lib.experiments.cells import Cell
from precode_lib.experiments.lab import Lab
from precode_lib.experiments.queue import Event, reproduce, reproduce_with
from precode_lib.experiments.store import Store

if TYPE_CHECKING:
    from distributed import Client


def run_on(
    client: "Client | None", cells: Iterable[Cell], store: Store, lab: Lab
) -> Iterator[Event]:
    """Run the cells where the client is, or else here."""
    if client is None:
        return reproduce(cells, store, lab)
    return reproduce_with(client, cells, store, lab)


@contextmanager
def lend_client(workers: int, scheduler: str | None) -> "Iterator[Client | None]":
    """Lend a Dask client where several processes are asked for, else None."""
    if scheduler is None and workers <= 1:
        yield None
        return
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError as problem:
        raise ValueError(
            "several workers need Dask: pip install 'precode-lib[cluster]'."
        ) from problem
    lent = _here(workers) if scheduler is None else _at(scheduler)
    with lent as found:
        yield found


def is_idle(client: "Client") -> bool:
    """Whether no worker is there yet."""
    return not client.scheduler_info()["workers"]


@contextmanager
def _at(scheduler: str) -> "Iterator[Client]":
    """A client of the scheduler at this address."""
    from distributed import Client

    _check_address(scheduler)
    try:
        found = Client(scheduler, set_as_default=False)
    except OSError as problem:
        raise ValueError(
            f"there is no scheduler at {scheduler}: {problem}."
        ) from problem
    with found:
        yield found


@contextmanager
def _here(workers: int) -> "Iterator[Client]":
    """A client of a cluster on this machine, which ends with it."""
    from distributed import Client, LocalCluster

    # Ctrl+C goes to all processes of a terminal. Workers inherit that it is not theirs,
    # and end without a page of tracebacks when this process tells them to.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        local = LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with local, Client(local, set_as_default=False) as found:
        yield found
        # With torch in it, a process needs seconds to end: nothing to be warned of.
        logging.getLogger("distributed.nanny").setLevel(logging.ERROR)


def _check_address(address: str) -> None:
    """Refuse what is no address at once; Dask's client would take a minute to end."""
    from distributed.comm import get_address_host_port

    try:
        get_address_host_port(address)
    except ValueError as problem:
        raise ValueError(
            f"--scheduler wants an address such as tcp://host:8786: {problem}."
        ) from problem
