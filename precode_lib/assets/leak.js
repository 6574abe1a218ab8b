// "Leak your own picture": from a reader's picture to the gradient, and back.
(() => {
  // What the client sends, and what the server makes of it. Runs wherever `hire` says.
  function* leak(e, input, cache) {
    const { size, width, seed, mean, std, pictures, labels, sigma, pruned, precode, rows } = input;
    const count = 3 * size * size, area = size * size;
    const spec = { image: [3, size, size], layers: [`linear ${width}`, "relu",
      ...(precode ? [`precode ${precode.k} ${precode.beta}`] : []), "linear 10"] };
    const key = JSON.stringify([spec, seed]);
    if (!cache.has(key)) {
      for (const old of cache.keys()) if (old !== "noise") cache.delete(old);
      cache.set(key, yield* e.growing(spec, e.numbers(seed)));
    }
    const net = cache.get(key);
    // Drawn once and in pieces: a slider changes only how strong it is.
    const noise = function* () {
      if (cache.get("noise")?.length === width * (count + 1)) return;
      const drawn = e.zeros(width * (count + 1)), stream = e.numbers(seed + 1);
      yield* e.sliced(drawn, stream.fillNormal);
      cache.set("noise", drawn);
    };
    const { into, back } = e.lens(mean, std, area), images = pictures.map(into);
    const fresh = precode && e.numbers(input.draw);
    const hidden = precode && images.map(() => fresh.normal(precode.k));
    const runs = e.passes(net, images, labels, hidden);
    const [G, b] = e.gradient(net, runs, (layer) => layer.weight === 0);
    const factors = [...b.keys()].sort((i, j) => b[j] - b[i]).slice(0, rows);
    yield;
    if (sigma) {
      yield* noise();
      const drawn = cache.get("noise");
      e.addNoise([G, b], sigma, [drawn.subarray(0, G.length), drawn.subarray(G.length)]);
      yield;
    }
    if (pruned) e.prune([G, b], pruned);
    yield;
    const batch = pictures.length;
    const alone = batch > 1 ? e.isolated(G, b, batch === 2 ? 3 : 2, batch) : [];
    yield;
    // Of a mixture, or behind a defense, nobody needs the last digits.
    const blurred = sigma || pruned;
    const mixture = alone.length === batch ? null
      : back(e.totalLeastSquares(G, b, batch > 1 ? 8 : 30, blurred ? 1e-9 : 1e-12));
    yield;
    // Which picture each one is; the server cannot tell, and need not.
    const found = e.placed(alone.map(({ picture }) => back(picture)), pictures);
    const whole = found.map((one) => one ?? mixture);
    const stretched = (row) => {
      let low = Infinity, high = -Infinity;
      for (const v of row) { low = Math.min(low, v); high = Math.max(high, v); }
      return row.map((v) => (v - low) / (high - low || 1));
    };
    yield {
      found: whole,
      speaks: whole.every((one) => one.every(Number.isFinite)),
      alone: found.filter(Boolean).length,
      rows: factors.map((i) => stretched(G.slice(i * count, (i + 1) * count))),
      single: sigma ? e.ssim(pictures[0], back(e.largestRow(G, b)), [3, size, size]) : null,
      ssim: whole.map((one, i) => e.ssim(pictures[i], one, [3, size, size])),
      kl: precode ? e.kl(runs) : null,
    };
    yield* noise(); // ready for the slider
  }

  const SUCCESS = 0.6;
  const HOW_TO_DRAW = "Draw on the white picture: with a finger, a mouse, or the arrow keys. The space bar lifts and lowers the pen.";

  // What to notice in this state.
  function notice({ sigma, pruned, precode, batch }, { alone, ssim, speaks, single }, width) {
    const percent = +(100 * pruned).toFixed(1);
    if (!speaks) return "No unit of the first layer answered to this picture: its gradient is all zeros.";
    if (batch > 1) {
      if (alone === batch)
        return `All ${batch} pictures came back: each has units that no other picture woke, and their rows agree.`;
      if (alone) return `${alone} of ${batch} came back, where units saw a picture alone. The rest is a mixture.`;
      return sigma || pruned ? "No two rows agree any more. One division gives a mixture of all pictures."
        : "No units saw a picture alone. One division gives a mixture of all pictures.";
    }
    if (ssim[0] < SUCCESS) {
      if (sigma) return "Now this server sees nothing. But the model has to learn from the same noisy numbers.";
      return pruned ? `Without ${percent} % of its numbers, the gradient hardly shows the picture.`
        : "Hardly anything came back. Try another picture.";
    }
    if (sigma) return single < SUCCESS
      ? `Any single row has drowned. All ${width} rows together still give the picture back.`
      : "So little noise hides nothing: even one row gives the picture back.";
    if (pruned) return `${percent} % of the numbers are gone, and what is left still shows the picture.`;
    if (precode) return "PRECODE draws new noise each time. It changes every row's factor, but not the picture in it: the division does not notice.";
    return "Every row is the picture times one number, and that number is sent along. The server divides.";
  }

  leaky.figures("leak", async (root, config) => {
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    const { size, width, labels } = config;
    const [own, row, server] = [...root.querySelectorAll(".precode-panel")]
      .map((panel) => ({ ...leaky.screen(panel, size), panel }));
    const value = (name) => server.panel.querySelector(`dd:nth-of-type(${name})`);
    const notes = find("notice"), status = root.querySelector("[role=status]");
    const shots = await Promise.all(config.photos.map((one) => leaky.drawn(one, size)));
    const hired = leaky.hire({ leak });
    let drawing = false, empty = false; // on a sheet of paper, before the first stroke
    let mine = shots[0], draws = 0, speaking = null, name = config.names[0];
    const state = leaky.controls(root, config.axes, () => compute());
    const precode = find("precode"), menu = find("photo");

    function compute() {
      const pictures = [mine, ...shots.filter((one) => one !== mine)].slice(0, state.batch);
      const protection = precode.checked ? { k: state.k, beta: state.beta } : null;
      const asked = { ...state, precode: protection };
      hired.ask("leak", "leak", { ...config, photos: null, axes: null, pictures, ...asked,
        labels: labels.slice(0, state.batch), draw: 1000 + draws++ },
        (answer) => answer && show(pictures, asked, answer));
    }

    function show(pictures, asked, answer) {
      if (!root.dataset.shown) for (const each of [own, row, server]) each.place();
      own.show(pictures);
      row.show(answer.rows);
      server.show(answer.found);
      const mean = answer.ssim.reduce((total, v) => total + v, 0) / answer.ssim.length;
      value(1).textContent = answer.speaks
        ? (Math.round(100 * mean) / 100 + 0).toFixed(2) : "none";
      find("kl").textContent = asked.precode ? `KL ${answer.kl.toFixed(1)} nats` : "";
      notes.textContent = drawing && empty ? HOW_TO_DRAW : notice(asked, answer, width);
      own.canvas.setAttribute("aria-label", `What the client has: ${name}`);
      server.canvas.setAttribute("aria-label", `What the server computes, SSIM ${value(1).textContent}`);
      root.dataset.shown = Number(root.dataset.shown ?? 0) + 1;
      clearTimeout(speaking); // spoken when the slider rests
      speaking = setTimeout(() => {
        status.textContent = drawing && empty ? HOW_TO_DRAW
          : `SSIM ${value(1).textContent}. ${notes.textContent}`;
      }, 500);
    }

    function take(pixels, called) {
      mine = pixels;
      name = called;
      compute();
    }

    function refuse(text) {
      notes.textContent = status.textContent = text;
      clearTimeout(speaking);
    }

    async function open(file) {
      if (!file) return;
      stopDrawing();
      try {
        const pixels = await leaky.opened(file, size);
        menu.value = "own";
        take(pixels, "your picture");
      } catch (error) {
        refuse(`${error.message} Nothing was changed.`);
      }
    }

    for (const control of root.querySelectorAll("button, select, input")) control.disabled = false;
    const toggle = () => {
      root.querySelector(".precode-of-precode").hidden = !precode.checked;
    };
    precode.addEventListener("input", () => { toggle(); compute(); });
    toggle();
    menu.addEventListener("input", () => {
      stopDrawing();
      if (menu.value !== "own") take(shots[menu.value], config.names[menu.value]);
    });

    // A file: chosen, dropped or pasted.
    const file = find("file");
    find("choose").addEventListener("click", () => file.click());
    file.addEventListener("change", () => { open(file.files[0]); file.value = ""; });
    const over = (event) => { event.preventDefault(); root.classList.add("precode-over"); };
    root.addEventListener("dragenter", over);
    root.addEventListener("dragover", over);
    root.addEventListener("dragleave", () => root.classList.remove("precode-over"));
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      root.classList.remove("precode-over");
      open(event.dataTransfer.files[0]);
    });

    // Drawing: with a pointer, or with the arrow keys and the space bar.
    const draw = find("draw"), paper = document.createElement("canvas");
    paper.width = paper.height = size;
    const ink = paper.getContext("2d", { willReadFrequently: true });
    let at = null, down = false;
    function stopDrawing() {
      if (!drawing) return;
      drawing = false;
      own.canvas.classList.remove("precode-paper", "precode-empty");
      own.canvas.removeAttribute("tabindex");
      draw.setAttribute("aria-pressed", "false");
    }
    draw.addEventListener("click", () => {
      if (drawing) return stopDrawing();
      drawing = true;
      if (!root.dataset.shown) own.place();
      ink.fillStyle = "#fff";
      ink.fillRect(0, 0, size, size);
      Object.assign(ink, { lineWidth: size / 14, lineCap: "round", lineJoin: "round", strokeStyle: "#1d3f72" });
      empty = true;
      own.canvas.classList.add("precode-paper", "precode-empty");
      own.canvas.tabIndex = 0;
      draw.setAttribute("aria-pressed", "true");
      at = [size / 2, size / 2];
      down = false;
      menu.value = "own";
      take(leaky.pixels(paper, size), "your drawing");
      refuse(HOW_TO_DRAW);
      own.canvas.focus({ preventScroll: true });
    });
    function line(to) {
      empty = false;
      own.canvas.classList.remove("precode-empty");
      ink.beginPath();
      ink.moveTo(...at);
      ink.lineTo(to[0] + 0.01, to[1]); // a line of no length would leave no dot
      ink.stroke();
      at = to;
      take(leaky.pixels(paper, size), "your drawing");
    }
    const spot = (event) => {
      const box = own.canvas.getBoundingClientRect();
      return [size * (event.clientX - box.left) / box.width, size * (event.clientY - box.top) / box.height];
    };
    own.canvas.addEventListener("pointerdown", (event) => {
      if (!drawing) return;
      own.canvas.setPointerCapture(event.pointerId);
      at = spot(event);
      down = true;
      line(at);
    });
    own.canvas.addEventListener("pointermove", (event) => {
      if (drawing && down && event.buttons) line(spot(event));
    });
    own.canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (!drawing || !(event.key in moves || event.key === " ")) return;
      event.preventDefault();
      if (event.key === " ") {
        down = !down;
        status.textContent = down ? "The pen is down." : "The pen is up.";
        return down && line(at);
      }
      const to = at.map((v, i) => Math.min(size, Math.max(0, v + 2 * moves[event.key][i])));
      if (down) line(to);
      at = to;
    });

    // The camera: asked for on this click only, and switched off with the picture.
    const camera = find("camera"), view = find("view"), video = view.querySelector("video");
    let stream = null;
    function close() {
      stream?.getTracks().forEach((track) => track.stop());
      stream = video.srcObject = null;
      view.hidden = true;
    }
    camera.addEventListener("click", async () => {
      if (stream) return;
      stopDrawing();
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, facingMode: "user" } });
        video.srcObject = stream;
        view.hidden = false;
        await video.play();
        find("take").focus();
      } catch {
        close();
        refuse("No camera was opened: there is none, or it was not allowed. Nothing was taken.");
      }
    });
    find("take").addEventListener("click", () => {
      const pixels = leaky.pixels(video, size, video.videoWidth, video.videoHeight);
      close();
      menu.value = "own";
      take(pixels, "your picture");
      camera.focus();
    });
    find("cancel").addEventListener("click", () => { close(); camera.focus(); });
    document.addEventListener("visibilitychange", () => document.hidden && close());

    compute();
  });
})();
