// The report of one run, or of several: charts with a common vertical line, samples, configuration
// and evaluations.

const AXES = { step: "step", epoch: "epoch", seconds: "time" };
const RUNS = DATA.runs, SEVERAL = RUNS.length > 1;

/** The class of a run's color. If there is only one run, each kind of curve has its own color. */
function color(run, kind) {
  return SEVERAL ? `c${RUNS.indexOf(run) % 8}` : { validation: "c0", training: "c1", "validation rest": "c3" }[kind] ?? "c2";
}

/**
 * Where a run begins to validate on another text: indices into its validations. The validation just
 * before, on the old text, is at the same step.
 */
function breaks(run) {
  const { characters } = run.validations;
  return characters.flatMap((n, i) => (i && n !== characters[i - 1] ? [i] : []));
}

const WHOLE_SPLIT = "validation, whole split", REST_OF_SPLIT = "validation, rest of the split";

/** The axis of values. A logarithmic one ignores values that are not positive; a linear one has 0. */
function axis_of(values, logarithmic) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || (logarithmic && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) [low, high] = [1, 2];
  return logarithmic ? { low: low / 1.04, high: high * 1.04, logarithmic }
    : { low: Math.min(low, 0), high: high > 0 ? high * 1.05 : 1, logarithmic };
}

/**
 * A curve: its columns, its kind and color (classes), with dots, with a label above or below its
 * last point.
 */
function draw_curve(chart, { xs, ys, kind, color, dots = false, label = null, below = false }) {
  const path = make("path", { class: `curve ${kind} ${color}`, d: chart.path(xs, ys) });
  if (!dots && !label) return [path];
  const last = xs.findLastIndex((x, i) => chart.has_place(x, ys[i]));
  const name = label && last >= 0 ? [make("text", { class: "label", "text-anchor": "end",
    x: chart.along(xs[last]) - 4, y: chart.up(ys[last]) + (below ? 20 : -9) }, label)] : [];
  if (!dots) return [path, ...name];
  return [path, ...name, ...xs.flatMap((x, i) => (chart.has_place(x, ys[i]) ? [make("circle", {
    class: `dot ${color}`, cx: chart.along(x).toFixed(1), cy: chart.up(ys[i]).toFixed(1), r: 2.6,
  })] : []))];
}

/** Horizontal lines, with labels above them that do not overlap. */
function draw_levels(chart, levels) {
  const parts = [];
  let above = Infinity;
  for (const { y, until, dash, color, label } of [...levels].sort((a, b) => a.y - b.y)) {
    const up = chart.up(y), end = until === null ? chart.right : chart.along(until);
    above = Math.min(up - 4, above - 13);
    const short = end < MARGIN.left + 130; // the line is shorter than its label
    parts.push(
      make("path", { class: `level ${dash} ${color}`, d: `M${MARGIN.left} ${up}H${end}` }),
      make("text", {
        class: "label", x: short ? end + 5 : end - 4, y: short ? above + 8 : above,
        "text-anchor": short ? "start" : "end" }, label));
  }
  return parts;
}

/** The mark of a run's best validation. */
function draw_best(chart, { x, y, label, color }) {
  const at = chart.along(x), up = chart.up(y), right = at > MARGIN.left + chart.wide / 2;
  return [
    make("path", { class: `best ${color}`, d: `M${at} ${up - 6}l6 6l-6 6l-6-6z` }),
    label && make("text", {
      class: "label", x: right ? at + 6 : at - 6, y: up - 11,
      "text-anchor": right ? "end" : "start" }, label),
  ];
}

/** The charts of all runs, and the metrics at the chosen place. */
class Curves {
  constructor() {
    this.axis = chosen.place ?? (SEVERAL ? "seconds" : "step");
    if (!(this.axis in AXES)) this.axis = "step";
    const events = {
      onpoint: (x, y, chart) => this.move(nearest(this.stops, chart.value(x))),
      onkey: (key) => this.press(key),
      keys: "Left and right arrow keys move the line through all charts.",
    };
    this.loss = new Chart("Loss", 380, events);
    this.others = [
      { name: "rate", chart: new Chart("Learning rate", 140, events), unit: "at each report's last step" },
      { name: "norm", chart: new Chart("Gradient norm", 140, events), unit: "before clipping",
        logarithmic: true },
      { name: "speed", chart: new Chart("Speed", 140, events), unit: `${DATA.unit}s per second` },
    ];
    this.readout = make("div", { class: "readout", "aria-live": "polite" });
    this.here = null;
  }

  show() {
    show(make("h2", {}, "Curves"), make("div", { class: "card" },
      controls(AXES, this.axis, (axis) => { this.axis = axis; this.draw(); }, () => this.draw()),
      this.legend(), this.loss.element, this.notes(),
      this.others.map(({ chart }) => chart.element), this.readout));
    this.draw();
  }

  legend() {
    const sample = (kind, name) =>
      picture(34, 10, make("path", { class: `curve ${kind} ${name}`, d: "M1 5H33" }));
    const changes = RUNS.some((run) => breaks(run).length);
    const kinds = [["validation", changes ? WHOLE_SPLIT : "validation"],
      ...(changes ? [["validation rest", REST_OF_SPLIT]] : []),
      ["smoothed", "training, smoothed"], ["raw", "training, mean since the last report"]];
    const shown = kinds.filter(([kind]) => kind !== "raw" || !SEVERAL);
    return make("ul", { class: "keys" },
      SEVERAL ? RUNS.map((run) => make("li", {}, sample("validation", color(run)), " ", run.name)) : [],
      shown.map(([kind, name]) => make("li", {},
        sample(kind, SEVERAL ? "c7" : color(RUNS[0], ["smoothed", "raw"].includes(kind) ? "training" : kind)),
        " ", name)),
      make("li", {}, "◇ best validation"));
  }

  notes() {
    const notes = [];
    const refits = RUNS.filter((run) => breaks(run).length).map((run) =>
      `step ${grouped.format(run.validations.step[breaks(run)[0] - 1])}${SEVERAL ? ` (${run.name})` : ""}`);
    if (refits.length) {
      notes.push(`From ${refits.join(", ")} on, most of the validation split is also used for training. ` +
        "The rest is another text with other losses, so it has a curve of its own. The baselines " +
        "are those of the whole split, so they end there.");
    }
    if (RUNS.every((run) => !run.validations.nats.some((n) => n !== null))) {
      notes.push("No validation yet, or no validation split.");
    }
    return notes.map((note) => make("p", { class: "soft" }, note));
  }

  /** The baselines' lines; several runs with the same baseline share one line. */
  levels() {
    const found = new Map();
    for (const run of RUNS) {
      const [first] = breaks(run);
      const until = first === undefined ? null : run.validations[this.axis][first - 1];
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
        found.set(key, { name, y: in_unit(bits * Math.LN2), until, dash: `dash-${name}`,
          runs: [run.name], color: SEVERAL ? color(run) : "c7" });
      }
    }
    return [...found.values()].map((level) => ({ ...level, label: `${level.name} ${level.y.toFixed(3)}` +
      (level.runs.length < RUNS.length ? ` (${level.runs.join(", ")})` : "") }));
  }

  /** The loss curves of a run. */
  curves(run) {
    const { reports, validations } = run, own = color(run, "training");
    const training = (name, kind) =>
      ({ xs: reports[this.axis], ys: reports[name].map(in_unit), kind, color: own });
    return [
      ...(SEVERAL ? [] : [training("loss", "raw")]),
      training("smoothed", "smoothed"),
      ...this.validation_curves(run),
    ];
  }

  /** The validation curve of a run, or a curve for each text that it was validated on. */
  validation_curves(run) {
    const { validations } = run, starts = breaks(run), labeled = starts.length && !SEVERAL;
    return [0, ...starts].map((start, i) => {
      const kind = i ? "validation rest" : "validation", of = (column) => column.slice(start, starts[i]);
      return { xs: of(validations[this.axis]), ys: of(validations.nats).map(in_unit), kind,
        color: color(run, kind), dots: validations.step.length <= 200,
        below: i > 0, label: labeled ? (i ? REST_OF_SPLIT : WHOLE_SPLIT) : null };
    });
  }

  /** The best validation of a run, if there is one. */
  best(run) {
    const { validations } = run, best = validations.best.lastIndexOf(1);
    if (best < 0 || validations.nats[best] === null) return [];
    const y = in_unit(validations.nats[best]), [first] = breaks(run);
    const kind = best >= first ? "validation rest" : "validation";
    return [{ x: validations[this.axis][best], y, color: color(run, kind),
      label: SEVERAL ? null : `best ${y.toFixed(4)}` }];
  }

  draw() {
    const { axis } = this, seconds = axis === "seconds";
    const all = RUNS.flatMap((run) => [...run.reports[axis], ...run.validations[axis]]);
    this.stops = [...new Set(all.filter((x) => x !== null))].sort((a, b) => a - b);
    const x = { low: 0, high: this.stops.at(-1) || 1, room: 90,
      ...(seconds ? { steps: SECONDS, text: clock } : {}) };
    this.draw_loss(x, `${chosen.unit} per ${DATA.unit}, ${seconds ? "by training time" : `by ${axis}`}`);
    for (const { name, chart, unit, logarithmic = false } of this.others) {
      const curves = RUNS.map((run) => ({
        xs: run.reports[axis], ys: run.reports[name], kind: "plain", color: color(run, "training") }));
      chart.draw({ unit, x, y: axis_of(curves.flatMap(({ ys }) => ys), logarithmic),
        content: () => curves.flatMap((curve) => draw_curve(chart, curve)) });
    }
    this.move(this.here === null ? null : nearest(this.stops, this.here));
  }

  draw_loss(x, unit) {
    const curves = RUNS.flatMap((run) => this.curves(run)), levels = this.levels();
    const marks = RUNS.flatMap((run) => this.best(run));
    const y = axis_of([...curves.flatMap(({ ys }) => ys), ...levels.map((level) => level.y)], true);
    this.loss.draw({ unit, x, y, content: (chart) => [
      ...draw_levels(chart, levels), ...curves.flatMap((curve) => draw_curve(chart, curve)),
      ...marks.flatMap((mark) => draw_best(chart, mark))] });
  }

  press(key) {
    const last = this.stops.length - 1;
    const now = this.here === null ? null : nearest(this.stops, this.here);
    const next = moved(key, now, last, Math.max(1, Math.round(last / 10)));
    if (next === undefined || last < 0) return false;
    this.move(next);
    return true;
  }

  /** Moves the line to a stop, and shows the metrics of every run there. */
  move(stop) {
    this.here = stop === null || !this.stops.length ? null : this.stops[stop];
    for (const chart of [this.loss, ...this.others.map((other) => other.chart)]) chart.cross(this.here);
    if (this.here === null) {
      this.readout.replaceChildren(make("p", { class: "soft" },
        "Point at a chart, or focus it and press the arrow keys, to read its metrics here."));
      return;
    }
    const rows = RUNS.map((run) => this.metrics(run));
    const names = rows[0].map(([name]) => name);
    this.readout.replaceChildren(SEVERAL
      ? make("div", { class: "scroll" }, table([["run", ""], ...names.map((name) => [name, "number"])],
        rows.map((row, i) => [swatched(RUNS[i]), ...row.map(([, value]) => value)])))
      : facts(rows[0]));
  }

  /** The metrics of a run nearest to the line, as [name, text]. */
  metrics(run) {
    const { reports, validations } = run;
    const report = nearest(reports[this.axis], this.here);
    const validation = nearest(validations[this.axis], this.here);
    const at = (columns, i, name) => (i < 0 ? null : columns[name][i]);
    // The nearer of the two determines step, epoch and time.
    const distance = (columns, i) => (i < 0 ? Infinity : Math.abs(columns[this.axis][i] - this.here));
    const nearer = distance(reports, report) <= distance(validations, validation);
    const [columns, i] = nearer ? [reports, report] : [validations, validation];
    const step = at(columns, i, "step"), seconds = at(columns, i, "seconds");
    // A value of another step names it. In a table of several runs a report does not, because its
    // step is always close.
    const value = (columns, i, name, text) => {
      const number = at(columns, i, name), there = at(columns, i, "step");
      if (number === null) return "–";
      const elsewhere = there !== step && !(SEVERAL && columns === reports);
      return text(number) + (elsewhere ? ` (step ${grouped.format(there)})` : "");
    };
    const loss = (nats) => in_unit(nats).toFixed(4);
    return [
      ["step", step === null ? "–" : grouped.format(step)],
      ["epoch", fixed(at(columns, i, "epoch"), 2)],
      ["time", seconds === null ? "–" : clock(seconds)],
      ["training", value(reports, report, "loss", loss)],
      ["smoothed", value(reports, report, "smoothed", loss)],
      ["validation", value(validations, validation, "nats", loss)],
      ["learning rate", value(reports, report, "rate", brief)],
      ["gradient norm", value(reports, report, "norm", brief)],
      [`${DATA.unit}s/s`, value(reports, report, "speed", (speed) => grouped.format(speed))],
    ];
  }
}

function swatched(run) {
  return make("span", { class: "run" },
    picture(18, 10, make("path", { class: `curve validation ${color(run)}`, d: "M1 5H17" })),
    " ", run.name);
}

function title_of({ step, nats }) {
  return `step ${grouped.format(step)}${nats === null ? "" : `, validation ${bits_and_nats(nats)}`}`;
}

/**
 * Samples of the finished model: one at a time, with its seed, the command that writes it again, and
 * a button for the next one.
 */
function final_samples(run) {
  const all = run.drawn, command = make("code", { class: "command" }), kept = chosen.drawn?.[run.name] ?? 0;
  if (!all.length) {
    return [make("p", { class: "soft" }, "Run ", make("code", {}, "charloom report"), " on the run’s folder to " +
      "add samples of the finished model, or sample at the terminal: ", make("code", {}, run.more))];
  }
  const text = make("pre", { class: "sample", tabindex: 0, dir: "auto", "aria-live": "polite",
    "aria-label": "sample of the finished model" });
  const seed = make("span", { class: "seed" });
  const go = (number) => {
    const one = all[number];
    const lines = one.texts.some((other) => other.trimEnd().includes("\n"));
    text.textContent = one.texts.join(one.texts.length > 1 && lines ? "\n---\n" : "\n");
    text.scrollTop = 0;
    seed.textContent = `seed ${one.seed}, ${number + 1} of ${all.length}`;
    command.textContent = one.command;
    choose("drawn", { ...chosen.drawn, [run.name]: number });
    at = number;
  };
  let at;
  go(kept < all.length ? kept : 0);
  return [
    make("p", { class: "controls" },
      make("button", { class: "main", onclick: () => go((at + 1) % all.length) }, "Another sample"), seed),
    text,
    make("p", { class: "soft small" }, "The same text at the terminal (another seed writes another text):", command),
  ];
}

/** The samples of a run in training: one at a time, chosen with a slider (at first the last one), and a list. */
function samples(run) {
  const all = run.samples, count = all.length;
  if (!count) return [make("p", { class: "soft" }, "No samples yet.")];
  const heading = make("p", { class: "soft", "aria-live": "polite" });
  const text = make("pre", { class: "sample", tabindex: 0, dir: "auto", "aria-label": "sample" });
  const slider = make("input", { type: "range", min: 1, max: count, "aria-label": "sample number",
    oninput: () => go(Number(slider.value)) });
  const button = (by, name) => make("button", {
    onclick: () => go(Math.min(Math.max(Number(slider.value) + by, 1), count)) }, name);
  const go = (number, keep = true) => {
    slider.value = number;
    const sample = all[number - 1];
    heading.textContent = `sample ${grouped.format(sample.number)} of ` +
      `${grouped.format(run.samples_drawn)}: ${title_of(sample)}`;
    text.textContent = sample.text;
    // The last sample is not kept as a choice, so that a reload shows the next one.
    if (keep) choose("samples", { ...chosen.samples, [run.name]: number === count ? null : number });
  };
  const list = make("details", { ontoggle: () => {
    if (list.children.length > 1) return;
    list.append(make("ol", { class: "samples" }, all.map((sample) => make("li", { value: sample.number },
      title_of(sample), make("pre", { class: "sample", dir: "auto" }, sample.text)))));
  } }, make("summary", {}, count === run.samples_drawn ? "all samples in order"
    : `the ${count} samples on this page in order`));
  go(Math.min(chosen.samples?.[run.name] ?? count, count), false);
  return [make("p", { class: "controls" }, button(-1, "earlier"), slider, button(1, "later")),
    heading, text, list];
}

function configuration() {
  const rows = DATA.configuration;
  if (!rows.length) return [make("p", { class: "soft" }, "No checkpoint yet.")];
  const drawn = table(
    [["", ""], ...RUNS.map((run) => [SEVERAL ? swatched(run) : "", ""])],
    rows.map(({ name, values, differs }) => [differs ? `≠ ${name}` : name, ...values]),
    { class: SEVERAL ? "configuration" : "configuration columns" });
  rows.forEach(({ differs }, i) => drawn.tBodies[0].rows[i].classList.toggle("differs", differs));
  const different = rows.some(({ differs }) => differs);
  const note = make("p", { class: "soft" }, "≠ marks differences between the runs.");
  return [...(different ? [note] : []), make("div", { class: "scroll" }, drawn)];
}

/** One evaluation: its results, and a table with the baselines. */
function evaluation(e) {
  const rows = e.rows.map(([bits, name, protocol, note]) => [fixed(bits, 4), name, protocol, note]);
  const drawn = table([[`bits per ${e.unit}`, "number"], ["predictor", ""], ["protocol", ""], ["", ""]],
    rows, { class: "evaluation" });
  e.rows.forEach(([, name], i) => drawn.tBodies[0].rows[i].classList.toggle("ours", name === e.ours));
  const ends = (factor) => `${fixed(e.interval[0] * factor, 4)} to ${fixed(e.interval[1] * factor, 4)}`;
  return make("section", {},
    make("h3", {}, `${e.text}, protocol ${e.protocol}, ${e.ours}`),
    make("p", {}, `${fixed(e.nats, 4)} nats = ${fixed(e.bits, 4)} bits per ${e.unit}, ` +
      `${fixed(e.bits_per_byte, 4)} bits per byte, perplexity ${fixed(e.perplexity, 3)}, top-1 ` +
      `accuracy ${fixed(100 * e.accuracy, 1)}%, ${plural(e.characters, e.unit)}. `,
    e.documents !== null && `${plural(e.documents, "document")}, ` +
      `${fixed(e.nats_per_document, 4)} nats per document. `,
    e.interval && "95% confidence interval: " +
      `${ends(1)} nats (${ends(1 / Math.LN2)} bits) per ${e.unit}.`),
    e.overlap && make("p", { class: "soft" }, "Longest verbatim overlap with the training text: " +
      `${plural(e.overlap.characters, e.overlap.unit)}. `, make("code", {}, shortened(e.overlap.text))),
    make("div", { class: "scroll" }, drawn), e.verdict && make("p", {}, e.verdict));
}

function evaluations(run) {
  const stale = run.stale_evaluations, parts = run.evaluations.map(evaluation);
  if (!parts.length) {
    parts.push(make("p", { class: "soft" }, "No evaluation yet. Run ",
      make("code", {}, "charloom evaluate"), " on the run’s folder to add one."));
  }
  if (stale) {
    parts.push(make("p", { class: "soft" },
      `Evaluations of earlier weights, not shown: ${grouped.format(stale)}.`));
  }
  return parts;
}

function shortened(text) {
  const seen = Array.from(text);
  return seen.length <= 100 ? seen.join("") : seen.slice(0, 99).join("") + "…";
}

/** A section with a part for every run, under its name if there are several. */
function each(title, kind, parts) {
  const list = make("div", { class: SEVERAL ? "beside" : null });
  show(make("h2", {}, title), list);
  for (const run of RUNS) {
    list.append(make("div", { class: kind }, SEVERAL && make("h3", { class: "of" }, swatched(run)), parts(run)));
  }
}

function run_status() {
  const state = DATA.standing?.state, [run] = RUNS, written = `written at ${DATA.written_at}`;
  const steps = run.last_step === null ? "no step yet" : plural(run.last_step, "step");
  const done = Math.round(100 * (DATA.standing?.done ?? 0));
  const text = {
    training: `training, ${done}% done, ${steps}; ${written}`,
    finished: `finished, ${steps}; ${written}`,
    interrupted: `interrupted (continue with --resume), ${steps}; ${written}`,
  }[state] ?? `${SEVERAL ? "" : steps + "; "}${written}`;
  return status_line(text, "run", state === "training");
}

start(async () => {
  const curves = new Curves();
  show(masthead("training report"),
    make("h1", {}, SEVERAL ? `${RUNS.length} runs compared` : RUNS[0].name), run_status(),
    DATA.headline ? headline(DATA.headline) : []);
  each("Samples of the model", "final-samples", final_samples);
  curves.show();
  each("Samples during training", "earlier-samples", samples);
  each("Evaluation", "evaluations", evaluations);
  show(make("h2", {}, "Configuration"), configuration());
  scroll_back();
});
