// Moves the sliders of every figure that SliderFigure wrote. It needs no kernel and no
// network, and may run twice or late: Colab runs scripts apart from their figure.
(function () {
  const start = (root) => {
    root.dataset.ready = "1";
    const config = JSON.parse(root.dataset.config);
    const inputs = [...root.querySelectorAll("input[type=range], select")];
    const pictures = [...root.querySelectorAll(".precode-picture")];
    const values = [...root.querySelectorAll("dd")];
    const marks = [...root.querySelectorAll(".precode-mark")];
    const cursor = root.querySelector(".precode-cursor");
    const status = root.querySelector("[role=status]");

    const place = (picture, tile) => {
      const column = tile % config.columns, row = Math.floor(tile / config.columns);
      const { width, height, gutter, columns, rows } = config;
      const share = (index, size, count) =>
        (100 * (index * (size + 2 * gutter) + gutter)) /
        (count * (size + 2 * gutter) - size);
      picture.style.backgroundPosition =
        share(column, width, columns) + "% " + share(row, height, rows) + "%";
    };

    const follow = ([x, ...heights]) => {
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      marks.forEach((mark, i) => {
        mark.toggleAttribute("hidden", heights[i] === null);
        mark.setAttribute("cx", x);
        mark.setAttribute("cy", heights[i] ?? 0);
      });
    };

    const draw = (spoken) => {
      const chosen = inputs.map((input) => Number(input.value));
      const frame = chosen.reduce(
        (index, value, i) => index * config.axes[i].texts.length + value, 0);
      const settings = chosen.map((value, i) => config.axes[i].texts[value]);
      inputs.forEach((input, i) => {
        if (input.tagName === "SELECT") return;
        input.setAttribute("aria-valuetext", settings[i]);
        root.querySelector("output[for=" + input.id + "]").value = settings[i];
      });
      pictures.forEach((picture, i) => place(picture, config.tiles[frame][i]));
      values.forEach((value, i) => { value.textContent = config.values[frame][i]; });
      if (config.marks) follow(config.marks[frame]);
      if (spoken) status.textContent = config.sentences[frame];
      root.dataset.frame = frame;
    };

    // Nothing moves before a reader asks for it. Those who want less motion get one
    // picture a second, which no longer looks like movement.
    const calm = matchMedia("(prefers-reduced-motion: reduce)");

    const play = (button, input) => {
      let timer = null;
      const say = (word) => {
        button.textContent = word;
        button.setAttribute("aria-label", word + ": " + button.dataset.title);
      };
      const atEnd = () => Number(input.value) >= Number(input.max);
      const stop = () => {
        clearInterval(timer);
        timer = null;
        say("Play");
        draw(true);
      };
      const advance = () => {
        input.value = Number(input.value) + 1;
        draw(false);
        if (atEnd()) stop();
      };
      button.disabled = false;
      input.addEventListener("input", () => timer && stop());
      button.addEventListener("click", () => {
        if (timer) return stop();
        if (atEnd()) input.value = 0;
        draw(false);
        say("Pause");
        timer = setInterval(advance, calm.matches ? 1000 : 180);
      });
    };

    inputs.forEach((input) => {
      input.disabled = false;
      input.addEventListener("input", () => draw(true));
      const button = input.parentElement.querySelector(".precode-play");
      if (button) play(button, input);
    });
    draw(false);
  };
  document.querySelectorAll(".precode-slider[data-config]:not([data-ready])").forEach(start);
})();
