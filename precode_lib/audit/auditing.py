"""`audit`: from a model and some examples to a report, in one call."""

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import precode_lib
from precode_lib.audit.cost import cost
from precode_lib.audit.criteria import DEFAULT, Criterion, criterion
from precode_lib.audit.findings import EXACT, FAILED, Finding
from precode_lib.audit.journal import Journal, digest
from precode_lib.audit.judging import in_words, truth
from precode_lib.audit.protections import NONE, Protection, protection
from precode_lib.audit.report import INCOMPLETE, CaseReport, Report
from precode_lib.audit.running import run
from precode_lib.audit.samples import Sample, leaves, sample
from precode_lib.audit.scenes import Case, Scene, Terms, cases, play
from precode_lib.audit.soundness import check_runs
from precode_lib.audit.threats import Threat, threat
from precode_lib.basics.validation import check_count, check_model
from precode_lib.bottleneck import Loss, per_example_loss
from precode_lib.defenses import Defense, epsilon, reconstruction_bound
from precode_lib.federated import LocalTraining

_KAPPA = 1 / 1000  # the chance of a guess that the bound is given for
_DELTA = 1e-5


def audit(
    model: nn.Module | Mapping[str, nn.Module],
    examples: object,
    *,
    loss: Loss = per_example_loss,
    batch: int | Sequence[int] = 1,
    clients: int = 8,
    training: bool | Sequence[bool] = True,
    local: LocalTraining | None = None,
    defense: "str | Defense | Protection | Sequence | None" = None,
    threat_letter: str | Threat = "C",
    labels_known: bool = True,
    budget: float = 600.0,
    effort: float | None = None,
    accuracy: bool = True,
    fail_if: str | Criterion = DEFAULT,
    seed: int = 0,
    folder: str | Path | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
    name: str | None = None,
    command: str = "",
) -> Report:
    """Try what applies to a model's gradients, and report what came back.

    Closed forms and labels first, which take seconds; then searches for as long as the
    budget allows, on each case: weights, mode, batch and defense. The model stays as it
    is. With a folder, a run that was killed goes on from there.

    Args:
        model: as clients get it; or several sets of weights by name, such as
            {"fresh": ..., "trained": ...}.
        examples: of the clients: `Pictures`, `Examples`, or (inputs, labels), where the
            inputs of a model with several are a tuple or a dict.
        loss: of each example: (model, inputs, labels) -> (N,).
        batch: examples behind one message; several are several cases.
        clients: of a case, at most.
        training: whether the model is in training mode, as clients have it; both are
            two cases.
        local: several local steps instead of one gradient.
        defense: a name such as "noise:1e-3", a function of one's own, or several of
            them; each is a case, with the defense off as a control.
        threat_letter: what the attacker knows, A to E (Carletti et al. 2025).
        labels_known: whether the attacker knows the labels too.
        budget: seconds, about, for all searches together.
        effort: instead of it, the share of its full steps that each search makes: the
            same on every machine.
        accuracy: whether to train for a moment with each defense and without, if there
            are labelled examples enough: what does it cost?
        fail_if: when the verdict is that these gradients leak: see `criteria.FIGURES`.
        seed: of everything that is drawn.
        folder: for what is unfinished.
        tell: is told what is being done, a phrase at a time.
        name: of the model, in the report.
        command: that asks for the same audit again, if a command did.

    >>> import torch
    >>> from precode_lib.audit import audit
    >>> from precode_lib.data import victims
    >>> from precode_lib.models import smlp
    >>> model = smlp(width=32, generator=torch.Generator().manual_seed(0))
    >>> report = audit(model, victims("photos", 2), effort=0)
    >>> report.verdict, report.exit_code
    ('leaks', 1)
    """
    weights = _weights(model)
    clients_have = sample(examples)
    for each in weights.values():
        check_runs(each, clients_have)
    terms = Terms(
        threat=threat_letter
        if isinstance(threat_letter, Threat)
        else threat(threat_letter),
        labels_known=labels_known,
        batches=tuple(_several(batch)),
        modes=tuple(_several(training)),
        clients=clients,
        local=local,
        loss=loss,
    )
    asked = tuple(protection(each) for each in _several(defense)) or (NONE,)
    judged_by = fail_if if isinstance(fail_if, Criterion) else criterion(fail_if)
    check_count(seed, "seed", 0)
    settings = _settings(terms, asked, budget, effort, seed)
    # Also of the code behind names: a changed model or loss begins anew.
    whole = [weights, *_tensors(clients_have), settings, loss, *_several(defense)]
    journal = Journal(folder, digest(*whole, torch.__version__))
    scenes, unplayed = _played(weights, clients_have, terms, asked, seed)
    found = run(
        scenes, terms, journal, seed=seed, budget=budget, effort=effort, tell=tell
    )
    first = next(iter(weights.values()))
    trying = asked if accuracy else ()
    spent = cost(first, clients_have, trying, loss=loss, seed=seed, tell=tell)
    is_seen = clients_have.kind == "picture"
    report = Report(
        subject=_subject(name, weights, clients_have),
        settings={**settings, "command": command},
        versions=_versions(),
        rule=judged_by,
        cases=(*(_case(scene, found) for scene in scenes), *unplayed),
        sent=clients_have.pixels,
        said=() if is_seen else tuple(in_words(truth(clients_have))),
        cost=spent,
    )
    if report.verdict != INCOMPLETE:
        journal.clear()
    return report


def _several(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _weights(model: object) -> dict[str, nn.Module]:
    named = dict(model) if isinstance(model, Mapping) else {"given": model}
    if not named:
        raise ValueError("an audit needs a model; the mapping of weights is empty.")
    for each in named.values():
        check_model(each)
    return named


def _tensors(clients_have: Sample) -> list:
    return [*leaves(clients_have.inputs), clients_have.labels]


def _played(
    weights: Mapping[str, nn.Module],
    clients_have: Sample,
    terms: Terms,
    asked: tuple[Protection, ...],
    seed: int,
) -> tuple[list[Scene], list[CaseReport]]:
    """The cases whose clients sent something, and those whose clients could not.

    Where none could there is nothing to audit.
    """
    scenes, unplayed, reasons = [], [], []
    for case in cases(weights, terms, asked):
        model = weights[case.weights]
        try:
            scenes.append(play(case, model, clients_have, terms, seed=seed))
        except ValueError as problem:
            reasons.append(problem)
            unplayed.append(_unplayed(case, clients_have, terms, str(problem)))
    if not scenes:
        raise reasons[0]
    return scenes, unplayed


def _unplayed(case: Case, clients_have: Sample, terms: Terms, why: str) -> CaseReport:
    """A case of which there is nothing to say but why."""
    nothing = Finding(case.name, "the clients", EXACT, clients_have.kind, FAILED, why)
    return CaseReport(
        name=case.name,
        is_control=case.is_control,
        clients=max(1, min(terms.clients, len(clients_have) // case.batch)),
        batch=case.batch,
        health={},
        findings=(nothing,),
    )


def _case(scene: Scene, found: Sequence[Finding]) -> CaseReport:
    case = scene.case
    return CaseReport(
        name=case.name,
        is_control=case.is_control,
        clients=scene.clients,
        batch=case.batch,
        health=scene.seen.health().to_dict(),
        findings=tuple(f for f in found if f.case == case.name),
        promise=promise(case.protection),
        advice=case.protection.advice,
    )


def promise(asked: Protection) -> dict[str, str]:
    """What is proven of a defense, as sentences; nothing of most."""
    sigma = asked.noise_multiplier
    if sigma is None:
        return {}
    bound = reconstruction_bound(_KAPPA, noise_multiplier=sigma)
    said = {
        "Bound": f"whoever finds an example by guessing once in {1 / _KAPPA:,.0f} "
        f"times finds it behind one such message with a chance of at most {bound:.1%} "
        "(for each example that takes part or does not)"
    }
    try:
        spent = epsilon(sigma, sample_rate=1.0, steps=1, delta=_DELTA)
    except ImportError:
        return said
    return {"Epsilon": f"{spent:.1f} for one message, at delta {_DELTA:g}", **said}


def _settings(
    terms: Terms,
    asked: Sequence[Protection],
    budget: float,
    effort: float | None,
    seed: int,
) -> dict[str, Any]:
    local = terms.local
    return {
        "threat": terms.threat.letter,
        "threat_name": terms.threat.name,
        "labels_known": terms.labels_known,
        "batches": list(terms.batches),
        "training": list(terms.modes),
        "clients": terms.clients,
        "local": None if local is None else repr(local),
        "defenses": [each.name for each in asked],
        "loss": getattr(terms.loss, "__name__", repr(terms.loss)),
        "budget_seconds": budget if effort is None else None,
        "effort": effort,
        "seed": seed,
    }


def _subject(
    name: str | None, weights: Mapping[str, nn.Module], clients_have: Sample
) -> dict[str, Any]:
    first = next(iter(weights.values()))
    shapes = [list(each.shape[1:]) for each in leaves(clients_have.inputs)]
    return {
        "name": name or type(first).__name__,
        "weights": list(weights),
        "parameters": sum(p.numel() for p in first.parameters() if p.requires_grad),
        "examples": len(clients_have),
        "of": clients_have.name,
        "kind": clients_have.kind,
        "shapes": shapes,
        "notes": list(clients_have.notes),
    }


def _versions() -> dict[str, str]:
    return {
        "precode_lib": precode_lib.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
