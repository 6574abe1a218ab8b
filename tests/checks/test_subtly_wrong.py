"""Answers that are nearly right, or right in another form, and what is said of them."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import unusual
from marking import assert_refused, assert_right
from right_answers import failures, marker, solved
from unusual import in_numpy


def solution(name):
    chapter, _, exercise = name.partition(".")
    return solved(chapter)[exercise][1][0]


def then(name, change):
    """The solution, with something done to what it returns."""
    return lambda *inputs: change(solution(name)(*inputs))


def largest_remainder(g, p, B):
    expected = B * (p - g)
    counts = expected.floor().clamp(min=0)
    order = (expected - counts).argsort(descending=True)
    counts[order[: max(0, int(B - counts.sum()))]] += 1
    return counts


def without_the_guard(g, p, B):
    counts = (-B * g).ceil().clamp(min=0)
    while counts.sum() < B:
        counts[(B * (p - g) - counts).argmax()] += 1
    return counts


def below_a_threshold(gradient, ratio):
    num = int(ratio * gradient.numel())
    return gradient * (gradient.abs() > gradient.abs().flatten().sort().values[num - 1])


def rounded_number(gradient, ratio):
    flat = gradient.flatten().clone()
    flat[flat.abs().argsort()[: round(ratio * len(flat))]] = 0
    return flat.view(gradient.shape)


def kept_number_cut_off(gradient, ratio):
    flat = gradient.flatten()
    kept = flat.abs().topk(int((1 - ratio) * len(flat))).indices
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(gradient)


def away_from_zero(gradient, bits):
    step = gradient.abs().max() / (2 ** (bits - 1) - 1)
    return gradient.sign() * (gradient.abs() / step).ceil().nan_to_num() * step


def ssim_of_all(x, y, span):
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    cov = ((x - x.mean()) * (y - y.mean())).mean()
    luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    return luminance * (2 * cov + c2) / (x.var(correction=0) + y.var(correction=0) + c2)


def rate_of_best(similarity, worth):
    from itertools import permutations

    rows = range(len(similarity))
    orders = (
        [similarity[i, j].item() for i, j in enumerate(o)] for o in permutations(rows)
    )
    best = max(orders, key=worth)
    return sum(s >= 0.6 for s in best) / len(best)


def greedy(similarity):
    left, found = similarity.clone(), []
    for row in left:
        found.append(row.max().item())
        left[:, int(row.argmax())] = -1
    return sum(s >= 0.6 for s in found) / len(found)


def clipped_by_largest(gradients, limit, multiplier, noise):
    lengths = gradients.abs().amax(1, keepdim=True)
    clipped = gradients * limit / lengths.clamp(min=limit)
    return (clipped.sum(0) + multiplier * limit * noise) / len(gradients)


def noise_without_limit(gradients, limit, multiplier, noise):
    lengths = gradients.norm(dim=1, keepdim=True)
    clipped = gradients * limit / lengths.clamp(min=limit)
    return (clipped.sum(0) + multiplier * noise) / len(gradients)


def total_least_squares(dW, db):
    direction = torch.linalg.svd(torch.cat([dW, db[:, None]], 1)).Vh[0]
    return direction[:-1] / direction[-1]


def unweighted(theta, clients, lr, steps):
    return sum(
        solution("federated_learning.fedavg")(theta, [c], lr, steps) for c in clients
    ) / len(clients)


def other_triangle(messages, masks):
    sent = messages.clone()
    for w in range(len(messages)):
        for v in range(w):
            sent[v] += masks[w, v]
            sent[w] -= masks[w, v]
    return sent


def strict_in_both(leaks, accuracies):
    rows = list(zip(leaks, accuracies, strict=True))
    return [
        j
        for j, (leak, gain) in enumerate(rows)
        if not any(a < leak and b > gain for a, b in rows)
    ]


def two_sided(victims):
    return 1 - 0.025 ** (1 / victims)


WRONG = {
    "what_a_gradient_knows.closed_form": [
        lambda dW, db: dW[db.argmax()] / db[db.argmax()],
        then("what_a_gradient_knows.closed_form", lambda x: x + 1e-3),
    ],
    "labels.any_features": [
        lambda dW: int(dW.sum(1).abs().argmax()),
        lambda dW: int(dW[:, 0].abs().argmax()),
        lambda dW: int(dW.sum(1).argmin()),
    ],
    "labels.batch_counts": [largest_remainder, without_the_guard],
    "compression.pruned": [below_a_threshold, rounded_number, kept_number_cut_off],
    "compression.quantised": [
        then("compression.quantised", lambda g: g.half()),
        away_from_zero,
        then("compression.quantised", lambda g: g + 99j),
    ],
    "measuring_leakage.window_ssim": [
        ssim_of_all,
        then("measuring_leakage.window_ssim", lambda ssim: max(0, ssim)),
    ],
    "measuring_leakage.success_rate": [
        lambda table: rate_of_best(table - 1e-9, sum),
        greedy,
        lambda table: rate_of_best(table, math.prod),
        lambda table: rate_of_best(table, lambda best: sum(s * s for s in best)),
    ],
    "noise.private_mean": [clipped_by_largest, noise_without_limit],
    "noise.all_rows": [
        total_least_squares,
        lambda dW, db: db.sign() @ dW / db.abs().sum(),
    ],
    "is_it_safe.seen_alone": [
        lambda dW, db: dW[db != 0] / db[db != 0, None],
        lambda dW, db: (
            (dW[db != 0] / db[db != 0, None]).round(decimals=3).unique(dim=0)
        ),
        lambda dW, db: torch.zeros(0, dW.shape[1]),
        lambda dW, db: [],
    ],
    "ten_in_a_batch.kept": [
        lambda L, Q: ((L @ Q).abs() <= 1e-6).double().mean(0) >= 1 / 3,
        lambda L, Q: [True] * Q.shape[1],
    ],
    "ten_in_a_batch.unmix": [
        lambda L, R, Q, g_b: solution("ten_in_a_batch.unmix")(L, R, Q, g_b.abs()),
        lambda L, R, Q, g_b: torch.linalg.inv(Q / Q.norm(dim=0)) @ R,
    ],
    "federated_learning.masked": [other_triangle, lambda messages, masks: messages],
    "federated_learning.fedavg": [unweighted],
    "transformations.outcomes": [
        then(
            "transformations.outcomes",
            lambda found: [[(i, 1.9 * s) for i, s in steps] for steps in found],
        ),
        then(
            "transformations.outcomes",
            lambda found: [[(i + 0.5, s) for i, s in steps] for steps in found],
        ),
        then("transformations.outcomes", lambda found: [{*s} for s in found]),
        then("transformations.outcomes", lambda found: found + found[:1]),
    ],
    "transformations.shift_back": [
        lambda found, columns: found.roll(columns, -1),
        in_numpy(lambda found, columns: np.roll(found, columns, axis=-1)),
    ],
    "the_bill.front": [
        strict_in_both,
        lambda leaks, accuracies: [0],
        then("the_bill.front", lambda rows: [row + 0.5 for row in rows]),
        then("the_bill.front", lambda rows: [True for row in rows]),
    ],
    "judging.verdict": [
        lambda control, oracle, attacks, victims: solution("judging.verdict")(
            control, oracle, attacks[:1], victims
        ),
        lambda control, oracle, attacks, victims: solution("judging.verdict")(
            control[:1], oracle[:1], [counts[:1] for counts in attacks], victims
        ),
        then("judging.verdict", str.capitalize),
    ],
    "judging.to_match": [
        then("judging.to_match", lambda names: [*names, *names[:1]]),
        lambda heard: [n for n, v in heard.items() if v.ndim == 1 or v[0].all()],
    ],
    "real_client.gradient": [
        lambda u, w, lr, d, m, b: solution("real_client.gradient")(
            u, w, lr, d, m, None
        ),
        lambda u, w, lr, d, m, b: (u - m * (0 if b is None else b)) / lr - d * w,
    ],
    "real_client.picture": [
        lambda dW, db, W, b, lr, d, n: solution("real_client.picture")(
            dW, db, W, b, lr, d, n - 1
        ),
        then("real_client.picture", torch.abs),
    ],
    "real_federation.gradients": [
        lambda sent, back, names, lr: solution("real_federation.gradients")(
            sent, back, names[:1], lr
        ),
        lambda sent, back, names, lr: {  # the last digits are what counts
            n: (sent[n].half() - back[n].half()).double() / lr for n in names
        },
    ],
    "real_federation.blurred": [
        lambda sent, back, norm, noise: solution("real_federation.blurred")(
            sent, back, 2 * norm, noise
        ),
        lambda sent, back, norm, noise: solution("real_federation.blurred")(
            sent, back, norm, {name: 0.99 * each for name, each in noise.items()}
        ),
    ],
    "epsilon.bound": [
        lambda kappa, m, T: solution("epsilon.bound")(kappa, m, max(T - 1, 1)),
        then("epsilon.bound", lambda share: min(1.0, share + 1e-3)),
    ],
    "epsilon.posterior": [
        then("epsilon.posterior", lambda p: p * 1.01),
        lambda seen, gradients, C, m, prior: solution("epsilon.posterior")(
            seen, gradients, C, m, prior.sqrt()
        ),
    ],
    "audit.highest": [
        lambda found, of: 1 - 0.05 ** (1 / of),
        lambda found, of: solution("audit.highest")(max(found - 1, 0), of),
    ],
    "audit.leaking": [
        lambda report: solution("audit.leaking")({"cases": report["cases"][:1]}),
        then("audit.leaking", lambda names: [*names, *sorted(names)[:1]]),
    ],
    "audit.signs": [torch.sign, then("audit.signs", lambda sent: sent.abs())],
    "which_distance.outside_the_cell": [
        lambda guess, shared, step: ((guess - shared) / step).round().square().sum(1),
        then("which_distance.outside_the_cell", lambda values: values.sqrt()),
    ],
    "which_distance.mixture": [
        lambda guess, shared, ratio, scale: torch.minimum(
            shared.abs() / scale - math.log(ratio),
            (shared - guess).abs() / scale - math.log(1 - ratio),
        ).sum(1),
        then("which_distance.mixture", lambda values: values - values.min()),
    ],
    "evidence.highest_rate": [lambda victims: 3 / victims, two_sided],
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        pytest.param(name, answer, id=f"{name}-{number}")
        for name, answers in WRONG.items()
        for number, answer in enumerate(answers)
    ],
)
def test_a_nearly_right_function_is_refused_whatever_is_drawn(name, answer):
    check = marker(name)
    for seed in range(8):
        verdict = check.judge(answer, generator=torch.Generator().manual_seed(seed))
        assert verdict.state == "wrong", (seed, verdict)


BY_HAND = 1, [0.3, 0.1, 0.6], [1, 3, 0], [0, 2, 0]


def by_hand(place, value):
    return [*BY_HAND[:place], value, *BY_HAND[place + 1 :]]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, torch.tensor(1)),
        (0, np.int64(1)),
        (0, True),
        (0, 1.0),
        (1, [Fraction(3, 10), Fraction(1, 10), Fraction(3, 5)]),
        (1, np.array([0.6, 0.1, 0.3])[::-1]),
        (1, torch.tensor([0.3, 0.1, 0.6])),
        (2, (1, 3, 0)),
    ],
)
def test_numbers_of_any_kind_by_hand_are_right(place, value):
    assert_right(marker("labels.by_hand"), *by_hand(place, value))


@pytest.mark.parametrize(
    ("place", "value", "hint"),
    [
        (0, 1 + 99j, "should be real"),
        (0, "1", "leave out the quotation marks"),
        (0, [1], "should be a number"),
        (1, ["0.3", "0.1", "0.6"], "should be a tensor of shape"),
        (1, [[0.3], [0.1], [0.6]], r"`.reshape\(3\)`"),
        (1, torch.tensor([0.3, 0.1, 0.6]) + 99j, "should be real"),
        (2, {1, 3, 0}, "has no order: use a list"),
    ],
)
def test_what_is_no_number_by_hand_is_told_what_to_do(place, value, hint):
    assert_refused(marker("labels.by_hand"), *by_hand(place, value), hint=hint)


def test_a_range_is_a_list_of_numbers():
    answers = 1, [0.3, 0.1, 0.6], [1, 3, 0], range(3)
    assert_refused(marker("labels.by_hand"), *answers, hint="whatever p is")


@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        set,
        lambda rows: tuple(reversed(rows)),
        lambda rows: [np.int64(row) for row in rows],
        lambda rows: [torch.tensor(row) for row in rows],
        lambda rows: [float(row) for row in rows],
        np.array,
        torch.tensor,
        lambda rows: dict.fromkeys(rows).keys(),
    ],
)
def test_rows_in_any_order_and_collection_are_the_same_rows(form):
    assert_right(marker("the_bill.front"), then("the_bill.front", form))


@pytest.mark.parametrize(
    "form", [set, tuple, lambda s: [*s][::-1], ", ".join, str.lower]
)
def test_letters_in_any_collection_are_the_same_letters(form):
    leaks, front, later = solved("the_bill")["by_hand"][1]
    assert_right(marker("the_bill.by_hand"), leaks, form(front), form(later))


def test_no_sure_network_rounds_the_labels_entry_to_zero():
    label = "what_a_gradient_knows.label"
    assert failures(label, (unusual.only_negative,), 100) == []


def test_no_two_mixtures_agree_by_chance():
    for answer in unusual.RIGHT["is_it_safe.seen_alone"]:
        assert failures("is_it_safe.seen_alone", (answer,), 60) == []
