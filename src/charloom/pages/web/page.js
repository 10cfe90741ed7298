"use strict";
// Shared by all pages. Text from outside is inserted as text only, never as HTML.

/** Creates an element. Properties are attributes, or listeners if their names begin with "on". */
function make(name, properties = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "text", "g", "circle"].includes(name);
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => ![null, undefined, false].includes(child)));
  return element;
}

/** The page's data, written by Python beside this script; null on a page that a server returns. */
const DATA = JSON.parse(document.getElementById("data")?.textContent ?? "null");

const ARRAYS = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, uint32: Uint32Array, float32: Float32Array,
};

/** Reads an array of the page, (N,) or flattened; it is stored deflated, in base64. */
async function array(name) {
  const element = document.getElementById("array-" + name);
  const packed = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new ARRAYS[element.dataset.type](await new Response(stream).arrayBuffer());
}

function fixed(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

const grouped = new Intl.NumberFormat("en-US");

/** A number with its noun: 1 character, 2,000 characters. */
function plural(number, noun) {
  return `${grouped.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A character in visible form: one without a shape or width of its own is replaced. */
function visible(character) {
  if (character === "\n") return "↵";
  if (character === "\t") return "⇥";
  const code = character.codePointAt(0);
  if (code < 32) return String.fromCodePoint(0x2400 + code);
  if (code === 127) return "␡";
  if (/^\p{M}/u.test(character)) return "◌" + character;
  if (/^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/u.test(character)) {
    return "⟨" + code.toString(16).toUpperCase() + "⟩";
  }
  return character;
}

function named(character) {
  const names = { "\n": "line break", "\t": "tab", " ": "space", "<end>": "end of the document" };
  return names[character] ?? visible(character);
}

/** Creates a table. Columns are [title, class]; rows are arrays of texts or elements. */
function table(columns, rows, properties = {}) {
  const head = columns.map(([title, kind]) => make("th", { class: kind, scope: "col" }, title));
  const body = rows.map((row) =>
    make("tr", {}, row.map((cell, i) => make("td", { class: columns[i][1] }, cell))));
  return make("table", properties, make("thead", {}, make("tr", {}, head)),
    make("tbody", {}, body));
}

// The color scale of surprisal: the classes s0 to s12 of page.css.
const SURPRISAL_LEVELS = 12;
const BITS_AT_TOP = 9; // from this surprisal on, the color is the strongest

function surprisal_level(bits) {
  return Math.min(SURPRISAL_LEVELS, Math.floor((bits / BITS_AT_TOP) * SURPRISAL_LEVELS));
}

/** Creates the legend of surprisal, with every level or every `step`-th one. */
function surprisal_legend(step = 1) {
  const swatches = [];
  for (let k = 0; k <= SURPRISAL_LEVELS; k += step) {
    const bits = Number(((k * BITS_AT_TOP) / SURPRISAL_LEVELS).toFixed(2));
    swatches.push(["s" + k, k === SURPRISAL_LEVELS ? `${bits} or more` : String(bits)]);
  }
  return legend("bits:", `stronger colors mean more bits, up to ${BITS_AT_TOP}`, swatches);
}

/** Creates a legend of colors; swatches are [class, text]. */
function legend(name, description, swatches) {
  return make("div", { class: "legend", role: "img", "aria-label": `Legend: ${description}.` },
    make("span", { class: "name" }, name),
    swatches.map(([shade, text]) => make("span", { class: "swatch " + shade }, text)));
}

/** The line above every page: charloom's mark, and the kind of the page. */
function masthead(kind, ...more) {
  const thread = (kind, x, y, width, height) => make("rect", { class: kind, x, y, width, height, rx: 1 });
  const mark = make("svg", { width: 18, height: 18, "aria-hidden": "true" },
    thread("warp", 3, 0, 4, 18), thread("warp", 11, 0, 4, 18),
    thread("weft", 0, 3, 18, 4), thread("weft", 0, 11, 18, 4),
    thread("warp", 3, 2, 4, 6), thread("warp", 11, 10, 4, 6));
  return make("header", { class: "masthead" },
    make("span", { class: "brand" }, mark, "charloom"), kind && make("span", {}, kind), ...more);
}

/** Adds elements to the page's main element. */
function show(...elements) {
  document.querySelector("main").append(...elements.flat());
}

/** Runs the page's script, and shows its error instead of an empty page. */
function start(page) {
  page().catch((error) => {
    show(make("p", { role: "alert" }, "This page failed to render: " + error.message +
      ". It needs a browser from 2023 or later."));
    throw error;
  });
}
