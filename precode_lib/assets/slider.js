// Moves the sliders of every figure that SliderFigure wrote. It needs no kernel and no
// network, and may run twice or late: Colab runs scripts apart from their figure.
(function () {
  const start = (root) => {
    root.dataset.ready = "1";
    const config = JSON.parse(root.dataset.config);
    const inputs = [...root.querySelectorAll("input[type=range], select")];
    const pictures = [...root.querySelectorAll(".precode-picture")];
    const values = [...root.querySelectorAll("dd")];
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
      if (spoken) status.textContent = config.sentences[frame];
      root.dataset.frame = frame;
    };

    const play = (button, input) => {
      let timer = null;
      const stop = () => {
        clearInterval(timer);
        timer = null;
        button.textContent = "Play";
      };
      const advance = () => {
        if (Number(input.value) >= Number(input.max)) return stop();
        input.value = Number(input.value) + 1;
        draw(false);
      };
      button.disabled = false;
      input.addEventListener("input", () => timer && stop());
      button.addEventListener("click", () => {
        if (timer) return stop();
        if (Number(input.value) >= Number(input.max)) input.value = 0;
        draw(false);
        button.textContent = "Pause";
        timer = setInterval(advance, 180);
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
