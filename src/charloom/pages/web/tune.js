// The report of a search: every trial's loss, by number or time, by the time within a trial and by
// each option. All charts and the table highlight the same chosen trial.

const TRIALS = DATA.trials.filter((trial) => trial.state !== "waiting");
const KINDS = {
  complete: "complete", pruned: "pruned (fell behind)", failed: "failed", running: "running",
};
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // distances between whole numbers
const AXES = { number: "trial", ended: "search time" };
const SPREAD = 0.5; // how far the trials with the same choice spread out, on an axis of choices

const shown_loss = (loss) => (loss === null ? "–" : in_unit(loss).toFixed(4));
const is_best = (trial) => trial.number === DATA.best;
const percent = (fraction) => `${Math.round(100 * fraction)}%`;

/** The kind of a trial's mark. Each kind has its own shape and color. */
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

/** Sorts the chosen trial, and then the best one, to the end, so that they lie above the others. */
function chosen_last(items, here) {
  return [...items].sort((a, b) =>
    (a.trial === here) - (b.trial === here) || is_best(a.trial) - is_best(b.trial));
}

/** The marks of trials, { trial, x, y }; without a y they lie on the upper edge. */
function draw_points(chart, points, here) {
  return chosen_last(points, here).flatMap(({ trial, x, y }) => {
    const place = [chart.along(x), Math.max(chart.up(y ?? chart.data.y.high), MARGIN.top)];
    chart.targets.push([...place, trial]);
    const ring = trial === here ? [make("circle", { class: "ring", cx: place[0], cy: place[1], r: 10 })] : [];
    return [...ring, mark(kind_of(trial), ...place, trial === here)];
  });
}

/** The loss curves of trials, { trial, xs, ys }, each with a mark at its end. */
function draw_lines(chart, lines, here) {
  return chosen_last(lines, here).flatMap(({ trial, xs, ys }) => {
    const kind = kind_of(trial), chosen_one = trial === here;
    xs.forEach((x, i) => chart.targets.push([chart.along(x), chart.up(ys[i]), trial]));
    const style = [kind === "pruned" ? "smoothed" : "",
      chosen_one ? "here" : kind === "best" ? "validation" : "faint", COLORS[kind]].join(" ");
    return [
      make("path", { class: `curve ${style}`, d: chart.path(xs, ys) }),
      mark(kind, chart.along(xs.at(-1)), Math.max(chart.up(ys.at(-1)), MARGIN.top), chosen_one)];
  });
}

/** The range of losses worth comparing, from the lowest. A trial that learned nothing lies above it. */
function range_of(losses) {
  const sorted = losses.filter((loss) => loss !== null).sort((a, b) => a - b);
  if (!sorted.length) return { least: 1, most: 2 };
  const [least, middle] = [sorted[0], sorted[sorted.length >> 1]];
  return { least, most: Math.min(sorted.at(-1), least + 6 * Math.max(middle - least, 0.02 * least)) };
}

function axis_of({ least, most }) {
  return { low: least / 1.01, high: Math.max(most, least * 1.001) * 1.01, logarithmic: true };
}

/** The charts of all trials, and the facts about the chosen one. */
class Trials {
  constructor() {
    this.axis = chosen.place in AXES ? chosen.place : "number";
    this.here = TRIALS.find((trial) => trial.number === chosen.trial) ?? null;
    const events = {
      onpoint: (x, y, chart) => this.pick(chart.target(x, y) ?? this.here),
      onkey: (key) => this.press(key),
      keys: "Left and right arrow keys go from trial to trial.",
    };
    this.history = new Chart("Best validation loss of each trial", 300, events);
    this.curves = new Chart("Validation loss by the fraction of a trial’s time", 340, events);
    this.scatters = DATA.searched.map((range) => [range, new Chart(`Loss by ${range.option}`, 220, events)]);
    this.readout = make("div", { class: "readout", "aria-live": "polite" });
    this.rows = [];
  }

  show() {
    if (!TRIALS.length) {
      show(make("p", { class: "soft" }, "No trial yet."));
      return;
    }
    show(make("div", {}, make("h2", {}, "Trials"), make("div", { class: "card" },
        controls(AXES, this.axis, (axis) => { this.axis = axis; this.draw(); }, () => this.draw()),
        this.legend(), this.history.element, this.curves.element),
      make("h2", {}, "Options"), make("div", { class: "card" }, this.importances(),
        make("div", { class: "several" }, this.scatters.map(([, chart]) => chart.element))),
      make("h2", {}, "All trials"), this.table = make("div", { class: "scroll card" }), this.readout));
    this.draw();
  }

  legend() {
    const kinds = ["best", ...Object.keys(KINDS)].filter((kind) => TRIALS.some((t) => kind_of(t) === kind));
    return make("ul", { class: "keys" }, kinds.map((kind) => make("li", {},
      picture(18, 18, mark(kind, 9, 9)), " ", kind === "best" ? "best so far" : KINDS[kind])));
  }

  draw() {
    const losses = range_of(TRIALS.map((trial) => in_unit(trial.loss)));
    const unit = `${chosen.unit} per ${DATA.unit}`;
    this.draw_history(losses, unit);
    this.draw_curves(losses, unit);
    for (const [range, chart] of this.scatters) this.draw_scatter(chart, range, losses, unit);
    this.draw_table();
    this.describe();
  }

  draw_history(losses, unit) {
    const numbers = this.axis === "number";
    const at = (trial) => (numbers ? trial.number : trial.ended ?? this.last());
    const x = numbers ? { low: 0, high: Math.max(TRIALS.at(-1).number, 1), steps: WHOLE }
      : { low: 0, high: this.last(), steps: SECONDS, text: clock };
    const { xs, ys } = this.best_so_far(at);
    const points = TRIALS.map((trial) => ({ trial, x: at(trial), y: in_unit(trial.loss) }));
    this.history.draw({ unit, x, y: axis_of(losses), content: (chart) => [
      ...(xs.length ? [make("path", { class: "curve validation c1", d: chart.path(xs, ys) })] : []),
      ...draw_points(chart, points, this.here)] });
  }

  draw_curves(losses, unit) {
    const curved = TRIALS.filter((trial) => trial.curve.length);
    // The steep beginnings are cut off, so that the ends can be distinguished.
    const { most } = range_of(curved.flatMap(({ curve }) =>
      curve.filter(([done], i) => done > 0.1 || i + 1 === curve.length).map(([, loss]) => in_unit(loss))));
    const lines = curved.map((trial) => ({ trial, xs: trial.curve.map(([done]) => done),
      ys: trial.curve.map(([, loss]) => in_unit(loss)) }));
    this.curves.draw({ unit, x: { low: 0, high: 1, text: percent },
      y: axis_of({ least: losses.least, most }),
      content: (chart) => draw_lines(chart, lines, this.here) });
  }

  draw_scatter(chart, range, losses, unit) {
    const { choices, low, high } = range;
    const margin = 0.03 * (high - low); // keeps marks off the edges
    const x = choices ? { low: -0.5, high: choices.length - 0.5, choices }
      : range.log ? { low: low / 1.1, high: high * 1.1, logarithmic: true }
      : { low: low - margin, high: high + margin, steps: range.step >= 1 ? WHOLE : null };
    const spread = (trial) => (((trial.number * 0.618) % 1) - 0.5) * SPREAD;
    const points = TRIALS.filter((trial) => range.name in trial.options).map((trial) => {
      const value = trial.options[range.name];
      return { trial, x: choices ? choices.indexOf(value) + spread(trial) : value, y: in_unit(trial.loss) };
    });
    chart.draw({ unit, x, y: axis_of(losses), content: () => draw_points(chart, points, this.here) });
  }

  /** The seconds of the search up to its last trial. */
  last() {
    const ended = TRIALS.map((trial) => trial.ended).filter((seconds) => seconds !== null);
    const running = TRIALS.some((trial) => trial.ended === null);
    return (ended.at(-1) ?? 0) + (running || !ended.length ? DATA.trial_seconds : 0);
  }

  /** The best loss so far, as a line of steps. */
  best_so_far(at) {
    const xs = [], ys = [];
    let best = null;
    for (const trial of TRIALS.filter((t) => t.state === "complete")) {
      const x = at(trial), y = in_unit(trial.loss);
      if (best !== null) xs.push(x), ys.push(best);
      best = best === null ? y : Math.min(best, y);
      xs.push(x), ys.push(best);
    }
    if (best !== null) xs.push(at(TRIALS.at(-1))), ys.push(best);
    return { xs, ys };
  }

  importances() {
    const found = DATA.importances;
    if (!found) {
      return make("p", { class: "soft" },
        "The importance of each option is shown after eight complete trials.");
    }
    const rows = DATA.searched.filter(({ name }) => name in found)
      .sort((a, b) => found[b.name] - found[a.name]);
    const bar = (fraction) => picture(160, 12,
      make("rect", { class: "c0 fill", x: 0, y: 0, width: Math.max(160 * fraction, 1), height: 12 }));
    return make("div", {}, make("p", { class: "soft" }, "Importance of each option: how much it decides " +
      "whether a complete trial is in the best quarter (PED-ANOVA). With few trials, a rough estimate."),
      table([["", ""], ["", "number"], ["", ""]], rows.map(({ name, option }) =>
        [option, percent(found[name]), bar(found[name])]), { class: "importances" }));
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
    for (const chart of [this.history, this.curves, ...this.scatters.map(([, other]) => other)]) {
      chart.redraw();
    }
    this.describe();
  }

  press(key) {
    const next = moved(key, this.here && TRIALS.indexOf(this.here), TRIALS.length - 1);
    if (next === undefined) return false;
    this.pick(next === null ? null : TRIALS[next]);
    return true;
  }

  /** Shows the facts about the chosen trial. */
  describe() {
    const trial = this.here;
    this.rows.forEach((row, i) => row.setAttribute("aria-selected", TRIALS[i] === trial));
    if (!trial) {
      this.readout.replaceChildren(make("p", { class: "soft" },
        "Point at a trial, or focus a chart and press the arrow keys, to read about it here."));
      return;
    }
    const done = trial.curve.length ? percent(trial.curve.at(-1)[0]) : "–";
    this.readout.replaceChildren(facts([
      ["trial", String(trial.number)],
      ["outcome", is_best(trial) ? "best" : trial.reason ? `failed: ${trial.reason}` :
        trial.state === "pruned" ? `pruned after ${done}` : KINDS[trial.state]],
      [`best validation, ${chosen.unit}`, shown_loss(trial.loss)],
      ...DATA.searched.map(({ name, option }) => [option, this.option(trial, name)]),
    ]));
  }
}

function search_status() {
  const { state, done } = DATA.standing, written = `written at ${DATA.written_at}`;
  const count = TRIALS.filter((trial) => trial.state !== "running").length;
  const trials = `${plural(count, "trial")} of ${clock(DATA.trial_seconds)}`;
  const text = {
    searching: `searching, ${percent(done)} of ${brief(DATA.minutes)} minute${DATA.minutes === 1 ? "" : "s"}, ${trials}; ${written}`,
    finished: `finished, ${trials}; ${written}`,
    interrupted: `interrupted (continue with --resume), ${trials}; ${written}`,
  }[state];
  return status_line(text, "search", state === "searching");
}

/** The best trial beside the options that charloom chooses itself, and the command that trains longer. */
function best() {
  const trial = TRIALS.find(is_best), first = TRIALS[0];
  if (!trial) return [make("p", { class: "soft" }, "No complete trial yet.")];
  const in_bits = (one) => one.loss / Math.LN2, known = first.state === "complete";
  const defaults = !known ? "" : first === trial
    ? " It used the options that charloom chooses without a search."
    : " The options that charloom chooses without a search reached " +
      (first.loss.toFixed(4) === trial.loss.toFixed(4) ? "the same." : `${bits_and_nats(first.loss)}.`);
  const complete = TRIALS.filter(({ state }) => state === "complete").sort((a, b) => a.loss - b.loss);
  const median = complete[complete.length >> 1];
  const bars = [{ name: `trial ${trial.number}`, note: "the best", bits: in_bits(trial), ours: true },
    ...(complete.length > 2 ? [{ name: `trial ${median.number}`, note: "the middle one", bits: in_bits(median) }] : []),
    ...(known && first !== trial && first !== median
      ? [{ name: "trial 0", note: "options without a search", bits: in_bits(first) }] : [])];
  const ended = plural(TRIALS.filter(({ state }) => state !== "running").length, "trial");
  const saved = known ? 100 * (1 - trial.loss / first.loss) : 0;
  return [
    headline({ bits: in_bits(trial), of: `bits per ${DATA.unit} of the validation split`, note: null,
      sentence: saved >= 0.05 ? `The best of ${ended} needs ${saved.toFixed(1)}% fewer bits ` +
        "than the options that charloom chooses without a search."
        : `The best of ${ended}` +
          (known ? " is no better than the options that charloom chooses without a search." : "."),
      bars: bars.sort((a, b) => a.bits - b.bits) }),
    make("p", {}, `Trial ${trial.number}, in the folder best: ${bits_and_nats(trial.loss)} ` +
      `per ${DATA.unit} of the validation split.${defaults}`),
    make("p", { class: "soft" }, "To train longer with its options (also in best.toml):"),
    make("pre", { class: "sample", tabindex: 0 }, DATA.command),
  ];
}

function fixed_options() {
  const names = Object.entries(DATA.given);
  return names.length ? make("p", { class: "soft" }, "Fixed options, not searched: " +
    names.map(([name, value]) => `${name} ${value}`).join(", ") + ".") : [];
}

start(async () => {
  show(masthead("search report"), make("h1", {}, `${DATA.name}: hyperparameter search`), search_status(),
    best(), fixed_options());
  new Trials().show();
  scroll_back();
});
