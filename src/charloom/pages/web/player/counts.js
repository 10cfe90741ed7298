// Counts of characters after contexts, and their mixture with the network.
//
// Counts are an n-gram table (below) or a context mixer (mixer.js). Both have newState, cloneState
// and predict(state, id), which reads a character and predicts the next one. It returns
// {probabilities (V,), length, weight} by the longest context that was seen, and its rarity.

/** The page's counts, null without any. */
function openCounts(header, arrays) {
  if (!header.counts) return null;
  const mixes = header.counts.kind === "context-mixing";
  return mixes ? new ContextMixer(contextMixer(header, arrays))
    : new NGramTable(ngramTable(header, arrays), header.vocabulary.length);
}

/** The arrays of an n-gram table. */
function ngramTable(header, arrays) {
  const read = (name) => integers(header, arrays, "counts." + name);
  const children = read("children"); // of each node, (I,)
  const first = new Int32Array(children.length + 1);
  for (let node = 0; node < children.length; node++) first[node + 1] = first[node] + children[node];
  return {
    context: header.counts.context,
    first,
    characters: read("characters"),
    probabilities: floats(header, arrays, "counts.probabilities"),
    weights: floats(header, arrays, "counts.weights"),
  };
}

/** An n-gram model with Kneser-Ney smoothing, as a trie. A state has the last characters' nodes. */
class NGramTable {
  constructor(table, size) {
    Object.assign(this, table);
    this.found = { probabilities: new Float32Array(size), length: 0, weight: 1 };
  }

  newState() {
    return new Int32Array(this.context).fill(-1);
  }

  cloneState(state) {
    return state.slice();
  }

  /** A node's child for a character, -1 where one is missing. */
  child(node, id) {
    const { first, characters } = this;
    let low = first[node];
    let high = first[node + 1];
    const end = high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (characters[middle] < id) low = middle + 1;
      else high = middle;
    }
    return low === end || characters[low] !== id || low + 1 >= this.weights.length ? -1 : low + 1;
  }

  predict(state, id) {
    for (let k = this.context - 1; k >= 0; k--) {
      const shorter = k > 0 ? state[k - 1] : 0;
      state[k] = shorter < 0 ? -1 : this.child(shorter, id);
    }
    const { found, first } = this;
    const p = found.probabilities;
    p.fill(1 / p.length);
    [found.length, found.weight] = [0, 1];
    for (let k = 0; k <= this.context; k++) {
      const node = k > 0 ? state[k - 1] : 0;
      if (node < 0 || first[node] === first[node + 1]) break;
      const weight = this.weights[node];
      for (let v = 0; v < p.length; v++) p[v] *= weight;
      for (let i = first[node]; i < first[node + 1]; i++) {
        p[this.characters[i]] = this.probabilities[i];
      }
      [found.length, found.weight] = [k, weight];
    }
    return found;
  }
}

const LEAST_WEIGHT = 1e-12;

/** The index of the largest number, of equal ones the first. */
function largest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/**
 * Replaces the network's log-probabilities, (V,), by those of its mixture with the counts.
 *
 * The parameters of the network's weight are theta, the longest context of the counts is context.
 */
function mix(logs, { probabilities: p, length, weight }, theta, context) {
  let [hNetwork, hCounts] = [0, 0]; // entropies
  for (let v = 0; v < p.length; v++) {
    hNetwork -= Math.exp(logs[v]) * logs[v];
    if (p[v] > 0) hCounts -= p[v] * Math.log(p[v]);
  }
  const [guess, other] = [largest(logs), largest(p)];
  const [sNetwork, sCounts] = [-logs[guess], -Math.log(p[other])]; // of each one's best guess
  const features = [
    1, hNetwork, hCounts, sNetwork, sCounts,
    hNetwork * hCounts / 3, hNetwork * hNetwork / 3, hCounts * hCounts / 3, sNetwork * sCounts,
    -Math.log(p[guess]) / 3, -logs[other] / 3,
  ];
  let logit = theta[11 + length] - theta[12 + context + length] * (Math.log(weight) / 3);
  features.forEach((feature, i) => { logit += theta[i] * feature; });
  const g = Math.min(Math.max(sigmoid(logit), LEAST_WEIGHT), 1 - LEAST_WEIGHT);
  for (let v = 0; v < p.length; v++) logs[v] = Math.log(g * Math.exp(logs[v]) + (1 - g) * p[v]);
}
