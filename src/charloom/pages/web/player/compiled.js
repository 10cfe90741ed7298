// The engine of a page in WebAssembly, with the interface of PlayerModel (model.js).
//
// `make player` compiles it from the C files beside this one. Its memory holds one model and one
// text: a step copies the text's state in, and out again. The arrays are those of the plain
// engine, from the functions of model.js, counts.js and mixer.js.

const COMPILED = {
  cells: ["rnn", "gru", "lstm"],
  counts: ["none", "kneser-ney", "context-mixing"],
  weights: { weight_hh: 0, weight_ih: 1, decoder: 2 },
  rows: 16, // hidden units are padded to blocks of these: BLOCK_ROWS in engine.h
};

/** A model in the memory of a module. A state is {network, counts}: numbers, and bytes. */
class CompiledModel {
  constructor(header, arrays, exports) {
    const { hidden, layers, cell, counts, theta, extra, end, vocabulary, norm } = header;
    this.header = header;
    this.vocabulary = vocabulary;
    this.exports = exports;
    const kind = COMPILED.cells.indexOf(cell);
    const normalized = norm === "rms" ? 1 : 0;
    exports.set_network(kind, hidden, layers, vocabulary.length, extra, end ?? -1, normalized);
    this.takeNetwork(arrays);
    const [countsAt, countsLength] = this.takeCounts(arrays);
    exports.set_counts(
      COMPILED.counts.indexOf(counts?.kind ?? "none"), theta ? 1 : 0, counts?.context ?? 0,
      theta ? this.copied(Float64Array.from(theta)) : 0,
    );

    // Nothing is reserved from here on, so that views on the memory stay valid.
    const { buffer } = exports.memory;
    const padded = Math.ceil(hidden / COMPILED.rows) * COMPILED.rows;
    const numbers = (cell === "lstm" ? 2 : 1) * layers * padded;
    this.network = new Float32Array(buffer, exports.network_state(), numbers);
    this.counts = new Uint8Array(buffer, countsAt, countsLength);
    this.found = new Float32Array(buffer, exports.results(), vocabulary.length);
    this.logs = new Float32Array(vocabulary.length);
    this.lastLayer = (layers - 1) * padded;
  }

  /** Copies an array into memory, and returns its address. */
  copied(values) {
    const { memory, reserve } = this.exports;
    const place = reserve(values.byteLength) >>> 0;
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    new Uint8Array(memory.buffer).set(bytes, place);
    return place;
  }

  /** Calls a function with the addresses of arrays that are in memory only until then. */
  lent(values, use) {
    const mark = this.exports.reserve(0);
    use(...values.map((array) => this.copied(array)));
    this.exports.release(mark);
  }

  takeNetwork(arrays) {
    const { exports, header } = this;
    const read = (name) => floats(header, arrays, name);
    const take = (which, layer, name) => {
      exports.prepare_weight(COMPILED.weights[which], layer);
      this.lent([read(name)], exports.set_weight);
    };
    for (let layer = 0; layer < header.layers; layer++) {
      for (const which of ["weight_ih", "weight_hh"]) take(which, layer, `rnn.${which}_l${layer}`);
      const both = (kind) => ["ih", "hh"].map((of) => read(`rnn.${kind}_${of}_l${layer}`));
      this.lent(both("bias"), (...places) => exports.set_biases(layer, ...places));
      if (header.norm === "rms") {
        this.lent(both("norm"), (...places) => exports.set_gains(layer, ...places));
      }
    }
    take("decoder", 0, "decoder.weight");
    this.lent([read("decoder.bias")], exports.set_decoder_bias);
  }

  /** Takes the counts. Returns the address and the length in bytes of a text's state of them. */
  takeCounts(arrays) {
    const { exports, header } = this;
    switch (header.counts?.kind) {
      case "kneser-ney":
        this.takeTable(ngramTable(header, arrays));
        return [exports.table_state(), 4 * header.counts.context];
      case "context-mixing":
        this.takeMixer(contextMixer(header, arrays));
        return [exports.mixer_state(), exports.mixer_state_size()];
      default:
        return [0, 0];
    }
  }

  takeTable({ context, first, characters, probabilities, weights }) {
    const arrays = [first, Uint32Array.from(characters), probabilities, weights];
    const places = arrays.map((values) => this.copied(values));
    this.exports.set_table(context, weights.length, ...places);
  }

  takeMixer(mixer) {
    const { tree, weights, constants, singles, shorts, longs, probing } = mixer;
    const arrays = [
      tree.children, tree.prior, tree.kind, tree.folded, tree.rank,
      weights.counts, weights.recent, weights.sets, weights.final, weights.refined,
      constants.stretch, constants.squash, constants.logs,
    ];
    const fields = arrays.map((values) => this.copied(values));
    for (const { buckets, begins, checks, offsets, entries } of [singles, shorts, longs]) {
      const places = [begins, checks, offsets, entries].map((values) => this.copied(values));
      fields.push(buckets, ...places);
    }
    const { memory, mixer_fields: place, set_mixer: prepare } = this.exports;
    new Uint32Array(memory.buffer, place(), fields.length).set(fields);
    prepare(probing ? 1 : 0);
  }

  newState() {
    const nowhere = this.header.counts?.kind === "kneser-ney" ? 255 : 0; // bytes of -1, the node
    return {
      network: new Float32Array(this.network.length),
      counts: new Uint8Array(this.counts.length).fill(nowhere),
    };
  }

  cloneState({ network, counts }) {
    return { network: network.slice(), counts: counts.slice() };
  }

  step(state, id) {
    this.network.set(state.network);
    this.counts.set(state.counts);
    this.exports.step(id);
    state.network.set(this.network);
    state.counts.set(this.counts);
    // A copy, because a view that is sent to the page would take the whole memory with it.
    this.logs.set(this.found);
    return this.logs;
  }

  activations({ network }) {
    return network.slice(this.lastLayer, this.lastLayer + this.header.hidden);
  }
}

/** The compiled model, or null where WebAssembly or its vectors are missing, or are forbidden. */
async function createCompiledModel(header, arrays) {
  const code = arrays["player.wasm"];
  if (!code || typeof WebAssembly === "undefined" || !WebAssembly.validate(code)) return null;
  let module;
  try {
    module = await WebAssembly.instantiate(code);
  } catch {
    return null; // by the policy of a server that the page lies on
  }
  return new CompiledModel(header, arrays, module.instance.exports);
}
