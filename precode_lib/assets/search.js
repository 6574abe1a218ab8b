// Searches that run while one watches: one lane each, with a worker of its own.
(() => {
  // The client sends, the attacker searches: a step after the other.
  function* steps(e, input) {
    const { net: spec, seed, start, mean, std, pixels, label, sigma, factor, recipe } = input;
    const size = spec.image[1], area = size * size, each = Array(3).fill(0);
    const net = yield* e.growing(spec, e.numbers(seed));
    const { into, back } = e.lens(mean, std, area);
    const victims = e.numbers(seed + 1), stream = e.numbers(start);
    const hidden = net.code ? [victims.normal(net.code)] : null;
    const sent = e.gradient(net, e.passes(net, [into(pixels)], [label], hidden));
    if (sigma) {
      const noise = sent.map((p) => e.zeros(p.length));
      for (const each of noise) yield* e.sliced(each, victims.fillNormal);
      e.addNoise(sent, sigma, noise);
    }
    for (const p of sent) for (let i = 0; i < p.length; i++) p[i] *= factor;
    const last = net.layers.findIndex((layer) => layer.k) - 1; // PRECODE's encoder
    const counted = recipe.noise === "left out" ? net.layers[last].bias + 1 : sent.length;
    const noise = {
      searched: () => ({ hidden: "searched", noise: [e.zeros(net.code)] }),
      oracle: () => ({ noise: hidden }),
    }[recipe.noise]?.() ?? { hidden: "fresh", noise: null };
    const box = recipe.boxed && each.map((_, c) => [-mean[c] / std[c], (1 - mean[c]) / std[c]]);
    const attack = e.search(net, [label], e.target(sent, { counted, scale: input.scale }),
      { ...recipe, ...noise, box, stream, images: [stream.normal(3 * area)] });
    for (let step = 0; step < recipe.steps; step++) {
      const { objective, images } = attack.next(), done = step === recipe.steps - 1;
      const seen = back(images[0]);
      const scored = step % 10 === 0 || done;
      yield { step, objective, seen, done,
        ssim: scored ? e.ssim(pixels, seen, spec.image) : null };
    }
  }

  const WIDTH = 340, HEIGHT = 220, TOP = 28, BOTTOM = 178, LEFT = 52, DASHES = ["", "6 3", "2 3", "9 3 2 3"];

  // The objectives so far, in the look of the curves that Python draws.
  function curve(svg, lanes, steps) {
    const known = lanes.flatMap((lane) => lane.line).filter((v) => v > 0);
    if (!known.length) return;
    const low = Math.log10(Math.min(...known)) - 0.1, high = Math.log10(Math.max(...known)) + 0.1;
    const right = WIDTH - 100, x = (step) => LEFT + (right - LEFT) * step / (steps - 1);
    const y = (v) => BOTTOM - (BOTTOM - TOP) * ((v > 0 ? Math.log10(v) : low) - low) / (high - low);
    const powers = [], stride = Math.ceil((high - low) / 5);
    for (let p = Math.ceil(low); p <= high; p += stride) powers.push(p);
    const grid = powers.map((p) => `<line class="precode-grid" x1="${LEFT}" x2="${right}"
      y1="${y(10 ** p)}" y2="${y(10 ** p)}"/><text x="${LEFT - 6}" y="${y(10 ** p) + 4}"
      text-anchor="end">${p < -4 || p > 4 ? `1e${p}` : +(10 ** p).toPrecision(1)}</text>`);
    // The names stay apart, and above the axis: from the lowest line upwards.
    let highest = BOTTOM + 10;
    const names = lanes.filter((lane) => lane.line.length).map((lane) => ({ lane,
      y: y(lane.line[lane.line.length - 1]) })).sort((a, b) => b.y - a.y).map(({ lane, y: at }) => {
      highest = Math.min(at, highest - 14);
      return `<text class="precode-name" style="--role-text:var(--precode-leaked)"
        x="${x(lane.line.length - 1) + 8}" y="${highest + 4}">${lane.name}</text>`;
    });
    const lines = lanes.map(({ line }, i) => `<polyline stroke="var(--precode-leaked)"
      stroke-dasharray="${DASHES[i] || "none"}" points="${line.map((v, step) =>
        step % Math.ceil(line.length / 150) ? "" : `${x(step).toFixed(1)},${y(v).toFixed(1)}`).join(" ")}"/>`);
    svg.innerHTML = `${grid.join("")}<line class="precode-axis" x1="${LEFT}" x2="${right}" y1="${BOTTOM}"
      y2="${BOTTOM}"/><text x="${LEFT}" y="${BOTTOM + 17}">0</text><text x="${right}" y="${BOTTOM + 17}"
      text-anchor="middle">${steps}</text><text x="${(LEFT + right) / 2}" y="${HEIGHT - 6}"
      text-anchor="middle">step</text><text x="4" y="14">objective (log scale)</text>
      ${lines.join("")}${names.join("")}`;
  }

  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  leaky.figures("search", async (root, config) => {
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    const size = config.size, status = root.querySelector("[role=status]");
    const shots = await Promise.all(config.photos.map((one) => leaky.drawn(one, size)));
    const [own, ...panels] = [...root.querySelectorAll(".precode-panel")]
      .map((panel) => ({ ...leaky.screen(panel, size), panel }));
    const lanes = config.lanes.map((lane, i) => ({ ...lane, ...panels[i], line: [],
      values: [...panels[i].panel.querySelectorAll("dd")], hired: null, latest: null }));
    const run = find("run"), reached = find("reached"), svg = root.querySelector(".precode-curve");
    const menu = find("photo"), file = find("file");
    let pixels = shots[0], label = config.labels[0], start = config.seed + 2;
    let phase = "still", timer = null, begun = 0;
    const state = leaky.controls(root, config.axes, () => phase !== "still" && begin());

    const say = (text) => { reached.textContent = text; };
    const spoken = () => {
      const scores = lanes.map((lane) => `${lane.name}: SSIM ${lane.values[0].textContent}`);
      status.textContent = `${reached.textContent}. ${scores.join("; ")}.`;
    };
    function turn(next) {
      phase = next;
      run.textContent = { running: "Pause", paused: "Go on" }[next] ?? "Search";
      for (const { hired } of lanes) hired?.rest(next === "paused");
      if (next !== "running") draw(true);
    }

    function draw(now = false) {
      if (timer && !now) return;
      clearTimeout(timer);
      timer = setTimeout(() => {
        timer = null;
        const moving = lanes.filter((lane) => lane.latest);
        for (const { latest, show, values, canvas, name } of moving) {
          show([latest.seen]);
          values[0].textContent = (Math.round(100 * latest.ssim) / 100 + 0).toFixed(2);
          values[1].textContent = latest.objective.toExponential(1);
          canvas.setAttribute("aria-label", `The guess of ${name}, SSIM ${values[0].textContent}`);
        }
        if (!moving.length) return;
        const least = Math.min(...lanes.map((lane) => lane.line.length));
        say(`Step ${least} of ${config.steps}`);
        curve(svg, lanes, config.steps);
        svg.setAttribute("aria-label", `The objectives after ${least} steps: ${lanes.map((lane) =>
          `${lane.name} ${lane.values[1].textContent}`).join("; ")}`);
        root.dataset.shown = least;
        if (lanes.every((lane) => lane.latest?.done) && phase === "running") turn("done");
        if (phase !== "running") spoken();
      }, now ? 0 : calm.matches ? 1000 : 60);
    }

    // A lane at a time, for each may need a worker, and the page has to answer in between.
    function begin() {
      const round = ++begun;
      status.textContent = "";
      for (const lane of lanes) {
        lane.hired?.drop("search");
        Object.assign(lane, { line: [], latest: null });
        setTimeout(() => round === begun && search(lane));
      }
      own.place();
      own.show([pixels]);
      turn("running");
    }

    function search(lane) {
      if (!lane.hired) lane.place();
      lane.hired ??= leaky.hire({ search: steps });
      lane.hired.rest(phase === "paused");
      const set = (word) => {
        const [kind, k, beta] = word.split(" ");
        return kind === "precode" ? `precode ${state.k ?? k} ${state.beta ?? beta}` : word;
      };
      const net = { ...lane.net, layers: lane.net.layers.map(set) };
      const recipe = { ...lane.recipe, steps: config.steps };
      if (state.distance) recipe.distance = state.distance;
      lane.hired.ask("search", "search", { net, recipe, seed: config.seed, start,
        mean: config.mean, std: config.std, pixels, label,
        sigma: state.sigma ?? 0, factor: state.factor ?? 1, scale: state.scale ?? 1 },
      (answer) => {
        if (!answer) return;
        lane.line.push(answer.objective);
        lane.latest = { ...answer, ssim: answer.ssim ?? lane.latest.ssim };
        draw();
      });
    }

    function take(chosen, of) {
      pixels = chosen;
      label = of;
      begin();
    }

    for (const control of root.querySelectorAll("button, select, input")) control.disabled = false;
    run.addEventListener("click", () => {
      if (phase === "running") turn("paused");
      else if (phase === "paused") turn("running");
      else begin();
    });
    find("again").addEventListener("click", begin);
    find("seed").addEventListener("click", () => { start += 1; begin(); });
    menu.addEventListener("input", () => {
      if (menu.value !== "own") take(shots[menu.value], config.labels[menu.value]);
    });
    find("choose").addEventListener("click", () => file.click());
    file.addEventListener("change", async () => {
      try {
        const pixels = await leaky.opened(file.files[0], size);
        menu.value = "own";
        take(pixels, config.labels[0]);
      } catch (error) {
        say(error.message);
        status.textContent = error.message;
      }
      file.value = "";
    });
  });
})();
