// A text that grows while the worker reads or writes it. A sheet has its characters and the model's
// guesses, a view shows them, and a strip shows a unit's activation.

const GUESSES = 5; // as in worker.js
const UNIT_LEVELS = 8; // of the color scale from negative to positive, on each side

function activation_level(value) {
  const level = Math.round((value / 127) * UNIT_LEVELS);
  return level === 0 ? "z" : (level < 0 ? "n" : "p") + Math.min(UNIT_LEVELS, Math.abs(level));
}

/** The characters of a text, (N,), with five guesses for each, (N · GUESSES,). */
class Sheet {
  constructor() {
    this.arrays = { ids: Uint32Array, bits: Float32Array, given: Uint8Array, values: Int8Array,
      guesses: Uint32Array, chances: Float32Array };
    this.length = 0;
    this.restarts = new Set(); // places where a new text begins
    this.next = null; // {guesses, chances} of the character that comes next
    this.unit = 0; // the unit of `values`
    for (const [name, type] of Object.entries(this.arrays)) this[name] = new type(0);
  }

  per(name) {
    return ["guesses", "chances"].includes(name) ? GUESSES : 1;
  }

  add(batch) {
    const length = batch.begin + batch.ids.length;
    for (const name of Object.keys(this.arrays)) {
      const per = this.per(name);
      if (this[name].length < length * per) {
        const larger = new this.arrays[name](Math.max(2 * length, 1024) * per);
        larger.set(this[name]);
        this[name] = larger;
      }
      this[name].set(batch[name], batch.begin * per);
    }
    this.length = length;
    this.next = batch.next;
  }

  cut({ length, next }) {
    this.length = Math.min(this.length, length);
    this.next = next;
    this.restarts = new Set([...this.restarts].filter((place) => place <= length));
  }

  /** The guesses for place i, as [id, probability]; place N is that of the next character. */
  likeliest(i) {
    const { guesses, chances } = i < this.length
      ? { guesses: this.guesses.subarray(i * GUESSES, (i + 1) * GUESSES),
        chances: this.chances.subarray(i * GUESSES, (i + 1) * GUESSES) }
      : this.next ?? { guesses: [], chances: [] };
    return Array.from(guesses, (id, k) => [id, chances[k]]).slice(0, DATA.vocabulary.length);
  }

  /** What the worker needs to read this text again. */
  kept() {
    return { ids: this.ids.slice(0, this.length), given: this.given.slice(0, this.length),
      restarts: [...this.restarts] };
  }

  /** The mean surprisal of the characters after the prompt, their number, and the shares of correct guesses. */
  mean() {
    let [bits, count, first, five] = [0, 0, 0, 0];
    for (let i = 0; i < this.length; i++) {
      if (this.given[i]) continue;
      count += 1;
      bits += this.bits[i];
      const rank = this.guesses.subarray(i * GUESSES, (i + 1) * GUESSES).indexOf(this.ids[i]);
      if (rank === 0) first += 1;
      if (rank >= 0) five += 1;
    }
    return { bits: bits / Math.max(1, count), count, first: first / Math.max(1, count),
      five: five / Math.max(1, count) };
  }

  /** The documents of the text as ids, without their ends. */
  documents() {
    const documents = [];
    let begin = 0;
    for (let i = 1; i <= this.length; i++) {
      if (i < this.length && !this.restarts.has(i)) continue;
      const ids = Array.from(this.ids.subarray(begin, i));
      documents.push(ids.at(-1) === DATA.end ? ids.slice(0, -1) : ids);
      begin = i;
    }
    return documents;
  }

  /** The text as bytes, in UTF-8 or, of a model of bytes, as they are. */
  bytes() {
    const documents = this.documents().map((ids) => ids.map((id) => DATA.vocabulary[id]).join(""));
    const several = documents.some((text) => text.includes("\n"));
    const text = documents.join(several ? "\n---\n" : "\n");
    return DATA.kind === "bytes" ? Uint8Array.from(text, (byte) => byte.charCodeAt(0))
      : new TextEncoder().encode(text);
  }

  text() {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.bytes());
  }
}

/** The view of a sheet. A click, a tap or an arrow key pins a place; the pointer alone previews it. */
class SheetView extends TextView {
  /**
   * - color(i): returns the class of character i.
   * - onplace(i, pinned): called when the place changes, with -1 if no place is pointed at.
   * - onkey(event): returns true if it has used the key.
   */
  constructor(sheet, label, { color, onplace, onkey }) {
    super(DATA.names, sheet.ids.subarray(0, 0), { color, onmove: (i) => onplace(i, this.pinned) });
    Object.assign(this, { sheet, onplace, onkey, here: -1, pinned: false });
    this.element.setAttribute("aria-label", label);
    this.element.addEventListener("click", (event) => this.pin(event.target.place));
    this.element.addEventListener("mouseleave", () => { if (!this.pinned) this.leave(); });
    this.known = 0; // characters that the rows show
  }

  fit() {
    if (this.element.clientWidth) super.fit();
  }

  class_of(i) {
    const name = super.class_of(i);
    return this.sheet.given[i] ? name + " given" : name;
  }

  breaks(i) {
    return super.breaks(i) || this.sheet.restarts.has(i + 1);
  }

  /** Shows what the sheet has become, of which the first `same` characters are as before. */
  grow(same) {
    const { sheet } = this;
    if (!this.starts) this.fit(); // a view that has just been shown
    this.ids = sheet.ids.subarray(0, sheet.length);
    if (this.points) this.decode(Math.min(same, this.known));
    const stays = Math.max(0, Math.min(same, this.known, sheet.length) - 4); // of a character of bytes
    this.known = sheet.length;
    if (this.here >= sheet.length) {
      this.pinned = false;
      this.here = -1;
    }
    if (!this.starts) return;
    const follows = this.at_end();
    // A word can move to the next row, so that the row before can change too.
    const row = this.starts.length ? Math.max(0, this.row_of(stays) - 1) : 0;
    const begin = this.starts[row] ?? 0;
    const later = this.cut(begin), starts = new Int32Array(row + later.length);
    starts.set(this.starts.subarray(0, row));
    starts.set(later, row);
    this.starts = starts;
    for (const [number, element] of this.rows) {
      if (number < row) continue;
      element.remove();
      this.rows.delete(number);
    }
    this.height = starts.length * ROW;
    this.space.style.height = Math.min(this.height, TALLEST) + "px";
    if (follows) this.element.scrollTop = this.element.scrollHeight;
    this.draw();
  }

  at_end() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < 2 * ROW;
  }

  /** Decodes the characters of several bytes from place `from` on. */
  decode(from) {
    let begin = Math.max(0, from - 4);
    while (begin > 0 && this.points[begin] === REST) begin -= 1;
    const points = new Uint32Array(this.ids.length);
    points.set(this.points.subarray(0, begin));
    points.set(decoded(this.vocabulary, this.ids.subarray(begin)), begin);
    this.points = points;
  }

  point(event) {
    if (!this.pinned) super.point(event);
  }

  pin(place) {
    this.pinned = place !== undefined && !(this.pinned && place === this.here);
    if (this.pinned) this.move(place);
    else this.leave();
  }

  /** Points at no place. */
  leave() {
    const before = this.here;
    this.pinned = false;
    this.here = -1;
    this.repaint(before, before + 1);
    this.onplace(-1, false);
  }

  key(event) {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (plain && event.key === "Escape" && this.here >= 0) {
      event.stopPropagation();
      this.leave();
    } else if (!(plain && this.onkey(event)) && this.sheet.length) {
      if (event.key.startsWith("Arrow") || /^(Home|End|Page)/.test(event.key)) this.pinned = true;
      if (this.here < 0 && event.key === "ArrowLeft") this.here = this.sheet.length;
      super.key(event);
    }
  }
}

/** A strip of the last characters, each in the color of a unit's activation. */
class Strip {
  constructor() {
    this.cells = [];
    this.row = make("div", { class: "cells", "aria-hidden": "true" });
    this.value = make("output", { class: "number", id: "activation" }, "–");
    this.element = make("div", { class: "strip", role: "img", "aria-label": "no text yet" }, this.row);
  }

  /** Fits the cells to the width of the strip. */
  fit() {
    const width = Math.max(1, Math.floor(this.row.clientWidth / STRIP_CELL));
    while (this.cells.length < width) this.cells.push(this.row.appendChild(make("span", {})));
    while (this.cells.length > width) this.cells.pop().remove();
  }

  /** Shows the characters of a view around place `here`, or the last ones if it is -1. */
  show(view, here) {
    const width = this.cells.length, { sheet } = view, { length } = view.ids;
    const middle = here < 0 ? length : here + (width >> 1);
    const begin = Math.max(0, Math.min(middle, length) - width);
    const last = Math.max(0, here < 0 ? length - 1 : here);
    const direction = view.starts?.length ? view.direction(view.row_of(last)) : "ltr";
    if (this.row.dir !== direction) this.row.dir = direction;
    this.cells.forEach((cell, k) => {
      const i = begin + k, inside = i < length;
      const text = !inside ? "" : sheet.ids[i] === DATA.end ? "∎" : view.shown(i),
        name = inside ? activation_level(sheet.values[i]) : "";
      const shown = i === here ? name + " here" : name;
      if (cell.textContent !== text) cell.textContent = text;
      if (cell.className !== shown) cell.className = shown;
    });
    const place = here < 0 ? length - 1 : here;
    const value = place < 0 ? "–" : (sheet.values[place] / 127).toFixed(2);
    this.value.textContent = value;
    this.element.setAttribute("aria-label", place < 0 ? "no text yet"
      : `unit ${sheet.unit} is ${value} after ${named(view.character(place))}`);
  }
}

const STRIP_CELL = 14; // pixels, as in player.css
