"""What needs no search: labels, and whatever closed forms a model allows."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from precode_lib.attacks import (
    bias_sign_labels,
    closed_forms,
    expected_count_labels,
    label_accuracy,
    multi_hot_labels,
)
from precode_lib.audit.findings import (
    DONE,
    EXACT,
    FAILED,
    LABEL,
    REFUSED,
    TROUBLE,
    Finding,
    first_line,
)
from precode_lib.audit.judging import judge, truth
from precode_lib.audit.scenes import Scene


def read_exactly(scene: Scene) -> Iterator[Finding]:
    """The labels, then each closed form that applies; one that there is none."""
    yield labels(scene)
    began = time.monotonic()
    try:
        leaks = closed_forms(scene.seen)
    except TROUBLE as problem:
        yield _absent(
            scene, FAILED, f"the closed forms could not be tried: {first_line(problem)}"
        )
        return
    if not leaks:
        yield _absent(scene, REFUSED, "no parameter's gradient is one of its input's")
    for leak in leaks:
        yield _judged(scene, leak, began)
        began = time.monotonic()


def labels(scene: Scene) -> Finding:
    """The labels, by the first rule that applies to this model and loss."""
    began, reasons = time.monotonic(), []
    for name, rule in _rules(scene):
        try:
            found = rule(scene.seen)
        except TROUBLE as problem:
            reasons.append(f"{name}: {first_line(problem)}")
            continue
        share = _share(found, _labels(scene))
        return Finding(
            scene.case.name,
            f"labels by {name}",
            LABEL,
            "labels",
            share=share,
            seconds=time.monotonic() - began,
        )
    why = "; ".join(dict.fromkeys(reasons))
    return Finding(scene.case.name, "labels", LABEL, "labels", REFUSED, why)


def _rules(scene: Scene) -> list[tuple[str, Callable]]:
    several = ("the signs of the last bias, one by one", multi_hot_labels)
    if scene.case.batch == 1:
        return [("the sign of the last bias", bias_sign_labels), several]
    public = scene.public
    images = None if public is None else public.inputs[:256]

    def by_counts(seen):
        return expected_count_labels(seen, images=images)

    return [("the counts in the last bias", by_counts), several]


def _labels(scene: Scene) -> Tensor:
    return scene.sample.labels.unflatten(0, (scene.clients, scene.case.batch))


def _share(found: Tensor, true: Tensor) -> float:
    """The share that is right, in whatever order a batch came."""
    if true.dim() == 2 and true.dtype == torch.int64:
        return label_accuracy(found.cpu(), true).mean().item()
    same = found.cpu().to(torch.float64) == true.to(torch.float64)
    return same.flatten(2).all(2).double().mean().item()


def _absent(scene: Scene, state: str, why: str) -> Finding:
    return Finding(scene.case.name, "closed forms", EXACT, "example", state, why)


def _judged(scene: Scene, leak, began: float) -> Finding:
    """One closed form, compared with what the clients really had."""
    common = {
        "case": scene.case.name,
        "attack": leak.name,
        "group": EXACT,
        "gives": leak.gives,
        "parameter": leak.parameter,
    }
    try:
        return Finding(**common, state=DONE, **_compared(scene, leak, began))
    except TROUBLE as problem:
        return Finding(**common, state=FAILED, why=first_line(problem))


def _compared(scene: Scene, leak, began: float) -> dict:
    """What of it is right, in the fields of a finding."""
    seconds = time.monotonic() - began
    proven = leak.result.certified
    if leak.gives == "tokens":
        return {**_tokens(scene, leak.result.values, proven), "seconds": seconds}
    if leak.gives == "features":  # an inner layer's: nobody's example
        return {"certified": proven.tolist(), "seconds": seconds}
    guesses = leak.result.values.unflatten(0, (scene.clients, -1))
    compared = judge(scene, guesses)
    pairs = zip(compared.recovered, proven.tolist(), strict=True)
    return {
        "recovered": compared.recovered,
        # A proof of something else, such as of a mixture, is none of the example.
        "certified": [is_right and is_proven for is_right, is_proven in pairs],
        "ssim": compared.ssim,
        "error": compared.error,
        "shown": compared.shown,
        "seconds": seconds,
    }


def _tokens(scene: Scene, found: Sequence[Tensor], proven: Tensor) -> dict:
    """Of each client's examples, whether the set of their tokens is the right one."""
    batch = scene.case.batch
    true = truth(scene.sample).unflatten(0, (scene.clients, batch))
    pairs = zip(found, true, strict=True)
    right = [set(f.tolist()) == set(t.flatten().tolist()) for f, t in pairs]
    of_each = [each for each in right for _ in range(batch)]
    both = zip(of_each, proven.repeat_interleave(batch).tolist(), strict=True)
    return {
        "recovered": of_each,
        "certified": [is_right and is_proven for is_right, is_proven in both],
        "share": sum(right) / len(right),
    }
