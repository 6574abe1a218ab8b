"""Right answers as students write them who do not write ours.

In numpy, in double and in single precision, with loops, with lists; other ways to the
same value. Two for each function, by chapter and exercise.
"""

import copy
import itertools
import math
import statistics
from collections import OrderedDict, deque
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from precode_lib import attacks
from precode_lib.attacks.objectives import squared_distance
from precode_lib.checks import attacking


def _array(value):
    """Doubles of numpy; lists and dicts of tensors stay such."""
    if isinstance(value, torch.Tensor):
        return value.double().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, list | tuple):
        return [_array(item) for item in value]
    if isinstance(value, dict):
        return {key: _array(item) for key, item in value.items()}
    return value


def in_numpy(function):
    """The function with arrays for tensors."""
    return lambda *inputs: function(*map(_array, inputs))


def _softmax(logits, axis=-1):
    powers = np.exp(logits - logits.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def _cosine(one, other):
    return one @ other / (np.sqrt(one @ one) * np.sqrt(other @ other))


# what_a_gradient_knows


def mean_of_rows(dW, db):
    """Every row that is on, weighted by its bias."""
    weights = np.abs(db)
    on = weights > 0
    return (weights[on, None] * dW[on] / db[on, None]).sum(0) / weights.sum()


def first_row_in_lists(dW, db):
    for row, slope in zip(dW.tolist(), db.tolist(), strict=True):
        if slope != 0:
            return [entry / slope for entry in row]
    raise ValueError("no unit was on")


def only_negative(db):
    return (db < 0).nonzero().item()


def by_loop(db):
    return next(i for i, slope in enumerate(db.tolist()) if slope < -1e-6)


# labels


def odd_sign_out(dW):
    """By the sign of each row along the first right singular vector."""
    _, _, directions = np.linalg.svd(dW)
    signs = np.sign(dW @ directions[0])
    rare = -1 if (signs < 0).sum() == 1 else 1
    return np.flatnonzero(signs == rare)[0]


def against_all_others(dW):
    """The row whose products with the others are negative."""
    products = (dW @ dW.T).fill_diagonal_(0)
    return float(products.sum(1).argmin())


def counts_by_brute_force(g, p, B):
    expected = B * (p - g)
    lowest = [max(0, math.ceil(-B * slope - 1e-5)) for slope in g.tolist()]
    tries = itertools.product(*(range(low, B + 1) for low in lowest))
    sums = [counts for counts in tries if sum(counts) == B]
    return list(
        min(sums, key=lambda counts: ((expected - np.array(counts)) ** 2).sum())
    )


def counts_in_doubles(g, p, B):
    expected = B * (p - g)
    counts = np.maximum(np.ceil(-B * g - 1e-3), 0).astype(int)
    while counts.sum() < B:
        counts[np.argmax(expected - counts)] += 1
    return counts


# ten_in_a_batch


def kept_by_loops(L, Q):
    rows = [row / row.norm() for row in L if row.norm() > 1e-9 * L.norm(dim=1).max()]
    kept = []
    for q in Q.T:
        zeros = sum(abs(float(row @ q / q.norm())) <= 1e-6 for row in rows)
        kept.append(3 * zeros >= len(rows))
    return kept


def kept_in_numpy(L, Q):
    rows = L[np.linalg.norm(L, axis=1) > 1e-9 * np.linalg.norm(L, axis=1).max()]
    sizes = np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(Q, axis=0))
    return (np.abs(rows @ Q) <= 1e-6 * sizes).mean(0) >= 1 / 3


def unmixed_by_pseudoinverse(L, R, Q, g_b):
    c = np.linalg.pinv(L @ Q) @ g_b
    return np.diag(1 / c) @ np.linalg.inv(Q) @ R


def unmixed_by_shares(L, R, Q, g_b):
    c = torch.linalg.pinv(L @ Q) @ g_b
    return list(torch.linalg.pinv(L @ Q * c) @ (L @ R))


# federated_learning


def fedavg_in_numpy(theta, clients, lr, steps):
    ends = []
    for X, t in clients:
        own = theta.copy()
        for _ in range(steps):
            own -= lr * X.T @ (X @ own - t) / len(t)
        ends.append(own)
    sizes = [len(t) for _, t in clients]
    return np.average(ends, axis=0, weights=sizes)[::-1][::-1]


def fedavg_by_autograd(theta, clients, lr, steps):
    new = torch.zeros_like(theta)
    total = sum(len(t) for _, t in clients)
    for X, t in clients:
        own = theta.clone().requires_grad_()
        optimizer = torch.optim.SGD([own], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            F.mse_loss(X @ own, t).div(2).backward()
            optimizer.step()
        new += len(t) / total * own.detach()
    return list(new)


def masked_by_einsum(messages, masks):
    V = len(messages)
    signs = np.triu(np.ones((V, V)), 1)
    plus = np.einsum("vw,vwn->vn", signs, masks)
    return messages + plus - np.einsum("vw,vwn->wn", signs, masks)


def masked_as_a_list_of_tensors(messages, masks):
    sent = [message.clone() for message in messages]
    for v, w in itertools.combinations(range(len(sent)), 2):
        sent[v], sent[w] = sent[v] + masks[v, w], sent[w] - masks[v, w]
    return sent


# searching_for_the_picture


def distance_in_numpy(W, b, x, y, dW, db):
    delta = _softmax(W @ x + b) - _softmax(y)
    return ((np.outer(delta, x) - dW) ** 2).sum() + ((delta - db) ** 2).sum()


def distance_by_autograd(W, b, x, y, dW, db):
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    loss = -(y.softmax(0) * (W @ x + b).log_softmax(0)).sum()
    guess = torch.autograd.grad(loss, [W, b])
    pairs = zip(guess, (dW, db), strict=True)
    return sum(F.mse_loss(a, c, reduction="sum") for a, c in pairs).detach()


def _sigmoid_gradient(theta, x, label):
    W1, b1, W2, b2 = theta
    h = 1 / (1 + np.exp(-(W1 @ x + b1)))
    out = _softmax(W2 @ h + b2) - label
    hidden = (W2.T @ out) * h * (1 - h)
    return np.outer(hidden, x), hidden, np.outer(out, h), out


def slope_by_differences(theta, x, label, g):
    def distance(at):
        pairs = zip(_sigmoid_gradient(theta, at, label), g, strict=True)
        return sum(((a - c) ** 2).sum() for a, c in pairs)

    steps = 1e-6 * np.eye(len(x))
    return [(distance(x + step) - distance(x - step)) / 2e-6 for step in steps]


def slope_by_a_function(theta, x, label, g):
    def distance(x):
        W1, b1, W2, b2 = theta
        h = torch.sigmoid(W1 @ x + b1)
        out = (W2 @ h + b2).softmax(0) - label
        hidden = (W2.T @ out) * h * (1 - h)
        guess = torch.outer(hidden, x), hidden, torch.outer(out, h), out
        return sum((a - c).pow(2).sum() for a, c in zip(guess, g, strict=True))

    return torch.autograd.functional.jacobian(distance, x)


# matching_directions


def direction_in_numpy(guess, target, image, alpha):
    one, other = (np.concatenate([part.ravel() for part in g]) for g in (guess, target))
    tv = np.abs(np.diff(image, axis=2)).mean() + np.abs(np.diff(image, axis=1)).mean()
    return 1 - _cosine(one, other) + alpha * tv


def direction_by_sums(guess, target, image, alpha):
    inner = sum((a * b).sum() for a, b in zip(guess, target, strict=True))
    lengths = [sum(part.pow(2).sum() for part in g).sqrt() for g in (guess, target)]
    across = (image[:, :, 1:] - image[:, :, :-1]).abs().mean()
    down = (image[:, 1:] - image[:, :-1]).abs().mean()
    return (1 - inner / lengths[0] / lengths[1] + alpha * (across + down)).item()


def step_in_numpy(x, slope, lr, lower, upper):
    moved = x - lr * np.sign(slope)
    return np.clip(moved, lower[:, None, None], upper[:, None, None])[::-1][::-1]


def step_by_loops(x, slope, lr, lower, upper):
    channels = []
    for pixels, slopes, low, high in zip(x, slope, lower, upper, strict=True):
        ups, downs = (slopes < 0).to(x), (slopes > 0).to(x)
        moved = pixels + lr * ups - lr * downs
        channels.append(torch.where(moved > high, high, moved).maximum(low))
    return channels


# label_as_anchor


def anchored_in_numpy(guess, shared, logits, label, alpha):
    match = sum(((a - b) ** 2).sum() for a, b in zip(guess, shared, strict=True))
    return match + alpha * ((logits - np.eye(len(logits))[label]) ** 2).sum()


def anchored_in_single(guess, shared, logits, label, alpha):
    pairs = zip(guess, shared, strict=True)
    match = sum(F.mse_loss(a.float(), b.float(), reduction="sum") for a, b in pairs)
    onehot = F.one_hot(torch.tensor(label), len(logits))
    return match + alpha * (logits.float() - onehot).norm() ** 2


def filled_by_tile(patch, height, width):
    size = patch.shape[1]
    times = (1, -(-height // size), -(-width // size))
    return np.tile(patch, times)[:, :height, :width]


def filled_by_loops(patch, height, width):
    size = patch.shape[1]
    return [
        [[layer[i % size][j % size] for j in range(width)] for i in range(height)]
        for layer in patch.tolist()
    ]


# easy_and_hard


def batch_by_einsum(delta, x):
    return np.einsum("bm,bn->mn", delta, x) / len(x), np.mean(delta, 0)


def batch_by_loops(delta, x):
    pairs = list(zip(delta, x, strict=True))
    dW = sum(torch.outer(d, each) for d, each in pairs) / len(pairs)
    return [dW, [sum(column) / len(pairs) for column in delta.T.tolist()]]


def paired_in_numpy(a, b):
    change = b - a
    return np.array([change.mean(), change.std(ddof=1) / np.sqrt(len(change))])


def paired_by_statistics(a, b):
    change = [y - x for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    return statistics.mean(change), statistics.stdev(change) / len(change) ** 0.5


# measuring_leakage


def ssim_by_cov(x, y, span):
    (var_x, cov), (_, var_y) = np.cov(x.ravel(), y.ravel())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    above = (2 * x.mean() * y.mean() + c1) * (2 * cov + c2)
    return above / (x.mean() ** 2 + y.mean() ** 2 + c1) / (var_x + var_y + c2)


def ssim_by_skimage(x, y, span):
    from skimage.metrics import structural_similarity

    return structural_similarity(x, y, data_range=span, win_size=7)


def rate_by_assignment(similarity):
    from scipy.optimize import linear_sum_assignment

    return (similarity[linear_sum_assignment(-similarity)] >= 0.6).mean()


def rate_by_recursion(similarity):
    table = similarity.tolist()

    def best(row, left):
        if row == len(table):
            return 0.0, 0
        found = []
        for column in left:
            total, successes = best(row + 1, left - {column})
            value = table[row][column]
            found.append((total + value, successes + (value >= 0.6)))
        return max(found)

    return best(0, frozenset(range(len(table))))[1] / len(table)


# noise


def rows_by_lstsq(dW, db):
    return np.linalg.lstsq(db[:, None], dW, rcond=None)[0][0]


def rows_by_pinv_in_single(dW, db):
    return (torch.linalg.pinv(db[:, None].float()) @ dW.float())[0]


def mean_by_renorm(gradients, limit, multiplier, noise):
    clipped = torch.renorm(gradients, p=2, dim=0, maxnorm=limit)
    return (clipped.sum(0) + multiplier * limit * noise) / len(gradients)


def mean_by_loops(gradients, limit, multiplier, noise):
    total = multiplier * limit * noise
    for row in gradients:
        length = math.sqrt(row @ row)
        total = total + (row if length <= limit else row * limit / length)
    return total / len(gradients)


# compression


def pruned_by_argpartition(gradient, ratio):
    flat = gradient.ravel().copy()
    num = math.floor(ratio * flat.size)
    flat[np.argpartition(np.abs(flat), num)[:num]] = 0
    return flat.reshape(gradient.shape).tolist()


def pruned_by_topk(gradient, ratio):
    flat = gradient.flatten()
    kept = flat.abs().topk(len(flat) - int(ratio * len(flat))).indices
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(gradient)


def quantised_by_rint(gradient, bits):
    step = np.abs(gradient).max() / (2 ** (bits - 1) - 1)
    return np.rint(gradient / step) * step if step else gradient


def quantised_in_single(gradient, bits):
    g = gradient.float()
    step = g.abs().max() / (2 ** (bits - 1) - 1)
    return (torch.floor(g / step + 0.5) * step).nan_to_num()


# transformations


def back_by_padding(found, columns):
    width = found.shape[-1]
    near = max(-width, min(width, columns))
    padded = F.pad(found, (max(0, near), max(0, -near)), value=0.5)
    return padded[..., max(0, -near) : max(0, -near) + width]


def back_in_a_mirror(found, columns):
    """For pictures moved to the right: mirrored, moved back, mirrored back."""
    turned = found[..., ::-1] if columns < 0 else found
    back = np.full_like(turned, 0.5)
    away = min(abs(columns), turned.shape[-1])
    back[..., away:] = turned[..., : turned.shape[-1] - away]
    return back[..., ::-1] if columns < 0 else back


def outcomes_as_a_set(policy, signed):
    found = set()
    for row in policy:
        for signs in itertools.product((-1, 1), repeat=len(row)):
            steps = zip(row, signs, strict=True)
            found.add(tuple((i, s if i in signed else 1) for i, s in steps))
    return found


def outcomes_as_keys(policy, signed):
    return dict.fromkeys(sorted(outcomes_as_a_set(policy, signed))).keys()


def outcomes_as_arrays(policy, signed):
    return [np.array(steps) for steps in outcomes_as_a_set(policy, signed)]


# the_bill


def leak_in_numpy(ssim):
    return np.max(ssim, axis=1).mean(-1)


def leak_by_lists(ssim):
    means = []
    for defense in ssim.tolist():
        best = [max(values) for values in zip(*defense, strict=True)]
        means.append(sum(best) / len(best))
    return means


def front_by_flatnonzero(leaks, accuracies):
    leak, gain = np.array(leaks), np.array(accuracies)
    as_good = (leak[:, None] <= leak) & (gain[:, None] >= gain)
    better = (leak[:, None] < leak) | (gain[:, None] > gain)
    return list(np.flatnonzero(~(as_good & better).any(0)))


def front_as_a_set(leaks, accuracies):
    rows = list(zip(leaks, accuracies, strict=True))
    return {
        float(j)
        for j, (leak, gain) in enumerate(rows)
        if not any(a <= leak and b >= gain and (a, b) != (leak, gain) for a, b in rows)
    }


# bottleneck


def sample_by_logaddexp(encoded, epsilon):
    mean, raw = np.split(encoded, 2, axis=1)
    return mean + np.logaddexp(0, raw) * epsilon


def sample_by_loops(encoded, epsilon):
    k = epsilon.shape[1]
    rows = zip(encoded.tolist(), epsilon.tolist(), strict=True)
    return [
        [
            row[j] + (max(row[k + j], 0) + math.log1p(math.exp(-abs(row[k + j])))) * e
            for j, e in enumerate(noise)
        ]
        for row, noise in rows
    ]


def kl_in_numpy(mu, s):
    return 0.5 * (mu**2 + s**2 - np.log(s**2) - 1).sum(1)


def kl_by_distributions(mu, s):
    normal = torch.distributions.Normal
    pair = normal(mu, s), normal(torch.zeros_like(mu), torch.ones_like(s))
    return list(torch.distributions.kl_divergence(*pair).sum(1))


# any_model


def forward_in_numpy(features, weights, noise):
    flat = features.reshape(len(features), -1)
    encoded = flat @ weights["encoder.weight"].T + weights["encoder.bias"]
    k = noise.shape[1]
    code = encoded[:, :k] + np.log1p(np.exp(encoded[:, k:])) * noise
    decoded = code @ weights["decoder.weight"].T + weights["decoder.bias"]
    return decoded.reshape(features.shape)


def forward_by_layers(features, weights, noise):
    n, k = features[0].numel(), noise.shape[1]
    layers = nn.ModuleDict({"encoder": nn.Linear(n, 2 * k), "decoder": nn.Linear(k, n)})
    layers.load_state_dict(weights)
    with torch.no_grad():
        encoded = layers["encoder"](features.flatten(1))
        code = torch.addcmul(encoded[:, :k], F.softplus(encoded[:, k:]), noise)
        return list(layers["decoder"](code).unflatten(1, features.shape[1:]))


def insert_by_walking(model, name, module):
    """Goes down by getattr, and builds the pair by add_module."""
    model = copy.deepcopy(model)
    *path, last = name.split(".")
    parent = model
    for part in path:
        parent = getattr(parent, part)
    pair = nn.Sequential()
    pair.add_module("bottleneck", module)
    pair.add_module("layer", getattr(parent, last))
    parent._modules[last] = pair
    return model


def insert_by_rebuilding(model, name, module):
    """Every layer that was is copied into a new Sequential."""

    def rebuilt(part, path):
        if path == name:
            return nn.Sequential(OrderedDict(bottleneck=module, layer=part))
        if not name.startswith(path):
            return part
        children = {
            n: rebuilt(child, f"{path}.{n}".lstrip("."))
            for n, child in part.named_children()
        }
        return nn.Sequential(OrderedDict(children))

    return rebuilt(copy.deepcopy(model), "")


# attacking


def heard_in_numpy(guesses, target, keep):
    def flat(g):
        return np.concatenate([g[name].ravel() for name in keep])

    return np.mean([1 - _cosine(flat(guess), flat(target)) for guess in guesses])


def heard_by_sums(guesses, target, keep):
    total = 0.0
    for guess in guesses:
        inner = sum((guess[n] * target[n]).sum() for n in keep)
        one, other = (sum(g[n].square().sum() for n in keep) for g in (guess, target))
        total += float(1 - inner / (one * other).sqrt())
    return total / len(guesses)


def noise_gradient_by_formula(mu, s, epsilon, heard):
    code = mu + s * epsilon
    length, other = np.sqrt(code @ code), np.sqrt(heard @ heard)
    cosine = code @ heard / length / other
    return -s * (heard / other - cosine * code / length) / length


def noise_gradient_in_doubles(mu, s, epsilon, heard):
    mu, s, epsilon, heard = (v.double() for v in (mu, s, epsilon, heard))

    def distance(e):
        return 1 - F.cosine_similarity(mu + s * e, heard, dim=0)

    return torch.autograd.functional.jacobian(distance, epsilon)


def match_by_pinv(A, B, heard, noise=None):
    if noise is not None:
        return np.linalg.pinv(A) @ (heard - B @ noise)
    both = np.concatenate([A, B], axis=1)
    return (np.linalg.pinv(both) @ heard)[: A.shape[1]]


def match_by_steps(A, B, heard, noise=None):
    """Downhill, from zero, with as many steps as it takes."""
    known = torch.zeros(B.shape[1]) if noise is None else noise
    unknowns = A if noise is not None else torch.cat([A, B], 1)
    found = torch.zeros(unknowns.shape[1])
    rest = heard - (B @ known if noise is not None else 0)
    size = 1 / torch.linalg.matrix_norm(unknowns, 2) ** 2
    for _ in range(2000):
        found = found - size * unknowns.T @ (unknowns @ found - rest)
    return found[: A.shape[1]].tolist()


def found_by_the_joint_attack(heard, labels, noise=None):
    """The library's own joint recipe with other numbers, and the distance in words."""
    hidden = attacks.searched(start=attacks.expected)
    if noise is not None:
        hidden = attacks.given((noise,), num_examples=1)
    options = {"iterations": 15, "prior_weight": 0.0, "stages": (1.0,)}
    search = attacks.joint(
        attacking.overheard(heard, labels),
        generator=torch.Generator().manual_seed(9),
        hidden=hidden,
        distance=squared_distance,
        **options,
    )
    deque(search, maxlen=0)
    return search.result.images[:, 0].numpy()


def found_one_by_one(heard, labels, noise=None):
    """A search for each client, as a list of pictures."""
    found = []
    for i, label in enumerate(labels):
        own = {name: term[i : i + 1] for name, term in heard.items()}
        seen = attacking.overheard(own, label[None])
        told = (
            attacks.searched() if noise is None else attacks.given([noise[i : i + 1]])
        )
        recipe = replace(attacking.SMALL_SEARCH, hidden=told, iterations=20)
        search = attacks.Search(seen, recipe, generator=torch.Generator())
        *_, last = search
        found.append(last.images[0, 0])
    return found


# real_client


def step_undone(update, weights, lr, decay, momentum, buffer):
    """As multiples of the rate, in numpy."""
    rest = update - lr * decay * weights
    if buffer is not None:
        rest = rest - lr * momentum * buffer
    return rest / lr


def step_undone_by_lists(update, weights, lr, decay, momentum, buffer):
    past = torch.zeros_like(update) if buffer is None else buffer
    triples = zip(
        update.flatten().tolist(),
        weights.flatten().tolist(),
        past.flatten().tolist(),
        strict=True,
    )
    slopes = [u / lr - momentum * m - decay * w for u, w, m in triples]
    return torch.tensor(slopes, dtype=update.dtype).view(update.shape)


def picture_by_all_rows(dW, db, W, b, lr, decay, steps):
    """By least squares over all rows."""
    left = np.exp(steps * np.log1p(-lr * decay))
    rows, slopes = dW - (1 - left) * W, db - (1 - left) * b
    return np.linalg.lstsq(slopes[:, None], rows, rcond=None)[0][0]


def picture_by_a_loop(dW, db, W, b, lr, decay, steps):
    """Weights that only decay, step by step."""
    weights, biases = W.clone(), b.clone()
    for _ in range(steps):
        weights, biases = weights * (1 - lr * decay), biases * (1 - lr * decay)
    rows, slopes = weights - (W - dW), biases - (b - db)
    return rows.mT @ slopes / slopes.square().sum()


# real_federation


def gradients_by_loops(sent, back, names, lr):
    found = {}
    for name in sorted(names, reverse=True):
        found[name] = np.asarray(sent[name] - back[name]) / lr
    return found


def gradients_as_lists(sent, back, names, lr):
    return {name: (1 / lr * (sent[name] - back[name])).tolist() for name in names}


def blurred_in_one_vector(sent, back, norm, noise):
    """Clipped as the one long vector that it is."""
    both = [torch.cat([r[name].flatten() for name in sent]) for r in (sent, back)]
    long = torch.renorm((both[1] - both[0])[None], 2, 0, norm)[0]
    parts = long.split([value.numel() for value in sent.values()])
    return {
        name: sent[name] + noise[name] + part.view_as(sent[name])
        for name, part in zip(sent, parts, strict=True)
    }


def blurred_in_numpy(sent, back, norm, noise):
    move = {n: np.asarray(back[n]) - np.asarray(sent[n]) for n in back}
    length = np.linalg.norm([np.linalg.norm(each) for each in move.values()])
    move = {n: each / max(1.0, length / norm) for n, each in move.items()}
    return {n: move[n] + np.asarray(sent[n]) + np.asarray(noise[n]) for n in move}


# judging


def verdict_by_shares(control, oracle, attacks, victims):
    """In shares, the worst seed of each."""
    worst = max(min(found / victims for found in counts) for counts in attacks)
    best = max(found / victims for counts in attacks for found in counts)
    shown = min(found / victims for found in [*control, *oracle])
    if worst > 0.5:
        return "broken"
    return "not broken by what was tried" if best <= 1 / 8 and shown > 0.5 else "open"


def verdict_in_arrays(control, oracle, attacks, victims):
    found = np.array(attacks)
    if (found.min(axis=1) > victims / 2).any():
        return "broken"
    works = (np.array(control + oracle) > victims / 2).all()
    return (
        "not broken by what was tried"
        if works and found.max() * 8 <= victims
        else "open"
    )


def matched_by_loops(heard):
    names = []
    for name, gradient in heard.items():
        columns = zip(*gradient.tolist(), strict=True) if gradient.ndim == 2 else []
        if all(any(column) for column in columns):
            names.append(name)
    return names


def matched_by_norms(heard):
    return {
        name
        for name, gradient in heard.items()
        if gradient.ndim == 1 or gradient.norm(dim=0).min() > 0
    }


# is_it_safe


def epsilon_in_logarithms(m, rate, steps, delta, orders):
    """In double precision of torch, as the logarithm of a sum of exponentials."""
    least = math.inf
    for order in orders:
        j = torch.arange(order + 1, dtype=torch.float64)
        terms = torch.lgamma(torch.tensor(order + 1.0, dtype=torch.float64))
        terms = terms - torch.lgamma(j + 1) - torch.lgamma(order - j + 1)
        terms = terms + j * (j - 1) / (2 * m**2)
        terms = terms + torch.special.xlogy(j, torch.tensor(rate).double())
        terms = terms + torch.special.xlogy(order - j, torch.tensor(1 - rate).double())
        loss = torch.logsumexp(terms, 0) / (order - 1)
        least = min(least, float(steps * loss - math.log(delta) / (order - 1)))
    return least


def epsilon_by_an_expectation(m, rate, steps, delta, orders):
    """The mean over a binomial number of draws, in numpy."""
    found = []
    for a in orders:
        j = np.arange(a + 1)
        chance = (
            np.array([math.comb(a, i) for i in j]) * rate**j * (1 - rate) ** (a - j)
        )
        loss = np.log((chance * np.exp(j * (j - 1) / (2 * m**2))).sum()) / (a - 1)
        found.append(steps * loss + np.log(1 / delta) / (a - 1))
    return np.min(found)


def label_by_correlation(dW):
    """The row that points against all others."""
    return int(np.argmin((np.corrcoef(np.hstack([dW, -dW])) < 0).sum(1) * -1.0))


def label_by_products(dW):
    products = dW @ dW.T
    return max(range(len(dW)), key=lambda i: int((products[i] < 0).sum()))


def alone_by_loops(dW, db):
    quotients = [row / slope for row, slope in zip(dW, db, strict=True) if slope != 0]
    found = []
    for i, one in enumerate(quotients):
        agrees = [q for j, q in enumerate(quotients) if j != i]
        is_alone = any(torch.allclose(one, q, rtol=1e-2, atol=1e-3) for q in agrees)
        if is_alone and not any(torch.allclose(one, f, rtol=1e-2) for f in found):
            found.append(one)
    return found


def alone_by_unique(dW, db):
    on = db != 0
    rounded = (dW[on] / db[on, None]).round(3)
    rows, counts = np.unique(rounded, axis=0, return_counts=True)
    return rows[counts > 1]


# cheating_server


def bins_by_loops(G, g):
    rows, found = len(g), []
    for k in range(rows):
        part = G[k] - (G[k + 1] if k + 1 < rows else 0)
        size = float(g[k] - (g[k + 1] if k + 1 < rows else 0))
        found.append((part / size).tolist() if abs(size) > 1e-9 else [0] * len(part))
    return found


def bins_by_a_matrix(G, g):
    both = np.concatenate([G, g[:, None]], 1)
    steps = (np.eye(len(g)) - np.eye(len(g), k=1)) @ both
    size = np.where(np.abs(steps[:, -1:]) > 1e-9, steps[:, -1:], np.inf)
    return steps[:, :-1] / size


def nested_by_counts(fires):
    sets = fires.double()
    common = sets.mT @ sets
    holds = common == torch.minimum(common.diag(), common.diag()[:, None])
    return holds.triu(1).sum() / torch.ones_like(common).triu(1).sum()


def nested_by_sets(fires):
    sets = [set(np.flatnonzero(column)) for column in fires.T]
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[:i]]
    return np.mean([a.issubset(b) or a.issuperset(b) for a, b in pairs])


def rows_one_by_one(n, share):
    rows = 1
    while (1 - 1 / rows) ** (n - 1) < share:
        rows += 1
    return rows


def rows_by_logarithms(n, share):
    return np.ceil(-1 / np.expm1(np.log(share) / (n - 1)) - 1e-9)


# words


def outside_by_projector(G, X):
    G, X = np.asarray(G), np.asarray(X)
    left = X - X @ np.linalg.pinv(G, rcond=1e-9) @ G
    return np.sqrt((left**2).sum(1) / (X**2).sum(1))


def outside_by_least_squares(G, X):
    found = []
    for x in X:
        answer = torch.linalg.lstsq(G.mT, x[:, None], driver="gelsd")
        left = G.mT @ answer.solution - x[:, None]
        found.append(float(left.norm() / x.norm()))
    return found


def order_by_pinv(P, R):
    return np.abs(R @ np.linalg.pinv(P) - 1).argmin(0)


def order_by_trying(P, R):
    solved = (torch.linalg.pinv(P).mT @ R.mT).round()
    return [int(row.nonzero()[0]) for row in solved]


# placement


def names_by_loop(names):
    kept = set()
    for name in names:
        kept.add(name)
        if name.endswith("encoder.bias"):
            break
    return kept


def names_by_index(names):
    first = min(i for i, n in enumerate(names) if "decoder" in n)
    return tuple(reversed(names[:first]))


def brightest_by_mean(dW):
    picture = np.abs(dW).sum(0)
    return picture / picture.max()


def brightest_by_svd(dW):
    _, _, directions = torch.linalg.svd(dW.double())
    picture = directions[0]
    return picture / picture[picture.abs().argmax()]


# training


def loss_in_numpy(logits, labels, kls, betas):
    entropy = -np.log(_softmax(logits))[np.arange(len(labels)), labels]
    each = entropy + sum((b * k for b, k in zip(betas, kls, strict=True)), 0.0)
    return each.mean()


def loss_by_pictures(logits, labels, kls, betas):
    total = 0.0
    for i, label in enumerate(labels.tolist()):
        total -= logits[i].double().log_softmax(0)[label].item()
        total += sum(b * k[i].item() for b, k in zip(betas, kls, strict=True))
    return total / len(labels)


def classes_in_doubles(logits):
    return np.argmax(_softmax(logits).mean(0), axis=-1)


def classes_by_log(logits):
    return [int(c) for c in logits.log_softmax(2).logsumexp(0).argmax(1)]


# evidence


def rates_in_numpy(ssim):
    rates = 100 * np.mean(ssim >= 0.6, axis=1)
    return np.array([rates.mean(), rates.std(ddof=1)])


def rates_by_statistics(ssim):
    rates = [100 * sum(v >= 0.6 for v in seed) / len(seed) for seed in ssim.tolist()]
    return statistics.fmean(rates), statistics.stdev(rates)


def highest_by_beta(victims):
    from scipy.stats import beta

    return beta.ppf(0.95, 1, victims)


def highest_by_bisection(victims):
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** victims > 0.05 else (low, middle)
    return torch.tensor(low)


# epsilon


def bound_by_torch(kappa, m, T):
    kappa = torch.tensor(kappa, dtype=torch.float64)
    return torch.special.ndtr(torch.special.ndtri(kappa) + T**0.5 / m)


def bound_by_half_the_distance(kappa, m, T):
    """Two worlds, a line at the level κ, and the area right of it."""
    world = statistics.NormalDist(T / m**2, T**0.5 / m)  # log ratios, 0 without
    line = statistics.NormalDist(0, T**0.5 / m).inv_cdf(1 - kappa)
    return 1 - world.cdf(line)


def posterior_by_distributions(seen, gradients, C, m, prior):
    lengths = gradients.norm(dim=1, keepdim=True)
    sent = torch.where(lengths > C, C * gradients / lengths, gradients)
    noise = torch.distributions.Normal(sent, m * C)
    logs = noise.log_prob(seen).sum(1) + prior.log()
    return (logs - logs.logsumexp(0)).exp()


def posterior_in_numpy(seen, gradients, C, m, prior):
    logs = []
    for gradient, before in zip(gradients, prior, strict=True):
        sent = gradient * min(1, C / np.linalg.norm(gradient))
        logs.append(np.log(before) + (seen @ sent - sent @ sent / 2) / (m * C) ** 2)
    weights = np.exp(np.array(logs) - max(logs))
    return weights / weights.sum()


# audit


def leaking_by_loops(report):
    """A list in the order of the report, each name at its first place."""
    found = []
    for case in report["cases"]:
        for finding in case["findings"]:
            name = finding["parameter"]
            is_example = finding["gives"] in ("picture", "row", "tokens")
            if not case["control"] and is_example and name and name not in found:
                found += [name] if sum(finding["certified"]) else []
    return found


def leaking_as_keys(report):
    findings = [f for c in report["cases"] if not c["control"] for f in c["findings"]]
    proven = [f for f in findings if True in f["certified"] and f["parameter"]]
    return {f["parameter"]: f for f in proven if f["gives"] != "features"}.keys()


def highest_by_scipy(recovered, examples):
    from scipy.stats import beta

    if recovered == examples:
        return 1
    return beta.ppf(0.975, recovered + 1, examples - recovered)


def highest_by_binomials(recovered, examples):
    """The sum as torch's distribution has it, on a grid that is refined twice."""
    counts = torch.arange(recovered + 1, dtype=torch.float64)
    low, high = 0.0, 1.0
    for _ in range(4):
        rates = torch.linspace(low, high, 201, dtype=torch.float64)
        chances = torch.distributions.Binomial(examples, rates[:, None])
        left = chances.log_prob(counts).exp().sum(1)
        last = int((left >= 0.025).nonzero().max())
        low, high = rates[last], rates[min(last + 1, 200)]
    return low


def signs_by_parts(gradient):
    size = np.abs(gradient).sum() / gradient.size
    return np.where(gradient > 0, size, np.where(gradient < 0, -size, 0.0))


def signs_by_copysign(gradient):
    size = gradient.abs().double().mean()
    return torch.copysign(size, gradient) * (gradient != 0)


# which_distance


def cells_by_clamping(guess, shared, step):
    """How far the guess is from the nearest point of its cell."""
    nearest = guess.clamp(shared - step / 2, shared + step / 2)
    return ((guess - nearest) / step).norm(dim=1) ** 2


def cells_by_loops(guess, shared, step):
    rows = zip(guess.tolist(), shared.tolist(), strict=True)
    return [
        sum(max(0, abs(x - y) / step - 0.5) ** 2 for x, y in zip(*row, strict=True))
        for row in rows
    ]


def mixture_by_logsumexp(guess, shared, ratio, scale):
    logs = torch.tensor([ratio, 1 - ratio], dtype=torch.float64).log()
    sizes = torch.stack([shared, shared - guess], -1).double().abs() / scale
    return -(logs - sizes).logsumexp(-1).sum(1)


def mixture_in_numpy(guess, shared, ratio, scale):
    alone = np.log(ratio) - np.abs(shared) / scale
    below = np.log1p(-ratio) - np.abs(shared - guess) / scale
    return -np.logaddexp(alone, below).sum(1)


RIGHT = {
    "what_a_gradient_knows.closed_form": [in_numpy(mean_of_rows), first_row_in_lists],
    "what_a_gradient_knows.label": [only_negative, by_loop],
    "labels.any_features": [in_numpy(odd_sign_out), against_all_others],
    "labels.batch_counts": [
        in_numpy(counts_by_brute_force),
        in_numpy(counts_in_doubles),
    ],
    "ten_in_a_batch.kept": [kept_by_loops, in_numpy(kept_in_numpy)],
    "ten_in_a_batch.unmix": [in_numpy(unmixed_by_pseudoinverse), unmixed_by_shares],
    "federated_learning.fedavg": [in_numpy(fedavg_in_numpy), fedavg_by_autograd],
    "federated_learning.masked": [
        in_numpy(masked_by_einsum),
        masked_as_a_list_of_tensors,
    ],
    "searching_for_the_picture.distance": [
        in_numpy(distance_in_numpy),
        distance_by_autograd,
    ],
    "searching_for_the_picture.slope": [
        in_numpy(slope_by_differences),
        slope_by_a_function,
    ],
    "matching_directions.objective": [in_numpy(direction_in_numpy), direction_by_sums],
    "matching_directions.step": [in_numpy(step_in_numpy), step_by_loops],
    "label_as_anchor.objective": [in_numpy(anchored_in_numpy), anchored_in_single],
    "label_as_anchor.fill": [in_numpy(filled_by_tile), filled_by_loops],
    "easy_and_hard.batch": [in_numpy(batch_by_einsum), batch_by_loops],
    "easy_and_hard.paired": [in_numpy(paired_in_numpy), paired_by_statistics],
    "measuring_leakage.window_ssim": [in_numpy(ssim_by_cov), in_numpy(ssim_by_skimage)],
    "measuring_leakage.success_rate": [
        in_numpy(rate_by_assignment),
        rate_by_recursion,
    ],
    "noise.all_rows": [in_numpy(rows_by_lstsq), rows_by_pinv_in_single],
    "noise.private_mean": [mean_by_renorm, in_numpy(mean_by_loops)],
    "compression.pruned": [in_numpy(pruned_by_argpartition), pruned_by_topk],
    "compression.quantised": [in_numpy(quantised_by_rint), quantised_in_single],
    "transformations.shift_back": [back_by_padding, in_numpy(back_in_a_mirror)],
    "transformations.outcomes": [
        outcomes_as_a_set,
        outcomes_as_keys,
        outcomes_as_arrays,
    ],
    "the_bill.leak": [in_numpy(leak_in_numpy), leak_by_lists],
    "the_bill.front": [front_by_flatnonzero, front_as_a_set],
    "bottleneck.sample": [in_numpy(sample_by_logaddexp), sample_by_loops],
    "bottleneck.kl": [in_numpy(kl_in_numpy), kl_by_distributions],
    "any_model.forward": [in_numpy(forward_in_numpy), forward_by_layers],
    "any_model.insertion": [insert_by_walking, insert_by_rebuilding],
    "attacking.objective": [in_numpy(heard_in_numpy), heard_by_sums],
    "attacking.noise_gradient": [
        in_numpy(noise_gradient_by_formula),
        noise_gradient_in_doubles,
    ],
    "attacking.match": [in_numpy(match_by_pinv), match_by_steps],
    "attacking.find": [found_by_the_joint_attack, found_one_by_one],
    "epsilon.bound": [bound_by_torch, bound_by_half_the_distance],
    "epsilon.posterior": [
        in_numpy(posterior_in_numpy),
        posterior_by_distributions,
    ],
    "audit.rule": [
        "certified >= 1 or 0.1 < asr",
        "not (asr <= 0.1 and certified == 0)",
    ],
    "audit.leaking": [leaking_by_loops, leaking_as_keys],
    "audit.highest": [highest_by_scipy, highest_by_binomials],
    "audit.signs": [in_numpy(signs_by_parts), signs_by_copysign],
    "real_client.gradient": [in_numpy(step_undone), step_undone_by_lists],
    "real_client.picture": [in_numpy(picture_by_all_rows), picture_by_a_loop],
    "real_federation.gradients": [gradients_by_loops, gradients_as_lists],
    "real_federation.blurred": [blurred_in_one_vector, blurred_in_numpy],
    "judging.verdict": [verdict_by_shares, verdict_in_arrays],
    "judging.to_match": [matched_by_loops, matched_by_norms],
    "cheating_server.read": [in_numpy(bins_by_a_matrix), bins_by_loops],
    "cheating_server.nested": [in_numpy(nested_by_sets), nested_by_counts],
    "cheating_server.rows_needed": [rows_one_by_one, rows_by_logarithms],
    "words.outside": [outside_by_projector, outside_by_least_squares],
    "words.order": [in_numpy(order_by_pinv), order_by_trying],
    "is_it_safe.accountant": [epsilon_in_logarithms, epsilon_by_an_expectation],
    "is_it_safe.label_without_bias": [
        in_numpy(label_by_correlation),
        label_by_products,
    ],
    "is_it_safe.seen_alone": [alone_by_loops, in_numpy(alone_by_unique)],
    "which_distance.outside_the_cell": [cells_by_clamping, cells_by_loops],
    "which_distance.mixture": [mixture_by_logsumexp, in_numpy(mixture_in_numpy)],
    "placement.before_the_noise": [names_by_loop, names_by_index],
    "placement.without_bias": [in_numpy(brightest_by_mean), brightest_by_svd],
    "training.loss": [in_numpy(loss_in_numpy), loss_by_pictures],
    "training.mean_prediction": [in_numpy(classes_in_doubles), classes_by_log],
    "evidence.success_rate": [in_numpy(rates_in_numpy), rates_by_statistics],
    "evidence.highest_rate": [highest_by_beta, highest_by_bisection],
}
