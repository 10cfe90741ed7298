// What pages of training share: what the reader chose, the axes of charts, and how a page keeps up
// with what still goes on.

const UNITS = { bits: 1 / Math.LN2, nats: 1 }; // of each, what a nat is
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
const MARGIN = { left: 58, right: 14, top: 12, bottom: 24 }; // pixels around what is drawn
const REFRESH = 15e3; // milliseconds
const SILENT = 600e3; // milliseconds after which a run that wrote nothing counts as gone

/** What the reader chose; it outlives a reload, from a disk too. */
const chosen = { unit: "bits", place: null, refresh: true, scroll: 0, ...history.state };

function choose(name, value) {
  chosen[name] = value;
  history.replaceState(chosen, "");
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

/** Round numbers from low to high, about so many. */
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

/** Round numbers from low to high for an axis of logarithms, the roundest first, that keep apart. */
function logarithmic_ticks(low, high, count) {
  const apart = Math.log(high / low) / (1.5 * Math.max(count, 1));
  const found = [];
  for (let power = Math.floor(Math.log10(high)); power >= Math.log10(low) - 2; power -= 1) {
    for (const step of [5, 2, 1].map((s) => s * 10 ** power)) {
      const first = Math.ceil(low / step - 1e-9), last = Math.min(high / step, first + 100);
      for (let i = Math.max(first, 1); i <= last; i += 1) {
        const tick = Number((i * step).toPrecision(12));
        if (found.every((t) => Math.abs(Math.log(t / tick)) >= apart)) found.push(tick);
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

function select(label, options, value, onchange) {
  const list = make("select", { onchange: () => onchange(list.value) },
    Object.entries(options).map(([name, shown]) =>
      make("option", { value: name, selected: name === value }, shown)));
  return make("label", {}, label, " ", list);
}

/** Says so where a run (or search) has been silent for long, else reloads the page as it goes on. */
function keep_up(line, what) {
  if (Date.now() - 1000 * DATA.written > SILENT) {
    line.append("; since then nothing came, so the " + what + " may have been killed: --resume goes on");
    return;
  }
  const box = make("input", { type: "checkbox", onchange: () => choose("refresh", box.checked) });
  box.checked = chosen.refresh !== false;
  line.append(" ", make("label", {}, box, " refresh every 15 seconds, not while I read"));
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
}

/** Goes to where the page was before it reloaded itself. */
function scroll_back() {
  if (!chosen.scroll) return;
  scrollTo(0, chosen.scroll);
  choose("scroll", 0);
}
