"""How fast the search is, beside the breaching package and beside the machine.

    python benchmarks/bench.py --out bench.json      a quarter of an hour
    python benchmarks/bench.py --quick               a minute

Every case runs in turns with breaching's own `invertinggradients` attack and with a
plain matrix product, in one process; a table shows medians over the rounds. Nothing
here is a test: what else the machine does changes the milliseconds, and less so the
ratios. On a busy machine use `--clock process --threads 1`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch
from cases import CASES, MEMORY, QUICK, SCALING, Case, Scene, make_scene, our_steps
from measure import (
    CLOCKS,
    Clock,
    count_flops,
    interleave,
    matmul_job,
    peak_bytes,
    ratio,
)

PEER_ITERATIONS = 4  # of one call; each starts an optimizer, which costs little


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(_peak(options.peak)))
        return
    report = {"machine": machine(options), "cases": [], "scaling": [], "memory": []}
    print(describe(report["machine"]))
    for part, rows in (
        ("cases", compare(options)),
        ("scaling", scale(options)),
        ("memory", memory(options)),
    ):
        if part in options.parts:
            for row in rows:
                report[part].append(row)
                print(SHOW[part](row, first=len(report[part]) == 1), flush=True)
    if options.out:
        text = json.dumps(report, indent=1) + "\n"
        options.out.write_text(text, encoding="utf-8")


# --- what is measured -------------------------------------------------------------


def compare(options) -> Iterator[dict]:
    """Milliseconds per victim and iteration, ours and breaching's, and the rate."""
    for case in chosen(QUICK if options.quick else CASES, options):
        yield compare_one(case, options, Clock(options.clock, options.device))


def compare_one(case: Case, options, clock: Clock) -> dict:
    scene = make_scene(case, device=options.device, size=options.size)
    ours, peer = jobs(scene, options.peer)
    product, product_flops = matmul_job(options.device)
    timed = [ours, product] + ([] if peer is None else [peer])
    rounds = interleave(timed, clock, rounds=options.rounds, seconds=options.seconds)
    mine, matmul = rounds[0], product_flops / median(rounds[1])
    row = {
        "model": case.name,
        "victims": case.victims,
        "ours_ms": 1e3 * median(mine) / case.victims,
        "gflops": count_flops(ours) / median(mine) / 1e9,
        "matmul_gflops": matmul / 1e9,
        "goals": {"ratio": case.times_faster, "of_matmul": case.of_matmul},
    }
    row["of_matmul"] = row["gflops"] / row["matmul_gflops"]
    if peer is not None:
        theirs = [s * case.victims / PEER_ITERATIONS for s in rounds[2]]
        row["peer_ms"] = 1e3 * median(theirs) / case.victims
        row["ratio"] = ratio(theirs, mine)
        row["ratios"] = sorted(t / m for t, m in zip(theirs, mine, strict=True))
    return row


def jobs(scene: Scene, with_peer: bool):
    """One step of our search for all victims; a few of breaching's for one victim."""
    steps = our_steps(scene)
    if not with_peer:
        return lambda: next(steps), None
    peer = agreeing_peer(scene)
    return lambda: next(steps), lambda: peer.run(PEER_ITERATIONS)


def agreeing_peer(scene: Scene):
    """Breaching's attacker, after a look whether it minimises what we minimise."""
    from peer import Peer

    peer = Peer(scene)
    theirs = peer.run(3)
    steps = our_steps(scene, iterations=3)
    ours = [step.objective[0].item() for step in steps]
    # Its total variation counts the zeros around the picture, ours does not; after a
    # signed step, rounding decides the pixels whose slope is nearly zero.
    if any(abs(o - t) > 2e-3 for o, t in zip(ours, theirs, strict=True)):
        raise RuntimeError(f"the two minimise different things: {ours}, {theirs}.")
    return peer


def scale(options) -> Iterator[dict]:
    """Milliseconds of an iteration for more and more victims, measured in turns."""
    cases = [c for c in chosen(SCALING, options) if c.victims >= 8 or not options.quick]
    clock = Clock(options.clock, options.device)
    scenes = [make_scene(c, device=options.device, size=options.size) for c in cases]
    ours = [jobs(scene, False)[0] for scene in scenes]
    times = interleave(ours, clock, rounds=options.rounds, seconds=options.seconds / 4)
    before = None
    for case, rounds in zip(cases, times, strict=True):
        row = {"model": case.name, "victims": case.victims, "ms": 1e3 * median(rounds)}
        row["ms_per_victim"] = row["ms"] / case.victims
        row["growth"] = None if before is None else ratio(rounds, before)
        before = rounds
        yield row


def memory(options) -> Iterator[dict]:
    """The most memory of a process that observes the victims and searches a while."""
    for case, goal in MEMORY:
        if not chosen([case], options):
            continue
        name = f"{case.model}:{case.victims}:{options.size}"
        command = [sys.executable, __file__, "--peak", name]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = {"model": case.name, "victims": case.victims, "goal_gb": goal}
        yield {**row, **json.loads(output.stdout)}


def _peak(name: str) -> dict:
    model, victims, size = name.split(":")
    imported = peak_bytes()
    steps = our_steps(make_scene(Case(model, int(victims)), size=int(size)))
    for _ in range(3):
        next(steps)
    return {"imports_gb": imported / 1e9, "peak_gb": peak_bytes() / 1e9}


def chosen(cases: Sequence[Case], options) -> list[Case]:
    return [case for case in cases if options.only in (None, case.model)]


# --- how it is told ---------------------------------------------------------------


def machine(options) -> dict:
    """All that somebody who compares two reports has to know."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(options.device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "device": options.device,
        "image_size": options.size,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {n: installed(n) for n in ("torch", "precode-lib", "breaching")},
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def describe(machine: dict) -> str:
    versions = ", ".join(f"{n} {v}" for n, v in machine["versions"].items() if v)
    return (
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, "
        f"{machine['clock']} time, {versions}\n"
    )


def show_case(row: dict, *, first: bool) -> str:
    head = (
        f"{'model':18}{'victims':>8}{'ours':>11}{'breaching':>12}{'ratio':>9}"
        f"{'(goal)':>8}{'GFLOP/s':>10}{'of matmul':>11}{'(goal)':>8}\n"
        f"{'':26}{'ms per victim-iteration':>23}\n"
    )
    goals = row["goals"]
    return (head if first else "") + (
        f"{row['model']:18}{row['victims']:8}{row['ours_ms']:11.3f}"
        f"{_number(row.get('peer_ms'), '.2f'):>12}{_number(row.get('ratio'), '.3g'):>9}"
        f"{_number(goals['ratio'], 'g'):>8}{row['gflops']:10.1f}"
        f"{row['of_matmul']:11.0%}{_number(goals['of_matmul'], '.0%'):>8}"
    )


def show_scaling(row: dict, *, first: bool) -> str:
    head = f"\n{'model':18}{'victims':>8}{'ms':>11}{'per victim':>12}{'growth':>9}\n"
    return (head if first else "") + (
        f"{row['model']:18}{row['victims']:8}{row['ms']:11.2f}"
        f"{row['ms_per_victim']:12.3f}{_number(row['growth'], '.2f'):>9}"
    )


def show_memory(row: dict, *, first: bool) -> str:
    head = f"\n{'model':18}{'victims':>8}{'peak GB':>11}{'(goal)':>12}{'imports':>9}\n"
    return (head if first else "") + (
        f"{row['model']:18}{row['victims']:8}{row['peak_gb']:11.2f}"
        f"{_number(row['goal_gb'], 'g'):>12}{row['imports_gb']:9.2f}"
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


SHOW = {"cases": show_case, "scaling": show_scaling, "memory": show_memory}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer cases, shorter rounds")
    add("--only", metavar="MODEL", help="smlp, dmlp, lenet or resnet20_4")
    add("--parts", nargs="+", default=list(SHOW), choices=list(SHOW))
    add("--out", type=Path, help="where to write everything as JSON")
    add("--clock", choices=list(CLOCKS), default="wall")
    add("--threads", type=int, help="torch's own choice if not given")
    add("--rounds", type=int, help="how often each job gets its turn")
    add("--seconds", type=float, help="how long a turn takes, about")
    add("--device", default="cpu")
    add("--size", type=int, default=32, help="side of the pictures")
    add("--no-peer", dest="peer", action="store_false", help="without breaching")
    add("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.seconds = options.seconds or (0.3 if options.quick else 1.0)
    return options


if __name__ == "__main__":
    main()
