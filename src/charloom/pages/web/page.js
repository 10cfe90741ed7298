"use strict";
// What every page needs. Text from outside is only ever put in as text, never as HTML.

/** A new element: its name, its properties (class, listeners as onX, attributes), its children. */
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
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The page's data: what Python wrote beside this script; null on a page that a server gives. */
const DATA = JSON.parse(document.getElementById("data")?.textContent ?? "null");

const ARRAYS = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, uint32: Uint32Array, float32: Float32Array,
};

/** The array of that name, (N,) or flattened; it lies in the page deflated, in base 64. */
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

/** A character as it can be seen and pointed at: one without a shape or width of its own gets one. */
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
  const names = { "\n": "line break", "\t": "tab", " ": "space" };
  return names[character] ?? visible(character);
}

/** A table; columns are [title, class], rows are arrays of texts or elements. */
function table(columns, rows, properties = {}) {
  const head = columns.map(([title, kind]) => make("th", { class: kind, scope: "col" }, title));
  const body = rows.map((row) =>
    make("tr", {}, row.map((cell, i) => make("td", { class: columns[i][1] }, cell))));
  return make("table", properties, make("thead", {}, make("tr", {}, head)),
    make("tbody", {}, body));
}

/** Adds elements to the page's main part. */
function show(...elements) {
  document.querySelector("main").append(...elements.flat());
}

/** Shows a mistake of our own instead of an empty page. */
function start(page) {
  page().catch((error) => {
    show(make("p", { role: "alert" }, "This page could not be drawn: " + error.message +
      ". It needs a browser of 2023 or later."));
    throw error;
  });
}
