"""What needs no search: labels, and whatever closed forms a model allows."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from precode_lib.attacks import (
    Leak,
    Leaked,
    Tokens,
    bias_sign_labels,
    closed_forms,
    expected_count_labels,
    label_accuracy,
    multi_hot_labels,
)
from precode_lib.audit.findings import (
    BLIND,
    DONE,
    EXACT,
    FAILED,
    LABEL,
    REFUSED,
    TROUBLE,
    Finding,
    first_line,
)
from precode_lib.audit.judging import judge, judge_part
from precode_lib.audit.samples import leaves
from precode_lib.audit.scenes import Scene

FEATURES, PICTURE = "features", "picture"  # what a closed form gives


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
    several = ("each label's sign in the last bias", multi_hot_labels)
    if scene.case.batch == 1:
        return [("the sign of the last bias", bias_sign_labels), several]
    public = scene.public
    images = None if public is None else public.inputs[:256]

    def by_counts(seen):
        return expected_count_labels(seen, images=images)

    return [("the counts in the last bias", by_counts)]


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


def _judged(scene: Scene, leak: Leak, began: float) -> Finding:
    """One closed form, compared with what the clients really had."""
    common = {
        "case": scene.case.name,
        "attack": leak.name,
        "group": EXACT,
        "gives": _gives(scene, leak),
        "parameter": leak.parameter,
    }
    try:
        read = leak.read(scene.seen)
        why = _blindness(read)
        if why is not None:
            return Finding(**common, state=BLIND, why=why)
        return Finding(**common, state=DONE, **_compared(scene, read, began))
    except TROUBLE as problem:
        return Finding(**common, state=FAILED, why=first_line(problem))


def _blindness(read: Leaked | Tokens) -> str | None:
    """Why nothing could have been read here, if that is so."""
    if isinstance(read, Leaked):
        return "its gradient is zero" if bool(read.silent.all()) else None
    if bool(read.occurs.all()):
        return "every row is sent, as behind noise: none tells which tokens occurred"
    if bool(read.occurs.any()) or bool(read.certified.any()):
        return None
    return "its gradient has too few directions to tell one token from another"


def _gives(scene: Scene, leak: Leak) -> str:
    """What it gives in the words of the sample: a whole example is a row, say."""
    return scene.sample.kind if leak.gives == PICTURE else leak.gives


def _compared(scene: Scene, read: Leaked | Tokens, began: float) -> dict:
    """What of it is right, in the fields of a finding."""
    seconds = time.monotonic() - began
    if isinstance(read, Tokens):
        return {**_tokens(scene, read), "seconds": seconds}
    proven = _proven(scene, read)
    if read.gives == FEATURES:  # an inner layer's: nobody's example
        return {"certified": proven.tolist(), "seconds": seconds}
    if read.images is None or not (read.is_exact or scene.sample.kind == "picture"):
        compared = judge_part(scene, read)
    else:
        compared = judge(scene, read.images.reshape(scene.clients, -1, *_shape(scene)))
    of_each = proven.repeat_interleave(scene.case.batch).tolist()
    pairs = zip(compared.recovered, of_each, strict=True)
    return {
        "recovered": compared.recovered,
        # A proof of something else, such as of a mixture, is none of the example.
        "certified": [is_right and is_proven for is_right, is_proven in pairs],
        "ssim": compared.ssim,
        "error": compared.error,
        "shown": compared.shown,
        "told": compared.told,
        "seconds": seconds,
    }


def _proven(scene: Scene, read: Leaked | Tokens) -> Tensor:
    """(V,) of each client, whether it is proven; of an altered gradient nothing is."""
    held = read.certified.cpu()
    return held if scene.case.protection.keeps_proofs else torch.zeros_like(held)


def _shape(scene: Scene) -> torch.Size:
    return scene.seen.image_shape


def _tokens(scene: Scene, read: Tokens) -> dict:
    """Of each client, whether the tokens found are its own, and how many they are.

    Right is a set without a stranger that misses one token at most: a padding's row is
    zero. Of a batch one set came back, for all of its examples together: one counts.
    """
    batch = scene.case.batch
    true = _nearest(read, scene)
    right, shares = [], []
    for found, tokens in zip(map(set, read.sets), true, strict=True):
        shares.append(len(found & tokens) / len(tokens))
        right.append(bool(found) and found <= tokens and len(tokens - found) <= 1)
    proven = _proven(scene, read).tolist()
    both = [a and b for a, b in zip(right, proven, strict=True)]
    others = [False] * (batch - 1)
    return {
        "recovered": [each for one in right for each in (one, *others)],
        "certified": [each for one in both for each in (one, *others)],
        "share": sum(shares) / len(shares),
        "told": [told for told in _in_order(read) for _ in range(batch)],
    }


def _nearest(read: Tokens, scene: Scene) -> list[set[int]]:
    """Each client's tokens: of several inputs of whole numbers those that fit best."""
    several = [
        [set(client.flatten().tolist()) for client in part.unflatten(0, cut)]
        for cut in [(scene.clients, scene.case.batch)]
        for part in leaves(scene.sample.inputs)
        if not part.is_floating_point()
    ]

    def overlap(sets: list[set[int]]) -> float:
        pairs = zip(map(set, read.sets), sets, strict=True)
        return sum(len(found & own) / max(1, len(found | own)) for found, own in pairs)

    return max(several, key=overlap)


def _in_order(read: Tokens) -> list[str]:
    """Each client's tokens: in their order where it is known, else as a set."""
    pairs = zip(read.order.tolist(), read.sets, strict=True)
    return [
        " ".join(map(str, order))
        if min(order, default=-1) >= 0
        else "{" + ", ".join(map(str, tokens)) + "}"
        for order, tokens in pairs
    ]
