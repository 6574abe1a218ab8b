// What every figure that computes in the page shares: who computes, and how a picture
// gets from a reader into an array and from an array onto the screen. Needs engine.js.
(() => {
  if (leaky.hire) return;

  // Runs generators, one per slot, a slice of time after the other, so that whoever sent
  // them can be heard in between. A new job in a slot ends the one that was there.
  function desk(engine, tasks, tell, slice) {
    const jobs = new Map(), cache = new Map();
    const { port1, port2 } = new MessageChannel(); // a timer would wait 4 ms each time
    let paused = false, waiting = false;
    const wake = () => {
      if (waiting || paused || !jobs.size) return;
      waiting = true;
      port2.postMessage(0);
    };
    const work = () => {
      waiting = false;
      const end = performance.now() + slice;
      while (!paused && jobs.size && performance.now() < end)
        for (const [slot, { id, job }] of jobs) {
          try {
            const { value, done } = job.next();
            if (value !== undefined) tell({ slot, id, value });
            if (done) jobs.delete(slot);
          } catch (error) {
            jobs.delete(slot);
            tell({ slot, id, error: String(error) });
          }
        }
      wake();
    };
    port1.onmessage = work;
    return ({ slot, id, task, input, pause }) => {
      if (pause !== undefined) paused = pause;
      else if (task) jobs.set(slot, { id, job: tasks[task](engine, input, cache) });
      else jobs.delete(slot);
      wake();
    };
  }

  // A worker made from text works from file:// and without a network. Where none may be
  // made, the page itself computes, in slices that nobody feels.
  leaky.hire = (tasks) => {
    const asked = new Map();
    let count = 0, answered = false, send = null, worker = null, resting = false;
    const pause = () => send({ pause: resting || document.hidden });
    const hear = ({ slot, id, value, error }) => {
      answered = true;
      const one = asked.get(slot);
      if (one?.id === id) one.reply(value, error); // older answers are not for this state
    };
    const alone = () => {
      const local = desk(leaky, tasks, hear, 12);
      send = local;
      hired.place = "page";
      pause();
      for (const [slot, { id, task, input }] of asked) local({ slot, id, task, input });
    };
    const hired = {
      ask(slot, task, input, reply) {
        const id = ++count;
        asked.set(slot, { id, task, input, reply });
        send({ slot, id, task, input });
      },
      drop(slot) {
        asked.delete(slot);
        send({ slot });
      },
      rest(on) {
        resting = on;
        pause();
      },
      place: "worker",
    };
    try {
      const named = Object.entries(tasks).map(([name, task]) => `${name}: ${task}`);
      const text = `const leaky = ${leaky.source};
        const take = (${desk})(leaky, {${named}}, (answer) => postMessage(answer), 40);
        onmessage = ({ data }) => take(data);`;
      const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
      worker = new Worker(address);
      worker.onmessage = ({ data }) => hear(data);
      worker.onerror = (event) => {
        event.preventDefault();
        worker.terminate();
        if (!answered) alone(); // it never began: a rule of the page forbids it
      };
      send = (message) => worker.postMessage(message);
      pause();
    } catch {
      alone();
    }
    document.addEventListener("visibilitychange", pause);
    return hired;
  };

  // Starts every figure of a kind once, when a reader comes near it.
  leaky.figures = (kind, start) => {
    for (const root of document.querySelectorAll(`[data-${kind}]:not([data-ready])`)) {
      root.dataset.ready = "";
      const config = JSON.parse(root.dataset[kind]);
      const watcher = new IntersectionObserver((entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        watcher.disconnect();
        start(root, config);
      }, { rootMargin: "400px" });
      watcher.observe(root);
    }
  };

  // Sliders and menus by their data-name: their values now, and a call when one moves.
  leaky.controls = (root, axes, moved) => {
    const state = {};
    for (const { name, values, texts } of axes) {
      const control = root.querySelector(`[id$="-${name}"]`);
      const read = () => {
        state[name] = values[control.value];
        if (control.tagName === "SELECT") return;
        control.setAttribute("aria-valuetext", texts[control.value]);
        root.querySelector(`output[for="${control.id}"]`).value = texts[control.value];
      };
      control.disabled = false;
      control.addEventListener("input", () => { read(); moved(name); });
      read();
    }
    return state;
  };

  const PAPER = "#ededed"; // where no picture is: 0.93, as Python draws it

  // Puts a canvas where Python drew a picture; `show` takes planar pixels in [0, 1].
  leaky.screen = (panel, size) => {
    const still = panel.querySelector(".precode-picture");
    const canvas = document.createElement("canvas");
    canvas.className = still.className;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", still.alt || still.getAttribute("aria-label"));
    canvas.width = canvas.height = size;
    const pen = canvas.getContext("2d");
    const image = (pixels) => {
      const side = Math.sqrt(pixels.length / 3), area = side * side;
      const data = new ImageData(side, side);
      for (let i = 0; i < area; i++) {
        for (let c = 0; c < 3; c++) data.data[4 * i + c] = 255 * pixels[c * area + i];
        data.data[4 * i + 3] = 255;
      }
      return data;
    };
    return {
      canvas, pen,
      place: () => still.replaceWith(canvas),
      // Several pictures share the square, in rows as long as they are many; null is none.
      show(pictures) {
        const across = Math.ceil(Math.sqrt(pictures.length));
        const side = size, wide = across * side;
        const down = Math.ceil(pictures.length / across) * side;
        if (canvas.width !== wide) canvas.width = canvas.height = wide;
        pen.clearRect(0, 0, wide, wide);
        pen.fillStyle = PAPER;
        pictures.forEach((pixels, i) => {
          const x = (i % across) * side, y = Math.floor(i / across) * side + (wide - down) / 2;
          if (pixels) pen.putImageData(image(pixels), x, y);
          else pen.fillRect(x, y, side, side);
        });
      },
    };
  };

  const planar = ({ data }) => {
    const area = data.length / 4, out = new Float64Array(3 * area);
    for (let c = 0; c < 3; c++)
      for (let i = 0; i < area; i++) out[c * area + i] = data[4 * i + c] / 255;
    return out;
  };

  // The middle square of anything that can be drawn, as planar pixels in [0, 1].
  leaky.pixels = (source, size, width = source.width, height = source.height) => {
    const canvas = document.createElement("canvas"), side = Math.min(width, height);
    canvas.width = canvas.height = size;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.fillStyle = "#fff"; // behind what is transparent
    pen.fillRect(0, 0, size, size);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, size, size);
    return planar(pen.getImageData(0, 0, size, size));
  };

  const opened = (address) => new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = failed;
    image.src = address;
  });

  leaky.drawn = async (address, size) => leaky.pixels(await opened(address), size);

  // A sheet's pictures, in rows as long as they are many.
  leaky.tiles = async (address, size, count) => {
    const sheet = await opened(address), across = Math.ceil(Math.sqrt(count));
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = across * size;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(sheet, 0, 0);
    return Array.from({ length: count }, (_, i) => planar(
      pen.getImageData((i % across) * size, Math.floor(i / across) * size, size, size)));
  };

  // What a file is, by its first bytes and not by its name.
  const KINDS = [
    ["a picture", /^\xff\xd8\xff|^\x89PNG|^GIF8|^BM|^RIFF....WEBP|^....ftypavi/s],
    ["a HEIC photograph, which browsers cannot show: save it as JPEG first",
      /^....ftyp(hei|hev|mif|msf)/s],
    ["a PDF: take a picture of the page instead", /^%PDF/],
    ["a drawing in SVG, which has no pixels: save it as PNG first", /^\s*(<\?xml[^]*)?<svg/i],
  ];
  const MOST_BYTES = 64e6, MOST_PIXELS = 120e6;

  // A reader's file, scaled to size x size; or an Error whose message is for the reader.
  leaky.opened = async (file, size) => {
    const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 400).arrayBuffer()));
    const [kind] = KINDS.find(([, bytes]) => bytes.test(head)) ?? ["no picture that a page can read"];
    if (kind !== "a picture") throw new Error(`This file is ${kind}.`);
    if (file.size > MOST_BYTES) throw new Error("This file is larger than 64 MB.");
    const address = URL.createObjectURL(file);
    try {
      const image = await opened(address); // knows its size before it is decoded
      const { naturalWidth: width, naturalHeight: height } = image;
      if (width * height > MOST_PIXELS)
        throw new RangeError("This picture has more than 120 million pixels.");
      const side = Math.min(width, height);
      const small = await createImageBitmap(file, Math.floor((width - side) / 2),
        Math.floor((height - side) / 2), side, side,
        { resizeWidth: size, resizeHeight: size, resizeQuality: "high" });
      return leaky.pixels(small, size);
    } catch (error) {
      if (error instanceof RangeError) throw error;
      throw new Error("This file begins like a picture, but cannot be read as one.");
    } finally {
      URL.revokeObjectURL(address);
    }
  };
})();
