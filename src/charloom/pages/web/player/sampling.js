// From log-probabilities to characters: random numbers and the choice; and from a text to ids. All
// of it is as in charloom, so that a seed gives the text of `charloom sample`, except where
// rounding decides.

const BITS_64 = (1n << 64n) - 1n, BITS_128 = (1n << 128n) - 1n;
const MULTIPLIER_128 = 0x2360ed051fc65da44385df649fccf645n;

/** The random numbers of numpy.random.Generator(PCG64([seed, index])).random(). */
class RandomNumbers {
  constructor(seed, index = 0) {
    const words = seedSequence([...wordsOf(seed), ...wordsOf(index)]);
    const [stateHigh, stateLow, streamHigh, streamLow] = [0, 2, 4, 6].map((i) =>
      (BigInt(words[i + 1]) << 32n) | BigInt(words[i]));
    this.increment = ((((streamHigh << 64n) | streamLow) << 1n) | 1n) & BITS_128;
    this.state = this.increment;
    this.state = (this.state + ((stateHigh << 64n) | stateLow)) & BITS_128;
    this.advance();
  }

  advance() {
    this.state = (this.state * MULTIPLIER_128 + this.increment) & BITS_128;
  }

  /** The next number, at least 0 and below 1. */
  next() {
    this.advance();
    const value = (this.state >> 64n) ^ (this.state & BITS_64);
    const turn = this.state >> 122n;
    const rotated = ((value >> turn) | (value << (64n - turn))) & BITS_64;
    return Number(rotated >> 11n) / 2 ** 53;
  }
}

/** A number of 0 or more in words of 32 bits, the lowest first. */
function wordsOf(number) {
  let rest = BigInt(number);
  const words = [];
  do {
    words.push(Number(rest & 0xffffffffn));
    rest >>= 32n;
  } while (rest);
  return words;
}

/** The first 8 words of numpy.random.SeedSequence. */
function seedSequence(entropy) {
  let constant = 0x43b0d7e5;
  const hashed = (word) => {
    let value = word ^ constant;
    constant = Math.imul(constant, 0x931e8875);
    value = Math.imul(value, constant);
    return value ^ (value >>> 16);
  };
  const mixed = (a, b) => {
    const value = (Math.imul(a, 0xca01f9dd) - Math.imul(b, 0x4973f715)) | 0;
    return value ^ (value >>> 16);
  };
  const pool = [0, 1, 2, 3].map((i) => hashed(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mixed(pool[to], hashed(pool[from]));
  }
  for (const word of entropy.slice(4)) {
    for (let to = 0; to < 4; to++) pool[to] = mixed(pool[to], hashed(word));
  }
  constant = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, i) => {
    let value = pool[i % 4] ^ constant;
    constant = Math.imul(constant, 0x58f38ded);
    value = Math.imul(value, constant);
    return (value ^ (value >>> 16)) >>> 0;
  });
}

/** The ids by falling logits; equal ones in their order. */
function ranked(logits) {
  return Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
}

/**
 * The weights, (V,), by which the next character is sampled. That of the likeliest one is 1.
 *
 * The settings are temperature (0 is greedy), top_k, top_p and min_p, applied in this order. The
 * last three can be null. In `excluded`, (V,) or null, 1 marks characters that must not follow.
 */
function weightsOf(logits, { temperature, top_k, top_p, min_p }, excluded = null) {
  const allowed = Float32Array.from(logits, (logit, id) => (excluded?.[id] ? -Infinity : logit));
  const best = largest(allowed);
  const weights = new Float64Array(allowed.length);
  if (temperature === 0) {
    weights[best] = 1;
    return weights;
  }
  const colder = 1 / Math.max(temperature, 1e-300);
  for (let id = 0; id < weights.length; id++) {
    weights[id] = Math.exp(Math.fround(allowed[id] - allowed[best]) * colder);
  }
  let cut = top_k ? Math.min(top_k, weights.length) : weights.length;
  if (cut < weights.length || top_p) {
    const order = ranked(allowed);
    if (top_p) {
      const kept = order.slice(0, cut);
      const whole = kept.reduce((sum, id) => sum + weights[id], 0);
      let running = 0;
      // The character that crosses top_p still belongs to the choice.
      const crossing = kept.findIndex((id) => (running += weights[id]) / whole >= top_p);
      if (crossing >= 0) cut = crossing + 1;
    }
    for (const id of order.slice(cut)) weights[id] = 0;
  }
  if (min_p) weights.forEach((weight, id) => { if (weight < min_p) weights[id] = 0; });
  return weights;
}

/** Chooses the next character, by a random number from 0 to 1. */
function chooseNext(logits, settings, uniform, excluded = null) {
  const weights = weightsOf(logits, settings, excluded);
  const whole = weights.reduce((sum, weight) => sum + weight, 0);
  let [running, last] = [0, 0];
  for (let id = 0; id < weights.length; id++) {
    if (weights[id] === 0) continue;
    running += weights[id];
    last = id;
    if (running > uniform * whole) break;
  }
  return last;
}

/** The characters of a text as the model reads it, in the forms that the vocabulary knows. */
function readText(header, text) {
  const known = new Set(header.vocabulary);
  const isBytes = header.kind === "bytes";
  let read = text;
  if (!isBytes && !known.has("\r")) read = read.replace(/\r\n?/g, "\n");
  if (!isBytes && !known.has("\ufeff")) read = read.replace(/^\ufeff/, "");
  const bytesOf = (string) => Array.from(new TextEncoder().encode(string), (byte) =>
    String.fromCharCode(byte));
  const charactersOf = (string) => (isBytes ? bytesOf(string) : Array.from(string));
  const knows = (string) => charactersOf(string).every((character) => known.has(character));
  if (knows(read)) return charactersOf(read);
  // A character with its combining marks stays as it is, or is composed, or decomposed.
  return read.split(/(?=\P{M})/u).flatMap((cluster) => {
    const decomposed = Array.from(cluster.normalize("NFD"));
    const [base, ...marks] = decomposed;
    const partly = marks.map((mark, i) =>
      (base + mark).normalize("NFC") + marks.filter((_, j) => j !== i).join(""));
    const forms = [cluster, cluster.normalize("NFC"), decomposed.join(""), ...partly];
    return charactersOf(forms.find(knows) ?? cluster);
  });
}

/** The ids of a text, and its characters that the model does not know. */
function encodeText(header, text) {
  const idOf = new Map(header.vocabulary.map((character, id) => [character, id]));
  idOf.delete(""); // the end of a document
  const [ids, unknown] = [[], []];
  for (const character of readText(header, text)) {
    if (idOf.has(character)) ids.push(idOf.get(character));
    else unknown.push(character);
  }
  return { ids, unknown };
}
