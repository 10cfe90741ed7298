// A run's report: charts that share one vertical line, samples, configuration, evaluations.

const PLACES = { step: "step", epoch: "epoch", seconds: "time" };

class Chart {
  /**
   * logarithmic: of its upward axis; the other kind begins at 0. onmove(x): the reader points at a
   * place. onstep(key): presses a key that may move it.
   */
  constructor(title, height, { logarithmic = false, onmove, onstep }) {
    Object.assign(this, { title, height, logarithmic, onmove });
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
      if (this.data && this.place.clientWidth !== this.width) this.draw(this.data);
    }).observe(this.place);
  }

  /**
   * curves: { xs, ys, kind (a class), color (a class), dots, breaks (indices) }. levels: horizontal
   * lines, { y, label, dash, color, until }. marks: { x, y, label, color }. unit: of y. x: the
   * place's kind and its largest value.
   */
  draw(data) {
    this.data = data;
    const { curves, levels = [], marks = [], unit, x } = data;
    this.heading.textContent = `${this.title}, ${unit}`;
    this.place.setAttribute("aria-label",
      `${this.title}, ${unit}. Left and right arrow keys move the line through all charts.`);
    this.width = this.place.clientWidth;
    let low = Infinity, high = -Infinity;
    for (const value of [...curves.map((c) => c.ys), levels.map((l) => l.y)].flat()) {
      if (value === null || (this.logarithmic && value <= 0)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    if (low > high) [low, high] = [1, 2];
    if (this.logarithmic) [low, high] = [low / 1.04, high * 1.04];
    else [low, high] = [Math.min(low, 0), high > 0 ? high * 1.05 : 1];
    const scale = this.logarithmic ? Math.log : (value) => value;
    const tall = this.height - MARGIN.top - MARGIN.bottom;
    const wide = Math.max(this.width - MARGIN.left - MARGIN.right, 20);
    const bottom = MARGIN.top + tall;
    // What an axis of logarithms has no place for is drawn on its ground.
    this.up = (y) =>
      MARGIN.top + tall * (scale(high) - scale(Math.max(y, low))) / (scale(high) - scale(low));
    this.along = (value) => MARGIN.left + wide * value / x.most;
    this.value = (pixel) => (pixel - MARGIN.left) / wide * x.most;

    const parts = [];
    const find = this.logarithmic ? logarithmic_ticks : ticks;
    for (const tick of find(low, high, Math.floor(tall / 32))) {
      const y = this.up(tick);
      parts.push(
        make("line", { class: "grid", x1: MARGIN.left, x2: MARGIN.left + wide, y1: y, y2: y }),
        make("text", { x: MARGIN.left - 7, y: y + 4, "text-anchor": "end" }, brief(tick)));
    }
    const seconds = x.kind === "seconds";
    for (const tick of ticks(0, x.most, Math.floor(wide / 90), seconds ? SECONDS : null)) {
      const at = this.along(tick), text = seconds ? clock(tick) : brief(tick);
      parts.push(
        make("line", { class: "grid", x1: at, x2: at, y1: bottom, y2: bottom + 4 }),
        make("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, text));
    }
    parts.push(make("line", {
      class: "axis", x1: MARGIN.left, x2: MARGIN.left + wide, y1: bottom, y2: bottom }));
    parts.push(...this.levels(levels, wide), ...curves.flatMap((curve) => this.curve(curve)));
    for (const mark of marks) parts.push(...this.mark(mark, wide));
    this.line = make("line", { class: "cross", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
    this.place.replaceChildren(make("svg", {
      width: this.width, height: this.height, "aria-hidden": "true" }, parts, this.line));
    this.cross(this.at ?? null);
  }

  curve({ xs, ys, kind, color, dots = false, breaks = [] }) {
    let path = "", pen = false;
    const parts = [];
    for (let i = 0; i < xs.length; i += 1) {
      if (xs[i] === null || ys[i] === null || (this.logarithmic && ys[i] <= 0)) {
        pen = false;
        continue;
      }
      if (breaks.includes(i)) pen = false;
      const at = this.along(xs[i]).toFixed(1), up = this.up(ys[i]).toFixed(1);
      path += `${pen ? "L" : "M"}${at} ${up}`;
      pen = true;
      if (dots) parts.push(make("circle", { class: `dot ${color}`, cx: at, cy: up, r: 2.6 }));
    }
    return [make("path", { class: `curve ${kind} ${color}`, d: path }), ...parts];
  }

  /** The horizontal lines, with labels above them that keep apart. */
  levels(levels, wide) {
    const parts = [];
    let above = Infinity;
    for (const level of [...levels].sort((a, b) => a.y - b.y)) {
      const y = this.up(level.y);
      const end = level.until === null ? MARGIN.left + wide : this.along(level.until);
      const label = Math.min(y - 4, above - 13);
      above = label;
      const short = end < MARGIN.left + 130; // no room for the label on the line
      parts.push(
        make("path", { class: `level ${level.dash} ${level.color}`, d: `M${MARGIN.left} ${y}H${end}` }),
        make("text", {
          class: "label", x: short ? end + 5 : end - 4, y: short ? label + 8 : label,
          "text-anchor": short ? "start" : "end" }, level.label));
    }
    return parts;
  }

  mark({ x, y, label, color }, wide) {
    const at = this.along(x), up = this.up(y), right = at > MARGIN.left + wide / 2;
    return [
      make("path", { class: `best ${color}`, d: `M${at} ${up - 6}l6 6l-6 6l-6-6z` }),
      label && make("text", {
        class: "label", x: right ? at + 6 : at - 6, y: up - 11,
        "text-anchor": right ? "end" : "start" }, label),
    ];
  }

  point(event) {
    const box = this.place.getBoundingClientRect();
    this.onmove(this.value(event.clientX - box.left));
  }

  /** Puts the vertical line at x, or hides it. */
  cross(x) {
    this.at = x;
    if (!this.line) return;
    this.line.setAttribute("visibility", x === null ? "hidden" : "visible");
    if (x === null) return;
    this.line.setAttribute("x1", this.along(x));
    this.line.setAttribute("x2", this.along(x));
  }
}

const RUNS = DATA.runs, SEVERAL = RUNS.length > 1;

/** The class of a run's color; of one run's, the kind of curve has its own. */
function color(run, kind) {
  return SEVERAL ? `c${RUNS.indexOf(run) % 8}` : { validation: "c0", training: "c1" }[kind] ?? "c2";
}

/**
 * Where another text was held against a run than before: indices into its validations. The last one
 * of the text before is at the very step of the change.
 */
function breaks(run) {
  const { characters } = run.validations;
  return characters.flatMap((n, i) => (i && n !== characters[i - 1] ? [i] : []));
}

class Curves {
  constructor() {
    this.kind = chosen.place ?? (SEVERAL ? "seconds" : "step");
    if (!(this.kind in PLACES)) this.kind = "step";
    const events = {
      onmove: (x) => this.move(nearest(this.stops, x)),
      onstep: (key) => this.step(key),
    };
    this.loss = new Chart("Loss", 380, { logarithmic: true, ...events });
    this.others = [
      ["rate", new Chart("Learning rate", 150, events), "of each report's last step"],
      ["norm", new Chart("Gradient norm", 150, { logarithmic: true, ...events }), "before clipping"],
      ["speed", new Chart("Speed", 150, events), "characters per second"],
    ];
    this.readout = make("div", { class: "readout", "aria-live": "polite" });
    this.here = null;
  }

  show() {
    const selects = make("p", { class: "controls" },
      select("along", PLACES, this.kind, (kind) => { choose("place", kind); this.kind = kind; this.draw(); }),
      select("loss in", { bits: "bits per character", nats: "nats per character" }, chosen.unit,
        (unit) => { choose("unit", unit); this.draw(); }));
    show(make("h2", {}, "Curves"), selects, this.legend(), this.loss.element, this.notes(),
      this.others.map(([, chart]) => chart.element), this.readout);
    this.draw();
  }

  legend() {
    const sample = (kind, name) => make("svg", { width: 34, height: 10, "aria-hidden": "true" },
      make("path", { class: `curve ${kind} ${name}`, d: "M1 5H33" }));
    const kinds = [["validation", "validation"], ["smoothed", "training, smoothed"],
      ["raw", "training, mean since the last report"]];
    const shown = kinds.filter(([kind]) => kind !== "raw" || !SEVERAL);
    return make("ul", { class: "keys" },
      SEVERAL ? RUNS.map((run) => make("li", {}, sample("validation", color(run)), " ", run.name)) : [],
      shown.map(([kind, name]) => make("li", {},
        sample(kind, SEVERAL ? "c7" : color(RUNS[0], kind === "validation" ? kind : "training")),
        " ", name)),
      make("li", {}, "◇ the best validation"));
  }

  notes() {
    const notes = [];
    const refits = RUNS.filter((run) => breaks(run).length).map((run) =>
      `step ${grouped.format(run.validations.step[breaks(run)[0] - 1])}${SEVERAL ? ` (${run.name})` : ""}`);
    if (refits.length) {
      notes.push(`From ${refits.join(", ")} on, most of the validation part is learned from too. What ` +
        "is left of it is another text, with other figures: the curve begins anew, and the " +
        "baselines, which are of the whole part, end there.");
    }
    if (RUNS.every((run) => !run.validations.nats.some((n) => n !== null))) {
      notes.push("There is no validation yet, or no validation part.");
    }
    return notes.map((note) => make("p", { class: "soft" }, note));
  }

  /** The baselines' lines; what several runs share is drawn once. */
  levels(factor) {
    const found = new Map();
    for (const run of RUNS) {
      const [first] = breaks(run);
      const until = first === undefined ? null : run.validations[this.kind][first - 1];
      for (const { name, bits } of run.baselines) {
        const key = `${name} ${bits.toFixed(6)}`;
        const before = found.get(key);
        if (before) {
          const longer = before.until === null || until === null;
          before.until = longer ? null : Math.max(before.until, until);
          before.color = "c7";
          before.runs.push(run.name);
          continue;
        }
        const y = bits * Math.LN2 * factor;
        found.set(key, { name, y, until, dash: `dash-${name}`, runs: [run.name],
          color: SEVERAL ? color(run) : "c7" });
      }
    }
    return [...found.values()].map((level) => ({ ...level, label: `${level.name} ${level.y.toFixed(3)}` +
      (level.runs.length < RUNS.length ? ` (${level.runs.join(", ")})` : "") }));
  }

  draw() {
    const { kind } = this, factor = UNITS[chosen.unit] ?? UNITS.bits;
    const every = RUNS.flatMap((run) => [...run.reports[kind], ...run.validations[kind]]);
    this.stops = [...new Set(every.filter((x) => x !== null))].sort((a, b) => a - b);
    const x = { kind, most: this.stops.at(-1) || 1 };
    const scaled = (values) => values.map((value) => (value === null ? null : value * factor));
    const curves = [], marks = [];
    for (const run of RUNS) {
      const { reports, validations } = run;
      const xs = reports[kind], own = color(run, "training");
      if (!SEVERAL) curves.push({ xs, ys: scaled(reports.loss), kind: "raw", color: own });
      curves.push({ xs, ys: scaled(reports.smoothed), kind: "smoothed", color: own });
      curves.push({
        xs: validations[kind], ys: scaled(validations.nats), kind: "validation",
        color: color(run, "validation"), dots: validations.step.length <= 200, breaks: breaks(run),
      });
      const best = validations.best.lastIndexOf(1);
      if (best >= 0 && validations.nats[best] !== null) {
        const y = validations.nats[best] * factor;
        marks.push({ x: validations[kind][best], y, color: color(run, "validation"),
          label: SEVERAL ? null : `best ${y.toFixed(4)}` });
      }
    }
    const along = x.kind === "seconds" ? "by the time of training" : `by ${x.kind}`;
    this.loss.draw({
      curves, marks, levels: this.levels(factor), unit: `${chosen.unit} per character, ${along}`, x });
    for (const [name, chart, unit] of this.others) {
      chart.draw({ x, unit, curves: RUNS.map((run) => ({
        xs: run.reports[kind], ys: run.reports[name], kind: "plain", color: color(run, "training") })) });
    }
    this.move(this.here === null ? null : nearest(this.stops, this.here));
  }

  step(key) {
    const last = this.stops.length - 1, tenth = Math.max(1, Math.round(last / 10));
    const now = this.here === null ? (key === "ArrowRight" ? -1 : last + 1) : nearest(this.stops, this.here);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last,
      PageUp: now - tenth, PageDown: now + tenth, Escape: null }[key];
    if (next === undefined || last < 0) return false;
    this.move(next === null ? null : Math.min(Math.max(next, 0), last));
    return true;
  }

  /** Puts the line at that stop, and tells what every run's figures are there. */
  move(stop) {
    this.here = stop === null || !this.stops.length ? null : this.stops[stop];
    for (const chart of [this.loss, ...this.others.map(([, other]) => other)]) chart.cross(this.here);
    if (this.here === null) {
      this.readout.replaceChildren(make("p", { class: "soft" },
        "Point at a chart, or focus it and press the arrow keys, to read its figures here."));
      return;
    }
    const rows = RUNS.map((run) => this.figures(run));
    const names = rows[0].map(([name]) => name);
    this.readout.replaceChildren(SEVERAL
      ? make("div", { class: "scroll" }, table([["run", ""], ...names.map((name) => [name, "number"])],
        rows.map((row, i) => [swatched(RUNS[i]), ...row.map(([, value]) => value)])))
      : make("dl", {}, rows[0].map(([name, value]) =>
        make("div", {}, make("dt", {}, name), make("dd", {}, value)))));
  }

  figures(run) {
    const { reports, validations } = run, factor = UNITS[chosen.unit] ?? UNITS.bits;
    const report = nearest(reports[this.kind], this.here);
    const validation = nearest(validations[this.kind], this.here);
    const at = (columns, i, name) => (i < 0 ? null : columns[name][i]);
    // Whichever is nearer says where this is.
    const distance = (columns, i) => (i < 0 ? Infinity : Math.abs(columns[this.kind][i] - this.here));
    const reported = distance(reports, report) <= distance(validations, validation);
    const [columns, i] = reported ? [reports, report] : [validations, validation];
    const step = at(columns, i, "step"), seconds = at(columns, i, "seconds");
    // Reports lie so close that, in a table of several runs, their own steps need not be told.
    const told = (columns, i, name, text) => {
      const value = at(columns, i, name), there = at(columns, i, "step");
      if (value === null) return "–";
      const elsewhere = there !== step && !(SEVERAL && columns === reports);
      return text(value) + (elsewhere ? ` (step ${grouped.format(there)})` : "");
    };
    const loss = (value) => (value * factor).toFixed(4);
    return [
      ["step", step === null ? "–" : grouped.format(step)],
      ["epoch", fixed(at(columns, i, "epoch"), 2)],
      ["time", seconds === null ? "–" : clock(seconds)],
      ["training", told(reports, report, "loss", loss)],
      ["smoothed", told(reports, report, "smoothed", loss)],
      ["validation", told(validations, validation, "nats", loss)],
      ["learning rate", told(reports, report, "rate", brief)],
      ["gradient norm", told(reports, report, "norm", brief)],
      ["characters/s", told(reports, report, "speed", (speed) => grouped.format(speed))],
    ];
  }
}

function swatched(run) {
  return make("span", { class: "run" }, make("svg", { width: 18, height: 10, "aria-hidden": "true" },
    make("path", { class: `curve validation ${color(run)}`, d: "M1 5H17" })), " ", run.name);
}

function title_of(sample) {
  const nats = sample.nats === null ? "" :
    `, validation ${(sample.nats / Math.LN2).toFixed(4)} bits (${sample.nats.toFixed(4)} nats)`;
  return `step ${grouped.format(sample.step)}${nats}`;
}

/** A run's samples: the last one first in view, the others by a slider, all of them below. */
function samples(run) {
  const all = run.samples, count = all.length;
  if (!count) return [make("p", { class: "soft" }, "There are no samples yet.")];
  const heading = make("p", { class: "soft", "aria-live": "polite" });
  const text = make("pre", { class: "sample", tabindex: 0, dir: "auto", "aria-label": "sample" });
  const slider = make("input", { type: "range", min: 1, max: count, "aria-label": "which sample",
    oninput: () => go(Number(slider.value)) });
  const button = (by, name) => make("button", {
    onclick: () => go(Math.min(Math.max(Number(slider.value) + by, 1), count)) }, name);
  const go = (number, keep = true) => {
    slider.value = number;
    const sample = all[number - 1];
    heading.textContent = `sample ${grouped.format(sample.number)} of ` +
      `${grouped.format(run.samples_drawn)}: ${title_of(sample)}`;
    text.textContent = sample.text;
    // Who looks at the last one wants to see the next.
    if (keep) choose("samples", { ...chosen.samples, [run.name]: number === count ? null : number });
  };
  const list = make("details", { ontoggle: () => {
    if (list.children.length > 1) return;
    list.append(make("ol", { class: "samples" }, all.map((sample) => make("li", { value: sample.number },
      title_of(sample), make("pre", { class: "sample", dir: "auto" }, sample.text)))));
  } }, make("summary", {}, `all ${count === run.samples_drawn ? "" : count + " that are kept here"} ` +
    "in the order in which they were drawn"));
  go(Math.min(chosen.samples?.[run.name] ?? count, count), false);
  return [make("p", { class: "controls" }, button(-1, "earlier"), slider, button(1, "later")),
    heading, text, list];
}

function configuration() {
  const rows = DATA.configuration;
  if (!rows.length) return [make("p", { class: "soft" }, "There is no checkpoint yet to read it from.")];
  const drawn = table(
    [["", ""], ...RUNS.map((run) => [SEVERAL ? swatched(run) : "", ""])],
    rows.map(({ name, values, differs }) => [differs ? `≠ ${name}` : name, ...values]),
    { class: "configuration" });
  rows.forEach(({ differs }, i) => drawn.tBodies[0].rows[i].classList.toggle("differs", differs));
  const different = rows.some(({ differs }) => differs);
  const note = make("p", { class: "soft" }, "≠ marks where the runs differ.");
  return [...(different ? [note] : []), make("div", { class: "scroll" }, drawn)];
}

function evaluations(run) {
  const stale = run.stale_evaluations;
  const parts = run.evaluations.map((e) => {
    const rows = e.rows.map(([bits, name, protocol, note]) => [fixed(bits, 4), name, protocol, note]);
    const drawn = table([["bits per character", "number"], ["predictor", ""], ["protocol", ""], ["", ""]],
      rows, { class: "evaluation" });
    e.rows.forEach(([, name], i) => drawn.tBodies[0].rows[i].classList.toggle("ours", name === e.ours));
    const interval = e.interval && `In 95 of 100 such texts between ${fixed(e.interval[0], 4)} and ` +
      `${fixed(e.interval[1], 4)} nats (${fixed(e.interval[0] / Math.LN2, 4)} and ` +
      `${fixed(e.interval[1] / Math.LN2, 4)} bits) per character. `;
    return make("section", {},
      make("h3", {}, `${e.text}, protocol ${e.protocol}, ${e.ours}`),
      make("p", {}, `${fixed(e.nats, 4)} nats = ${fixed(e.bits, 4)} bits per character, ` +
        `${fixed(e.bits_per_byte, 4)} bits per byte, perplexity ${fixed(e.perplexity, 3)}, top guess ` +
        `right ${fixed(100 * e.accuracy, 1)}%, ${grouped.format(e.characters)} characters. `, interval),
      e.overlap && make("p", { class: "soft" }, "The longest stretch that stands in the training text " +
        `has ${grouped.format(e.overlap.characters)} characters: `, make("code", {}, shortened(e.overlap.text))),
      make("div", { class: "scroll" }, drawn));
  });
  if (!parts.length) {
    parts.push(make("p", { class: "soft" }, "None yet: ", make("code", {}, "charloom evaluate"),
      " on the run's folder adds one."));
  }
  if (stale) {
    parts.push(make("p", { class: "soft" }, `Left out: ${grouped.format(stale)} of earlier weights.`));
  }
  return parts;
}

function shortened(text) {
  const seen = Array.from(text, visible);
  return seen.length <= 100 ? seen.join("") : seen.slice(0, 99).join("") + "…";
}

/** Parts for every run, under its name where there are several. */
function each(title, parts) {
  show(make("h2", {}, title));
  for (const run of RUNS) show(SEVERAL ? make("h3", { class: "of" }, swatched(run)) : [], parts(run));
}

/** What the page is, and how it keeps up with a run that trains. */
function standing() {
  const state = DATA.standing?.state, [run] = RUNS;
  const steps = run.last_step === null ? "no step yet" : `${grouped.format(run.last_step)} steps`;
  const done = Math.round(100 * (DATA.standing?.done ?? 0));
  const text = {
    training: `training, ${done}% done, ${steps}; written at ${DATA.written_at}`,
    finished: `finished, ${steps}; written at ${DATA.written_at}`,
    interrupted: `interrupted, ${steps}; written at ${DATA.written_at}; --resume goes on`,
  }[state] ?? `${SEVERAL ? "" : steps + "; "}written at ${DATA.written_at}`;
  const line = make("p", { class: "soft", id: "standing" }, text);
  if (state === "training") keep_up(line, "run");
  return line;
}

start(async () => {
  const curves = new Curves();
  show(make("h1", {}, SEVERAL ? `${RUNS.length} runs compared` : RUNS[0].name), standing());
  curves.show();
  each("Samples", samples);
  show(make("h2", {}, "Configuration"), configuration());
  each("Evaluation", evaluations);
  scroll_back();
});
