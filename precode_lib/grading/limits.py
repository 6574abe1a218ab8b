"""What one hand-in may use."""

from dataclasses import dataclass

MB = 1_000_000
KINDS = ("auto", "bwrap", "none")  # of sandboxes


@dataclass(frozen=True)
class Limits:
    """What one hand-in may use; sizes in bytes.

    Args:
        seconds: of wall-clock time, for the whole notebook.
        cell_seconds: of wall-clock time, for one cell.
        memory: of all its processes together, as the sum of their resident sets.
        processes: at the same time.
        threads: at the same time, as the system counts them for a user.
        file: largest size of a file that it writes.
        scratch: all files that it writes; only bubblewrap holds it to that.
        output: that reaches the grader, of what its driver says.
    """

    seconds: float = 300
    cell_seconds: float = 100
    memory: int = 2000 * MB
    processes: int = 48
    threads: int = 256
    file: int = 64 * MB
    scratch: int = 256 * MB
    output: int = 4 * MB
