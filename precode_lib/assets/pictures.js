// Pictures beside each other: what a network sees of one, which belongs to which, and how
// alike two are. Joins the engine, in the page as in a worker. Needs engine.js.
(() => {
  if (leaky.ssim) return;
  const pictures = () => {
    // From pixels in [0, 1] to what a network sees, and back.
    function lens(mean, std, area) {
      const each = (map) => (values) => values.map((v, i) => map(v, Math.floor(i / area)));
      return {
        into: each((v, c) => (v - mean[c]) / std[c]),
        back: each((v, c) => Math.min(1, Math.max(0, v * std[c] + mean[c]))),
      };
    }

    // What was found, each at the place of an own picture, the nearest pairs first.
    function placed(found, own) {
      const places = own.map(() => null), pairs = found.flatMap((one) => own.map((each, at) =>
        ({ one, at, away: one.reduce((total, v, j) => total + (v - each[j]) ** 2, 0) })));
      for (const { one, at } of pairs.sort((p, q) => p.away - q.away))
        if (!places[at] && !places.includes(one)) places[at] = one;
      return places;
    }

    function ssim(one, two, [channels, height, width], side = 7) {
      const count = side * side, c1 = 0.01 ** 2, c2 = 0.03 ** 2;
      let total = 0, windows = 0;
      // Sums over every window, by sums along rows and then along columns.
      const sums = (at) => {
        const flat = new Float64Array(height * width), wide = width - side + 1;
        for (let i = 0; i < flat.length; i++) flat[i] = at(i);
        const rows = new Float64Array(height * wide);
        for (let y = 0; y < height; y++) for (let x = 0; x < wide; x++)
          for (let k = 0; k < side; k++) rows[y * wide + x] += flat[y * width + x + k];
        const out = new Float64Array((height - side + 1) * wide);
        for (let i = 0; i < out.length; i++)
          for (let k = 0; k < side; k++) out[i] += rows[i + k * wide];
        return out;
      };
      for (let c = 0; c < channels; c++) {
        const p = c * height * width;
        const x = sums((i) => one[p + i]), y = sums((i) => two[p + i]);
        const squares = sums((i) => one[p + i] ** 2 + two[p + i] ** 2);
        const products = sums((i) => one[p + i] * two[p + i]);
        for (let i = 0; i < x.length; i++) {
          const mx = x[i] / count, my = y[i] / count, unbias = count / (count - 1);
          const spread = unbias * (squares[i] / count - mx * mx - my * my);
          const common = unbias * (products[i] / count - mx * my);
          total += (2 * mx * my + c1) / (mx * mx + my * my + c1) * (2 * common + c2) / (spread + c2);
          windows++;
        }
      }
      return total / windows;
    }

    return { lens, placed, ssim };
  };
  Object.assign(leaky, pictures(), {
    source: `Object.assign(${leaky.source}, (${pictures})())`,
  });
})();
