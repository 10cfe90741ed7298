// A text colored by the activation of a unit, and the unit that follows each label best. For a
// selected span: the units that stand out in it, and the places where they stand out again.

const LEVELS = 8; // colors on each side of zero
const SPAN_UNITS = 5; // most units that describe a span
const LEAST = 0.3; // standard deviations by which such a unit must differ from its mean
const MOST_PLACES = 10; // similar places in the list
const LONGEST_SPAN = 2000;
const PREVIEW = 40, BEFORE = 8; // characters of a similar place in the list, and before it
const NO_SPAN = "Drag over the text, or hold Shift with the arrow keys, to select a span. The places " +
  "where the same units are active are listed here.";

const { vocabulary, carried } = DATA;
const UNIT_FACTS = new Map(DATA.units.map((unit) => [unit.unit, unit]));
const correlation = (value) => fixed(value, 3);

/** The color of an activation, as a fraction of the largest. */
function shade(fraction) {
  const level = Math.round(fraction * LEVELS);
  return level === 0 ? "z" : (level < 0 ? "n" : "p") + Math.min(LEVELS, Math.abs(level));
}

/** A unit's activations, (N,), in hundredths; they are unpacked once. */
const unpacked = new Map();
async function activations(name) {
  if (!unpacked.has(name)) unpacked.set(name, await array(name));
  return unpacked.get(name);
}

/** The units whose mean in a span differs most from their mean elsewhere, in standard deviations z. */
async function striking(begin, end) {
  const found = [];
  for (const name of carried) {
    const { mean, deviation } = UNIT_FACTS.get(name);
    if (deviation === 0) continue;
    const numbers = await activations(name);
    let sum = 0;
    for (let i = begin; i < end; i++) sum += numbers[i];
    const z = (sum / 100 / (end - begin) - mean) / deviation;
    found.push({ name, z, mean, deviation, numbers });
  }
  found.sort((a, b) => Math.abs(b.z) - Math.abs(a.z));
  return found.slice(0, SPAN_UNITS).filter(({ z }) => Math.abs(z) >= LEAST);
}

/**
 * The similarities of a span to all spans of the same length, by their first characters. In a span of
 * similarity 1 all units differ from their means at least as much, in the same directions.
 */
function similarities(units, length) {
  const total = units[0].numbers.length;
  const scores = new Float32Array(total - length + 1);
  for (const { numbers, z, mean, deviation } of units) {
    let sum = 0;
    for (let i = 0; i < total; i++) {
      sum += numbers[i];
      if (i >= length) sum -= numbers[i - length];
      if (i >= length - 1) {
        const here = (sum / 100 / length - mean) / deviation;
        // A larger difference than in the span counts no more than an equal one.
        scores[i - length + 1] += Math.min(here / z, 1) / units.length;
      }
    }
  }
  return scores;
}

/** The spans most similar to [begin, end): { place, score }, without overlaps. */
function similar(units, begin, end) {
  const length = end - begin, scores = similarities(units, length), count = scores.length;
  const block = (from, to) => scores.fill(-Infinity, Math.max(0, from), Math.min(count, to));
  block(begin - length + 1, end);
  const places = [];
  while (places.length < MOST_PLACES) {
    let best = -1;
    for (let i = 0; i < count; i++) if (best < 0 || scores[i] > scores[best]) best = i;
    if (best < 0 || scores[best] <= 0) break;
    places.push({ place: best, score: scores[best] });
    block(best - length + 1, best + length);
  }
  return places;
}

/** The text, colored by the chosen unit, with the readout and the list of places beside it. */
class Explorer {
  constructor(ids) {
    this.ids = ids;
    this.unit = this.values = null;
    this.scale = 100; // hundredths of the strongest color
    this.latest = 0; // counts the selected spans
    this.readout = make("div", { id: "readout", "aria-live": "polite" });
    this.spans = make("div", { id: "spans" }, make("p", { class: "soft" }, NO_SPAN));
    this.legend = make("div");
    this.about = make("p", { id: "about" });
    this.picker = make("select", { id: "unit", onchange: () => this.pick(this.picker.value) },
      carried.map((name) => {
        const { label, second_half: second } = UNIT_FACTS.get(name);
        const follows = second === null ? "" : ` — ${label} (${correlation(second)})`;
        return make("option", { value: name }, name + follows);
      }));
    this.view = new TextView(vocabulary, ids, {
      color: (i) => (this.values ? shade(this.values[i] / this.scale) : "z"),
      onmove: (i) => this.read(i),
      onselect: (begin, end) => this.select(begin, end),
    });
  }

  /** Shows the activation after a character. */
  read(i) {
    this.readout.replaceChildren(
      make("p", {}, "After ", place_of(this.view, i)),
      make("p", {}, "unit ", make("b", { id: "unit-here" }, this.unit ?? "–"), " is ",
        make("b", { id: "value" }, this.values ? (this.values[i] / 100).toFixed(2) : "–")));
  }

  /** Colors the text by another unit. */
  async pick(name) {
    this.unit = name;
    this.picker.value = name;
    const values = await activations(name);
    if (this.unit !== name) return; // another unit was chosen in the meantime
    this.values = values;
    // Only an lstm's cell state can leave the range from -1 to 1.
    this.scale = name.startsWith("c")
      ? values.reduce((most, x) => Math.max(most, Math.abs(x)), 1) : 100;
    this.draw_legend();
    this.describe(UNIT_FACTS.get(name));
    this.mark();
    this.view.redraw();
    this.read(this.view.here);
  }

  draw_legend() {
    const swatches = [];
    for (let k = -LEVELS; k <= LEVELS; k += 2) {
      const number = ((k / LEVELS) * this.scale) / 100;
      swatches.push([shade(k / LEVELS), (k > 0 ? "+" : "") + number.toFixed(2)]);
    }
    const drawn = legend("activation:",
      `blue is negative, orange is positive, up to ${this.scale / 100}`, swatches);
    this.legend.replaceWith(drawn);
    this.legend = drawn;
  }

  describe({ unit, label, first_half: first, second_half: second }) {
    this.about.replaceChildren(make("b", {}, unit), ...(first === null
      ? [" follows no label that varies in this text."]
      : [" follows ", make("q", {}, label), `: correlation ${correlation(first)} in the first half, ` +
        `${correlation(second)} in the second.`]));
  }

  unit_button(name) {
    return carried.includes(name)
      ? make("button", { "data-unit": name, "aria-pressed": "false", onclick: () => this.pick(name) }, name)
      : make("span", { class: "soft", title: `not on this page: add --units ${name}` }, name);
  }

  /** Marks the buttons of the chosen unit as pressed. */
  mark() {
    for (const button of document.querySelectorAll("button[data-unit]")) {
      button.setAttribute("aria-pressed", button.dataset.unit === this.unit);
    }
  }

  select(begin, end) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.list_similar(begin, Math.min(end, begin + LONGEST_SPAN)), 200);
  }

  /** Lists the places that are similar to a span. */
  async list_similar(begin, end) {
    const number = ++this.latest;
    this.spans.replaceChildren(make("p", {}, "Searching …"));
    const units = await striking(begin, end);
    if (number !== this.latest) return; // another span was selected in the meantime
    if (!units.length) {
      this.spans.replaceChildren(make("p", {}, "No unit stands out in this span. Select another one."));
      return;
    }
    const rows = similar(units, begin, end).map(({ place, score }) =>
      [(100 * score).toFixed(0) + "%", this.place_button(place, end - begin)]);
    const means = units.flatMap(({ name, z }, k) =>
      [k ? ", " : "", this.unit_button(name), ` ${z > 0 ? "+" : "−"}${Math.abs(z).toFixed(1)}σ`]);
    this.spans.replaceChildren(
      make("p", {}, `In ${DATA.unit}s ${grouped.format(begin)} to ${grouped.format(end)} these units ` +
        "stand out: ", means),
      make("h2", {}, "The same units are active at"),
      rows.length ? table([["similarity", "number"], ["place", ""]], rows, { id: "alike" })
        : make("p", {}, "There is no other such place."));
    this.mark();
  }

  place_button(place, length) {
    const { view } = this;
    const onclick = () => {
      view.mark(place, place + length);
      view.go(place);
    };
    return make("button", { class: "mono", dir: "auto", "data-place": place, onclick },
      view.text(place - BEFORE, place), make("b", {}, view.text(place, place + Math.min(PREVIEW, length))));
  }

  label_table() {
    const strength = (label) => (label.second_half === null ? -1 : Math.abs(label.second_half));
    const rows = [...DATA.labels].sort((a, b) => strength(b) - strength(a)).map((label) => [
      label.label, fixed(label.mean, label.mean < 10 ? 4 : 1),
      label.first_half === null ? "–" : this.unit_button(label.unit),
      correlation(label.first_half), make("b", {}, correlation(label.second_half)),
      correlation(label.random_first_half), correlation(label.random_second_half),
    ]);
    return table([["label", ""], ["mean", "number"], ["unit", ""], ["first half", "number"],
      ["second half", "number"], ["random: first", "number"], ["second", "number"]], rows,
    { id: "labels" });
  }

  unit_table() {
    const rows = carried.map((name) => {
      const facts = UNIT_FACTS.get(name);
      return [this.unit_button(name), facts.second_half === null ? "–" : facts.label,
        correlation(facts.first_half), make("b", {}, correlation(facts.second_half)),
        fixed(facts.mean, 2), fixed(facts.deviation, 2)];
    });
    return table([["unit", ""], ["best label", ""], ["first half", "number"],
      ["second half", "number"], ["mean", "number"], ["deviation", "number"]], rows, { id: "units" });
  }
}

/** Notes on the characters and the units that this page does not have. */
function notes() {
  const notes = omissions();
  if (!DATA.all) {
    const others = DATA.labels.filter((label) => label.first_half !== null && !carried.includes(label.unit));
    const names = [...new Set(others.map((label) => label.unit))].join(",");
    notes.push(`It has ${carried.length} of ${DATA.units.length} units: those with the strongest ` +
      "correlations, and those named with --units." +
      (names ? ` For the best unit of every label, add --units ${names}` : ""));
  }
  return notes.map((note) => make("p", { role: "note" }, note));
}

start(async () => {
  const explorer = new Explorer(await array("ids")), { view } = explorer, { model } = DATA;
  show(
    masthead("hidden units"), make("h1", {}, "Units over " + DATA.text),
    make("p", {}, `${counted(DATA.characters)}. Network: ${model.cell}, ` +
      `${plural(model.hidden_size, "unit")} per layer, ${plural(model.layers, "layer")}. State: ${DATA.protocol}.`),
    notes(),
    make("p", { class: "controls" }, make("label", { for: "unit" }, "unit"), explorer.picker),
    explorer.about, explorer.legend,
    make("div", { class: "reader" }, view.element, make("div", { class: "side" },
      make("div", { class: "card" }, explorer.readout), make("div", { class: "card places" }, explorer.spans))),
    make("h2", {}, "Labels, strongest correlation first"),
    make("p", { class: "soft" }, "Each label of the text with the unit that follows it best in the " +
      "first half, and the correlation (Pearson’s) in the second half. For comparison, the best of as " +
      "many random directions of the same states: a correlation found by chance."),
    make("div", { class: "scroll" }, explorer.label_table()),
    make("h2", {}, "Units, strongest correlation first"),
    make("div", { class: "scroll tall" }, explorer.unit_table()),
  );
  view.fit();
  await explorer.pick(carried[0]);
});
