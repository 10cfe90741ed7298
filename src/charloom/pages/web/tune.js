// A search's report: what every trial came to, by time, by its own time and by each option. One trial
// is pointed at in all charts and in the table.

const TRIALS = DATA.trials.filter((trial) => trial.state !== "waiting");
const KINDS = {
  complete: "came to its end", pruned: "pruned: it fell behind", failed: "failed",
  running: "under way",
};
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // between the numbers on an axis
const ALONG = { number: "trial", ended: "time of the search" };
const SPREAD = 0.5; // of the trials on one choice, as a part of what it takes on its axis

const scaled = (loss) => (loss === null ? null : loss * (UNITS[chosen.unit] ?? UNITS.bits));
const shown_loss = (loss) => (loss === null ? "–" : scaled(loss).toFixed(4));
const is_best = (trial) => trial.number === DATA.best;

/** What a trial looks like; its kind is in the shape too. */
function kind_of(trial) {
  return is_best(trial) ? "best" : trial.state;
}

const COLORS = { best: "c1", complete: "c0", pruned: "c7", failed: "c5", running: "c2" };

function mark(kind, x, y, large = false) {
  const r = large ? 6.5 : 4, color = COLORS[kind];
  if (kind === "best") {
    return make("path", { class: `best ${color}`, d: `M${x} ${y - r - 2}l${r + 2} ${r + 2}l${-r - 2} ${r + 2}l${-r - 2} ${-r - 2}z` });
  }
  if (kind === "failed") {
    return make("path", { class: `curve ${color}`, d: `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}` });
  }
  return make("circle", { class: `${kind === "complete" ? "dot" : "hollow"} ${color}`, cx: x, cy: y, r });
}

class Plot {
  /** onpick(trial): the reader points at a trial. onstep(key): presses a key that may choose one. */
  constructor(title, height, { onpick, onstep }) {
    Object.assign(this, { title, height, onpick });
    this.heading = make("figcaption", {}, title);
    this.place = make("div", {
      class: "plot", tabindex: 0, role: "group",
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
      onkeydown: (event) => { if (onstep(event.key)) event.preventDefault(); },
    });
    this.element = make("figure", { class: "chart" }, this.heading, this.place);
    this.width = 0;
    new ResizeObserver(() => {
      if (this.data && this.place.clientWidth !== this.width) this.draw(this.data, this.here);
    }).observe(this.place);
  }

  /**
   * points: { trial, x, y }. lines: { trial, points }. steps: of the best so far, { x, y }. x: the
   * axis, { low, high, logarithmic, choices, text }. most: of y, what lies above it is drawn there.
   */
  draw(data, here) {
    this.data = data;
    this.here = here;
    const { points = [], lines = [], steps = [], x, most, least } = data;
    this.heading.textContent = `${this.title}, ${chosen.unit} per character`;
    this.place.setAttribute("aria-label",
      `${this.title}, ${chosen.unit} per character. Left and right arrow keys go from trial to trial.`);
    this.width = this.place.clientWidth;
    const tall = this.height - MARGIN.top - MARGIN.bottom, bottom = MARGIN.top + tall;
    const wide = Math.max(this.width - MARGIN.left - MARGIN.right, 20);
    const [low, high] = [least / 1.01, Math.max(most, least * 1.001) * 1.01];
    const up = (y) => MARGIN.top + tall * Math.log(high / y) / Math.log(high / low);
    const scale = x.logarithmic ? Math.log : (value) => value;
    const along = (value) =>
      MARGIN.left + wide * (scale(value) - scale(x.low)) / (scale(x.high) - scale(x.low) || 1);
    const parts = [];
    for (const tick of logarithmic_ticks(low, high, Math.floor(tall / 32))) {
      const y = up(tick);
      parts.push(
        make("line", { class: "grid", x1: MARGIN.left, x2: MARGIN.left + wide, y1: y, y2: y }),
        make("text", { x: MARGIN.left - 7, y: y + 4, "text-anchor": "end" }, brief(tick)));
    }
    const room = Math.floor(wide / 62);
    const places = x.choices ? x.choices.map((_, i) => i)
      : x.logarithmic ? logarithmic_ticks(x.low, x.high, room)
      : ticks(x.low, x.high, room, x.steps);
    for (const tick of places) {
      const at = along(tick);
      parts.push(
        make("line", { class: "grid", x1: at, x2: at, y1: bottom, y2: bottom + 4 }),
        make("text", { x: at, y: bottom + 17, "text-anchor": at > MARGIN.left + wide - 10 ? "end" : "middle" },
          x.choices ? x.choices[tick] : (x.text ?? brief)(tick)));
    }
    parts.push(make("line", { class: "axis", x1: MARGIN.left, x2: MARGIN.left + wide, y1: bottom, y2: bottom }));
    const path = (found) => found.map(({ x: at, y }, i) =>
      `${i ? "L" : "M"}${along(at).toFixed(1)} ${Math.max(up(y), -9).toFixed(1)}`).join("");
    if (steps.length) parts.push(make("path", { class: "curve validation c1", d: path(steps) }));
    this.places = [];
    // The one that is pointed at, and the best, lie above the others.
    const order = (a, b) => (a.trial === here) - (b.trial === here) || is_best(a.trial) - is_best(b.trial);
    for (const line of [...lines].sort(order)) {
      const kind = kind_of(line.trial), chosen_one = line.trial === here;
      parts.push(make("path", {
        class: `curve ${kind === "pruned" ? "smoothed" : ""} ${chosen_one ? "here" : kind === "best" ? "validation" : "faint"} ${COLORS[kind]}`,
        d: path(line.points) }));
      const last = line.points.at(-1);
      parts.push(mark(kind, along(last.x), Math.max(up(last.y), MARGIN.top), chosen_one));
      for (const { x: at, y } of line.points) this.places.push([along(at), up(y), line.trial]);
    }
    for (const { trial, x: at, y } of [...points].sort(order)) {
      const place = [along(at), Math.max(up(y ?? high), MARGIN.top)];
      if (trial === here) parts.push(make("circle", { class: "ring", cx: place[0], cy: place[1], r: 10 }));
      parts.push(mark(kind_of(trial), ...place, trial === here));
      this.places.push([...place, trial]);
    }
    this.place.replaceChildren(make("svg", {
      width: this.width, height: this.height, "aria-hidden": "true" }, parts));
  }

  point(event) {
    const box = this.place.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let found = null, least = Infinity;
    for (const [at, up, trial] of this.places ?? []) {
      const distance = (at - x) ** 2 + (up - y) ** 2;
      if (distance < least) [found, least] = [trial, distance];
    }
    if (found) this.onpick(found);
  }
}

/** From the lowest loss to what still tells trials apart: one that learned nothing lies above. */
function range_of(losses) {
  const sorted = losses.filter((loss) => loss !== null).sort((a, b) => a - b);
  if (!sorted.length) return { least: 1, most: 2 };
  const [least, middle] = [sorted[0], sorted[sorted.length >> 1]];
  return { least, most: Math.min(sorted.at(-1), least + 6 * Math.max(middle - least, 0.02 * least)) };
}

class Report {
  constructor() {
    this.along = chosen.place in ALONG ? chosen.place : "number";
    this.here = TRIALS.find((trial) => trial.number === chosen.trial) ?? null;
    const events = { onpick: (trial) => this.pick(trial), onstep: (key) => this.step(key) };
    this.history = new Plot("Best validation loss of every trial", 300, events);
    this.curves = new Plot("Validation loss by the part of a trial's time", 340, events);
    this.scatters = DATA.searched.map((range) => [range, new Plot(`Loss by ${range.option}`, 220, events)]);
    this.readout = make("div", { class: "readout", "aria-live": "polite" });
    this.rows = [];
  }

  show() {
    if (!TRIALS.length) {
      show(make("p", { class: "soft" }, "There is no trial yet."));
      return;
    }
    const selects = make("p", { class: "controls" },
      select("along", ALONG, this.along, (along) => { choose("place", along); this.along = along; this.draw(); }),
      select("loss in", { bits: "bits per character", nats: "nats per character" }, chosen.unit,
        (unit) => { choose("unit", unit); this.draw(); }));
    show(make("h2", {}, "Trials"), selects, this.legend(), this.history.element, this.curves.element,
      make("h2", {}, "Options"), this.importances(),
      make("div", { class: "several" }, this.scatters.map(([, plot]) => plot.element)),
      make("h2", {}, "All trials"), this.table = make("div", { class: "scroll" }), this.readout);
    this.draw();
  }

  legend() {
    const kinds = ["best", ...Object.keys(KINDS)].filter((kind) => TRIALS.some((t) => kind_of(t) === kind));
    return make("ul", { class: "keys" }, kinds.map((kind) => make("li", {},
      make("svg", { width: 18, height: 18, "aria-hidden": "true" }, mark(kind, 9, 9)), " ",
      kind === "best" ? "the best so far" : KINDS[kind])));
  }

  draw() {
    const losses = range_of(TRIALS.map((trial) => scaled(trial.loss)));
    const at = (trial) => (this.along === "number" ? trial.number : trial.ended ?? this.last());
    const x = this.along === "number"
      ? { low: 0, high: Math.max(TRIALS.at(-1).number, 1), steps: WHOLE }
      : { low: 0, high: this.last(), steps: SECONDS, text: clock };
    this.history.draw({
      ...losses, x, steps: this.best_so_far(at),
      points: TRIALS.map((trial) => ({ trial, x: at(trial), y: scaled(trial.loss) })),
    }, this.here);
    const curved = TRIALS.filter((trial) => trial.curve.length);
    this.curves.draw({
      // The steep beginning is cut off, so that the ends keep apart.
      ...range_of(curved.flatMap((t) => t.curve.filter(([done], i) => done > 0.1 || i + 1 === t.curve.length)
        .map(([, loss]) => scaled(loss)))),
      least: losses.least,
      x: { low: 0, high: 1, text: (part) => `${Math.round(100 * part)}%` },
      lines: curved.map((trial) => ({ trial,
        points: trial.curve.map(([done, loss]) => ({ x: done, y: scaled(loss) })) })),
    }, this.here);
    for (const [range, plot] of this.scatters) {
      const { choices } = range;
      const some = 0.03 * (range.high - range.low); // so that nothing lies on the edge
      const axis = choices ? { low: -0.5, high: choices.length - 0.5, choices }
        : range.log ? { low: range.low / 1.1, high: range.high * 1.1, logarithmic: true }
        : { low: range.low - some, high: range.high + some, steps: range.step >= 1 ? WHOLE : null };
      const spread = (trial) => (((trial.number * 0.618) % 1) - 0.5) * SPREAD;
      plot.draw({ ...losses, x: axis, points: TRIALS.filter((t) => range.name in t.options).map((trial) => {
        const value = trial.options[range.name];
        return { trial, x: choices ? choices.indexOf(value) + spread(trial) : value, y: scaled(trial.loss) };
      }) }, this.here);
    }
    this.draw_table();
    this.tell();
  }

  /** The seconds of the search up to its last trial. */
  last() {
    const ended = TRIALS.map((trial) => trial.ended).filter((seconds) => seconds !== null);
    const running = TRIALS.some((trial) => trial.ended === null);
    return (ended.at(-1) ?? 0) + (running || !ended.length ? DATA.trial_seconds : 0);
  }

  best_so_far(at) {
    const steps = [];
    let best = null;
    for (const trial of TRIALS.filter((t) => t.state === "complete")) {
      const x = at(trial), y = scaled(trial.loss);
      if (best !== null) steps.push({ x, y: best });
      best = best === null ? y : Math.min(best, y);
      steps.push({ x, y: best });
    }
    if (best !== null) steps.push({ x: at(TRIALS.at(-1)), y: best });
    return steps;
  }

  importances() {
    const found = DATA.importances;
    if (!found) {
      return make("p", { class: "soft" },
        "How much each of them matters is told when eight trials have come to their end.");
    }
    const rows = DATA.searched.filter(({ name }) => name in found)
      .sort((a, b) => found[b.name] - found[a.name]);
    const bar = (part) => make("svg", { width: 160, height: 12, "aria-hidden": "true" },
      make("rect", { class: "c0 fill", x: 0, y: 0, width: Math.max(160 * part, 1), height: 12 }));
    return make("div", {}, make("p", { class: "soft" }, "How much each decides whether a trial is among " +
      "the best quarter of those that came to their end (PED-ANOVA); of few trials a rough figure."),
      table([["", ""], ["", "number"], ["", ""]], rows.map(({ name, option }) =>
        [option, `${Math.round(100 * found[name])}%`, bar(found[name])]), { class: "importances" }));
  }

  draw_table() {
    const columns = [["trial", "number"], ["", ""], [chosen.unit, "number"], ["time", "number"], ["steps", "number"],
      ...DATA.searched.map(({ option, choices }) => [option, choices ? "" : "number"])];
    const drawn = table(columns, TRIALS.map((trial) => [
      make("button", { onclick: () => this.pick(trial) }, String(trial.number)),
      trial.state === "complete" ? (is_best(trial) ? "best" : "") : trial.state,
      shown_loss(trial.loss), trial.ended === null ? "–" : clock(trial.ended),
      trial.steps === null ? "–" : grouped.format(trial.steps),
      ...DATA.searched.map(({ name }) => this.option(trial, name)),
    ]), { class: "trials" });
    this.rows = [...drawn.tBodies[0].rows];
    this.rows.forEach((row, i) => row.classList.toggle("ours", is_best(TRIALS[i])));
    this.table.replaceChildren(drawn);
  }

  option(trial, name) {
    const value = trial.options[name];
    return typeof value === "number" ? brief(value) : value ?? "–";
  }

  pick(trial) {
    if (trial === this.here) return;
    this.here = trial;
    choose("trial", trial?.number ?? null);
    for (const plot of [this.history, this.curves, ...this.scatters.map(([, other]) => other)]) {
      plot.draw(plot.data, trial);
    }
    this.tell();
  }

  step(key) {
    const last = TRIALS.length - 1;
    const now = this.here ? TRIALS.indexOf(this.here) : (key === "ArrowRight" ? -1 : last + 1);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, Escape: null }[key];
    if (next === undefined) return false;
    this.pick(next === null ? null : TRIALS[Math.min(Math.max(next, 0), last)]);
    return true;
  }

  /** Tells of the trial that is pointed at. */
  tell() {
    const trial = this.here;
    this.rows.forEach((row, i) => row.setAttribute("aria-selected", TRIALS[i] === trial));
    if (!trial) {
      this.readout.replaceChildren(make("p", { class: "soft" },
        "Point at a trial, or focus a chart and press the arrow keys, to read of it here."));
      return;
    }
    const part = trial.curve.length ? `${Math.round(100 * trial.curve.at(-1)[0])}%` : "–";
    const facts = [
      ["trial", String(trial.number)],
      ["how it ended", is_best(trial) ? "the best" : trial.reason ? `failed: ${trial.reason}` :
        trial.state === "pruned" ? `pruned after ${part}` : KINDS[trial.state]],
      [`best validation, ${chosen.unit}`, shown_loss(trial.loss)],
      ...DATA.searched.map(({ name, option }) => [option, this.option(trial, name)]),
    ];
    this.readout.replaceChildren(make("dl", {}, facts.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value)))));
  }
}

function standing() {
  const { state, done } = DATA.standing;
  const count = TRIALS.filter((trial) => trial.state !== "running").length;
  const trials = `${count} trial${count === 1 ? "" : "s"} of ${clock(DATA.trial_seconds)}`;
  const text = {
    searching: `searching, ${Math.round(100 * done)}% of ${brief(DATA.minutes)} minutes, ${trials}; written at ${DATA.written_at}`,
    finished: `finished, ${trials}; written at ${DATA.written_at}`,
    interrupted: `interrupted, ${trials}; written at ${DATA.written_at}; --resume goes on`,
  }[state];
  const line = make("p", { class: "soft", id: "standing" }, text);
  if (state === "searching") keep_up(line, "search");
  return line;
}

/** The best trial and the command that trains longer with its options. */
function best() {
  const trial = TRIALS.find(is_best);
  if (!trial) return [make("p", { class: "soft" }, "No trial has come to its end yet.")];
  const first = TRIALS[0];
  const own = first.state !== "complete" ? "" : first === trial
    ? " It is what charloom would choose itself." : ` What charloom would choose itself reached ${
      (first.loss / Math.LN2).toFixed(4)} bits (${first.loss.toFixed(4)} nats).`;
  return [
    make("p", {}, `Trial ${trial.number}, in the folder best: ${(trial.loss / Math.LN2).toFixed(4)} bits ` +
      `(${trial.loss.toFixed(4)} nats) per character of the validation part.${own}`),
    make("p", { class: "soft" }, "To train longer with its options, which are in best.toml too:"),
    make("pre", { class: "sample", tabindex: 0 }, DATA.command),
  ];
}

function given() {
  const names = Object.entries(DATA.given);
  return names.length ? make("p", { class: "soft" }, "Given, and so not searched: " +
    names.map(([name, value]) => `${name} ${value}`).join(", ") + ".") : [];
}

start(async () => {
  show(make("h1", {}, `${DATA.name}: search for options`), standing(), make("h2", {}, "The best"), best(), given());
  new Report().show();
  scroll_back();
});
