"use strict";
// A trained model in a browser: the network, and the counts beside it (counts.js, mixer.js).
// Equations, names and shapes are those of charloom's reference engine.
//
// V: characters in the vocabulary; H: hidden units; L: layers; G: gates (1 rnn, 3 gru, 4 lstm);
// E: extra inputs, which are 0, or the counts' probabilities of the V characters.

const GATES = { rnn: 1, gru: 3, lstm: 4 };

/** The bytes of 16-bit numbers, stored plane by plane (all low bytes, then all high ones). */
function joinPlanes(planes) {
  const count = planes.length / 2;
  const numbers = new Uint16Array(count);
  for (let i = 0; i < count; i++) numbers[i] = planes[i] | (planes[count + i] << 8);
  return numbers;
}

/** The values of half-precision numbers, by their bits. */
function fromHalves(halves) {
  return Float32Array.from(halves, (bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}

/** The integers of an array of the page. */
function integers(header, arrays, name) {
  const stored = arrays[name];
  return header.arrays[name].type === "uint16" ? joinPlanes(stored) : stored;
}

/**
 * The values of an array of the page, as float32. Its stored numbers are n.
 *
 * Numbers of the types float32 and float16 are the values.
 * With int8 and int16, a value is n times the scale of its row, from the array NAME.scale.
 * With share16, it is n / 65536.
 * With log16 and log8, it is 2^(-n / 2048) and 2^(-n / 16).
 * With logit8, it is 1 / (1 + e^-x), where x = (n - 128) / 15.
 */
function floats(header, arrays, name) {
  const { type, shape } = header.arrays[name];
  const stored = type.endsWith("16") ? joinPlanes(arrays[name]) : arrays[name];
  const values = {
    float32: () => stored,
    float16: () => fromHalves(stored),
    int8: () => scaled(stored, arrays[name + ".scale"], shape),
    int16: () => scaled(new Int16Array(stored.buffer), arrays[name + ".scale"], shape),
    share16: () => Float32Array.from(stored, (n) => n / 65536),
    log16: () => Float32Array.from(stored, (n) => 2 ** (-n / 2048)),
    log8: () => Float32Array.from(stored, (n) => 2 ** (-n / 16)),
    logit8: () => Float32Array.from(stored, (n) => 1 / (1 + Math.exp((128 - n) / 15))),
  };
  return values[type]();
}

/** Numbers times the scale of their row. */
function scaled(numbers, scales, [rows, columns]) {
  const values = new Float32Array(numbers.length);
  for (let row = 0, i = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, i++) values[i] = numbers[i] * scales[row];
  }
  return values;
}

/** Adds a matrix's product with x, from a place of it on, to `out`. Rows are `out.length` long. */
function addProduct(weight, x, from, out) {
  const size = x.length - from;
  const rows = out.length;
  let row = 0;
  // Four rows at a time, so that each number of x is read once for them.
  for (; row + 4 <= rows; row += 4) {
    let i = row * size;
    let j = i + size;
    let k = j + size;
    let l = k + size;
    let a = 0, b = 0, c = 0, d = 0;
    for (let column = from; column < x.length; column++) {
      const value = x[column];
      a += weight[i++] * value;
      b += weight[j++] * value;
      c += weight[k++] * value;
      d += weight[l++] * value;
    }
    out[row] += a;
    out[row + 1] += b;
    out[row + 2] += c;
    out[row + 3] += d;
  }
  for (; row < rows; row++) {
    let sum = 0;
    let i = row * size;
    for (let column = from; column < x.length; column++) sum += weight[i++] * x[column];
    out[row] += sum;
  }
}

const EPSILON = 1e-3; // beside a mean square

/** Divides the products of each gate by their root mean square. Adds biases to them times gains. */
function normalize(products, gains, biases, size) {
  for (let from = 0; from < products.length; from += size) {
    let sum = 0;
    for (let i = from; i < from + size; i++) sum += products[i] * products[i];
    const factor = 1 / Math.sqrt(sum / size + EPSILON);
    for (let i = from; i < from + size; i++) {
      products[i] = products[i] * factor * gains[i] + biases[i];
    }
  }
}

const sigmoid = (x) => 0.5 * Math.tanh(0.5 * x) + 0.5;

/** The hidden state of a cell, from the products of its input (x) and of its state (a). */
const CELLS = {
  rnn(x, a, h) {
    for (let i = 0; i < h.length; i++) h[i] = Math.tanh(x[i] + a[i]);
  },
  gru(x, a, h) {
    const size = h.length;
    for (let i = 0; i < size; i++) {
      const r = sigmoid(x[i] + a[i]);
      const z = sigmoid(x[size + i] + a[size + i]);
      const n = Math.tanh(x[2 * size + i] + r * a[2 * size + i]);
      h[i] = (1 - z) * n + z * h[i];
    }
  },
  lstm(x, a, h, c) {
    const size = h.length;
    for (let j = 0; j < size; j++) {
      const i = sigmoid(x[j] + a[j]);
      const f = sigmoid(x[size + j] + a[size + j]);
      const g = Math.tanh(x[2 * size + j] + a[2 * size + j]);
      const o = sigmoid(x[3 * size + j] + a[3 * size + j]);
      c[j] = f * c[j] + i * g;
      h[j] = o * Math.tanh(c[j]);
    }
  },
};

/** The network: layers of cells, and the decoder. A state is {h, c}, arrays of each layer. */
class Network {
  constructor(header, arrays) {
    const { cell, hidden, layers, extra, norm } = header;
    this.header = header;
    this.size = header.vocabulary.length;
    const stacked = GATES[cell] * hidden;
    this.layers = [];
    for (let layer = 0; layer < layers; layer++) {
      const read = (name) => floats(header, arrays, `rnn.${name}_l${layer}`);
      this.layers.push({
        input: read("weight_ih"), recurrent: read("weight_hh"), // (G·H, ·), (G·H, H)
        inputBias: read("bias_ih"), recurrentBias: read("bias_hh"), // (G·H)
        inputGain: norm === "rms" ? read("norm_ih") : null, // (G·H), of normalized products
        recurrentGain: norm === "rms" ? read("norm_hh") : null,
      });
    }
    // The first layer looks the character's column up; extra inputs have a product.
    const columns = this.size + extra;
    const { input } = this.layers[0];
    this.columns = new Float32Array(this.size * stacked); // (V, G·H)
    const beside = new Float32Array(stacked * extra); // (G·H, E)
    for (let row = 0; row < stacked; row++) {
      const at = row * columns;
      for (let v = 0; v < this.size; v++) this.columns[v * stacked + row] = input[at + v];
      for (let e = 0; e < extra; e++) beside[row * extra + e] = input[at + this.size + e];
    }
    this.layers[0].input = beside;
    this.decoder = floats(header, arrays, "decoder.weight"); // (V, H)
    this.bias = floats(header, arrays, "decoder.bias"); // (V)
    this.x = new Float32Array(stacked);
    this.a = new Float32Array(stacked);
  }

  newState() {
    const { hidden, layers, cell } = this.header;
    const zeros = () => Array.from({ length: layers }, () => new Float32Array(hidden));
    return { h: zeros(), c: cell === "lstm" ? zeros() : [] };
  }

  cloneState({ h, c }) {
    return { h: h.map((values) => values.slice()), c: c.map((values) => values.slice()) };
  }

  /** Reads a character, beside the counts' probabilities if the network reads them. */
  read(state, id, probabilities) {
    if (id === this.header.end) [...state.h, ...state.c].forEach((values) => values.fill(0));
    const { x, a } = this;
    const { cell, extra, hidden, norm } = this.header;
    const normalized = norm === "rms";
    this.layers.forEach((weights, layer) => {
      const { input, recurrent, inputBias, recurrentBias, inputGain, recurrentGain } = weights;
      if (normalized) {
        x.fill(0);
        a.fill(0);
      } else {
        x.set(inputBias);
        a.set(recurrentBias);
      }
      if (layer > 0) {
        addProduct(input, state.h[layer - 1], 0, x);
      } else {
        const at = id * x.length;
        for (let i = 0; i < x.length; i++) x[i] += this.columns[at + i];
        if (extra) addProduct(input, probabilities, 0, x);
      }
      addProduct(recurrent, state.h[layer], 0, a);
      if (normalized) {
        normalize(x, inputGain, inputBias, hidden);
        normalize(a, recurrentGain, recurrentBias, hidden);
      }
      CELLS[cell](x, a, state.h[layer], state.c[layer]);
    });
  }

  /** Writes the natural log-probabilities of the next character, (V,). */
  decode(state, logs) {
    logs.set(this.bias);
    addProduct(this.decoder, state.h.at(-1), 0, logs);
    let most = -Infinity;
    for (const logit of logs) most = Math.max(most, logit);
    let sum = 0;
    for (const logit of logs) sum += Math.exp(logit - most);
    const total = most + Math.log(sum);
    for (let v = 0; v < logs.length; v++) logs[v] -= total;
  }
}

/**
 * The model of a page, which consists of the network, the counts if any, and their mixture.
 *
 * It is made from the page's data and its typed arrays by name. A state is {network, counts}.
 */
class PlayerModel {
  constructor(header, arrays) {
    this.header = header;
    this.vocabulary = header.vocabulary;
    this.network = new Network(header, arrays);
    this.counts = openCounts(header, arrays);
    this.logs = new Float32Array(header.vocabulary.length);
  }

  /** The state before any text, which begins with the id `header.start`. */
  newState() {
    return { network: this.network.newState(), counts: this.counts?.newState() };
  }

  cloneState(state) {
    return {
      network: this.network.cloneState(state.network),
      counts: this.counts?.cloneState(state.counts),
    };
  }

  /**
   * Reads a character and changes the state. Returns the natural log-probabilities of the next
   * one, (V,), in an array that the next call writes again.
   */
  step(state, id) {
    const found = this.counts?.predict(state.counts, id);
    this.network.read(state.network, id, found?.probabilities);
    this.network.decode(state.network, this.logs);
    if (this.header.theta) mix(this.logs, found, this.header.theta, this.header.counts.context);
    return this.logs;
  }

  /** The hidden state of the last layer, (H,). */
  activations(state) {
    return state.network.h.at(-1).slice();
  }
}
