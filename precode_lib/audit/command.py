"""`precode audit`: arguments in, a report out; without torch until it runs."""

import argparse
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from precode_lib.audit.criteria import DEFAULT, FIGURES, criterion
from precode_lib.audit.threats import ACTIVE, THREATS

if TYPE_CHECKING:
    from precode_lib.audit.report import CaseReport, Report

_QUICK_SECONDS = 15.0  # of searches; with torch's start a run stays under half a minute
_QUICK_CLIENTS = 2
_LARGEST = 2048  # pixels a side: what a model of pictures takes, and memory holds

_CODES = (
    "Exit codes: 0 nothing that was tried broke the rule (no promise), 1 the rule "
    "fired: these gradients leak, 2 the audit could not run or could not say anything, "
    "3 stopped before the end (what was finished is reported, and the same command "
    "goes on from there)."
)


def add(commands) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "audit",
        help="try what applies to a model's gradients, and report what came back",
        description="May these gradients leave the client? Plays clients of a model, "
        "tries the attacks that apply, and reports what came back.",
        epilog=_CODES,
    )
    parser.set_defaults(command=run)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="my_app.model:make_model, a function of no arguments; or torchvision:NAME",
    )
    _add_subject(parser)
    _add_protocol(parser)
    _add_audit(parser)


def _add_subject(parser: argparse.ArgumentParser) -> None:
    whose = parser.add_argument_group("what is audited")
    examples = whose.add_mutually_exclusive_group(required=True)
    examples.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="in class folders, or loose"
    )
    examples.add_argument(
        "--data",
        metavar="NAME",
        help="my_app.data:make_examples, which gives (inputs, labels)",
    )
    whose.add_argument("--size", type=_side, help="scale pictures to SIZE x SIZE")
    for name in ("mean", "std"):
        whose.add_argument(
            f"--{name}",
            type=_reals,
            metavar="0.5,0.5,0.5",
            help="of the normalisation; default: the pictures' own",
        )
    whose.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a state dict; fresh weights are audited as well",
    )
    whose.add_argument("--classes", type=_count, help="of a torchvision model")
    whose.add_argument(
        "--loss",
        metavar="NAME",
        help="my_app.loss:per_example, (model, inputs, labels) -> (N,); default: "
        "cross-entropy",
    )


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how clients train, and who listens")
    how.add_argument(
        "--batch",
        type=_counts,
        default=(1,),
        metavar="1,8",
        help="examples behind one message; default 1",
    )
    how.add_argument(
        "--clients", type=_count, help="of a case, at most; default 8, with --quick 2"
    )
    how.add_argument(
        "--mode",
        choices=("train", "eval", "both"),
        default="train",
        help="of the model; default train, as clients have it",
    )
    how.add_argument("--steps", type=_count, default=1, help="local steps; default 1")
    how.add_argument("--lr", type=float, help="of the local steps")
    how.add_argument("--local-batch", type=_count, help="examples of one local step")
    how.add_argument(
        "--defense",
        action="append",
        default=[],
        metavar="noise:1e-3",
        help="noise:STD, laplace:SCALE, clip:NORM, prune:SHARE, quantise:BITS, "
        "precode:K:BETA, dp-sgd:CLIP:MULTIPLIER, or my_app.defense:blur; may be given "
        "several times",
    )
    how.add_argument(
        "--threat",
        default="C",
        choices=[*THREATS, *ACTIVE],
        help="what the attacker knows, by the letters of Carletti et al. 2025: "
        + ", ".join(f"{t.letter} {t.name}" for t in THREATS.values())
        + "; default C",
    )
    how.add_argument(
        "--labels",
        choices=("known", "hidden"),
        default="known",
        help="whether the attacker knows them; default known, the worst case",
    )


def _add_audit(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("the audit")
    what.add_argument(
        "--budget",
        type=_seconds,
        default=600.0,
        metavar="10m",
        help="for all searches, about: 90s, 10m, 2h; default 10m",
    )
    what.add_argument(
        "--effort",
        type=float,
        metavar="0.5",
        help="instead of a budget: the share of its full steps that each search makes, "
        "the same on every machine",
    )
    what.add_argument(
        "--quick",
        action="store_true",
        help="two clients and seconds: for every commit, not for a verdict",
    )
    what.add_argument("--json", type=Path, metavar="FILE", help="the report as JSON")
    what.add_argument("--html", type=Path, metavar="FILE", help="the report as a page")
    what.add_argument(
        "--fail-if",
        type=_rule,
        default=DEFAULT,
        metavar="RULE",
        help=f"default {DEFAULT!r}; of {', '.join(FIGURES)}",
    )
    what.add_argument("--seed", type=int, default=0, help="of everything; default 0")
    what.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="for what is unfinished; default audits/ in the cache folder",
    )
    what.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Audit, write what was asked for, print the verdict; returns the exit code."""
    for file in (options.json, options.html):
        _check_writable(file)
    _check_local(options)
    _check_two(options)
    report = _guarded(options)
    written = [
        _write(options.json, report.to_json),
        _write(options.html, lambda: _page(report)),
    ]
    for line in summary(report):
        print(line)
    for file in filter(None, written):
        print(file)
    return report.exit_code


def _guarded(options: argparse.Namespace) -> "Report":
    """The audit; whatever stops it is one line, and never a verdict."""
    try:
        return _audited(options)
    except (ValueError, OSError, KeyboardInterrupt):
        raise
    except SystemExit as problem:
        raise ValueError(
            f"the model, its loss or a defense ended the program ({problem})."
        ) from None
    except BaseException as problem:
        told = str(problem).strip().split("\n")[0][:300]
        raise ValueError(
            f"the audit could not go on: {type(problem).__name__}: {told}"
        ) from problem


def _audited(options: argparse.Namespace) -> "Report":
    from precode_lib.audit import loading
    from precode_lib.audit.auditing import audit
    from precode_lib.audit.protections import protection
    from precode_lib.bottleneck import per_example_loss
    from precode_lib.data import cache_folder
    from precode_lib.federated import LocalTraining

    asked = [
        loading.named(each, "a defense") if _is_own(each) else protection(each)
        for each in options.defense
    ]
    loss = per_example_loss
    if options.loss:
        loss = loading.function(options.loss, "--loss", "(model, inputs, labels)")
    models = _models(options, loading)
    if options.pictures is not None:
        clients_have = loading.pictures(
            options.pictures, size=options.size, mean=options.mean, std=options.std
        )
    else:
        clients_have = loading.data(options.data)
    for each in models.values():
        clients_have = loading.fitted(clients_have, each, seed=options.seed)
    local = None
    if options.steps > 1:
        local = LocalTraining(options.steps, options.lr, options.local_batch)
    modes = {"train": (True,), "eval": (False,), "both": (True, False)}[options.mode]
    clients = options.clients or (_QUICK_CLIENTS if options.quick else 8)
    budget = min(options.budget, _QUICK_SECONDS) if options.quick else options.budget
    return audit(
        models,
        clients_have,
        loss=loss,
        batch=options.batch,
        clients=clients,
        training=modes,
        local=local,
        defense=asked,
        threat_letter=options.threat,
        labels_known=options.labels == "known",
        budget=budget,
        effort=options.effort,
        accuracy=not options.quick,
        fail_if=options.fail_if,
        seed=options.seed,
        folder=options.work or cache_folder() / "audits",
        tell=_silent if options.quiet else _Line(),
        name=options.model,
        command=_command(),
    )


def _models(options: argparse.Namespace, loading) -> dict:
    def fresh():
        return loading.model(options.model, seed=options.seed, classes=options.classes)

    if options.weights is None:
        return {"fresh": fresh()}
    return {"given": loading.weights(fresh(), options.weights), "fresh": fresh()}


def _is_own(text: str) -> bool:
    """Whether a defense is a function of one's own: its first part is a module."""
    from precode_lib.audit.protections import NAMES

    is_name = re.match(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", text)
    return bool(is_name) and text.partition(":")[0] not in NAMES


def summary(report: "Report") -> list[str]:
    """The verdict and the cases' figures, for a terminal."""
    lines = [f"{report.verdict.upper()}: {report.sentence()}", f"rule: {report.rule}"]
    for case in report.cases:
        role = "control: " if case.is_control else ""
        lines.append(f"{role}{case.name}: {_told(case)}")
    return lines


def _told(case: "CaseReport") -> str:
    """A case in a line."""
    figures, said = case.figures, "nothing was tried that could bring an example back"
    if case.interval is not None:
        low, high = case.interval
        said = (
            f"{figures['recovered']} of {case.examples} came back (95 %: {low:.0%} to "
            f"{high:.0%}), {figures['certified']} with proof"
        )
    labels = figures["labels"]
    return said if labels is None else f"{said}; labels {labels:.0%}"


def _page(report: "Report") -> str:
    from precode_lib.audit.pages import page

    return page(report)


def _write(file: Path | None, text) -> Path | None:
    from precode_lib.basics.files import atomic_file

    if file is None:
        return None
    made = text()
    whole = file.expanduser().resolve()  # of a link, what it points to
    try:
        if whole.exists() and not whole.is_file():  # a pipe, a device
            whole.write_text(made, encoding="utf-8")
            return file
        with atomic_file(whole) as partial:
            partial.write_text(made, encoding="utf-8")
    except OSError as problem:
        raise ValueError(f"{file} cannot be written: {problem.strerror}.") from None
    return file


def _check_two(options: argparse.Namespace) -> None:
    """Refuse one file for two reports."""
    both = [f.expanduser().resolve() for f in (options.json, options.html) if f]
    if len(both) == 2 and both[0] == both[1]:
        raise ValueError("--json and --html name one file; give each its own.")


def _check_writable(file: Path | None) -> None:
    """Find out now, not when the report is made."""
    if file is None:
        return
    if file.is_dir():
        raise ValueError(f"{file} is a folder; name a file in it.")
    folder = file.expanduser().absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{file.name}.probe"
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise ValueError(f"{file} cannot be written: {problem.strerror}.") from None


def _check_local(options: argparse.Namespace) -> None:
    if options.steps > 1 and options.lr is None:
        raise ValueError("--steps needs the rate of the local steps: --lr 0.1.")
    if options.steps == 1 and options.lr is not None:
        raise ValueError(
            "--lr is of local steps: give --steps 2 or more, or leave it out."
        )


class _Line:
    """Says what is being done: on one line of a terminal, else now and then."""

    def __init__(self):
        self._is_terminal = sys.stderr.isatty()
        self._said = 0.0

    def __call__(self, sentence: str) -> None:
        now = time.monotonic()
        if self._is_terminal:
            print(f"\r\x1b[K{sentence[:100]}", end="", file=sys.stderr, flush=True)
        elif now - self._said > 30:
            self._said = now
            print(sentence, file=sys.stderr, flush=True)


def _silent(sentence: str) -> None:
    pass


def _command() -> str:
    import shlex

    return shlex.join(["precode", *sys.argv[1:]])


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on is wanted, got {text!r}")
    return int(text)


def _side(text: str) -> int:
    side = _count(text)
    if side > _LARGEST:
        raise argparse.ArgumentTypeError(f"at most {_LARGEST} pixels, got {side}")
    return side


def _counts(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_count(part.strip()) for part in text.split(",")))


def _reals(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"numbers with commas are wanted, a number for each channel; got {text!r}"
        ) from None


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", text.strip())
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(
            f"a time such as 90s, 10m or 2h is wanted, got {text!r}"
        )
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[found[2]]


def _rule(text: str):
    try:
        return criterion(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
