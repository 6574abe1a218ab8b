"""The page's engine in Chromium, beside the library in float64."""

import random
from dataclasses import replace
from functools import partial

import pytest
import torch

from precode_lib.attacks import Search
from precode_lib.attacks.closed_form import (
    invert_linear,
    isolated_inputs,
    largest_row,
    total_least_squares,
)
from precode_lib.attacks.hidden import given, searched
from precode_lib.attacks.objectives import (
    cosine_distance,
    scaled,
    squared_distance,
)
from precode_lib.attacks.recipe import Recipe
from precode_lib.attacks.recipes import before_noise
from precode_lib.basics.schedules import constant, step_decay
from precode_lib.bottleneck import kl_terms, noise_from, with_precode
from precode_lib.data import Normalisation
from precode_lib.defenses import chain, clip, prune
from precode_lib.federated import observe
from precode_lib.gradients import Gradients
from precode_lib.metrics.measures import ssim
from precode_lib.models import lenet, mlp
from precode_lib.plots import ASSETS
from precode_lib.widgets.numbers import PageNumbers, filled

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SHAPE = (3, 8, 8)
PIXELS = 192
UNIT = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
NUM_CASES, NUM_STEPS = 50, 10

# Everything that is compared, for one case; a page answers for all cases at once.
ANSWER = """cases => cases.map(one => {
  const e = leaky, net = e.network(one.net, e.numbers(one.seed));
  const draws = e.numbers(one.seed + 1), batch = one.labels.map(() => 0);
  const toImage = p => p.map((v, i) =>
    (v - one.mean[Math.floor(i / 64)]) / one.std[Math.floor(i / 64)]);
  const images = batch.map(() => toImage(draws.uniform(192)));
  const noise = net.code ? batch.map(() => draws.normal(net.code)) : null;
  const runs = e.passes(net, images, one.labels, noise);
  const exact = e.gradient(net, runs);
  const unit = exact.map(p => draws.normal(p.length));
  const sent = exact.map(p => p.slice());
  if (one.clip) e.clip(sent, one.clip);
  e.addNoise(sent, one.sigma, unit);
  e.prune(sent, one.pruned);
  const guess = batch.map(() => draws.normal(192));
  const guessed = net.code ? batch.map(() => draws.normal(net.code)) : null;
  const goal = e.target(sent, {
    counted: one.counted ?? sent.length, scale: one.scale });
  const slope = e.slopes(net, guess, one.labels, guessed, goal, one.distance);
  const search = e.search(net, one.labels, goal, {
    ...one.options, images: guess.map(p => p.slice()),
    noise: guessed?.map(p => p.slice()) });
  const steps = Array.from({ length: one.steps }, () => {
    const { objective, images } = search.next();
    return { objective, images: images.map(p => [...p]) };
  });
  const [G, b] = sent;
  const plain = list => list?.map(p => [...p]);
  return {
    loss: e.loss(runs), kl: e.kl(runs), exact: plain(exact), sent: plain(sent),
    value: slope.value, byImage: plain(slope.byImage), byNoise: plain(slope.byNoise),
    steps, found: one.closed
      ? [[...e.totalLeastSquares(G, b)], [...e.largestRow(G, b)]] : null,
    ssim: e.ssim(draws.uniform(192), draws.uniform(192), [3, 8, 8]),
  };
})"""


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    for name in ("engine.js", "pictures.js"):
        page.add_script_tag(path=ASSETS / name)
    yield page
    page.close()


def drawn(seed: int) -> dict:
    """A picture, a network and the state of the sliders, at random."""
    pick = random.Random(seed)
    batch = pick.choice([1, 1, 1, 2, 3])
    activation = pick.choice(["relu", "sigmoid"])
    closed = pick.random() < 0.6
    if closed:
        features = ["linear 24", activation]
        if pick.random() < 0.4:
            features *= 2
    else:
        convs = ["conv 12 5 2 2", "conv 12 5 2 2", "conv 12 5 1 2"]
        features = [part for conv in convs for part in (conv, activation)]
    precode = pick.random() < 0.5
    k, beta = pick.choice([3, 16]), pick.choice([0, 1e-3, 0.1])
    layers = [*features, *([f"precode {k} {beta}"] if precode else []), "linear 10"]
    before = 2 * len(features) // 2 + 2 if precode and pick.random() < 0.3 else None
    options = {
        "distance": pick.choice(["squared", "cosine", "absolute"]),
        "lr": pick.choice([0.01, 0.1]),
        "signed": pick.random() < 0.3,
        "prior": pick.choice([0, 1e-4, 1e-2]),
        "decays": pick.random() < 0.3,
        "hidden": "searched" if precode and pick.random() < 0.5 else "given",
    }
    if pick.random() < 0.5:
        low, high = ([*map(float, side.flatten())] for side in UNIT.box)
        options["box"] = [*map(list, zip(low, high, strict=True))]
    return {
        "seed": 1000 * seed,
        "net": {
            "image": SHAPE,
            "layers": layers,
            "bound": 0 if closed else pick.choice([0, 0.5]),
        },
        "features": features,
        "activation": activation,
        "precode": (k, beta) if precode else None,
        "closed": closed,
        "labels": [pick.randrange(10) for _ in range(batch)],
        "clip": pick.choice([0, 0.5]),
        "sigma": pick.choice([0, 1e-3, 0.1]),
        "pruned": pick.choice([0, 0.29, 0.9]),
        "counted": before,
        "distance": options["distance"],
        "scale": pick.choice([1, 1e-3]),
        "options": {**options, "steps": NUM_STEPS},
        "steps": NUM_STEPS,
        "mean": UNIT.mean,
        "std": UNIT.std,
    }


CASES = [drawn(seed) for seed in range(NUM_CASES)]


@pytest.fixture(scope="module")
def answers(page):
    return page.evaluate(ANSWER, CASES)


def tensor(numbers, *shape) -> torch.Tensor:
    return torch.from_numpy(numbers).view(shape)


def model_of(case: dict):
    activation = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}
    options = {"activation": activation[case["activation"]]}
    if case["closed"]:
        depth = len(case["features"]) // 2
        model = mlp(SHAPE, depth=depth, width=24, **options)
    else:
        model = lenet(SHAPE, **options)
    if case["precode"]:
        k, beta = case["precode"]
        model = with_precode(model, before="fc", k=k, beta=beta)
    numbers = PageNumbers(case["seed"])
    return filled(model, numbers, bound=case["net"]["bound"] or None)


def absolute_distance(guess: Gradients, target: Gradients) -> torch.Tensor:
    seen = guess.dense()
    return sum((seen[n] - t).abs().flatten(1).sum(1) for n, t in target.dense().items())


DISTANCES = {
    "squared": squared_distance,
    "cosine": cosine_distance,
    "absolute": absolute_distance,
}


def expected(case: dict) -> dict:
    """The same by the library: what it draws, it draws in the page's order."""
    model, draws = model_of(case), PageNumbers(case["seed"] + 1)
    batch, labels = len(case["labels"]), torch.tensor([case["labels"]])
    k = case["precode"][0] if case["precode"] else 0

    def noise():
        return [torch.cat([tensor(draws.normal(k), 1, k) for _ in range(batch)])]

    pixels = torch.stack([tensor(draws.uniform(PIXELS), *SHAPE) for _ in range(batch)])
    images = UNIT.normalise(pixels)[None]
    given_noise = noise() if k else []
    options = {"normalisation": UNIT, "noise": given_noise}
    exact = observe(model, images, labels, **options).shared.dense()

    def add(gradients):
        # Drawn entry by entry: the library's own noise has another generator.
        return Gradients(
            {
                n: t + case["sigma"] * tensor(draws.normal(t.numel()), *t.shape)
                for n, t in gradients.dense().items()
            }
        )

    shorten = [partial(clip, max_norm=case["clip"])] if case["clip"] else []
    defense = chain(*shorten, add, partial(prune, ratio=case["pruned"]))
    seen = observe(model, images, labels, defense=defense, **options)
    with noise_from(given_noise), kl_terms() as terms:
        model(images[0])
    guess = torch.stack([tensor(draws.normal(PIXELS), *SHAPE) for _ in range(batch)])
    guess, guessed = guess[None], noise() if k else []
    recipe = recipe_of(case, guessed, batch)
    result = {
        "exact": exact,
        "seen": seen,
        "loss": None,
        "kl": sum(t.mean().item() for t in terms) / case["precode"][1]
        if k and case["precode"][1]
        else None,
        **slopes_of(case, seen, guess, labels, guessed, recipe),
        "steps": steps_of(seen, recipe, guess),
        "ssim": ssim(
            tensor(draws.uniform(PIXELS), 1, *SHAPE),
            tensor(draws.uniform(PIXELS), 1, *SHAPE),
        ).item(),
    }
    if case["closed"]:
        result["found"] = [
            invert_linear(seen, estimate=estimate).images.flatten()
            for estimate in (total_least_squares, largest_row)
        ]
    return result


def recipe_of(case: dict, guessed, batch: int) -> Recipe:
    options = case["options"]
    recipe = Recipe(
        distance=scaled(DISTANCES[case["distance"]], case["scale"]),
        optimizer=partial(torch.optim.Adam, lr=options["lr"]),
        iterations=NUM_STEPS,
        labels=lambda seen: seen.labels,
        prior_weight=options["prior"],
        schedule=step_decay if options["decays"] else constant,
        signed=options["signed"],
        boxed="box" in options,
        layers=before_noise if case["counted"] else None,
    )
    if not guessed:
        return recipe
    hidden = given(guessed, num_examples=batch)
    if options["hidden"] == "searched":

        def start(shape, *, generator, device):
            return guessed[0].view(shape)

        hidden = searched(start=start)
    return replace(recipe, hidden=hidden)


def slopes_of(case, seen, guess, labels, guessed, recipe) -> dict:
    guess = guess.clone().requires_grad_()
    guessed = [each.clone().requires_grad_() for each in guessed]
    gradients = seen.client()(guess, labels, noise=guessed or None)
    target = seen.shared
    if recipe.layers is not None:
        gradients, target = before_noise(gradients), before_noise(target)
    value = recipe.distance(gradients, target).sum()
    slopes = torch.autograd.grad(
        value, [guess, *guessed], allow_unused=True, materialize_grads=True
    )
    by_noise = slopes[1].flatten() if guessed else None
    return {"value": value.item(), "byImage": slopes[0].flatten(), "byNoise": by_noise}


def steps_of(seen, recipe, guess) -> list:
    search = Search(seen, recipe, generator=torch.Generator(), start=guess)
    return [(step.objective.item(), step.images.flatten()) for step in search]


def close(page_has, library_has, what: str, tolerance=1e-5) -> None:
    """Within a relative 1e-5 of the largest number: slopes may cross zero."""
    ours = torch.as_tensor(page_has, dtype=torch.float64).flatten()
    theirs = torch.as_tensor(library_has, dtype=torch.float64).flatten()
    assert ours.shape == theirs.shape, what
    scale = max(theirs.abs().max().item(), 1e-12)
    off = (ours - theirs).abs().max().item() / scale
    assert off <= tolerance, f"{what}: off by {off:.1e}"


def flat(rows) -> list:
    return [v for row in rows for v in row]


@pytest.mark.parametrize("index", range(NUM_CASES))
def test_the_page_computes_what_the_library_computes(answers, index):
    case, ours = CASES[index], answers[index]
    theirs = expected(case)
    pairs = zip(ours["exact"], theirs["exact"].items(), strict=True)
    for numbers, (name, term) in pairs:
        close(numbers, term, f"gradient of {name}")
    for numbers, (name, term) in zip(
        ours["sent"], theirs["seen"].shared.dense().items(), strict=True
    ):
        close(numbers, term, f"what is sent of {name}")
    close(ours["value"], theirs["value"], "distance")
    close(flat(ours["byImage"]), theirs["byImage"], "slope")
    if theirs["byNoise"] is not None:
        close(flat(ours["byNoise"]), theirs["byNoise"], "slope by the noise")
    if theirs["kl"] is not None:
        close(ours["kl"], theirs["kl"], "KL")
    close(ours["ssim"], theirs["ssim"], "SSIM")
    for number, (mine, (objective, images)) in enumerate(
        zip(ours["steps"], theirs["steps"], strict=True)
    ):
        close(mine["objective"], objective, f"objective of step {number}")
        close(flat(mine["images"]), images, f"pictures of step {number}")
    if case["closed"]:
        for mine, image, name in zip(
            ours["found"], theirs["found"], ("least squares", "row"), strict=True
        ):
            close(mine, image, name)


def test_the_cases_meet_every_layer_distance_and_slider():
    assert {case["distance"] for case in CASES} == {*DISTANCES}
    for name in ("closed", "precode", "counted", "clip", "sigma", "pruned"):
        assert {bool(case[name]) for case in CASES} == {True, False}, name
    assert {len(case["labels"]) for case in CASES} == {1, 2, 3}
    for name in ("signed", "decays", "prior"):
        assert {bool(case["options"][name]) for case in CASES} == {True, False}, name
    assert any(case["options"]["hidden"] == "searched" for case in CASES)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_python_and_the_page_draw_the_same_numbers(page, seed):
    draw = """seed => {
      const stream = leaky.numbers(seed);
      return [stream.uniform(5000), stream.normal(20000), stream.within(0.3, 7)]
        .map(part => [...part]);
    }"""
    numbers = PageNumbers(seed)
    theirs = [numbers.uniform(5000), numbers.normal(20000), numbers.within(0.3, 7)]
    for ours, expected_part in zip(page.evaluate(draw, seed), theirs, strict=True):
        assert ours == expected_part.tolist()  # every bit


def test_the_normal_numbers_are_normal():
    numbers = torch.from_numpy(PageNumbers(5).normal(200_000))
    law = torch.distributions.Normal(0.0, 1.0)
    places = torch.linspace(-3.5, 3.5, 29)
    shares = (numbers[:, None] < places).double().mean(0)
    assert (shares - law.cdf(places)).abs().max() < 0.004  # 3.6 standard errors
    assert PageNumbers(5).normal(9).tolist() == numbers[:9].tolist()
    twice = PageNumbers(5)
    assert twice.normal(4).tolist() + twice.normal(5).tolist() == numbers[:9].tolist()


def test_a_seed_that_no_page_can_have_is_refused():
    with pytest.raises(ValueError, match=r"from 0 to 2\*\*32 - 1, got -1"):
        PageNumbers(-1)


@pytest.mark.parametrize("batch", [2, 4])
def test_the_page_finds_the_pictures_that_units_saw_alone(page, batch):
    answer = """({ labels, batch }) => {
      const e = leaky, draws = e.numbers(12);
      const net = e.network({ image: [3, 8, 8],
        layers: ["linear 128", "relu", "linear 10"] }, e.numbers(11));
      const images = labels.map(() => draws.normal(192));
      const [G, b] = e.gradient(net, e.passes(net, images, labels));
      return e.isolated(G, b, batch === 2 ? 3 : 2, batch)
        .map(({ picture, units }) => ({ picture: [...picture], units }));
    }"""
    labels = list(range(batch))
    found = page.evaluate(answer, {"labels": labels, "batch": batch})
    draws = PageNumbers(12)
    images = [tensor(draws.normal(PIXELS), *SHAPE) for _ in labels]
    model = filled(mlp(SHAPE, depth=1, width=128), PageNumbers(11))
    seen = observe(model, torch.stack(images)[None], torch.tensor([labels]))
    (theirs,) = isolated_inputs(seen)
    assert len(found) == len(theirs) >= 2
    assert [one["units"] for one in found] == theirs.num_units.tolist()
    for mine, image in zip(found, theirs.images, strict=True):
        close(mine["picture"], image, "isolated picture")


@pytest.mark.parametrize("network", ["mlp", "lenet"])
def test_networks_of_the_book_s_size_agree_too(page, network):
    layers = {
        "mlp": ["linear 256", "sigmoid", "linear 10"],
        "lenet": ["conv 12 5 2 2", "sigmoid"] * 2
        + ["conv 12 5 1 2", "sigmoid", "linear 10"],
    }
    answer = """layers => {
      const e = leaky, draws = e.numbers(22);
      const net = e.network({ image: [3, 32, 32], layers }, e.numbers(21));
      const image = draws.uniform(3072), guess = draws.normal(3072);
      const sent = e.gradient(net, e.passes(net, [image], [3]));
      const { value, byImage } = e.slopes(net, [guess], [3], null,
        e.target(sent), "cosine");
      return { value, byImage: [...byImage[0]], sizes: sent.map(p => p.length) };
    }"""
    ours = page.evaluate(answer, layers[network])
    draws = PageNumbers(22)
    shape = (3, 32, 32)
    image, guess = (
        tensor(numbers, 1, 1, *shape)
        for numbers in (draws.uniform(3072), draws.normal(3072))
    )
    options = {"depth": 1, "width": 256} if network == "mlp" else {}
    model = {"mlp": mlp, "lenet": lenet}[network](
        shape, activation=torch.nn.Sigmoid, **options
    )
    labels = torch.tensor([[3]])
    seen = observe(filled(model, PageNumbers(21)), image, labels)
    guess.requires_grad_()
    value = cosine_distance(seen.client()(guess, labels), seen.shared).sum()
    (slope,) = torch.autograd.grad(value, guess)
    assert ours["sizes"] == [p.numel() for p in model.parameters()]
    close(ours["value"], value.item(), "distance")
    close(ours["byImage"], slope.flatten(), "slope")


def test_rates_fall_where_the_library_s_do(page):
    factors = page.evaluate(
        "n => Array.from({ length: n }, (_, t) => leaky.stepDecay(t, n))", 200
    )
    close(factors, [step_decay(step, 200) for step in range(200)], "rates", 1e-12)


def test_the_engine_stays_small_and_brings_its_own_source(page):
    assert len((ASSETS / "engine.js").read_bytes()) < 30_000
    again = """() => {
      const other = new Function("return " + leaky.source)();
      return other.numbers(7).uniform(3).join() === leaky.numbers(7).uniform(3).join();
    }"""
    assert page.evaluate(again)


def test_weights_are_drawn_in_slices_between_which_others_are_heard(page):
    watched = """() => {
      const e = leaky, stream = e.numbers(3), drawn = [];
      const spec = { image: [3, 32, 32], layers: ["linear 64", "relu", "linear 10"] };
      let slice = 0;
      const noted = { ...stream, fillWithin(bound, out) {
        slice += out.length;
        return stream.fillWithin(bound, out);
      } };
      const steps = e.growing(spec, noted);
      let step = steps.next();
      for (; !step.done; step = steps.next()) { drawn.push(slice); slice = 0; }
      const whole = e.network(spec, e.numbers(3));
      return { drawn, left: slice, same: step.value.params.every((each, p) =>
        each.every((v, i) => v === whole.params[p][i])) };
    }"""
    answer = page.evaluate(watched)
    assert sum(answer["drawn"]) == 64 * 3073 + 10 * 65
    assert max(answer["drawn"]) <= 16_384 and answer["left"] == 0
    assert len(answer["drawn"]) >= 12
    assert answer["same"]


def test_pictures_are_placed_by_the_nearest_pairs(page):
    answer = """() => {
      const own = [0, 1, 5].map(v => [v, v]), found = [0.9, 0.8].map(v => [v, v]);
      return leaky.placed(found, own);
    }"""
    # 0.9 is nearest to 1, and 0.8 has to take what is left and nearest to it.
    assert page.evaluate(answer) == [[0.8, 0.8], [0.9, 0.9], None]
