// A sum of clients, one picture each: what a server sees that gets nothing but the sum.
(() => {
  // One division, and the rows of units that a single picture woke.
  function* rows(e, input, cache) {
    const { size, width, seed, mean, std, pictures, labels, version } = input;
    const spec = { image: [3, size, size], layers: [`linear ${width}`, "relu", "linear 10"] };
    const { into, back } = e.lens(mean, std, size * size), key = `${width} ${seed}`;
    if (cache.get("key") !== key) {
      cache.clear();
      cache.set("net", yield* e.growing(spec, e.numbers(seed)));
      cache.set("key", key);
    }
    // Each client's own part is kept: a slider only adds some or leaves some out.
    const net = cache.get("net");
    if (cache.get("version") !== version) cache.delete(0);
    cache.set("version", version);
    const runs = [];
    for (const [v, pixels] of pictures.entries()) {
      if (!cache.has(v)) {
        cache.set(v, e.passes(net, [into(pixels)], [labels[v]])[0]);
        if (v % 8 === 7) yield;
      }
      runs.push(cache.get(v));
    }
    const count = pictures.length;
    const [G, b] = e.gradient(net, runs, (layer) => layer.weight === 0);
    yield;
    const divided = back(e.largestRow(G, b));
    const found = e.isolated(G, b, count === 2 ? 3 : 2, count).map(({ picture }) => back(picture));
    const nearest = e.placed([divided], pictures).indexOf(divided);
    const ssim = e.ssim(pictures[nearest], divided, spec.image);
    yield { divided, placed: e.placed(found, pictures), ssim };
  }

  function* search(e, input) {
    const { size, width, seed, start, mean, std, pictures, labels, recipe } = input;
    const spec = { image: [3, size, size], layers: [`linear ${width}`, "relu", "linear 10"] };
    const { into, back } = e.lens(mean, std, size * size);
    const net = yield* e.growing(spec, e.numbers(seed));
    const sent = e.gradient(net, e.passes(net, pictures.map(into), labels));
    const box = mean.map((m, c) => [-m / std[c], (1 - m) / std[c]]), stream = e.numbers(start);
    const images = pictures.map(() => stream.normal(3 * size * size));
    const attack = e.search(net, labels, e.target(sent), { ...recipe, box, images });
    for (let step = 0; step < recipe.steps; step++) {
      const { images: guess } = attack.next(), done = step === recipe.steps - 1;
      if (step % 10 && !done) {
        yield;
        continue;
      }
      const placed = e.placed(guess.map(back), pictures);
      const ssim = placed.map((one, v) => e.ssim(pictures[v], one, spec.image));
      yield { step, done, placed, ssim };
    }
  }

  const SUCCESS = 0.6;

  // What to notice in this state; `searched` is how many a finished search has seen.
  function notice(count, alone, searched) {
    if (count === 1) return "A sum of one hides nothing: every row is the picture times one number.";
    const rows = alone === count ? `A sum of ${count} hides nobody: each picture has units that no other one woke.`
      : alone ? `${alone} of ${count} ${alone === 1 ? "has units to itself" : "have units to themselves"}. Where several pictures meet, the division gives a mixture.`
        : `No unit saw one picture alone: the rows give away nobody of ${count}.`;
    if (searched === null) return rows;
    if (searched > alone) return `${rows} The search, in the same sum, sees ${searched}.`;
    return searched ? `${rows} The search sees ${searched}.`
      : `${rows} This search sees nobody either; another one may.`;
  }

  leaky.figures("sum", async (root, config) => {
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    const { size, labels, steps } = config;
    const shots = await leaky.tiles(config.sheet, size, labels.length);
    const [own, division, single, guess] = [...root.querySelectorAll(".precode-panel")]
      .map((panel) => ({ ...leaky.screen(panel, size), value: panel.querySelector("dd") }));
    const status = root.querySelector("[role=status]"), notes = find("notice");
    const run = find("run"), reached = find("reached"), file = find("file");
    const hired = leaky.hire({ rows });
    let seeker = null, version = 0, phase = "still", alone = 0, speaking = null;
    const state = leaky.controls(root, config.axes, () => compute());
    const crowd = () => shots.slice(0, state.count);
    const input = () => ({ ...config, sheet: null, axes: null, version,
      pictures: crowd(), labels: labels.slice(0, state.count) });
    const named = (screen, text) => screen.canvas.setAttribute("aria-label", text);

    function say(text) {
      notes.textContent = text;
      clearTimeout(speaking); // spoken when the slider rests
      speaking = setTimeout(() => { status.textContent = text; }, 500);
    }

    function turn(next) {
      phase = next;
      run.textContent = next === "running" ? "Stop" : "Search";
    }

    function compute() {
      seeker?.drop("search"); // what it looked for is another sum now
      hired.ask("rows", "rows", input(), (answer) => answer && show(answer));
    }

    function show({ divided, placed, ssim }) {
      if (!root.dataset.shown) for (const each of [own, division, single]) each.place();
      const count = placed.length;
      alone = placed.filter(Boolean).length;
      own.show(crowd());
      division.show([divided]);
      single.show(placed);
      division.value.textContent = ssim.toFixed(2);
      single.value.textContent = `${alone} of ${count}`;
      named(own, `On the phones: ${count} ${count === 1 ? "picture" : "pictures"}`);
      named(division, `What one division gives, SSIM ${ssim.toFixed(2)} to the nearest picture`);
      named(single, `What isolated rows give away: ${alone} of ${count}`);
      root.dataset.shown = Number(root.dataset.shown ?? 0) + 1;
      if (phase !== "still") return begin();
      if (state.count !== config.first || version) blank(); // Python found something else
      say(notice(count, alone, null));
    }

    function blank() {
      guess.place();
      guess.show(crowd().map(() => null));
      guess.value.textContent = "–";
      named(guess, "What the search sees: not searched yet");
    }

    function begin() {
      seeker ??= leaky.hire({ search });
      blank();
      turn("running");
      status.textContent = "";
      say(notice(state.count, alone, null));
      seeker.ask("search", "search", { ...input(), recipe: { ...config.recipe, steps } }, (answer) => {
        if (!answer) return;
        const { step, done, placed, ssim } = answer;
        const seen = ssim.filter((v) => v >= SUCCESS).length;
        guess.show(placed);
        guess.value.textContent = `${seen} of ${placed.length}`;
        named(guess, `What the search sees: ${seen} of ${placed.length}`);
        reached.textContent = `Step ${step + 1} of ${steps}`;
        root.dataset.step = step + 1;
        if (!done) return;
        turn("done");
        say(notice(state.count, alone, seen));
      });
    }

    for (const control of root.querySelectorAll("button, input")) control.disabled = false;
    run.addEventListener("click", () => {
      if (phase !== "running") return begin();
      seeker.drop("search");
      turn("still");
      say("Stopped.");
    });
    find("choose").addEventListener("click", () => file.click());
    file.addEventListener("change", async () => {
      try {
        shots[0] = await leaky.opened(file.files[0], size);
        version += 1;
        compute();
      } catch (error) {
        say(`${error.message} Nothing was changed.`);
      }
      file.value = "";
    });
    compute();
  });
})();
