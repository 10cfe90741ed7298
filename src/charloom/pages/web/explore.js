// A text colored by the activation of one unit; which unit follows which label; where the units that
// are on in a chosen span are on again.

const LEVELS = 8;
const MOST_UNITS = 5; // that make a span what it is
const LEAST = 0.3; // standard deviations that a unit must stand out by
const SPANS = 10; // that are listed
const LONGEST_SPAN = 2000;

start(async () => {
  const { vocabulary, carried } = DATA;
  const ids = await array("ids");
  const known = new Map(); // activations that were unpacked, in hundredths
  const found = new Map(DATA.units.map((unit) => [unit.unit, unit]));
  let unit = null, values = null, scale = 100;

  const activations = async (name) => {
    if (!known.has(name)) known.set(name, await array(name));
    return known.get(name);
  };
  const largest = (numbers) => numbers.reduce((most, x) => Math.max(most, Math.abs(x)), 1);
  const r = (value) => fixed(value, 3);

  const readout = make("div", { id: "readout", "aria-live": "polite" });
  const spans = make("div", { id: "spans" }, make("p", { class: "soft" },
    "Drag over the text, or hold Shift with the arrow keys, to choose a span: here come the places " +
    "where the same units are on."));
  const read = (i) => {
    readout.replaceChildren(
      make("p", {}, "After ", make("b", { class: "mono", id: "character" }, named(vocabulary[ids[i]])),
        ` at ${grouped.format(i)}`),
      make("p", {}, "unit ", make("b", { id: "unit-here" }, unit ?? "–"), " is ",
        make("b", { id: "value" }, values ? (values[i] / 100).toFixed(2) : "–")));
  };
  const view = new TextView(vocabulary, ids, {
    color(i) {
      if (!values) return "z";
      const level = Math.round((values[i] / scale) * LEVELS);
      return level === 0 ? "z" : (level < 0 ? "n" : "p") + Math.min(LEVELS, Math.abs(level));
    },
    onmove: read,
    onselect: (begin, end) => choose_span(begin, end),
  });

  const legend = make("div", { class: "legend", role: "img" });
  const about = make("p", { id: "about" });
  const picker = make("select", { id: "unit", onchange: () => pick(picker.value) },
    carried.map((name) => {
      const unit = found.get(name);
      const said = unit.second_half === null ? "" : ` — ${unit.label} (${r(unit.second_half)})`;
      return make("option", { value: name }, name + said);
    }));

  async function pick(name) {
    unit = name;
    picker.value = name;
    values = await activations(name);
    if (unit !== name) return; // another one was chosen meanwhile
    const kind = name.startsWith("c");
    scale = kind ? largest(values) : 100;
    legend.replaceChildren(make("span", { class: "name" }, "activation:"));
    for (let k = -LEVELS; k <= LEVELS; k += 2) {
      const shade = k === 0 ? "z" : (k < 0 ? "n" : "p") + Math.abs(k);
      const number = ((k / LEVELS) * scale) / 100;
      legend.append(make("span", { class: "swatch " + shade }, (k > 0 ? "+" : "") + number.toFixed(2)));
    }
    legend.setAttribute("aria-label", `Legend: blue is negative, orange is positive, up to ${scale / 100}.`);
    const facts = found.get(name);
    about.replaceChildren(make("b", {}, name), facts.first_half === null
      ? " follows no label that varies in this text." : " follows ", ...(facts.first_half === null ? [] :
      [make("q", {}, facts.label), `: correlation ${r(facts.first_half)} on the first half, ` +
        `${r(facts.second_half)} on the second.`]));
    for (const button of document.querySelectorAll("button[data-unit]")) {
      button.setAttribute("aria-pressed", button.dataset.unit === name);
    }
    view.redraw();
    read(view.here);
  }

  const unit_button = (name) => carried.includes(name)
    ? make("button", { "data-unit": name, "aria-pressed": "false", onclick: () => pick(name) }, name)
    : make("span", { class: "soft", title: `This page does not carry it: add --units ${name}` }, name);

  /** The units that make a span what it is: whose mean there lies far from their mean elsewhere. */
  async function striking(begin, end) {
    const strengths = [];
    for (const name of carried) {
      const { mean, deviation } = found.get(name);
      if (deviation === 0) continue;
      const numbers = await activations(name);
      let sum = 0;
      for (let i = begin; i < end; i++) sum += numbers[i];
      const z = (sum / 100 / (end - begin) - mean) / deviation;
      strengths.push({ name, z, mean, deviation, numbers });
    }
    strengths.sort((a, b) => Math.abs(b.z) - Math.abs(a.z));
    return strengths.slice(0, MOST_UNITS).filter(({ z }) => Math.abs(z) >= LEAST);
  }

  /** Other places of the same length where those units are as far out, in the same directions. */
  function alike(units, begin, end) {
    const length = end - begin, count = ids.length - length + 1;
    const scores = new Float32Array(count);
    for (const { numbers, z, mean, deviation } of units) {
      let sum = 0;
      for (let i = 0; i < ids.length; i++) {
        sum += numbers[i];
        if (i >= length) sum -= numbers[i - length];
        if (i >= length - 1) {
          const here = (sum / 100 / length - mean) / deviation;
          // As far out as the span counts fully, further out no more than that.
          scores[i - length + 1] += Math.min(here / z, 1) / units.length;
        }
      }
    }
    const block = (from, to) => scores.fill(-Infinity, Math.max(0, from), Math.min(count, to));
    block(begin - length + 1, end);
    const places = [];
    while (places.length < SPANS) {
      let best = -1;
      for (let i = 0; i < count; i++) if (best < 0 || scores[i] > scores[best]) best = i;
      if (best < 0 || scores[best] <= 0) break;
      places.push({ place: best, score: scores[best] });
      block(best - length + 1, best + length);
    }
    return places;
  }

  let latest = 0, waiting = null;
  function choose_span(begin, end) {
    clearTimeout(waiting);
    waiting = setTimeout(() => list_spans(begin, Math.min(end, begin + LONGEST_SPAN)), 200);
  }
  async function list_spans(begin, end) {
    const asked = ++latest;
    spans.replaceChildren(make("p", {}, "Looking …"));
    const units = await striking(begin, end);
    if (asked !== latest) return;
    if (!units.length) {
      spans.replaceChildren(make("p", {}, "No unit stands out in this span: choose another one."));
      return;
    }
    const text = (from, to) => Array.from(ids.subarray(from, to), (id) => visible(vocabulary[id])).join("");
    const rows = alike(units, begin, end).map(({ place, score }) => [
      (100 * score).toFixed(0) + "%",
      make("button", { class: "mono", "data-place": place, onclick: () => {
        view.choose_quietly(place, place + end - begin);
        view.go(place);
      } }, text(Math.max(0, place - 8), place), make("b", {}, text(place, Math.min(place + 40, place + end - begin)))),
    ]);
    const means = units.flatMap(({ name, z }, k) =>
      [k ? ", " : "", unit_button(name), ` ${z > 0 ? "+" : "−"}${Math.abs(z).toFixed(1)}σ`]);
    spans.replaceChildren(
      make("p", {}, `Characters ${grouped.format(begin)} to ${grouped.format(end)} stand out by `, means),
      make("h2", {}, "The same units are on at"),
      rows.length ? table([["alike", "number"], ["place", ""]], rows, { id: "alike" })
        : make("p", {}, "There is no other such place."));
    mark();
  }
  function mark() {
    for (const button of document.querySelectorAll("button[data-unit]")) {
      button.setAttribute("aria-pressed", button.dataset.unit === unit);
    }
  }

  const strength = (label) => (label.second_half === null ? -1 : Math.abs(label.second_half));
  const by_strength = [...DATA.labels].sort((a, b) => strength(b) - strength(a));
  const label_rows = by_strength.map((label) => [
    label.label, fixed(label.mean, label.mean < 10 ? 4 : 1),
    label.first_half === null ? "–" : unit_button(label.unit),
    r(label.first_half), make("b", {}, r(label.second_half)),
    r(label.random_first_half), r(label.random_second_half),
  ]);
  const unit_rows = carried.map((name) => {
    const facts = found.get(name);
    return [unit_button(name), facts.second_half === null ? "–" : facts.label,
      r(facts.first_half), make("b", {}, r(facts.second_half)),
      fixed(facts.mean, 2), fixed(facts.deviation, 2)];
  });
  const model = DATA.model;
  const notes = [];
  if (DATA.shown < DATA.characters) notes.push(`This page shows the first ` +
    `${grouped.format(DATA.shown)} of ${grouped.format(DATA.characters)} characters.`);
  if (!DATA.all) {
    const others = DATA.labels.filter((label) => label.first_half !== null && !carried.includes(label.unit));
    const names = [...new Set(others.map((label) => label.unit))].join(",");
    notes.push(`It carries ${carried.length} of ${DATA.units.length} units: those best explained, ` +
      "and those that were named." + (names ? ` For the best of every label add --units ${names}` : ""));
  }
  if (DATA.skipped_characters) notes.push(
    `${grouped.format(DATA.skipped_characters)} unknown characters were passed over.`);
  show(
    make("h1", {}, "Units over " + DATA.text),
    make("p", {}, `${grouped.format(DATA.characters)} characters through a ${model.cell} of ` +
      `${grouped.format(model.hidden_size)} units, layers: ${model.layers}; state ${DATA.protocol}.`),
    notes.map((note) => make("p", { role: "note" }, note)),
    make("p", {}, make("label", { for: "unit" }, "Unit "), picker),
    about, legend,
    make("div", { class: "reader" }, view.element, make("div", { class: "side" }, readout,
      make("div", { class: "places" }, spans))),
    make("h2", {}, "What units follow"),
    make("p", { class: "soft" }, "For each label of the text the unit that follows it best on the " +
      "first half, and how well it follows it on the second (Pearson’s correlation); beside it the " +
      "best of as many random directions of the same states, chosen in the same way: what luck finds."),
    make("div", { class: "scroll" }, table([["label", ""], ["mean", "number"], ["unit", ""],
      ["first half", "number"], ["second half", "number"], ["random: first", "number"],
      ["second", "number"]], label_rows, { id: "labels" })),
    make("h2", {}, "Units, best explained first"),
    make("div", { class: "scroll tall" }, table([["unit", ""], ["follows best", ""],
      ["first half", "number"], ["second half", "number"], ["mean", "number"],
      ["deviation", "number"]], unit_rows, { id: "units" })),
  );
  view.fit();
  await pick(carried[0]);
});
