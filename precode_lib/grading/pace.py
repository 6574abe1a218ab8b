"""How long the rest of a class will take, in numbers and in words."""

from collections import deque
from dataclasses import dataclass, field

USUAL = 20  # seconds of an honest notebook on one idle core, with its start
RECENT = 12  # runs of which the mean is taken


@dataclass
class Pace:
    """What the last hand-ins took.

    Args:
        jobs: how many run at a time.
        taken: seconds of the last runs; before the first, what one usually takes.
    """

    jobs: int
    taken: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, seconds: float) -> None:
        """Note what one has taken."""
        self.taken.append(seconds)

    def left(self, count: int) -> float:
        """Seconds that so many will take."""
        mean = sum(self.taken) / len(self.taken) if self.taken else USUAL
        return mean * count / min(self.jobs, max(count, 1))


@dataclass(frozen=True)
class Standing:
    """What is known of a class while it is marked.

    Args:
        done: how many hand-ins are marked.
        total: how many there are.
        file: the latest, as it is shown; empty at the beginning.
        left: how many have to be run yet.
        seconds: that these will take.
        longest: seconds on a quiet machine, if each of them is stopped by its limit.
    """

    done: int
    total: int
    file: str
    left: int
    seconds: float
    longest: float

    def cost(self, jobs: int) -> str:
        """What the class will cost, in a sentence; `jobs` are run at a time."""
        if not self.left:
            return f"{self.total} hand-ins, none of which has to be run."
        return (
            f"{self.total} hand-ins, {self.left} of them to run, {jobs} at a time: "
            f"about {in_words(self.seconds)}, if each takes {USUAL} seconds; up to "
            f"{in_words(self.longest)} on a quiet machine, if each meets its limit."
        )

    def rest(self) -> str:
        """How long it goes on, and which hand-in came last."""
        left = f"about {in_words(self.seconds)} left" if self.left else "all are run"
        return f"{left}, {self.file}"

    def __str__(self) -> str:
        return f"{self.done} of {self.total} hand-ins, {self.rest()}"


def in_words(seconds: float) -> str:
    """A length of time, as exactly as an estimate can be."""
    if seconds < 90:
        return f"{max(1, round(seconds / 10)) * 10} seconds"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
