"""What the server sees: every case of an audit, as an observation and its truth.

A case is one set of weights, in one mode, with one size of batch, behind one defense.
"""

import copy
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor, nn

from precode_lib.audit.findings import TROUBLE, trouble
from precode_lib.audit.protections import NONE, Protection
from precode_lib.audit.samples import Sample
from precode_lib.audit.threats import BOX, PUBLIC, TRAINING, Threat
from precode_lib.basics.validation import check_count
from precode_lib.bottleneck import (
    Loss,
    hold_dropout,
    per_example_loss,
    recorded_noise,
)
from precode_lib.federated import (
    LocalTraining,
    Observation,
    VacuousGradientWarning,
    observe,
)


@dataclass(frozen=True)
class Terms:
    """How clients train, and who listens.

    Args:
        threat: what the attacker knows.
        labels_known: whether the labels as well; a report says so.
        batches: how many examples stand behind one message; each is a case.
        modes: whether the model trains (True) or evaluates; each is a case.
        clients: of one case, at most.
        local: several local steps instead of one gradient.
        loss: of each example.
    """

    threat: Threat
    labels_known: bool = True
    batches: tuple[int, ...] = (1,)
    modes: tuple[bool, ...] = (True,)
    clients: int = 8
    local: LocalTraining | None = None
    loss: Loss = per_example_loss

    def __post_init__(self) -> None:
        check_count(self.clients, "clients")
        for size in self.batches:
            check_count(size, "each batch")
        if not self.batches or not self.modes:
            raise ValueError("an audit needs at least one batch size and one mode.")


@dataclass(frozen=True)
class Case:
    """Which weights, mode, batch and defense; the name of all that is found there."""

    weights: str
    trains: bool
    batch: int
    protection: Protection
    is_control: bool = False  # the defense switched off, beside cases with one

    @property
    def name(self) -> str:
        """For people, and for files."""
        mode = "training" if self.trains else "evaluation"
        parts = [f"{self.weights} weights", f"{mode} mode", f"batch {self.batch}"]
        if self.protection is not NONE:
            parts.append(self.protection.name)
        return ", ".join(parts)

    def generator(self, seed: int, purpose: str) -> Generator:
        """A stream of random numbers of its own for each purpose."""
        text = f"{seed}/{purpose}/{self.name}"
        return torch.Generator().manual_seed(zlib.crc32(text.encode()))


def cases(
    weights: Mapping[str, nn.Module],
    terms: Terms,
    protections: tuple[Protection, ...],
) -> list[Case]:
    """All of them, with the defense off as a control wherever there is one."""
    made = []
    for name in weights:
        for trains in terms.modes:
            for batch in terms.batches:
                made += [Case(name, trains, batch, each) for each in protections]
                if NONE not in protections:
                    made.append(Case(name, trains, batch, NONE, is_control=True))
    return made


@dataclass(frozen=True, eq=False)
class Scene:
    """A case, played: what the attacker has, and what only the judge knows.

    Args:
        case: which.
        seen: what the attacker has, under the threat.
        sample: the clients' examples, (V * B, ...), in order; the judge's.
        public: examples that the attacker may look at, if the threat says so.
        drawn: what the model drew while the clients computed; an oracle's.
    """

    case: Case
    seen: Observation
    sample: Sample
    public: Sample | None = None
    drawn: tuple[Tensor, ...] = field(default=(), repr=False)

    @property
    def clients(self) -> int:
        """V."""
        return self.seen.num_victims

    @property
    def draws(self) -> bool:
        """Whether the model draws numbers that nobody told the attacker."""
        return len(self.drawn) > 0


def play(
    case: Case,
    model: nn.Module,
    sample: Sample,
    terms: Terms,
    *,
    seed: int,
) -> Scene:
    """Let the case's clients compute and send, and say what the attacker has of it."""
    clients = min(terms.clients, len(sample) // case.batch)
    if clients == 0:
        raise ValueError(
            f"a batch of {case.batch} needs as many examples, there are {len(sample)}."
        )
    inputs, labels = sample.grouped(clients, case.batch)
    network, sent = _protected(case, model, sample, seed)
    options = {
        "client_step": case.protection.step and case.protection.step(sent),
        "defense": case.protection.change and case.protection.change(sent),
        "normalisation": sample.normalisation,
        "labels_known": terms.labels_known,
        "loss": terms.loss,
        "local": terms.local,
    }
    noise = case.generator(seed, "client")
    try:
        with _own_numbers(case, seed), _told_elsewhere(), recorded_noise() as drawn:
            seen = observe(network, inputs, labels, noise=noise, **options)
    except TROUBLE as problem:
        raise ValueError(
            f"{case.name}: no gradient could be computed: {trouble(problem)}"
        ) from problem
    knows = terms.threat.knows
    used = clients * case.batch
    return Scene(
        case,
        _known(seen, terms),
        sample.first(used),
        sample.after(used) if PUBLIC in knows else None,
        tuple(drawn),
    )


def _protected(
    case: Case, model: nn.Module, sample: Sample, seed: int
) -> tuple[nn.Module, Generator]:
    """The model as clients get it, and the stream of what the defense adds."""
    network = copy.deepcopy(model)
    if case.protection.insert is not None:
        source = case.generator(seed, "defense's weights")
        example = sample.inputs[:1]
        network = case.protection.insert(network, example, source)
    network.train(case.trains)
    # Dropout that draws its masks where an oracle can note them: the same law.
    return hold_dropout(network), case.generator(seed, "defense")


def _known(seen: Observation, terms: Terms) -> Observation:
    """The observation without what this threat does not know."""
    knows = terms.threat.knows
    changes = {}
    if BOX not in knows:
        changes["normalisation"] = None
    if TRAINING not in knows and seen.local is not None:
        # To this attacker the sum of the steps is one gradient, up to a factor.
        changes["local"] = None
    return replace(seen, **changes) if changes else seen


@contextmanager
def _told_elsewhere() -> Iterator[None]:
    """An empty gradient is in the report: no warning besides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VacuousGradientWarning)
        yield


@contextmanager
def _own_numbers(case: Case, seed: int) -> Iterator[None]:
    """What a model draws from torch's global generator, drawn from the case's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.generator(seed, "torch").initial_seed())
        yield
