"""How fast the figures are that compute in the page: a table.

    python benchmarks/in_page.py                 a minute, in a quiet machine's Chromium
    python benchmarks/in_page.py --slower 1      without slowing the processor down

A phone is 390 px wide and its processor slowed down six times. Chromium slows down the
page's own thread and no worker, so everything but the long tasks is measured without
workers: a phone that has them is at least as fast. Nothing here is a test: what else
the machine does changes the milliseconds.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, Page, sync_playwright
from torch import nn
from torch.optim import Adam

from precode_lib.attacks import Recipe, known_labels
from precode_lib.attacks.objectives import squared_distance
from precode_lib.data import photos, victims
from precode_lib.models import lenet, mlp
from precode_lib.plots import ASSETS
from precode_lib.widgets import Lane, PageFigure, leak_your_own, race, sum_of_clients

WORDS = {"question": "How fast?", "caption": "A figure."}
ALONE = "delete window.Worker;"
WATCH = """
window.tasks = [];
new PerformanceObserver(list => {
  for (const { startTime, duration } of list.getEntries())
    tasks.push([startTime, duration]);
}).observe({ type: 'longtask', buffered: true });
"""
# Milliseconds from a slider's event to the answer on the screen, one per value.
MOVES = """async ([name, places]) => {
  const root = document.querySelector('.precode-live-page'), times = [];
  const slider = root.querySelector(`[id$="-${name}"]`);
  for (const place of places) {
    times.push(await new Promise(done => {
      new MutationObserver((_, watcher) => {
        watcher.disconnect();
        done(performance.now() - start);
      }).observe(root, { attributes: true, attributeFilter: ['data-shown'] });
      const start = performance.now();
      slider.value = place;
      slider.dispatchEvent(new Event('input', { bubbles: true }));
    }));
    await new Promise(r => setTimeout(r, 300));
  }
  return times;
}"""
STEPS = """({ layers, distance, signed, count }) => {
  const e = leaky, draws = e.numbers(2), image = [3, 32, 32];
  const net = e.network({ image, layers }, e.numbers(1));
  const goal = e.target(e.gradient(net, e.passes(net, [draws.uniform(3072)], [3])));
  const attack = e.search(net, [3], goal,
    { images: [draws.normal(3072)], distance, signed, lr: 0.01 });
  return Array.from({ length: count }, () => {
    const start = performance.now();
    attack.next();
    return performance.now() - start;
  });
}"""
NETWORKS = {
    "MLP 3072-256-10": (["linear 256", "sigmoid", "linear 10"], 30),
    "LeNet": (
        ["conv 12 5 2 2", "sigmoid"] * 2 + ["conv 12 5 1 2", "sigmoid", "linear 10"],
        60,
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of the table; the limit is for the median."""

    what: str
    numbers: Sequence[float]
    unit: str
    limit: float

    def __str__(self) -> str:
        least, middle = min(self.numbers), median(self.numbers)
        verdict = "ok" if middle <= self.limit else "OVER"
        numbers = f"{least:8.0f} {middle:8.0f} {self.limit:8.0f} {self.unit}"
        return f"{self.what:48} {numbers}  {verdict}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slower", type=float, default=6, help="times; 6 if not given")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    figures = make_figures()
    print(f"{'':48} {'least':>8} {'median':>8} {'may be':>8}")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        visits = Visits(browser, Path(folder), options.slower)
        for row in measured(visits, figures, options.rounds):
            print(row, flush=True)
        browser.close()


def make_figures() -> dict[str, PageFigure]:
    recipe = Recipe(
        distance=squared_distance,
        optimizer=partial(Adam, lr=0.02),
        labels=known_labels,
        boxed=True,
    )
    lanes = [
        Lane("MLP", mlp((3, 32, 32), depth=1, activation=nn.Sigmoid), recipe),
        Lane("LeNet", lenet(), recipe),
    ]
    photographs = victims("photos", 4, size=48)
    crowd = photos(16, num_train=64, num_test=10).train
    return {
        "leak your own": leak_your_own(photographs, **WORDS),
        "leak your own, 9 rows": leak_your_own(photographs, rows=9, **WORDS),
        "sum of 64 clients": sum_of_clients(crowd, steps=2, **WORDS),
        "race": race(victims("photos", 4), lanes, steps=2, **WORDS),
    }


class Visits:
    """Opens figures as a phone does."""

    def __init__(self, browser: Browser, folder: Path, slower: float):
        self._browser, self._folder, self._slower = browser, folder, slower

    def open(self, figure: PageFigure | str, script: str = "") -> Page:
        html = figure if isinstance(figure, str) else figure._repr_html_()
        path = self._folder / "page.html"
        path.write_text(
            '<!doctype html><meta name="viewport" content="width=device-width">'
            f"<main>{html}</main>",
            encoding="utf-8",
        )
        page = self._browser.new_page(viewport={"width": 390, "height": 844})
        page.add_init_script(WATCH + script)
        session = page.context.new_cdp_session(page)
        session.send("Emulation.setCPUThrottlingRate", {"rate": self._slower})
        page.goto(path.as_uri())
        return page


def measured(
    visits: Visits, figures: dict[str, PageFigure], rounds: int
) -> Iterator[Row]:
    for name, figure in figures.items():
        if name == "race":
            continue  # shows nothing before it is asked
        times = [first_picture(visits, figure) for _ in range(rounds)]
        yield Row(f"first picture, {name}", times, "ms", 1000)
    for name, slider, places in (
        ("leak your own", "sigma", [1, 2, 3, 4, 5]),
        ("leak your own", "pruned", [1, 2, 3, 4, 5]),
        ("leak your own", "batch", [1, 2, 0, 2, 1]),
        ("leak your own, 9 rows", "sigma", [1, 2, 3, 4, 5]),
        ("sum of 64 clients", "count", [9, 15, 31, 20, 40]),
    ):
        times = slider_to_answer(visits, figures[name], slider, places)
        yield Row(f"{slider} to answer, {name}", times, "ms", 100)
    for name, (layers, limit) in NETWORKS.items():
        yield Row(f"step, {name}", steps(visits, layers), "ms", limit)
    for name, figure in figures.items():
        longest = [longest_task(visits, figure, name) for _ in range(rounds)]
        yield Row(f"longest task of the page, {name}", longest, "ms", 200)
    for name, figure in figures.items():
        yield Row(f"weight, {name}", [len(figure._repr_html_()) / 1000], "KB", 150)


def first_picture(visits: Visits, figure: PageFigure, script: str = ALONE) -> float:
    """Milliseconds from opening the page."""
    page = visits.open(figure, script + NOTE_SHOWN)
    page.wait_for_function("window.shownAt", timeout=60_000)
    at = page.evaluate("window.shownAt")
    page.close()
    return at


NOTE_SHOWN = """
new MutationObserver((_, watcher) => {
  if (!document.querySelector('[data-shown]')) return;
  watcher.disconnect();
  window.shownAt = performance.now();
}).observe(document, { subtree: true, attributes: true,
  attributeFilter: ['data-shown'] });
"""


def slider_to_answer(
    visits: Visits, figure: PageFigure, slider: str, places: list[int]
) -> list[float]:
    page = visits.open(figure, ALONE)
    page.wait_for_selector("[data-shown]", timeout=60_000)
    page.wait_for_timeout(2500)  # what is drawn ahead
    times = page.evaluate(MOVES, [slider, places])
    page.close()
    return times


def steps(visits: Visits, layers: list[str]) -> list[float]:
    engine = (ASSETS / "engine.js").read_text(encoding="utf-8")
    page = visits.open(f"<script>{engine}</script>")
    options = {"layers": layers, "distance": "squared", "count": 30}
    times = page.evaluate(STEPS, options)
    page.close()
    return times[5:]  # the first ones are compiled


def longest_task(visits: Visits, figure: PageFigure, name: str) -> float:
    """Milliseconds, while it opens and while it is used; 0 if all are below 50."""
    page = visits.open(figure)
    if name == "race":
        page.locator("[data-part=run]:enabled").click()
        page.wait_for_selector("[data-shown]", timeout=60_000)
    else:
        page.wait_for_selector("[data-shown]", timeout=60_000)
        slider = "count" if name.startswith("sum") else "sigma"
        page.evaluate(MOVES, [slider, [3, 6, 2]])
    page.wait_for_timeout(1000)
    tasks = page.evaluate("window.tasks")
    page.close()
    return max((duration for _, duration in tasks), default=0)


if __name__ == "__main__":
    main()
