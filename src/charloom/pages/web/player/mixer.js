// A context mixer: the evidence of counts after many contexts, mixed by learned weights.
//
// charloom's context_mixing package defines it, and explains the names. Sums have its order and
// are rounded to float32 at every step. Predictions are therefore the same to the last bit.
// Otherwise, a number could find the next entry of a table.

const CONTEXT_COUNT = 22;
const ORDERS = 7; // the first contexts: the last characters and nothing else
const INDIRECT = 3; // the last ones, which read what the first ones predict
const INPUTS = 4; // of each context
const INPUT_COUNT = 96; // with a constant and two chains, whole vectors
const CONSTANT = CONTEXT_COUNT * INPUTS; // the place of this input
const OF_ORDERS = CONSTANT + 2, OF_WORDS = CONSTANT + 3; // those of the chains of contexts
const WORDS = 3; // contexts of the word, after the orders
const CHAIN_PRIOR = 0.5; // the weight of the context before, for each kind of turn and one more
const LANES = 16; // sums that are added up side by side
const LONG = 63; // entries of a list, at most
const MOVED = 0xffff; // instead of a character: the list is in the next table
const COUNT_LEVELS = 16, LOGIT_LEVELS = 33, RECENT_LEVELS = 16, SIDES = 3;
const LEVEL_BEGINS = [1, 2, 3, 4, 5, 6, 7, 8, 12, 20, 32, 64, 128, 256, 512];
const UNKNOWN = 2; // instead of a turn
const NOWHERE = 255; // instead of a place in a list
const CLASSES = 256; // of characters and of nodes
const WORD_LENGTHS = 8, COLUMNS = 64;
const SETS = 5; // of weights
const SET_ROWS = [(ORDERS + 1) * 8, CLASSES, CLASSES, CLASSES * WORD_LENGTHS, COLUMNS * 8];
const REFINED_LEVELS = 33, REFINED_ROWS = 1 << 14;
const LINE = 64; // columns of the line above that are known
const RECENT = 8; // characters that are known
const [OTHER, LETTER, BREAK, END] = [0, 1, 2, 3]; // kinds of characters
const LAST_PLACE = 100, SHORTEST_LONG_LINE = 25;
const PRIOR_COUNT = 0.3;

const f = Math.fround;
const PRIOR = f(PRIOR_COUNT), TWICE_PRIOR = f(2 * PRIOR_COUNT), CONSTANT_INPUT = f(0.3);
const NEGLIGIBLE = f(0.0002), SMALLEST = f(1e-6), LARGEST = f(1 - 1e-6), BOUND = f(7.99);
const PLACES = f(4096 / 24); // of the table of 1 / (1 + e^-x), for each unit of x

// A number of 64 bits is a pair of 32 bits. The latest result is in these two.
let high = 0, low = 0;

/** Returns the upper half of a product of two numbers of 32 bits. */
function upperHalf(a, b) {
  const [a0, a1, b0, b1] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const first = a1 * b0 + ((a0 * b0) >>> 16);
  const second = a0 * b1 + (first & 0xffff);
  return (a1 * b1 + (first >>> 16) + (second >>> 16)) | 0;
}

function multiply(otherHigh, otherLow) {
  high = (upperHalf(low, otherLow) + Math.imul(high, otherLow) + Math.imul(low, otherHigh)) | 0;
  low = Math.imul(low, otherLow);
}

function add(otherHigh, otherLow) {
  const sum = (low >>> 0) + (otherLow >>> 0);
  high = (high + otherHigh + (sum > 0xffffffff ? 1 : 0)) | 0;
  low = sum | 0;
}

function set(newHigh, newLow) {
  high = newHigh | 0;
  low = newLow | 0;
}

/** Replaces the number by its hash. */
function mixBits() {
  low ^= (low >>> 31) | (high << 1);
  high ^= high >>> 31;
  multiply(0x7fb5d329, 0x728ea185);
  low ^= (low >>> 27) | (high << 5);
  high ^= high >>> 27;
  multiply(0x81dadef4, 0xbc2dd44d);
  low ^= high >>> 1;
}

const timesSpread = () => multiply(0x9e3779b9, 0x7f4a7c15);
const timesFirst = () => multiply(0x7fb5d329, 0x728ea185);

/** Hashes two numbers and the number of a context. */
function join(aHigh, aLow, bHigh, bLow, salt) {
  set(bHigh, bLow);
  timesFirst();
  const [productHigh, productLow] = [high, low];
  set(aHigh, aLow);
  timesSpread();
  add(0, salt + 1);
  mixBits();
  add(productHigh, productLow);
  mixBits();
}

/** The arrays of a context mixer, unpacked: its tree, tables and weights. */
function contextMixer(header, arrays) {
  const weights = {};
  for (const name of ["counts", "recent", "sets", "final", "refined"]) {
    weights[name] = floats(header, arrays, "counts.frozen_" + name);
  }
  const [singles, shorts, longs] =
    ["singles", "shorts", "longs"].map((name) => listTable(header, arrays, name));
  return {
    tree: mixerTree(header, arrays), constants: mixerConstants(), weights, singles, shorts, longs,
    probing: header.counts.probing,
  };
}

/** The vocabulary as a tree of decisions: a child is a node, or -1 - the id of a character. */
function mixerTree(header, arrays) {
  const read = (name) => Int32Array.from(integers(header, arrays, "counts." + name));
  return {
    children: read("children"), // (V - 1, 2)
    prior: floats(header, arrays, "counts.prior"), // (V - 1,) the probability of turn 1
    kind: read("kind"), folded: read("folded"), rank: read("rank"), // (V,)
  };
}

/** The nodes above each character, from the root on. */
function pathsOf(children, size) {
  const paths = Array.from({ length: size }, () => []);
  const waiting = size > 1 ? [[0, []]] : [];
  while (waiting.length) {
    const [node, above] = waiting.pop();
    const path = [...above, node];
    for (const child of [children[2 * node], children[2 * node + 1]]) {
      if (child < 0) paths[-1 - child] = path;
      else waiting.push([child, path]);
    }
  }
  return paths;
}

/** Tables of functions. */
function mixerConstants() {
  const stretch = Float32Array.from({ length: 4096 }, (_, i) => {
    const p = (i + 0.5) / 4096;
    return Math.log(p / (1 - p));
  });
  const squash = Float32Array.from({ length: 4098 }, (_, i) =>
    i > 4096 ? 1 : 1 / (1 + Math.exp(12 - i * (24 / 4096))));
  const logs = Float32Array.from({ length: 65536 }, (_, n) => Math.log(n + PRIOR_COUNT));
  return { stretch, squash, logs };
}

/**
 * A table of lists: those of bucket b are begins[b] to begins[b + 1], and the entries of list l
 * are offsets[l] to offsets[l + 1]. An entry is a character in 16 bits, its count in 10, its
 * recent count in 6.
 */
function listTable(header, arrays, table) {
  const read = (plane) => integers(header, arrays, `counts.${table}_${plane}`);
  const sums = (numbers) => {
    const found = new Uint32Array(numbers.length + 1);
    for (let i = 0; i < numbers.length; i++) found[i + 1] = found[i] + numbers[i];
    return found;
  };
  const [used, checks, codes, pairs, others, characters] =
    ["used", "checks", "codes", "pairs", "others", "characters"].map(read);
  const lengths = table === "singles" ? new Uint8Array(checks.length).fill(1) : read("lengths");
  const entries = new Uint32Array(codes.length);
  let other = 0, known = 0;
  for (let i = 0; i < codes.length; i++) {
    const pair = codes[i] === 255 ? others[other++] : pairs[codes[i]];
    entries[i] = ((pair === 0 ? MOVED : characters[known++]) << 16) | pair;
  }
  return { buckets: used.length, begins: sums(used), checks, offsets: sums(lengths), entries };
}

/** The mixer. A state has the characters, words and lines that contexts know: see `newState`. */
class ContextMixer {
  constructor({ tree, constants, weights, singles, shorts, longs, probing }) {
    Object.assign(this, tree, constants, { weights, probing, tables: [singles, shorts, longs] });
    const size = this.kind.length;
    this.size = size;
    this.paths = pathsOf(this.children, size);
    this.setBegins = SET_ROWS.map((_, i) => SET_ROWS.slice(0, i).reduce((a, b) => a + b, 0));
    this.levels = Uint8Array.from({ length: 1 << 16 }, (_, n) =>
      LEVEL_BEGINS.filter((begin) => n >= begin).length);
    this.hashes = new Int32Array(2 * CONTEXT_COUNT);
    this.lists = new Uint32Array(CONTEXT_COUNT * LONG);
    this.used = new Int32Array(CONTEXT_COUNT);
    // The evidence of contexts at each node, and after those at each character.
    const cells = 2 * size * CONTEXT_COUNT;
    this.seen = new Int32Array(cells); // counts, and in the upper half recent counts
    this.first = new Uint8Array(cells).fill(NOWHERE); // the place of the latest character
    this.second = new Uint8Array(cells).fill(NOWHERE); // of the second latest one
    this.leaves = [];
    this.touched = new Uint8Array(size);
    this.inputs = new Float32Array(INPUT_COUNT);
    this.inputs[CONSTANT] = CONSTANT_INPUT;
    this.evident = new Int32Array(CONTEXT_COUNT); // contexts with evidence at a node
    this.rows = new Int32Array(SETS);
    this.sums = new Float32Array(LANES);
    this.mixture = new Float32Array(LANES);
    this.keys = new Int32Array(4);
    this.waiting = new Int32Array(size + 1);
    this.reach = new Float32Array(size + 1);
    this.found = { probabilities: new Float32Array(size), length: 0, weight: 1 };
  }

  newState() {
    return {
      latest: new Int32Array(RECENT), // ids + 1, the latest first; 0 before the text
      // Hashes of 64 bits: the word so far, the two before, the last one of the last short line.
      words: new Int32Array(8),
      numbers: new Int32Array(3), // the word's length, the column, the length of the line above
      above: new Int32Array(LINE), // ids + 1
      line: new Int32Array(LINE),
    };
  }

  cloneState(state) {
    const copies = Object.entries(state).map(([name, values]) => [name, values.slice()]);
    return Object.fromEntries(copies);
  }

  predict(state, id) {
    this.advance(state, id);
    this.findContexts(state);
    const { found } = this;
    let [orders, seen] = [0, 0];
    for (let c = 0; c < ORDERS; c++) {
      if (!this.used[c]) continue;
      [orders, seen] = [c + 1, 0];
      for (let i = 0; i < this.used[c]; i++) seen += (this.lists[c * LONG + i] >>> 6) & 1023;
    }
    [found.length, found.weight] = [orders, f(1 / (seen + 1))];
    this.gather();
    this.distribute(state);
    this.clear();
    return found;
  }

  /** Reads a character: changes a state. */
  advance(state, id) {
    const kind = this.kind[id];
    const { latest, words, numbers, above, line } = state;
    if (kind === END) {
      for (const values of Object.values(state)) values.fill(0);
      return;
    }
    const before = latest[0];
    latest.copyWithin(1, 0, RECENT - 1);
    latest[0] = id + 1;
    if (kind === LETTER) {
      set(words[0], words[1]);
      multiply(0, 271);
      add(0, this.folded[id] + 1);
      mixBits();
      [words[0], words[1]] = [high, low];
      numbers[0] += 1;
    } else {
      numbers[0] = 0;
      if (words[0] || words[1]) {
        words.copyWithin(2, 0, 4); // the word before becomes the one before that
        words[0] = words[1] = 0;
      }
    }
    const column = numbers[1];
    if (kind === BREAK) {
      const isShort = column > 0 && column < SHORTEST_LONG_LINE;
      if (isShort && before && this.kind[before - 1] !== LETTER) words.copyWithin(6, 2, 4);
      numbers[2] = Math.min(column, LINE);
      for (let i = 0; i < numbers[2]; i++) above[i] = line[i];
      numbers[1] = 0;
    } else {
      if (column < LINE) line[column] = id + 1;
      numbers[1] += 1;
    }
  }

  /** Hashes the contexts of a state, and reads the lists of characters that followed them. */
  findContexts(state) {
    const { latest, words, numbers, above } = state;
    const [c1, c2, c3] = latest;
    const [length, column, aboveLength] = numbers;
    const place = Math.min(column, LAST_PLACE);
    const over = column < aboveLength ? above[column] : 0;
    const nextOver = column + 1 < aboveLength ? above[column + 1] : 0;
    const kind = c2 ? this.kind[c2 - 1] : OTHER;
    const [w0, w1, before0, before1, earlier0, earlier1, short0, short1] = words;
    let context = 0;
    const note = () => {
      this.hashes[2 * context] = high;
      this.hashes[2 * context + 1] = low;
      context += 1;
    };
    const hash = (...values) => {
      join(...values, context);
      note();
    };
    let [textHigh, textLow] = [0, 0];
    for (let i = 0; i < RECENT; i++) {
      set(textHigh, textLow);
      timesSpread();
      add(0, latest[i] + 1);
      mixBits();
      [textHigh, textLow] = [high, low];
      if (i !== 6) hash(textHigh, textLow, 0, 0);
    }
    hash(w0, w1, 0, 0);
    hash(w0, w1, before0, before1);
    join(w0, w1, before0, before1, context);
    hash(high, low, earlier0, earlier1);
    hash(w0, w1, earlier0, earlier1);
    hash(0, c2, 0, c3);
    hash(0, c1, 0, over);
    hash(w0, w1, 0, c1 * 128 + place);
    hash(w0, w1, short0, short1);
    join(0, c1, 0, c2, 100);
    const [both0, both1] = [high, low];
    hash(before0, before1, both0, both1);
    hash(0, c1, 0, length * 8 + kind);
    hash(0, c1, 0, place);
    join(0, over, 0, nextOver, 101);
    hash(both0, both1, high, low);
    for (let c = 0; c < context; c++) this.readList(c);
    for (let i = 0; i < INDIRECT; i++) {
      const followers = [0, 1].map((j) =>
        j < this.used[i] ? (this.lists[i * LONG + j] >>> 16) + 1 : 0);
      join(0, c1, 0, i > 0 ? c2 : 0, 102);
      const [knownHigh, knownLow] = [high, low];
      join(0, followers[0], 0, followers[1], 103);
      hash(knownHigh, knownLow, high, low);
      this.readList(context - 1);
    }
  }

  /**
   * Reads the list of a context. A list that was full is in the next table, by another hash. An
   * entry for it leads there, or where these are missing (`probing`), every table is searched.
   */
  readList(context) {
    this.used[context] = 0;
    set(this.hashes[2 * context], this.hashes[2 * context + 1]);
    for (let t = 0; t < this.tables.length; t++) {
      const { buckets, begins, checks, offsets, entries } = this.tables[t];
      if (t > 0) mixBits();
      const check = (high >>> 16) | (t > 0 ? 1 : 0);
      const bucket = upperHalf(low, buckets);
      let list = begins[bucket];
      while (list < begins[bucket + 1] && checks[list] !== check) list += 1;
      if (list === begins[bucket + 1]) {
        if (this.probing) continue;
        return;
      }
      const begin = offsets[list];
      if (entries[begin] >>> 16 === MOVED) continue;
      const count = offsets[list + 1] - begin;
      for (let i = 0; i < count; i++) this.lists[context * LONG + i] = entries[begin + i];
      this.used[context] = count;
      return;
    }
  }

  /** The place of the evidence at a child: a node's, or after those a character's. */
  evidenceOf(child) {
    return (child >= 0 ? child : this.size - 2 - child) * CONTEXT_COUNT;
  }

  /** Adds up the evidence at the nodes of the paths of all characters seen after the contexts. */
  gather() {
    const { seen, first, second, touched, children } = this;
    const isLeaf = new Set();
    for (let c = 0; c < CONTEXT_COUNT; c++) {
      for (let i = 0; i < this.used[c]; i++) {
        const entry = this.lists[c * LONG + i];
        const character = entry >>> 16;
        const cell = this.evidenceOf(-1 - character) + c;
        seen[cell] = ((entry >>> 6) & 1023) | ((entry & 63) << 16);
        first[cell] = i;
        isLeaf.add(character);
      }
    }
    this.leaves = [...isLeaf];
    for (const character of this.leaves) {
      const path = this.paths[character];
      for (let j = path.length - 1; j >= 0 && !touched[path[j]]; j--) touched[path[j]] = 1;
    }
    // A node's number is larger than its parent's.
    for (let node = this.size - 2; node >= 0; node--) {
      if (!touched[node]) continue;
      const a = this.evidenceOf(children[2 * node]);
      const b = this.evidenceOf(children[2 * node + 1]);
      const to = node * CONTEXT_COUNT;
      for (let c = 0; c < CONTEXT_COUNT; c++) {
        seen[to + c] = seen[a + c] + seen[b + c];
        const isNearer = first[a + c] < first[b + c];
        const [near, far] = isNearer ? [a + c, b + c] : [b + c, a + c];
        first[to + c] = first[near];
        second[to + c] = Math.min(first[far], second[near]);
      }
    }
  }

  /** Removes the evidence. */
  clear() {
    const { seen, first, second, touched } = this;
    const erase = (begin) => {
      seen.fill(0, begin, begin + CONTEXT_COUNT);
      first.fill(NOWHERE, begin, begin + CONTEXT_COUNT);
      second.fill(NOWHERE, begin, begin + CONTEXT_COUNT);
    };
    for (const character of this.leaves) erase(this.evidenceOf(-1 - character));
    for (let node = 0; node < this.size - 1; node++) if (touched[node]) erase(node * CONTEXT_COUNT);
    touched.fill(0);
  }

  /** Writes the probabilities of all characters, (V,). */
  distribute(state) {
    const { probabilities } = this.found;
    if (this.size === 1) {
      probabilities[0] = 1;
      return;
    }
    this.hashLatest(state);
    const { waiting, reach, children } = this;
    [waiting[0], reach[0]] = [0, 1];
    let count = 1;
    while (count > 0) {
      count -= 1;
      const node = waiting[count];
      const here = reach[count];
      const p = here >= NEGLIGIBLE ? this.decide(node, state) : this.prior[node];
      for (let turn = 0; turn < 2; turn++) {
        const share = f(here * (turn === 1 ? p : f(1 - p)));
        const child = children[2 * node + turn];
        if (child < 0) {
          probabilities[-1 - child] = share;
        } else {
          [waiting[count], reach[count]] = [child, share];
          count += 1;
        }
      }
    }
  }

  stretched(p) {
    return this.stretch[Math.min(Math.trunc(f(p * 4096)), 4095)];
  }

  /** 1 / (1 + e^-x), by a table, between its entries linear. */
  squashed(x) {
    const { squash } = this;
    const place = f(f(x + 12) * PLACES);
    if (place < 0) return squash[0];
    if (place >= 4096) return squash[4096];
    const i = Math.trunc(place);
    return f(squash[i] + f(f(squash[i + 1] - squash[i]) * f(place - i)));
  }

  /** Hashes the latest characters, for `refinedRow`. */
  hashLatest({ latest }) {
    const { keys } = this;
    set(0, latest[0]);
    timesSpread();
    add(0, 201);
    mixBits();
    [keys[0], keys[1]] = [high, low];
    join(0, latest[0], 0, latest[1], 201);
    timesSpread();
    add(0, 202);
    mixBits();
    [keys[2], keys[3]] = [high, low];
  }

  /** Where the row of a node begins in a refining table, 0 or 1. */
  refinedRow(node, table) {
    set(0, node);
    timesFirst();
    add(this.keys[2 * table], this.keys[2 * table + 1]);
    mixBits();
    return ((low & (REFINED_ROWS - 1)) + table * REFINED_ROWS) * REFINED_LEVELS;
  }

  /** Computes the inputs at a node. Returns the number of contexts with evidence. */
  fillInputs(node) {
    const { seen, first, second, inputs, evident, weights, logs } = this;
    const a = this.evidenceOf(this.children[2 * node]);
    const b = this.evidenceOf(this.children[2 * node + 1]);
    let known = 0;
    this.orders = this.certain = 0;
    for (let c = 0; c < CONTEXT_COUNT; c++) {
      const [both0, both1] = [seen[a + c], seen[b + c]];
      const [n0, n1] = [both0 & 0xffff, both1 & 0xffff];
      const n = n0 + n1;
      if (n === 0) continue;
      evident[known++] = c;
      if (c < ORDERS) {
        this.orders += 1;
        this.certain += n0 === 0 || n1 === 0 ? 1 : 0;
      }
      const logit = f(logs[n1] - logs[n0]);
      let certainty = 0;
      if (n > 2) {
        const p = f(f(n1 + PRIOR) / f(n + TWICE_PRIOR));
        certainty = f(f(p - 0.5) * 3);
      }
      const step = Math.min(Math.max(Math.trunc(f(f(logit * 2) + 16.5)), 0), LOGIT_LEVELS - 1);
      const cell = (c * COUNT_LEVELS + this.levels[n]) * LOGIT_LEVELS + step;

      let [r0, r1] = [both0 >> 16, both1 >> 16];
      while (Math.max(r0, r1) >= RECENT_LEVELS) [r0, r1] = [(r0 + 1) >> 1, (r1 + 1) >> 1];
      const isNearer = first[a + c] < first[b + c]; // the latest character is below turn 0
      const latest = isNearer ? 0 : first[b + c] < NOWHERE ? 1 : UNKNOWN;
      const one = isNearer ? second[a + c] : first[a + c];
      const other = isNearer ? first[b + c] : second[b + c];
      const after = one < other ? 0 : other < NOWHERE ? 1 : UNKNOWN;
      const recents = (c * RECENT_LEVELS + r0) * RECENT_LEVELS + r1;
      const recent = (recents * SIDES + latest) * SIDES + after;

      const at = c * INPUTS;
      inputs[at] = logit;
      inputs[at + 1] = certainty;
      inputs[at + 2] = this.stretched(weights.counts[cell]);
      inputs[at + 3] = this.stretched(weights.recent[recent]);
    }
    this.fillChains(node, a, b);
    return known;
  }

  /** Computes the inputs of both chains. A mixer of version 1 has weights of 0 for them. */
  fillChains(node, a, b) {
    const { seen, inputs } = this;
    const handOn = (p, c) => {
      const [n0, n1] = [seen[a + c] & 0xffff, seen[b + c] & 0xffff];
      const weight = CHAIN_PRIOR * (1 + (n0 > 0 ? 1 : 0) + (n1 > 0 ? 1 : 0));
      const all = n0 + n1 + weight;
      return f(f(n1 / all) + f(f(weight / all) * p));
    };
    const first = handOn(this.prior[node], 0);
    let p = first;
    for (let c = 1; c < ORDERS; c++) p = handOn(p, c);
    inputs[OF_ORDERS] = this.stretched(p);
    p = first;
    for (let c = ORDERS; c < ORDERS + WORDS; c++) p = handOn(p, c);
    inputs[OF_WORDS] = this.stretched(p);
  }

  /** Chooses the row of each set of weights, by what `fillInputs` has found. */
  chooseRows(node, { latest, numbers }) {
    const { rows, setBegins, orders } = this;
    const kind = Math.min(node, CLASSES - 1);
    const last = latest[0] ? this.rank[latest[0] - 1] : CLASSES - 1;
    const length = Math.min(numbers[0], WORD_LENGTHS - 1);
    rows[0] = setBegins[0] + orders * 8 + this.certain;
    rows[1] = setBegins[1] + kind;
    rows[2] = setBegins[2] + last;
    rows[3] = setBegins[3] + kind * WORD_LENGTHS + length;
    rows[4] = setBegins[4] + Math.min(numbers[1], COLUMNS - 1) * 8 + orders;
  }

  /** The mixture of all sets of weights, a logit. Contexts without evidence have inputs of 0. */
  mixSets(kind, known) {
    const { inputs, evident, sums, mixture, weights: { sets, final } } = this;
    mixture.fill(0);
    for (let k = 0; k < SETS; k++) {
      const begin = this.rows[k] * INPUT_COUNT;
      sums.fill(0);
      for (let i = 0; i < known; i++) {
        const at = evident[i] * INPUTS;
        const lane = at % LANES;
        for (let j = 0; j < INPUTS; j++) {
          sums[lane + j] = sums[lane + j] + f(sets[begin + at + j] * inputs[at + j]);
        }
      }
      for (const at of [CONSTANT, OF_ORDERS, OF_WORDS]) {
        sums[at % LANES] = sums[at % LANES] + f(sets[begin + at] * inputs[at]);
      }
      const share = final[kind * SETS + k];
      for (let i = 0; i < LANES; i++) mixture[i] = mixture[i] + f(sums[i] * share);
    }
    for (let half = LANES >> 1; half > 0; half >>= 1) {
      for (let i = 0; i < half; i++) mixture[i] = mixture[i] + mixture[i + half];
    }
    return mixture[0];
  }

  /** The probability of turn 1 at a node. */
  decide(node, state) {
    const known = this.fillInputs(node);
    if (known === 0) return this.prior[node];
    this.chooseRows(node, state);
    const mixture = this.mixSets(Math.min(node, CLASSES - 1), known);
    const bounded = Math.min(Math.max(mixture, -BOUND), BOUND);
    const place = f(f(bounded + 8) * 2);
    const level = Math.trunc(place);
    const part = f(place - level);
    const rest = f(1 - part);
    let logit = f(mixture * 2);
    for (let table = 0; table < 2; table++) {
      const at = this.refinedRow(node, table) + level;
      const { refined } = this.weights;
      logit = f(logit + this.stretched(f(f(refined[at] * rest) + f(refined[at + 1] * part))));
    }
    return Math.min(Math.max(this.squashed(f(logit / 4)), SMALLEST), LARGEST);
  }
}
