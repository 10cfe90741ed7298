// The worker of the page: it writes, reads and scores texts with the model, and reports batches of
// characters, so that computing never delays the page.
//
// A command is {kind, text, job, …}. Commands run one after another. "halt" ends all earlier
// commands. The page's texts are "write", "play" and "score"; each has a state of its own.

const GUESSES = 5; // likeliest characters to report for every place
const KEPT = 32; // characters between two states that are kept, so that a text can continue at an earlier place
const BATCH = 16; // milliseconds between two reports
const LONGEST = 50000; // characters of a text

/** The likeliest ids, (GUESSES,) or fewer, by falling log-probability. */
function likeliest(logs) {
  const found = [];
  for (let id = 0; id < logs.length; id++) {
    if (found.length === GUESSES && logs[id] <= logs[found[GUESSES - 1]]) continue;
    let at = found.length;
    while (at > 0 && logs[found[at - 1]] < logs[id]) at -= 1;
    found.splice(at, 0, id);
    if (found.length > GUESSES) found.pop();
  }
  return found;
}

/** A text as the model has read it, which can be cut anywhere. */
class ReadText {
  constructor(name, model) {
    this.name = name;
    this.model = model;
    this.logs = new Float32Array(model.vocabulary.length); // of the next character
    this.activations = new Int8Array(0); // (N, H), 127 times the hidden state after each character
    this.clear();
  }

  get length() {
    return this.ids.length;
  }

  clear() {
    this.ids = [];
    this.kept = []; // {place, state}: the states after the characters before some places
    this.restarts = new Set(); // the places where a new text begins
    this.random = null; // the random numbers of a sample that can continue
    this.restart();
  }

  /** The index of the last document. */
  get index() {
    return this.restarts.size - 1;
  }

  /** Begins a new text, which does not depend on the characters before it. */
  restart() {
    this.restarts.add(this.length);
    this.state = this.model.newState();
    this.logs.set(this.model.step(this.state, this.model.header.start));
  }

  /** Reads a character. */
  append(id) {
    const { length: place, model } = this;
    if (place % KEPT === 0 || this.restarts.has(place)) {
      this.kept.push({ place, state: model.cloneState(this.state) });
    }
    this.ids.push(id);
    this.logs.set(model.step(this.state, id));
    this.keep_activations(place);
  }

  keep_activations(place) {
    const values = this.model.activations(this.state), needed = (place + 1) * values.length;
    if (this.activations.length < needed) {
      const larger = new Int8Array(Math.max(2 * needed, 512 * values.length));
      larger.set(this.activations);
      this.activations = larger;
    }
    const from = place * values.length;
    for (let unit = 0; unit < values.length; unit++) {
      this.activations[from + unit] = Math.round(127 * values[unit]);
    }
  }

  /** Forgets the characters from a place on. */
  cut(place) {
    if (place >= this.length) return;
    this.restarts = new Set([...this.restarts].filter((restart) => restart <= place));
    while (this.kept.length && this.kept.at(-1).place >= place) this.kept.pop();
    const dropped = this.ids.splice(place);
    if (!dropped.length) return;
    if (this.restarts.has(place)) {
      this.restart();
      return;
    }
    const { place: from, state } = this.kept.at(-1);
    this.state = this.model.cloneState(state);
    for (let i = from; i < place; i++) this.logs.set(this.model.step(this.state, this.ids[i]));
  }

  /** The guesses of the next character. */
  next() {
    const guesses = likeliest(this.logs);
    return { guesses, chances: guesses.map((guess) => Math.exp(this.logs[guess])) };
  }

  /** The activations of a unit at characters [begin, end). */
  unit(unit, begin, end) {
    const { hidden } = this.model.header;
    return Int8Array.from({ length: end - begin }, (_, i) => this.activations[(begin + i) * hidden + unit]);
  }
}

/** Characters that have been read, and not been reported. */
class Batch {
  constructor(text, unit) {
    Object.assign(this, { text, unit, count: 0 }); // count: characters that the command has read
    this.known = text.model.header.unseen?.known ?? 0; // bits, because unknown characters have a probability too
    this.empty();
  }

  empty() {
    this.begin = this.text.length;
    this.characters = []; // {id, bits, guesses, chances, given}
  }

  /** Reads a character; `given` is true if it is not the model's own. */
  append(id, given) {
    const { logs } = this.text, guesses = likeliest(logs);
    this.characters.push({ id, bits: this.known - logs[id] / Math.LN2, guesses,
      chances: guesses.map((guess) => Math.exp(logs[guess])), given });
    this.text.append(id);
    this.count += 1;
  }

  report() {
    const all = this.characters, { text, begin } = this;
    if (all.length) {
      const rows = (name) => all.flatMap((character) =>
        Array.from({ length: GUESSES }, (_, k) => character[name][k] ?? 0));
      const arrays = {
        ids: Uint32Array.from(all, ({ id }) => id),
        bits: Float32Array.from(all, ({ bits }) => bits),
        given: Uint8Array.from(all, ({ given }) => (given ? 1 : 0)),
        guesses: Uint32Array.from(rows("guesses")),
        chances: Float32Array.from(rows("chances")),
        values: text.unit(this.unit(), begin, text.length),
      };
      postMessage({ kind: "characters", text: text.name, begin, next: text.next(), ...arrays },
        Object.values(arrays).map(({ buffer }) => buffer));
    }
    this.empty();
  }
}

class Halted extends Error {}

/** What the page can do with a model. Each method is a command of its name. */
class Desk {
  constructor(model) {
    this.model = model;
    this.unit = 0;
    this.halted = 0; // jobs up to this one have been halted
    this.texts = Object.fromEntries(["write", "play", "score"].map((name) =>
      [name, new ReadText(name, model)]));
  }

  begin(text, job) {
    this.job = job;
    this.batch = new Batch(text, () => this.unit);
    this.reported = performance.now();
    this.computed = 0; // milliseconds
    this.since = this.reported;
  }

  /** Reports the characters that have been read if it is time, and lets other messages arrive. */
  async rest(wait = 0) {
    const now = performance.now();
    if (now - this.reported < BATCH && !wait) return;
    this.computed += now - this.since;
    this.batch.report();
    await new Promise((resolve) => {
      if (wait) {
        setTimeout(resolve, wait);
      } else {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = resolve;
        port2.postMessage(0);
      }
    });
    this.reported = this.since = performance.now();
    if (this.job <= this.halted) throw new Halted();
  }

  shorten(text, place) {
    this.batch.report();
    text.cut(place);
    this.report_cut(text, place);
  }

  clear(text) {
    text.clear();
    this.report_cut(text, 0);
  }

  report_cut(text, length) {
    this.batch.empty();
    postMessage({ kind: "cut", text: text.name, length, next: text.next() });
  }

  restart(text) {
    this.batch.report();
    text.restart();
    postMessage({ kind: "restart", text: text.name, place: text.length });
  }

  async read(text, ids, given) {
    for (const id of ids) {
      if (text.length >= LONGEST) return;
      this.batch.append(id, given);
      await this.rest();
    }
  }

  /** Writes characters, at a pace in characters per second or (0) at once. Returns why it ended. */
  async sample(text, { settings, length, stop, pace }) {
    const from = text.length, { end } = this.model.header;
    const stops = stop.map((one) => encodeText(this.model.header, one))
      .filter(({ ids, unknown }) => ids.length && !unknown.length).map(({ ids }) => ids);
    const started = performance.now();
    while (text.length - from < length) {
      if (text.length >= LONGEST) return "full";
      if (pace) {
        const due = (performance.now() - started) * pace / 1000 - (text.length - from);
        if (due < 0) await this.rest(Math.max(BATCH, -due * 1000 / pace));
      }
      const id = chooseNext(text.logs, settings, text.random.next());
      this.batch.append(id, false);
      if (id === end) return "end";
      const ending = stops.filter((ids) => text.length - from >= ids.length &&
        ids.every((one, i) => one === text.ids[text.length - ids.length + i]));
      if (ending.length) {
        this.shorten(text, text.length - Math.max(...ending.map((ids) => ids.length)));
        return "stop";
      }
      await this.rest();
    }
    return "length";
  }

  /** Writes documents, the text's first ones or more of them. Returns why the last one ended. */
  async documents(text, prompt, options, count) {
    let reason = "length";
    for (let k = 0; k < count && reason !== "full"; k++) {
      if (text.length) this.restart(text);
      text.random = new RandomNumbers(BigInt(options.seed), text.index);
      await this.read(text, prompt, true);
      reason = await this.sample(text, options);
    }
    return reason;
  }

  /** Writes a text, or several documents. */
  async write(text, options) {
    this.clear(text);
    const { ids, unknown } = encodeText(this.model.header, options.prompt);
    const reason = await this.documents(text, ids, options, options.documents);
    return { reason, unknown };
  }

  /** Writes on, with the random numbers of the sample so far; or a new document after the end of one. */
  async more(text, options) {
    if (text.ids.at(-1) === this.model.header.end) {
      const { ids, unknown } = encodeText(this.model.header, options.prompt);
      return { reason: await this.documents(text, ids, options, 1), unknown };
    }
    text.random ??= new RandomNumbers(BigInt(options.seed), text.index);
    return { reason: await this.sample(text, options) };
  }

  /** Cuts the text at a place, if any, appends a character, and writes on if there are options. */
  async choose(text, { place, id, options }) {
    if (place !== null) this.shorten(text, place);
    text.random = null;
    await this.read(text, [id], false);
    if (!options || id === this.model.header.end) return { reason: "chosen" };
    return this.more(text, options);
  }

  /** Appends guess k. The page's own guesses can be older than its latest text. */
  async take(text, { guess }) {
    const id = likeliest(text.logs)[guess];
    text.random = null;
    if (id !== undefined) await this.read(text, [id], false);
    return { reason: "chosen" };
  }

  /** Reads typed characters. */
  async type(text, { typed }) {
    const { ids, unknown } = encodeText(this.model.header, typed);
    text.random = null;
    await this.read(text, ids, false);
    return { reason: "typed", unknown };
  }

  async erase(text, { count }) {
    this.shorten(text, Math.max(0, text.length - count));
    text.random = null;
    return { reason: "erased" };
  }

  /** Reads a text to score it. Where a document is one line, each line is a document. */
  async score(text, { scored }) {
    const { header } = this.model;
    this.clear(text);
    const lines = header.end !== null && !header.vocabulary.includes("\n");
    const parts = lines ? scored.split(/\r\n?|\n/).filter((line) => line) : [scored];
    const unknown = [];
    let left_out = 0;
    for (const part of parts) {
      const found = encodeText(header, part);
      unknown.push(...found.unknown);
      const ids = lines ? [...found.ids, header.end] : found.ids;
      left_out += Math.max(0, text.length + ids.length - Math.max(LONGEST, text.length));
      if (text.length && lines) this.restart(text);
      await this.read(text, ids, false);
    }
    return { reason: "scored", unknown, left_out };
  }

  /** Reads a text again that the page has kept: {ids, given, restarts}. */
  async restore(text, { ids, given, restarts }) {
    this.clear(text);
    for (let i = 0; i < ids.length; i++) {
      if (i && restarts.includes(i)) this.restart(text);
      this.batch.append(ids[i], given[i]);
      await this.rest();
    }
    return { reason: "restored" };
  }

  /** Chooses the unit whose activations are reported. */
  choose_unit({ unit }) {
    this.unit = unit;
    for (const text of Object.values(this.texts)) {
      postMessage({ kind: "unit", text: text.name, unit, values: text.unit(unit, 0, text.length) });
    }
  }

  async run({ kind, text: name, job, ...options }) {
    const text = this.texts[name];
    this.begin(text, job);
    let outcome = { reason: "halted" };
    try {
      if (job > this.halted) outcome = await this[kind](text, options);
    } catch (error) {
      if (!(error instanceof Halted)) throw error;
    }
    this.computed += performance.now() - this.since;
    this.batch.report();
    postMessage({ kind: "done", text: name, job, computed: this.computed,
      appended: this.batch.count, ...outcome, next: text.next() });
  }
}

/** The page's arrays, from {name: [type, deflated numbers in base64]}. */
async function unpacked(packed) {
  const types = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
    int32: Int32Array, uint32: Uint32Array, float32: Float32Array };
  const arrays = {};
  for (const [name, [type, text]] of Object.entries(packed)) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    arrays[name] = new types[type](await new Response(stream).arrayBuffer());
  }
  return arrays;
}

async function open({ header, packed }) {
  const arrays = await unpacked(packed);
  let compiled = null;
  try {
    compiled = await createCompiledModel(header, arrays);
  } catch { // the plain engine computes the same
  }
  const desk = new Desk(compiled ?? new PlayerModel(header, arrays));
  postMessage({ kind: "ready", compiled: compiled !== null });
  return desk;
}

let desk = null, queue = Promise.resolve();

function fail(error) {
  postMessage({ kind: "failed", message: String(error.message ?? error) });
}

onmessage = ({ data }) => {
  if (data.kind === "halt") {
    if (desk) desk.halted = Math.max(desk.halted, data.job);
    return;
  }
  if (data.kind === "unit" && desk) { // at once, while a text is written
    desk.choose_unit(data);
    return;
  }
  queue = queue.then(async () => {
    if (data.kind === "open") desk = await open(data);
    else if (data.kind === "unit") desk.choose_unit(data);
    else await desk.run(data);
  }).catch(fail);
};
