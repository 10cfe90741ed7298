// The engine of a page in WebAssembly, with the interface of PlayerModel in model.js.
//
// The module is compiled from the C files beside this one by tools/build_player.py. It knows one
// model and one text: a step copies the text's state in, and out again. Arrays come from the same
// functions as those of plain JavaScript (model.js and counts.js).

const CELL_NAMES = ["rnn", "gru", "lstm"];
const GATE_COUNTS = { rnn: 1, gru: 3, lstm: 4 };
const COUNT_KINDS = { "kneser-ney": 1, "context-mixing": 2 };
const [RECURRENT, INPUT, DECODER] = [0, 1, 2];
const [BYTES, FLOATS] = [1, 4]; // kinds of numbers
const ROWS_OF_BLOCK = 16; // to whole numbers of which hidden units are padded
const WORDS_OF_MIXER_STATE = 143; // of 64 bits: STATE in context_mixing/layout.py

class CompiledModel {
  constructor(header, arrays, exports) {
    this.header = header;
    this.vocabulary = header.vocabulary;
    this.exports = exports;
    const size = this.vocabulary.length;
    exports.set_network(
      CELL_NAMES.indexOf(header.cell), header.hidden, header.layers, size, header.extra,
      header.end ?? -1,
    );
    this.takeNetwork(header, arrays);
    const kind = header.counts ? COUNT_KINDS[header.counts.kind] : 0;
    this.countsLength = 0;
    if (header.counts) {
      if (kind === 1) this.takeTable(ngramTable(header, arrays));
      else this.takeMixer(contextMixer(header, arrays));
    }
    const theta = header.theta ? this.copied(Float64Array.from(header.theta)) : 0;
    exports.set_counts(kind, header.theta ? 1 : 0, header.counts?.context ?? 0, theta);

    // Memory is complete now, so that views on it stay valid.
    const buffer = exports.memory.buffer;
    const padded = Math.ceil(header.hidden / ROWS_OF_BLOCK) * ROWS_OF_BLOCK;
    const numbers = (header.cell === "lstm" ? 2 : 1) * header.layers * padded;
    this.network = new Float32Array(buffer, exports.network_state(), numbers);
    this.counts = new Uint8Array(buffer, this.countsAt, this.countsLength);
    this.result = new Float32Array(size);
    this.found = new Float32Array(buffer, exports.results(), size);
    this.lastLayer = (header.layers - 1) * padded;
  }

  // Copy an array into the module's memory, and return its address.
  copied(values) {
    const { memory, reserve } = this.exports;
    const place = reserve(values.byteLength);
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    new Uint8Array(memory.buffer).set(bytes, place);
    return place;
  }

  takeNetwork(header, arrays) {
    const { exports } = this;
    // Give the module a weight, which it packs for itself: at first its packed form is reserved.
    const take = (name, give) => {
      const isBytes = header.arrays[name].type === "int8";
      const values = isBytes ? arrays[name] : floats(header, arrays, name);
      const rows = header.arrays[name].shape[0];
      give(isBytes ? BYTES : FLOATS, values, isBytes ? arrays[`${name}.scale`] : null, rows);
    };
    const packed = (which, layer) => (kind, values, scales) => {
      exports.prepare_weight(which, layer, kind);
      this.lent([values, scales], (at, scalesAt) => exports.set_weight(at, scalesAt));
    };
    const biases = (layer) => {
      const both = ["ih", "hh"].map((end) => floats(header, arrays, `rnn.bias_${end}_l${layer}`));
      this.lent(both, (ih, hh) => exports.set_biases(layer, ih, hh));
    };
    for (let layer = 0; layer < header.layers; layer++) {
      take(`rnn.weight_ih_l${layer}`, packed(INPUT, layer));
      take(`rnn.weight_hh_l${layer}`, packed(RECURRENT, layer));
      biases(layer);
    }
    take("decoder.weight", packed(DECODER, 0));
    this.lent([floats(header, arrays, "decoder.bias")], (at) => exports.set_decoder_bias(at));
  }

  // Call a function with the addresses of arrays, 0 for null, which are in memory only until then.
  lent(values, use) {
    const mark = this.exports.reserve(0);
    use(...values.map((array) => (array ? this.copied(array) : 0)));
    this.exports.release(mark);
  }

  takeTable(table) {
    const { exports } = this;
    exports.set_table(
      table.context, table.weights.length, this.copied(table.first),
      this.copied(Uint32Array.from(table.characters)), this.copied(table.probabilities),
      this.copied(table.weights),
    );
    this.countsAt = exports.table_state();
    this.countsLength = 4 * table.context;
  }

  takeMixer(mixer) {
    const { exports } = this;
    const { tree, weights, constants } = mixer;
    const arrays = [
      tree.children, tree.prior, tree.kind, tree.folded, tree.rank,
      weights.counts, weights.recent, weights.sets, weights.final, weights.refined,
      constants.stretch, constants.squash, constants.logs,
    ];
    const fields = arrays.map((values) => this.copied(values));
    for (const table of [mixer.singles, mixer.shorts, mixer.longs]) {
      const { buckets, begins, checks, offsets, entries } = table;
      const places = [begins, checks, offsets, entries].map((values) => this.copied(values));
      fields.push(buckets, ...places);
    }
    new Uint32Array(exports.memory.buffer, exports.mixer_fields(), fields.length).set(fields);
    exports.set_mixer();
    this.countsAt = exports.mixer_state();
    this.countsLength = 8 * WORDS_OF_MIXER_STATE;
  }

  newState() {
    return {
      network: new Float32Array(this.network.length),
      counts: new Uint8Array(this.countsLength).fill(this.header.counts?.kind === "kneser-ney" ? 255 : 0),
    };
  }

  cloneState(state) {
    return { network: state.network.slice(), counts: state.counts.slice() };
  }

  step(state, id) {
    this.network.set(state.network);
    this.counts.set(state.counts);
    this.exports.step(id);
    state.network.set(this.network);
    state.counts.set(this.counts);
    this.result.set(this.found);
    return this.result;
  }

  activations(state) {
    return state.network.slice(this.lastLayer, this.lastLayer + this.header.hidden);
  }
}

// Return a model, or null where WebAssembly or its vectors are missing.
async function createCompiledModel(header, arrays) {
  const code = arrays["player.wasm"];
  if (!code || typeof WebAssembly === "undefined" || !WebAssembly.validate(code)) return null;
  const { instance } = await WebAssembly.instantiate(code);
  return new CompiledModel(header, arrays, instance.exports);
}
