"""What one hand-in may use."""

from dataclasses import dataclass

MB = 1_000_000
SANDBOXES = ("auto", "bwrap", "container", "none")
SHARED = 64 * MB  # /dev/shm in a box
PATIENCE = 5  # a hand-in's time by the clock, in units of its own


@dataclass(frozen=True)
class Limits:
    """What one hand-in may use; sizes in bytes.

    Its seconds are those in which it, or the examiner for it, computes, and those in
    which all of it sleeps. Waiting for a core is free, up to a limit by the clock.

    Args:
        seconds: for the whole notebook.
        cell_seconds: for one cell.
        memory: of all its processes together; what several share counts once.
        processes: at the same time.
        threads: at the same time, as the system counts them for a user.
        file: largest size of a file that it writes.
        scratch: all files that it writes; only a box holds it to that.
        files: how many there are; only a box holds it to that.
        sockets: at the same time; only a box holds it to that.
        descriptors: at the same time, of all its processes.
        output: that reaches the grader, of what its driver says.
    """

    seconds: float = 300
    cell_seconds: float = 100
    memory: int = 2000 * MB
    processes: int = 48
    threads: int = 256
    file: int = 64 * MB
    scratch: int = 256 * MB
    files: int = 20_000
    sockets: int = 150
    descriptors: int = 3000
    output: int = 4 * MB

    @property
    def clock(self) -> float:
        """The most seconds by the clock, however busy the machine is."""
        return PATIENCE * self.seconds

    @property
    def firm(self) -> int:
        """The most bytes where the system counts: processes, files and its own."""
        return self.memory + self.scratch + SHARED
