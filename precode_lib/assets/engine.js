// Networks, their gradients and the attacks on them, for pages without a kernel. A
// classic script, for modules do not load from file://. It sets one global, `leaky`; a
// module or a worker takes `leaky.source`. Tests compare it with precode_lib in float64.
globalThis.leaky ??= ((engine) => Object.assign(engine(), { source: `(${engine})()` }))(function () {
  "use strict";

  const zeros = (count) => new Float64Array(count);
  const sum = (values) => { let total = 0; for (const v of values) total += v; return total; };

  function dot(a, b, at = 0, from = 0, count = b.length) {
    let p = 0, q = 0, r = 0, s = 0, i = 0;
    for (; i + 3 < count; i += 4) {
      p += a[at + i] * b[from + i];
      q += a[at + i + 1] * b[from + i + 1];
      r += a[at + i + 2] * b[from + i + 2];
      s += a[at + i + 3] * b[from + i + 3];
    }
    for (; i < count; i++) p += a[at + i] * b[from + i];
    return p + q + r + s;
  }

  function add(to, factor, values, at = 0, from = 0, count = values.length) {
    for (let i = 0; i < count; i++) to[at + i] += factor * values[from + i];
    return to;
  }

  // matrix · vector
  function times(matrix, vector, rows) {
    const out = zeros(rows), columns = vector.length;
    for (let i = 0; i < rows; i++) out[i] = dot(matrix, vector, i * columns, 0, columns);
    return out;
  }

  // matrixᵀ · vector, four rows at a time: the sum is read and written a quarter as often
  function across(matrix, vector, columns) {
    const out = zeros(columns), rows = vector.length;
    let i = 0;
    for (; i + 3 < rows; i += 4) {
      const p = vector[i], q = vector[i + 1], r = vector[i + 2], s = vector[i + 3];
      let a = i * columns, b = a + columns, c = b + columns, d = c + columns;
      for (let j = 0; j < columns; j++)
        out[j] += p * matrix[a++] + q * matrix[b++] + r * matrix[c++] + s * matrix[d++];
    }
    for (; i < rows; i++) add(out, vector[i], matrix, 0, i * columns, columns);
    return out;
  }

  // The numbers that Python draws too; widgets/numbers.py says why they are made so.
  function numbers(seed) {
    const mixed = (x) => {
      x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
      x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
      return (x ^ (x >>> 15)) >>> 0;
    };
    const log = (value) => {
      let exponent = 0;
      while (value < 0.5) { value *= 2; exponent--; }
      const step = (value - 1) / (value + 1), square = step * step;
      let series = 0;
      for (let odd = 23; odd > 0; odd -= 2) series = series * square + 1 / odd;
      return 2 * step * series + exponent * 0.6931471805599453;
    };
    const ratio = (a, b, c, d, e, f, g, x) =>
      (((a * x + b) * x + c) * x + d) / (((e * x + f) * x + g) * x + 1);
    let counter = mixed(seed >>> 0);
    const one = () => {
      counter = (counter + 0x9e3779b9) >>> 0;
      return (mixed(counter) + 0.5) / 4294967296;
    };
    const bell = () => {
      const off = one() - 0.5, size = Math.abs(off);
      if (size <= 0.425)
        return off * ratio(59.109374720, 159.29113202, 50.434271938, 3.3871327179,
          67.187563600, 78.757757664, 17.895169469, 0.180625 - off * off);
      const depth = Math.sqrt(-log(0.5 - size));
      const outer = depth <= 5
        ? ratio(0.17023821103, 1.3067284816, 2.7568153900, 1.4234372777,
          0.0, 0.12021132975, 0.73700164250, depth - 1.6)
        : ratio(0.017337203997, 0.42868294337, 3.0812263860, 6.6579051150,
          0.0, 0.012258202635, 0.24197894225, depth - 5);
      return off < 0 ? -outer : outer;
    };
    // A loop for each law: one that called any of them would be compiled for none.
    const fillUniform = (out) => {
      for (let i = 0; i < out.length; i++) out[i] = one();
      return out;
    };
    const fillWithin = (bound, out) => {
      for (let i = 0; i < out.length; i++) out[i] = (2 * one() - 1) * bound;
      return out;
    };
    const fillNormal = (out) => {
      for (let i = 0; i < out.length; i++) out[i] = bell();
      return out;
    };
    return {
      uniform: (count) => fillUniform(zeros(count)),
      within: (bound, count) => fillWithin(bound, zeros(count)),
      normal: (count) => fillNormal(zeros(count)),
      fillWithin, fillNormal,
    };
  }

  // Large arrays are filled a slice at a time, so that others are heard in between.
  const SLICE = 16384;
  function* sliced(values, fill) {
    for (let i = 0; i < values.length; i += SLICE) {
      fill(values.subarray(i, i + SLICE));
      yield;
    }
  }

  // Layers are maps of one example, linear in their weights and in their input.
  // `into(weights, input)` is the output without bias, `back(weights, slope)` the slope
  // by the input, `gather(to, slope, input)` adds the slope by the weights.
  const linear = (ins, outs) => ({
    kind: "linear", ins, outs, weights: ins * outs, biases: outs, fan: ins, spread: 1,
    prepare: (input) => input,
    into: (weights, input) => times(weights, input, outs),
    back: (weights, slope) => across(weights, slope, ins),
    gather(to, slope, input) {
      for (let i = 0; i < outs; i++) if (slope[i]) add(to, slope[i], input, i * ins);
    },
  });

  function convolution([channels, height, width], outs, size, stride, padding) {
    const rows = Math.floor((height + 2 * padding - size) / stride) + 1;
    const columns = Math.floor((width + 2 * padding - size) / stride) + 1;
    const places = rows * columns, patch = channels * size * size;
    // For each place and entry of its patch, where that lies in the input; -1: outside.
    const where = new Int32Array(places * patch);
    let next = 0;
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++)
      for (let c = 0; c < channels; c++) for (let u = 0; u < size; u++)
        for (let v = 0; v < size; v++) {
          const y = i * stride + u - padding, x = j * stride + v - padding;
          const inside = y >= 0 && y < height && x >= 0 && x < width;
          where[next++] = inside ? (c * height + y) * width + x : -1;
        }
    return {
      kind: "convolution", ins: channels * height * width, outs: outs * places,
      weights: outs * patch, biases: outs, fan: patch, spread: places,
      shape: [outs, rows, columns],
      prepare(input) {
        const patches = zeros(where.length);
        for (let i = 0; i < where.length; i++) if (where[i] >= 0) patches[i] = input[where[i]];
        return patches;
      },
      into(weights, patches) {
        const out = zeros(outs * places);
        for (let p = 0; p < places; p++) for (let c = 0; c < outs; c++)
          out[c * places + p] = dot(weights, patches, c * patch, p * patch, patch);
        return out;
      },
      back(weights, slope) {
        const out = zeros(channels * height * width), mixed = zeros(patch);
        for (let p = 0; p < places; p++) {
          mixed.fill(0);
          for (let c = 0; c < outs; c++)
            add(mixed, slope[c * places + p], weights, 0, c * patch, patch);
          const base = p * patch;
          for (let i = 0; i < patch; i++) {
            const place = where[base + i];
            if (place >= 0) out[place] += mixed[i];
          }
        }
        return out;
      },
      gather(to, slope, patches) {
        for (let p = 0; p < places; p++) for (let c = 0; c < outs; c++)
          add(to, slope[c * places + p], patches, c * patch, p * patch, patch);
      },
    };
  }

  function withBias(out, bias, spread) {
    for (let i = 0, c = 0; i < out.length; c++)
      for (let p = 0; p < spread; p++) out[i++] += bias[c];
    return out;
  }

  function biasSlope(slope, spread) {
    if (spread === 1) return slope;
    const out = zeros(slope.length / spread);
    for (let i = 0; i < slope.length; i++) out[Math.floor(i / spread)] += slope[i];
    return out;
  }

  // Layers without weights: `value(input)`, `back(slope, input, output)`.
  const relu = {
    value: (input) => input.map((v) => (v > 0 ? v : 0)),
    back: (slope, input) => slope.map((s, i) => (input[i] > 0 ? s : 0)),
  };
  const sigmoid = {
    value: (input) => input.map((v) => 1 / (1 + Math.exp(-v))),
    back: (slope, _, out) => slope.map((s, i) => s * out[i] * (1 - out[i])),
  };

  // PRECODE's sample: mean + softplus(raw) · noise, with beta · KL in nats. Where
  // softplus underflows, the logarithm and its slope stay finite, as in the library.
  const CUT = 36.04;
  const softplus = (raw) => (raw > CUT ? raw : Math.log1p(Math.exp(raw)));
  const logSoftplus = (raw) => (raw < -CUT ? raw : Math.log(softplus(raw)));
  const softplusSlope = (raw) => 1 / (1 + Math.exp(-raw));
  const logSoftplusSlope = (raw) => (raw < -CUT ? 1 : softplusSlope(raw) / softplus(raw));
  const sample = (k, beta) => ({
    k, beta,
    value: (code, noise) => {
      const out = zeros(k);
      for (let i = 0; i < k; i++) out[i] = code[i] + softplus(code[k + i]) * noise[i];
      return out;
    },
    kl(code) {
      let total = 0;
      for (let i = 0; i < k; i++) {
        const raw = code[k + i], std = softplus(raw);
        total += code[i] * code[i] + std * std - 2 * logSoftplus(raw) - 1;
      }
      return 0.5 * total;
    },
    back(slope, code, noise) {
      const out = zeros(2 * k);
      for (let i = 0; i < k; i++) {
        const raw = code[k + i], rise = softplusSlope(raw);
        out[i] = slope[i] + beta * code[i];
        out[k + i] = slope[i] * noise[i] * rise
          + beta * (softplus(raw) * rise - logSoftplusSlope(raw));
      }
      return out;
    },
    noiseSlope: (slope, code) => slope.map((s, i) => s * softplus(code[k + i])),
  });

  // From {image, layers: ["linear 256", "conv 12 5 2 2", "relu", "precode 64 0.001"]} to
  // layers; weights come from `stream`, in the order of the layers, slice by slice.
  function* growing({ image, layers, bound = 0 }, stream) {
    let size = image[0] * image[1] * image[2], shape = image;
    const built = [], params = [], bounds = [];
    const affine = (layer) => {
      const limit = bound || 1 / Math.sqrt(layer.fan);
      built.push({ ...layer, weight: params.length, bias: params.length + 1 });
      params.push(zeros(layer.weights), zeros(layer.biases));
      bounds.push(limit, limit);
      size = layer.outs;
      shape = layer.shape ?? null;
    };
    for (const text of layers) {
      const [kind, ...options] = text.split(" ");
      const [a, b, c, d] = options.map(Number);
      if (kind === "linear") affine(linear(size, a));
      else if (kind === "conv") affine(convolution(shape, a, b, c, d));
      else if (kind === "relu") built.push({ kind, ...relu });
      else if (kind === "sigmoid") built.push({ kind, ...sigmoid });
      else if (kind === "precode") {
        const features = size;
        affine(linear(features, 2 * a));
        built.push({ kind: "sample", ...sample(a, b) });
        size = a;
        affine(linear(a, features));
      } else throw new Error("no layer is called " + kind);
    }
    for (const [p, each] of params.entries())
      yield* sliced(each, (part) => stream.fillWithin(bounds[p], part));
    const { k: code = 0, beta = 0 } = built.find((layer) => layer.k) ?? {};
    return { image, layers: built, params, code, beta };
  }

  function network(spec, stream) {
    const steps = growing(spec, stream);
    for (;;) {
      const { value, done } = steps.next();
      if (done) return value;
    }
  }

  const isAffine = (layer) => layer.weight !== undefined;

  // `moved` stands for other weights, theta + step · move, without their ever being
  // formed: `into` and `back` of a layer are linear in the weights.
  function forward(net, image, noise, moved = null) {
    const inputs = [], prepared = [];
    let value = image, kl = 0;
    net.layers.forEach((layer, index) => {
      inputs.push(value);
      prepared.push(null);
      if (isAffine(layer)) {
        const { weight, bias, spread } = layer;
        if (moved) {
          value = moved.into(layer, index, value);
        } else {
          prepared[index] = layer.prepare(value);
          value = withBias(layer.into(net.params[weight], prepared[index]),
            net.params[bias], spread);
        }
      } else if (layer.kind === "sample") {
        kl += layer.kl(value);
        value = layer.value(value, noise);
      } else value = layer.value(value);
    });
    inputs.push(value);
    return { inputs, prepared, kl };
  }

  function softmax(logits) {
    let top = -Infinity;
    for (const v of logits) top = Math.max(top, v);
    const shares = logits.map((v) => Math.exp(v - top)), whole = sum(shares);
    return { shares: shares.map((v) => v / whole), logWhole: top + Math.log(whole) };
  }

  // The slopes of this example's own loss, at the output of every affine layer and by noise.
  function backward(net, trace, label, noise, moved = null) {
    const { inputs } = trace, last = net.layers.length;
    const logits = inputs[last], { shares, logWhole } = softmax(logits);
    let slope = shares, byNoise = null;
    slope[label] -= 1;
    const slopes = [];
    for (let index = last - 1; index >= 0; index--) {
      const layer = net.layers[index];
      if (isAffine(layer)) {
        slopes[index] = slope;
        if (!index) break; // the slope by the image is not asked for here
        slope = moved ? moved.back(layer, index, slope)
          : layer.back(net.params[layer.weight], slope);
      } else if (layer.kind === "sample") {
        byNoise = layer.noiseSlope(slope, inputs[index]);
        slope = layer.back(slope, inputs[index], noise);
      } else slope = layer.back(slope, inputs[index], inputs[index + 1]);
    }
    return { slopes, byNoise, loss: logWhole - logits[label] + net.beta * trace.kl };
  }

  // All examples of a client: what the factors of its gradient are.
  function passes(net, images, labels, noise) {
    return images.map((image, b) => {
      const trace = forward(net, image, noise?.[b]);
      return { ...trace, ...backward(net, trace, labels[b], noise?.[b]) };
    });
  }

  const loss = (runs) => sum(runs.map((run) => run.loss)) / runs.length;
  const kl = (runs) => sum(runs.map((run) => run.kl)) / runs.length;

  // The mean gradient, dense: one array for each parameter.
  function gradient(net, runs, only = () => true) {
    const out = net.params.map((p) => zeros(p.length));
    net.layers.forEach((layer, index) => {
      if (!isAffine(layer) || !only(layer)) return;
      for (const { slopes, prepared } of runs) {
        const slope = slopes[index].map((v) => v / runs.length);
        layer.gather(out[layer.weight], slope, prepared[index]);
        add(out[layer.bias], 1, biasSlope(slope, layer.spread));
      }
    });
    return out;
  }

  function addNoise(gradients, std, unit) {
    gradients.forEach((each, p) => { add(each, std, unit[p]); });
    return gradients;
  }

  // The entry that has `rank` smaller ones before it, when sorted.
  function ranked(values, rank) {
    let low = 0, high = values.length - 1;
    while (low < high) {
      const pivot = values[(low + high) >> 1];
      let i = low, j = high;
      while (i <= j) {
        while (values[i] < pivot) i++;
        while (values[j] > pivot) j--;
        if (i <= j) { const v = values[i]; values[i++] = values[j]; values[j--] = v; }
      }
      if (rank <= j) high = j;
      else if (rank >= i) low = i;
      else break;
    }
    return values[rank];
  }

  // Zero the smallest floor(ratio · n); of equal ones those that come first stay.
  function prune(gradients, ratio) {
    for (const each of gradients) {
      const dropped = Math.floor(ratio * each.length + 1e-9);
      if (!dropped) continue;
      const sizes = zeros(each.length); // a loop: map calls a function for each entry
      for (let i = 0; i < each.length; i++) sizes[i] = Math.abs(each[i]);
      const limit = ranked(sizes, dropped - 1);
      let spare = -dropped;
      for (let i = 0; i < each.length; i++) if (Math.abs(each[i]) <= limit) spare++;
      for (let i = 0; i < each.length; i++) {
        const size = Math.abs(each[i]);
        if (size < limit || (size === limit && spare-- <= 0)) each[i] = 0;
      }
    }
    return gradients;
  }

  function clip(gradients, longest) {
    const norm = Math.sqrt(sum(gradients.map((each) => dot(each, each))));
    if (norm > longest) for (const each of gradients)
      for (let i = 0; i < each.length; i++) each[i] *= longest / norm;
    return gradients;
  }

  function largestRow(G, b) {
    let top = 0;
    for (let i = 1; i < b.length; i++) if (Math.abs(b[i]) > Math.abs(b[top])) top = i;
    const size = G.length / b.length;
    return G.slice(top * size, (top + 1) * size).map((v) => v / b[top]);
  }

  // The best rank 1 of [G | b]. With a tolerance it stops when nothing moves any more.
  function totalLeastSquares(G, b, iterations = 30, tolerance = 0) {
    const size = G.length / b.length;
    let units = b;
    for (let t = 0; t < iterations; t++) {
      const before = units;
      units = times(G, across(G, units, size), b.length);
      add(units, dot(before, b), b);
      const norm = Math.sqrt(dot(units, units));
      if (!norm) break;
      units = units.map((v) => v / norm);
      const turned = dot(units, before) / Math.sqrt(dot(before, before));
      if (tolerance && 1 - Math.abs(turned) < tolerance) break;
    }
    const one = dot(units, b);
    return across(G, units, size).map((v) => v / one);
  }

  // Pictures on which `least` rows agree after the division: units that saw one alone.
  // Compared at a few hundred pixels, for all of them would tell no more.
  function isolated(G, b, least, most, tolerance = 1e-9) {
    const size = G.length / b.length, stride = Math.max(1, Math.floor(size / 256));
    const loudest = b.reduce((top, v) => Math.max(top, Math.abs(v)), 0);
    const rows = [];
    for (let i = 0; i < b.length; i++) {
      if (Math.abs(b[i]) <= 1e-3 * loudest) continue;
      const point = [];
      for (let j = 0; j < size; j += stride) point.push(G[i * size + j] / b[i]);
      rows.push({ i, point, norm: Math.sqrt(dot(point, point)) });
    }
    const near = (p, q) => {
      let square = 0;
      const limit = (tolerance * Math.min(p.norm, q.norm)) ** 2;
      for (let j = 0; j < p.point.length && square <= limit; j++)
        square += (p.point[j] - q.point[j]) ** 2;
      return square <= limit;
    };
    const found = [];
    let open = rows;
    for (const row of rows) {
      if (!open.includes(row)) continue;
      const members = open.filter((other) => near(row, other));
      open = open.filter((other) => !members.includes(other));
      if (members.length >= least) found.push(members);
    }
    found.sort((p, q) => q.length - p.length);
    return found.slice(0, most).map((members) => {
      const picture = zeros(size);
      let weight = 0;
      for (const { i } of members) {
        add(picture, b[i], G, 0, i * size, size);  // b² · G / b
        weight += b[i] * b[i];
      }
      return { picture: picture.map((v) => v / weight), units: members.length };
    });
  }

  // g is never formed for a linear layer: `inner` and `square` come from its factors.
  const distances = {
    squared: ({ inner, square, whole }) =>
      ({ value: square - 2 * inner + whole, alpha: 2, gamma: -2 }),
    cosine: ({ inner, square, whole }) => {
      const norms = Math.sqrt(square * whole), cosine = inner / norms;
      return { value: 1 - cosine, alpha: cosine / square, gamma: -1 / norms };
    },
  };

  // What a search compares with: the gradient that was sent, how much of it counts, and
  // the units of the distance.
  function target(sent, { counted = sent.length, scale = 1 } = {}) {
    let whole = 0;
    for (let p = 0; p < counted; p++) whole += dot(sent[p], sent[p]);
    return { sent, counted, scale, whole };
  }

  // The guess's gradient beside the target: sums of products, with G h kept for later.
  function compared(net, runs, goal) {
    const kept = [], count = runs.length;
    let inner = 0, square = 0;
    net.layers.forEach((layer, index) => {
      if (!isAffine(layer) || layer.weight >= goal.counted) return;
      const { weight, bias } = layer, G = goal.sent[weight];
      const biases = zeros(layer.biases);
      for (const { slopes } of runs)
        add(biases, 1 / count, biasSlope(slopes[index], layer.spread));
      inner += dot(biases, goal.sent[bias]);
      square += dot(biases, biases);
      if (layer.kind === "linear") {
        const seen = runs.map(({ prepared }) => layer.into(G, prepared[index]));
        runs.forEach((one, a) => {
          inner += dot(one.slopes[index], seen[a]) / count;
          runs.forEach((two) => {
            square += dot(one.slopes[index], two.slopes[index])
              * dot(one.prepared[index], two.prepared[index]) / count ** 2;
          });
        });
        kept[index] = { biases, seen };
      } else {
        const dense = zeros(layer.weights);
        for (const { slopes, prepared } of runs)
          layer.gather(dense, slopes[index].map((v) => v / count), prepared[index]);
        inner += dot(dense, G);
        square += dot(dense, dense);
        kept[index] = { biases, dense };
      }
    });
    return { inner, square, whole: goal.whole, kept };
  }

  // Absolute distances look at every entry: there the slope is formed, sign by sign.
  function signsApart(net, runs, goal) {
    const guess = gradient(net, runs, (layer) => layer.weight < goal.counted);
    let value = 0;
    const signs = guess.slice(0, goal.counted).map((each, p) => each.map((v, i) => {
      const apart = v - goal.sent[p][i];
      value += Math.abs(apart);
      return Math.sign(apart);
    }));
    return { value, signs };
  }

  // With v = dD/dg held fixed, dD/dx is the derivative of dL/dx along v in the weights:
  // two ordinary backward passes, at theta + e v and at theta - e v.
  function slopes(net, images, labels, noise, goal, distance) {
    const runs = passes(net, images, labels, noise), count = runs.length;
    const move = distance === "absolute"
      ? denseMove(net, signsApart(net, runs, goal))
      : factoredMove(net, runs, goal, distance);
    const e = 1e-5 / (move.norm || 1), share = goal.scale / count;
    const byImage = [], byNoise = [];
    runs.forEach((run, b) => {
      const first = net.layers[0], along = move.into(first, 0, run.prepared[0], b);
      const side = (step) => {
        const moved = {
          into(layer, index, input) {
            const { weight, bias, spread } = layer;
            if (index === 0) return add(run.inputs[1].slice(), step, along);
            const ready = layer.prepare(input);
            const out = withBias(layer.into(net.params[weight], ready), net.params[bias], spread);
            return move.touches(layer) ? add(out, step, move.into(layer, index, ready)) : out;
          },
          back(layer, index, slope) {
            const out = layer.back(net.params[layer.weight], slope);
            return move.touches(layer) ? add(out, step, move.back(layer, index, slope)) : out;
          },
        };
        const trace = forward(net, images[b], noise?.[b], moved);
        return backward(net, trace, labels[b], noise?.[b], moved);
      };
      const up = side(e), down = side(-e);
      const rate = up.slopes[0].map((v, i) => (v - down.slopes[0][i]) / (2 * e) * share);
      const mean = up.slopes[0].map((v, i) => (v + down.slopes[0][i]) / 2 * share);
      // Of the first layer both sides have the same weights but for the move.
      byImage.push(add(first.back(net.params[first.weight], rate), 1, move.back(first, 0, mean)));
      if (net.code)
        byNoise.push(up.byNoise.map((v, i) => (v - down.byNoise[i]) / (2 * e) * share));
    });
    return { value: goal.scale * move.value, byImage, byNoise, loss: loss(runs), kl: kl(runs) };
  }

  function factoredMove(net, runs, goal, distance) {
    const sums = compared(net, runs, goal), count = runs.length;
    const { value, alpha, gamma } = distances[distance](sums);
    // |alpha g + gamma G|
    const norm = Math.sqrt(Math.max(0, alpha * alpha * sums.square
      + 2 * alpha * gamma * sums.inner + gamma * gamma * sums.whole));
    const convolved = {}, biases = {};
    net.layers.forEach((layer, index) => {
      const kept = sums.kept[index];
      if (!kept) return;
      const mixed = (own, sent) => own.map((v, i) => alpha * v + gamma * sent[i]);
      biases[index] = mixed(kept.biases, goal.sent[layer.bias]);
      if (kept.dense) convolved[index] = mixed(kept.dense, goal.sent[layer.weight]);
    });
    return {
      value, norm,
      touches: (layer) => layer.weight < goal.counted,
      into(layer, index, ready, b = -1) {
        if (convolved[index])
          return withBias(layer.into(convolved[index], ready), biases[index], layer.spread);
        // G x of the first layer is known: `b` says which example's.
        const seen = b >= 0 ? sums.kept[index].seen[b] : layer.into(goal.sent[layer.weight], ready);
        const out = add(biases[index].slice(), gamma, seen);
        for (const { slopes, prepared } of runs)
          add(out, alpha * dot(prepared[index], ready) / count, slopes[index]);
        return out;
      },
      back(layer, index, slope) {
        if (convolved[index]) return layer.back(convolved[index], slope);
        const out = layer.back(goal.sent[layer.weight], slope).map((v) => gamma * v);
        for (const { slopes, prepared } of runs)
          add(out, alpha * dot(slopes[index], slope) / count, prepared[index]);
        return out;
      },
    };
  }

  function denseMove(net, { value, signs }) {
    return {
      value,
      norm: Math.sqrt(sum(signs.map((each) => dot(each, each)))),
      touches: (layer) => layer.weight < signs.length,
      into: (layer, _, ready) =>
        withBias(layer.into(signs[layer.weight], ready), signs[layer.bias], layer.spread),
      back: (layer, _, slope) => layer.back(signs[layer.weight], slope),
    };
  }

  // Mean |horizontal| plus mean |vertical| difference of all pictures, and its slope.
  function totalVariation(images, [channels, height, width]) {
    const wide = images.length * channels * height * (width - 1);
    const high = images.length * channels * (height - 1) * width;
    let value = 0;
    const slope = images.map((image) => {
      const out = zeros(image.length);
      const meet = (here, there, count) => {
        const apart = image[there] - image[here], share = Math.sign(apart) / count;
        value += Math.abs(apart) / count;
        out[there] += share;
        out[here] -= share;
      };
      for (let c = 0, i = 0; c < channels; c++) for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++, i++) {
          if (x + 1 < width) meet(i, i + 1, wide);
          if (y + 1 < height) meet(i, i + width, high);
        }
      return out;
    });
    return { value, slope };
  }

  function adam(lr) {
    let first = null, second = null, t = 0;
    return (values, slope, factor = 1) => {
      first ??= zeros(values.length);
      second ??= zeros(values.length);
      t += 1;
      const rate = lr * factor / (1 - 0.9 ** t), root = Math.sqrt(1 - 0.999 ** t);
      for (let i = 0; i < values.length; i++) {
        first[i] = 0.9 * first[i] + 0.1 * slope[i];
        second[i] = 0.999 * second[i] + 0.001 * slope[i] * slope[i];
        values[i] -= rate * first[i] / (Math.sqrt(second[i]) / root + 1e-8);
      }
    };
  }

  // A tenth of the rate after 3/8, 5/8 and 7/8 of the steps, as Python's // rounds them:
  // 200 // 1.6 is 124.
  const stepDecay = (step, steps) => 0.1 ** [2.667, 1.6, 1.142]
    .filter((part) => step >= Math.round((steps - steps % part) / part)).length;

  // An attack: `next()` gives the objective of `images`, then moves them. The client's
  // noise is `hidden`: fresh, searched, or else given.
  function search(net, labels, goal, options) {
    const {
      images, distance = "squared", lr = 0.1, signed, box, prior = 0,
      decays, steps = 300, hidden, noise, stream,
    } = options;
    const movers = images.map(() => adam(lr)), others = images.map(() => adam(lr));
    const draw = () => images.map(() => stream.normal(net.code));
    let step = 0, current = noise ?? (net.code ? draw() : null);
    return {
      images,
      next() {
        if (hidden === "fresh" && net.code && step) current = draw();
        const found = slopes(net, images, labels, current, goal, distance);
        const before = images.map((image) => image.slice());
        let objective = found.value;
        if (prior) {
          const rough = totalVariation(images, net.image);
          objective += prior * rough.value;
          rough.slope.forEach((slope, b) => add(found.byImage[b], prior, slope));
        }
        const factor = decays ? stepDecay(step, steps) : 1;
        const area = net.image[1] * net.image[2];
        images.forEach((image, b) => {
          const slope = signed ? found.byImage[b].map(Math.sign) : found.byImage[b];
          movers[b](image, slope, factor);
          if (box) for (let i = 0; i < image.length; i++) {
            const [low, high] = box[Math.floor(i / area)];
            image[i] = Math.min(high, Math.max(low, image[i]));
          }
          if (hidden === "searched") others[b](current[b], found.byNoise[b], factor);
        });
        return { step: step++, objective, images: before, ...found };
      },
    };
  }

  return {
    add, addNoise, clip, dot, gradient, growing, isolated, kl, largestRow, loss, network,
    numbers, passes, prune, search, sliced, slopes, stepDecay, target, totalLeastSquares,
    totalVariation, zeros,
  };
}); // ??=, for a page may hold several figures, each of which brings this script
