// Shared by the pages of training: the reader's choices, charts, and the automatic refresh.

const UNITS = { bits: 1 / Math.LN2, nats: 1 }; // one nat in each unit
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
const MARGIN = { left: 58, right: 14, top: 12, bottom: 24 }; // pixels around the area of the curves
const REFRESH = 15e3; // milliseconds
const SILENT = 600e3; // milliseconds without an update after which a run counts as killed

/** The reader's choices; they survive a reload, even of a page opened from disk. */
const chosen = { unit: "bits", place: null, refresh: true, scroll: 0, ...history.state };

function choose(name, value) {
  chosen[name] = value;
  history.replaceState(chosen, "");
}

/** Converts a loss in nats to the chosen unit; null stays null. */
function in_unit(nats) {
  return nats === null ? null : nats * (UNITS[chosen.unit] ?? UNITS.bits);
}

function bits_and_nats(nats) {
  return `${(nats / Math.LN2).toFixed(4)} bits (${nats.toFixed(4)} nats)`;
}

function clock(seconds) {
  const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(s / 3600), minutes = Math.floor(s / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

function brief(value) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 1e6) return grouped.format(value / 1e6) + " M";
  if (Math.abs(value) >= 1000) return grouped.format(value);
  if (value !== 0 && Math.abs(value) < 1e-4) return value.toExponential(3);
  return String(Number(value.toPrecision(4)));
}

/** Round numbers from low to high, about `count` of them, for a linear axis. */
function ticks(low, high, count, steps = null) {
  const rough = (high - low) / Math.max(count, 1);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = steps?.find((s) => s >= rough) ??
    [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); i += 1) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

/** Round numbers from low to high for a logarithmic axis, the roundest first, with gaps between. */
function logarithmic_ticks(low, high, count) {
  const gap = Math.log(high / low) / (1.5 * Math.max(count, 1));
  const found = [];
  for (let power = Math.floor(Math.log10(high)); power >= Math.log10(low) - 2; power -= 1) {
    for (const step of [5, 2, 1].map((s) => s * 10 ** power)) {
      const first = Math.ceil(low / step - 1e-9), last = Math.min(high / step, first + 100);
      for (let i = Math.max(first, 1); i <= last; i += 1) {
        const tick = Number((i * step).toPrecision(12));
        if (found.every((t) => Math.abs(Math.log(t / tick)) >= gap)) found.push(tick);
      }
    }
  }
  return found;
}

/** The index of the number nearest to x in sorted numbers. */
function nearest(numbers, x) {
  let low = 0, high = numbers.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < x) low = middle;
    else high = middle;
  }
  return high >= 0 && x - numbers[low] <= numbers[high] - x ? low : high;
}

/** The index that a key moves to: null to choose none, undefined for any other key. */
function moved(key, now, last, page = 0) {
  const here = now ?? (key === "ArrowRight" ? -1 : last + 1);
  const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last, Escape: null,
    ...(page ? { PageUp: here - page, PageDown: here + page } : {}) }[key];
  return typeof to === "number" ? Math.min(Math.max(to, 0), last) : to;
}

/** An image that screen readers skip, because the text beside it means the same. */
function picture(width, height, ...parts) {
  return make("svg", { width, height, "aria-hidden": "true" }, ...parts);
}

/**
 * A chart with two axes. The page's script draws between them, and decides what the pointer and the
 * keys do.
 */
class Chart {
  /**
   * - onpoint(x, y, chart): called with the pixel below the pointer.
   * - onkey(key): called with the name of a key; returns true if it used the key.
   * - keys: the use of the arrow keys, as a sentence for screen readers.
   */
  constructor(title, height, { onpoint, onkey, keys }) {
    Object.assign(this, { title, height, keys });
    this.heading = make("figcaption", {}, title);
    const point = ({ clientX, clientY }) => {
      const box = this.place.getBoundingClientRect();
      onpoint(clientX - box.left, clientY - box.top, this);
    };
    this.place = make("div", {
      class: "plot", tabindex: 0, role: "group", onpointermove: point, onpointerdown: point,
      onkeydown: (event) => { if (onkey(event.key)) event.preventDefault(); },
    });
    this.element = make("figure", { class: "chart" }, this.heading, this.place);
    this.width = 0;
    new ResizeObserver(() => {
      if (this.data && this.place.clientWidth !== this.width) this.redraw();
    }).observe(this.place);
  }

  /**
   * - unit: the unit of the vertical axis, for the caption.
   * - y: the vertical axis, { low, high, logarithmic }.
   * - x: the horizontal axis, the same and its labels, { text, choices, steps, room }.
   *   - text(value): returns the label of a value.
   *   - choices: the labels of 0, 1, 2 and so on.
   *   - steps: the allowed distances between labels.
   *   - room: the pixels of a label.
   * - content(chart): returns the elements between the axes.
   */
  draw(data) {
    this.data = data;
    this.redraw();
  }

  redraw() {
    const { unit, x, y, content } = this.data;
    const caption = `${this.title}, ${unit}`;
    this.heading.textContent = caption;
    this.place.setAttribute("aria-label", `${caption}. ${this.keys}`);
    this.width = this.place.clientWidth;
    this.tall = this.height - MARGIN.top - MARGIN.bottom;
    this.wide = Math.max(this.width - MARGIN.left - MARGIN.right, 20);
    this.bottom = MARGIN.top + this.tall;
    this.right = MARGIN.left + this.wide;
    this.targets = [];
    const axes = [...this.vertical_axis(y), ...this.horizontal_axis(x)];
    this.image = picture(this.width, this.height, axes, content(this));
    this.place.replaceChildren(this.image);
    this.line = null;
    this.cross(this.at ?? null);
  }

  /** The fraction of an axis at a value. */
  static fraction({ low, high, logarithmic }, value) {
    const scale = logarithmic ? Math.log : (number) => number;
    return (scale(value) - scale(low)) / (scale(high) - scale(low) || 1);
  }

  /** The pixel of y; a value below the axis is drawn on its ground. */
  up(y) {
    const axis = this.data.y;
    return this.bottom - this.tall * Chart.fraction(axis, Math.max(y, axis.low));
  }

  /** The pixel of x. */
  along(x) {
    return MARGIN.left + this.wide * Chart.fraction(this.data.x, x);
  }

  /** The x at a pixel of a linear axis. */
  value(pixel) {
    const { low, high } = this.data.x;
    return low + (pixel - MARGIN.left) / this.wide * (high - low);
  }

  vertical_axis({ low, high, logarithmic }) {
    const find = logarithmic ? logarithmic_ticks : ticks;
    return find(low, high, Math.floor(this.tall / 32)).flatMap((tick) => {
      const y = this.up(tick);
      return [
        make("line", { class: "grid", x1: MARGIN.left, x2: this.right, y1: y, y2: y }),
        make("text", { x: MARGIN.left - 7, y: y + 4, "text-anchor": "end" }, brief(tick))];
    });
  }

  horizontal_axis({ low, high, logarithmic, choices, steps = null, text = brief, room = 62 }) {
    const { bottom, right } = this, count = Math.floor(this.wide / room);
    const places = choices ? choices.map((_, i) => i)
      : logarithmic ? logarithmic_ticks(low, high, count) : ticks(low, high, count, steps);
    const labels = places.flatMap((tick) => {
      const at = this.along(tick), anchor = at > right - 10 ? "end" : "middle";
      return [
        make("line", { class: "grid", x1: at, x2: at, y1: bottom, y2: bottom + 4 }),
        make("text", { x: at, y: bottom + 17, "text-anchor": anchor },
          choices ? choices[tick] : text(tick))];
    });
    return [...labels,
      make("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom })];
  }

  /** The path through points. A null breaks it, and so does an index in `breaks`. */
  path(xs, ys, breaks = []) {
    let path = "", pen = false;
    for (let i = 0; i < xs.length; i += 1) {
      if (!this.has_place(xs[i], ys[i])) {
        pen = false;
        continue;
      }
      if (breaks.includes(i)) pen = false;
      // A line to a value above the axis leaves the chart at its top.
      path += `${pen ? "L" : "M"}${this.along(xs[i]).toFixed(1)} ${Math.max(this.up(ys[i]), -9).toFixed(1)}`;
      pen = true;
    }
    return path;
  }

  has_place(x, y) {
    return x !== null && y !== null && !(this.data.y.logarithmic && y <= 0);
  }

  /** The object of the target nearest to a pixel; `content` adds targets, as [x, y, object]. */
  target(x, y) {
    let found = null, least = Infinity;
    for (const [along, up, object] of this.targets ?? []) {
      const distance = (along - x) ** 2 + (up - y) ** 2;
      if (distance < least) [found, least] = [object, distance];
    }
    return found;
  }

  /** Moves the vertical line to x, or removes it. */
  cross(x) {
    this.at = x;
    if (!this.image) return;
    this.line?.remove();
    this.line = x === null ? null : make("line", {
      class: "cross", x1: this.along(x), x2: this.along(x), y1: MARGIN.top, y2: this.bottom });
    if (this.line) this.image.append(this.line);
  }
}

/**
 * The result of a run or search. Bars begin at 0, and fewer bits are better.
 * - bits: the result in large type, null to omit it.
 * - of: the name of the result.
 * - sentence, note: the text below it.
 * - bars: { name, note, bits, ours }, in their order.
 */
function headline({ bits, of, sentence, note, bars }) {
  const most = Math.max(...bars.map((bar) => bar.bits), 1e-9);
  const rows = bars.map((one) => {
    const amount = make("span", { class: "amount" });
    amount.style.width = Math.max(100 * one.bits / most, 0) + "%"; // a compressor can need less than nothing
    return make("li", { class: one.ours ? "ours" : null },
      make("span", { class: "label" }, one.name, one.note && [" ", make("small", {}, one.note)]),
      make("span", { class: "track" }, amount),
      make("span", { class: "value" }, one.bits.toFixed(2)));
  });
  return make("div", { class: "headline card", id: "headline" },
    make("div", {}, bits !== null && make("p", { class: "figure" }, bits.toFixed(2)),
      make("p", { class: bits === null ? "soft" : "of" }, of), make("p", { class: "sentence" }, sentence),
      note && make("p", { class: "soft small" }, note)),
    make("ul", { class: "bars", "aria-label": "bits, fewer are better" }, rows));
}

function select(label, options, value, onchange) {
  const list = make("select", { onchange: () => onchange(list.value) },
    Object.entries(options).map(([name, shown]) =>
      make("option", { value: name, selected: name === value }, shown)));
  return make("label", {}, label, " ", list);
}

/** The choices above the charts: the horizontal axis, and the unit of the loss. */
function controls(axes, axis, onaxis, onunit) {
  const units = { bits: `bits per ${DATA.unit}`, nats: `nats per ${DATA.unit}` };
  return make("p", { class: "controls" },
    select("x-axis", axes, axis, (name) => { choose("place", name); onaxis(name); }),
    select("loss in", units, chosen.unit, (unit) => { choose("unit", unit); onunit(); }));
}

/** Facts about the chosen place, as [name, value]. */
function facts(rows) {
  return make("dl", {}, rows.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

/** The line below the title: the state of a run or search, and the automatic refresh while it lasts. */
function status_line(text, what, under_way) {
  const line = make("p", { class: "soft", id: "standing" }, text);
  if (!under_way) return line;
  if (Date.now() - 1000 * DATA.written > SILENT) {
    line.append(`. No update since; the ${what} may have been killed (continue with --resume).`);
  } else {
    line.append(" ", refresh_box());
  }
  return line;
}

/** A checkbox that reloads the page regularly, but never while it is being read. */
function refresh_box() {
  const box = make("input", { type: "checkbox", onchange: () => choose("refresh", box.checked) });
  box.checked = chosen.refresh !== false;
  const loaded = Date.now();
  let touched = 0;
  for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) {
    addEventListener(kind, () => { touched = Date.now(); }, { passive: true, capture: true });
  }
  setInterval(() => {
    const reading = Date.now() - touched < 5000 || !getSelection().isCollapsed ||
      document.querySelector(".plot:hover, .plot:focus, pre:focus, select:focus, details[open]:hover");
    if (!box.checked || reading || document.hidden || Date.now() - loaded < REFRESH) return;
    choose("scroll", scrollY);
    location.reload();
  }, 1000);
  return make("label", {}, box, " auto-refresh every 15 s, paused while you read");
}

/** Restores the scroll position from before the page reloaded itself. */
function scroll_back() {
  if (!chosen.scroll) return;
  scrollTo(0, chosen.scroll);
  choose("scroll", 0);
}
