"""The search for policies: draw many, refuse those that hurt accuracy, rank the rest.

`PolicySearch` is an iterator that prints nothing: whoever loops over it owns the
progress bar, the checkpoints and the stop button.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Generator, Tensor, nn

from precode_lib.ats.operations import OPERATIONS
from precode_lib.ats.policies import Policy
from precode_lib.ats.scores import (
    ACCURACY_FLOOR,
    PASS_BYTES,
    accuracy_score,
    privacy_scores,
)
from precode_lib.basics.resuming import Resumable
from precode_lib.basics.validation import check_count, check_range
from precode_lib.data import Pictures

NUM_CANDIDATES = 1600  # Gao et al.: 8 GPUs, 10 at a time, 20 rounds
NUM_PER_CLASS = 5  # pictures whose privacy scores are averaged
NUM_BATCHES = 10  # of pictures, over which accuracy scores are averaged

NO_POLICY = Policy(((),))

# (candidates, classes) privacy scores -> (candidates,), the smallest is the best.
Ranking = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A policy with its scores.

    Args:
        accuracy: the accuracy score for each picture, averaged over the batches.
        privacy: the mean privacy score of each class; None for a policy that the
            accuracy score had ruled out.
    """

    policy: Policy
    accuracy: float
    privacy: Tensor | None

    @property
    def is_accepted(self) -> bool:
        """Whether the accuracy score reached the floor."""
        return self.privacy is not None

    def __repr__(self) -> str:
        end = "refused"
        if self.privacy is not None:
            end = f"privacy {self.privacy.mean().item():.3f}"
        return f"Candidate({self.policy}, accuracy {self.accuracy:.2f}, {end})"


def by_mean(privacy: Tensor) -> Tensor:
    """The mean over the classes, as in the paper's algorithm: (K, classes) → (K,)."""
    return privacy.mean(1)


def by_mean_and_variance(privacy: Tensor) -> Tensor:
    """0.7 mean + 0.3 variance over the classes, each scaled to [0, 1] over all K.

    As in the reference's code; what a candidate gets depends on the other ones.
    """
    return 0.7 * _scaled(privacy.mean(1)) + 0.3 * _scaled(
        privacy.var(1, unbiased=False)
    )


def best(
    candidates: Sequence[Candidate], count: int, *, ranking: Ranking = by_mean
) -> list[Candidate]:
    """The accepted candidates of lowest rank, the best first; `count` at most."""
    check_count(count, "count")
    accepted = [candidate for candidate in candidates if candidate.is_accepted]
    if not accepted:
        raise ValueError(
            f"none of {len(candidates)} candidates was accepted; compare their "
            "accuracy with NO_POLICY's, and choose an accuracy_floor below."
        )
    ranks = ranking(torch.stack([candidate.privacy for candidate in accepted]))
    order = ranks.argsort(stable=True)[:count]
    return [accepted[index] for index in order.tolist()]


def hybrid(candidates: Sequence[Candidate]) -> Policy:
    """One policy that draws among those of the candidates for each picture."""
    return Policy(tuple(a for c in candidates for a in c.policy.alternatives))


class PolicySearch(Resumable[Candidate]):
    """Random policies and their scores, one after another.

    Each policy is `length` numbers from -1 (nothing) to 49, all equally likely; the
    reference also draws 50, which does not exist. All candidates are rated on the same
    pictures, noise and signs, so that a rating depends on policy and seed only, and
    none on which candidates came before.

    The published floor of the accuracy score belongs to the authors' network and to
    their number of pictures: on other ones even no policy at all may miss it. Compare
    with `rate(NO_POLICY).accuracy` before you trust it.

    Args:
        trained: rates privacy: a network briefly trained on a tenth of the data.
        untrained: rates accuracy: the same before training. Both in evaluation mode.
        pictures: to rate on, not used for training. Privacy is rated on the first
            `num_per_class` of each class, accuracy on batches of one random picture of
            each class.
        generator: draws the candidates, and first of all what they are rated with.
        num_candidates: how many to draw.
        accuracy_floor: the lowest acceptable accuracy score for each picture.
    """

    def __init__(
        self,
        *,
        trained: nn.Module,
        untrained: nn.Module,
        pictures: Pictures,
        generator: Generator,
        num_candidates: int = NUM_CANDIDATES,
        length: int = 3,
        num_per_class: int = NUM_PER_CLASS,
        num_batches: int = NUM_BATCHES,
        accuracy_floor: float = ACCURACY_FLOOR,
        chunk_bytes: int = PASS_BYTES,
    ):
        for name, count in [
            ("num_candidates", num_candidates),
            ("length", length),
            ("num_per_class", num_per_class),
            ("num_batches", num_batches),
        ]:
            check_count(count, name)
        check_range(accuracy_floor, "accuracy_floor")
        self.trained, self.untrained = trained, untrained
        self.num_candidates, self.length = num_candidates, length
        self.accuracy_floor = accuracy_floor
        self.candidates: list[Candidate] = []
        self._normalisation = pictures.normalisation
        self._chunk_bytes = chunk_bytes
        self._generator = generator
        self._seed = int(
            torch.randint(2**62, (), generator=generator, device=generator.device)
        )
        self._victims = _first_of_each_class(pictures, num_per_class)
        self._batches = _batches(pictures, num_batches, self._fresh())

    def _left(self) -> int:
        return self.num_candidates - len(self.candidates)

    def _advance(self) -> Candidate:
        """Draw a policy, rate it and keep it in `candidates`."""
        candidate = self.rate(self._draw())
        self.candidates.append(candidate)
        return candidate

    def rate(self, policy: Policy) -> Candidate:
        """Rate any policy as the search rates its own; changes nothing."""
        accuracy = self._accuracy(policy)
        is_accepted = accuracy >= self.accuracy_floor
        return Candidate(
            policy, accuracy, self._privacy(policy) if is_accepted else None
        )

    def best(self, count: int, *, ranking: Ranking = by_mean) -> list[Candidate]:
        """The best so far; see the function of this name."""
        return best(self.candidates, count, ranking=ranking)

    def state_dict(self) -> dict:
        """Everything that `load_state_dict` needs to go on as if never interrupted.

        Tensors, lists, numbers and strings only: `torch.save` it, load it with
        `weights_only=True`. The networks and pictures are not part of it.
        """
        return {
            "settings": self._settings(),
            "seed": self._seed,
            "generator": self._generator.get_state(),
            "candidates": [
                [str(c.policy), c.accuracy, c.privacy] for c in self.candidates
            ],
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict` of a search with equal settings and pictures."""
        own, other = self._settings(), state["settings"]
        odd = [name for name in own if own[name] != other.get(name)]
        if odd:
            differences = ", ".join(f"{n} {other.get(n)} ≠ {own[n]}" for n in odd)
            raise ValueError(f"this state is of another search: {differences}.")
        if state["seed"] != self._seed:
            raise ValueError(
                "this state is of a search whose generator had another seed; give "
                "this one a generator seeded alike."
            )
        self._generator.set_state(state["generator"])
        self.candidates = [
            Candidate(Policy.parse(text), accuracy, privacy)
            for text, accuracy, privacy in state["candidates"]
        ]

    def _bar(self) -> dict:
        return {"desc": "ATS", "unit": "policy"}

    def _note(self, step: Candidate) -> str:
        """The best accepted so far."""
        accepted = sum(candidate.is_accepted for candidate in self.candidates)
        if not accepted:
            return "none accepted"
        (first,) = self.best(1)
        return f"{accepted} accepted, {first.policy}: {first.privacy.mean().item():.3f}"

    def _draw(self) -> Policy:
        source = self._generator
        drawn = torch.randint(
            -1, len(OPERATIONS), (self.length,), generator=source, device=source.device
        )
        return Policy((tuple(drawn.tolist()),))

    def _accuracy(self, policy: Policy) -> float:
        generator = self._fresh()
        scores = [
            accuracy_score(
                self.untrained,
                batch.stored,
                policy,
                normalisation=self._normalisation,
                generator=generator,
            )
            / len(batch)
            for batch in self._batches
        ]
        return sum(scores) / len(scores)

    def _privacy(self, policy: Policy) -> Tensor:
        """The mean over the pictures of each class: (classes that have any,)."""
        scores = privacy_scores(
            self.trained,
            self._victims.stored,
            self._victims.labels,
            policy,
            normalisation=self._normalisation,
            generator=self._fresh(),
            chunk_bytes=self._chunk_bytes,
        ).cpu()
        labels = self._victims.labels
        return torch.stack([scores[labels == c].mean() for c in labels.unique()])

    def _fresh(self) -> Generator:
        """A generator that draws the same for every candidate."""
        return Generator(self._generator.device).manual_seed(self._seed)

    def _settings(self) -> dict:
        pictures = [self._victims, *self._batches]
        return {
            "length": self.length,
            "accuracy_floor": self.accuracy_floor,
            "num_pictures": sum(map(len, pictures)),
            "pictures": _digest([part.stored for part in pictures]),
        }


def _scaled(values: Tensor) -> Tensor:
    """From the smallest, 0, to the largest, 1; all 0 where there is no spread."""
    spread = values.max() - values.min()
    return (values - values.min()) / torch.where(spread > 0, spread, 1)


def _digest(tensors: Sequence[Tensor]) -> str:
    """A few letters that other pictures would not have."""
    joined = b"".join(tensor.cpu().numpy().tobytes() for tensor in tensors)
    return sha256(joined).hexdigest()[:16]


def _first_of_each_class(pictures: Pictures, num_per_class: int) -> Pictures:
    rows = [
        torch.where(pictures.labels == label)[0][:num_per_class]
        for label in pictures.labels.unique()
    ]
    return pictures[torch.cat(rows)]


def _batches(pictures: Pictures, count: int, generator: Generator) -> list[Pictures]:
    """Batches of one random picture per class; the published ones repeat none."""
    labels = pictures.labels.unique()
    if len(labels) < 2:
        raise ValueError(
            f"{pictures!r} shows one class only; the accuracy score needs two at least."
        )
    members = [torch.where(pictures.labels == label)[0] for label in labels]
    draws = torch.rand(
        count, len(labels), generator=generator, device=generator.device
    ).tolist()
    return [
        pictures[[int(m[int(d * len(m))]) for m, d in zip(members, row, strict=True)]]
        for row in draws
    ]
