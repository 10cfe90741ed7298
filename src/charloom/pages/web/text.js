// A long text with one element per character. Only the visible rows have elements.

const ROW = 24; // pixels, as in page.css
const TALLEST = 8e6; // pixels; browsers cannot scroll much further
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

const REST = 0xffffffff; // in the place of a code point: a further byte of the same character
const REST_WIDTH = 0.5; // columns of a further byte or a mark, as in page.css

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const JOINING = /^[\u0620-\u07ff]/; // letters of Arabic and its neighbors, which join the next one
const JOINER = "\u200d"; // joins letters across the strip of a mark
const MOST_ROWS_BACK = 200; // in which a paragraph's first letter is searched for

function columns_of(text) {
  return WIDE.test(text) ? 2 : Math.max(1, text.replace(/\p{M}/gu, "").length);
}

/**
 * The code points of the characters of several bytes, (N,), at their first bytes; REST at their other
 * bytes, 0 elsewhere.
 */
function decoded(vocabulary, ids) {
  const values = vocabulary.map((name) => (/^\\x[0-9a-f]{2}$/.test(name) ? parseInt(name.slice(2), 16) : 0));
  const points = new Uint32Array(ids.length), decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (let i = 0; i < ids.length; i++) {
    const first = values[ids[i]], length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 1;
    if (length === 1) continue;
    const bytes = Uint8Array.from(ids.subarray(i, i + length), (id) => values[id]);
    try {
      points[i] = decoder.decode(bytes).codePointAt(0);
    } catch { // not UTF-8: each byte is shown by itself
      continue;
    }
    points.fill(REST, i + 1, i + length);
    i += length - 1;
  }
  return points;
}

class TextView {
  /**
   * - ids (N,): indices into the vocabulary.
   * - color(i): returns the class of character i.
   * - onmove(i): called when the mouse or a key moves to character i.
   * - onselect(begin, end): called when a span is selected.
   */
  constructor(vocabulary, ids, { color, onmove, onselect = null }) {
    this.vocabulary = vocabulary;
    this.ids = ids;
    this.color = color;
    this.onmove = onmove;
    this.onselect = onselect;
    this.seen = vocabulary.map(visible);
    // In columns. A combining mark of a letter has a narrow strip, because it is shown with its letter.
    this.widths = this.seen.map(columns_of);
    this.marks = vocabulary.map((character) => /^\p{M}$/u.test(character));
    this.letters = vocabulary.map((character) => /^\p{L}$/u.test(character));
    this.points = DATA.unit === "byte" ? decoded(vocabulary, ids) : null;
    this.newline = vocabulary.indexOf("\n");
    this.end = vocabulary.indexOf("<end>"); // of a document; all other entries are characters
    this.space_id = vocabulary.indexOf(" ");
    this.here = 0;
    this.anchor = null; // the character at which the selection began
    this.span = null; // the selected span, [begin, end)
    this.rows = new Map(); // the elements of rows, by number
    this.space = make("div", { class: "space" });
    this.element = make("div", {
      class: "text", tabindex: 0, role: "group",
      "aria-label": "The text. Arrow keys go from character to character" +
        (onselect ? "; with Shift they select a span." : "."),
      onscroll: () => this.schedule(),
      onmouseover: (event) => this.point(event),
      onmousedown: (event) => this.press(event),
      onmouseup: () => this.release(),
      onkeydown: (event) => this.key(event),
    }, this.space);
    new ResizeObserver(() => this.fit()).observe(this.element);
  }

  character(i) {
    return this.vocabulary[this.ids[i]];
  }

  /** True if character i is a further byte of a character, or a combining mark of a letter. */
  rest(i) {
    if (this.points) return this.points[i] === REST;
    let first = i;
    while (first > 0 && this.marks[this.ids[first]]) first -= 1;
    return first < i && this.letters[this.ids[first]];
  }

  /** The end of the combining marks after letter i, or i + 1 without any. */
  end_of_marks(i) {
    let end = i + 1;
    if (!this.points && this.letters[this.ids[i]]) while (this.marks[this.ids[end]]) end += 1;
    return end;
  }

  /**
   * Character i in visible form: all of it at its first byte, with its combining marks at their letter, and
   * nothing at the other places of it.
   */
  shown(i) {
    if (this.rest(i)) return "";
    const point = this.points?.[i] ?? 0;
    if (point) return visible(String.fromCodePoint(point));
    const end = this.end_of_marks(i), letter = this.character(i);
    const marks = Array.from(this.ids.subarray(i + 1, end), (id) => this.vocabulary[id]).join("");
    if (this.points || !JOINING.test(letter)) return marks ? letter + marks : this.seen[this.ids[i]];
    const joins = (near, place) => (near && JOINING.test(this.character(place) ?? "") ? JOINER : "");
    return joins(i > 0 && this.rest(i - 1), i) + letter + marks + joins(marks, end);
  }

  /** The columns of character i. */
  width(i) {
    if (this.rest(i)) return REST_WIDTH;
    return this.points?.[i] ? columns_of(this.shown(i)) : this.widths[this.ids[i]];
  }

  /** The whole character to which byte i, or letter or mark i, belongs, if it has several of them. */
  whole(i) {
    let first = i;
    while (this.rest(first)) first -= 1;
    return this.points?.[first] || this.end_of_marks(first) > first + 1 ? this.shown(first) : null;
  }

  /** The text of characters [begin, end) in visible form. */
  text(begin, end) {
    const from = Math.max(0, begin), to = Math.min(end, this.ids.length);
    if (to - from === 1) return this.seen[this.ids[from]];
    const piece = (i) => (this.points ? this.shown(i)
      : i > from && this.rest(i) ? this.character(i) : this.seen[this.ids[i]]);
    return Array.from({ length: Math.max(0, to - from) }, (_, k) => piece(from + k)).join("");
  }

  /** Fits the rows to the width of the element. */
  fit() {
    const digits = make("span", {}, "0".repeat(100)), probe = make("div", { class: "row" }, digits);
    this.space.append(probe);
    const width = digits.getBoundingClientRect().width / 100;
    probe.remove();
    const columns = Math.max(8, Math.floor((this.element.clientWidth - 24) / width));
    if (columns === this.columns) {
      this.schedule();
      return;
    }
    // The top row stays on top. The first time there are no rows yet, so `here` is scrolled into view.
    const top = this.starts && this.first_in_sight();
    this.columns = columns;
    this.starts = this.cut();
    this.height = this.starts.length * ROW;
    this.space.style.height = Math.min(this.height, TALLEST) + "px";
    if (top) this.scroll_to(this.row_of(top));
    this.redraw();
    if (!top) this.reveal(this.here);
  }

  /** True if a row ends after character i: a line break, or the end of a document. */
  breaks(i) {
    return this.ids[i] === this.newline || this.ids[i] === this.end;
  }

  /**
   * The first characters of the rows: each ends where it must, or after the last space that fits. Rows
   * before character `begin`, which begins one, are omitted.
   */
  cut(begin = 0) {
    const starts = [];
    const { ids, space_id, columns } = this;
    while (begin < ids.length) {
      starts.push(begin);
      let end = begin, used = 0, after_space = -1;
      while (end < ids.length) {
        if (this.breaks(end)) { end += 1; after_space = -1; break; }
        used += this.width(end);
        if (used > columns && end > begin) break;
        end += 1;
        if (ids[end - 1] === space_id) after_space = end;
      }
      const cut = end < ids.length && !this.breaks(end - 1) && after_space > begin;
      begin = cut ? after_space : end;
    }
    return Int32Array.from(starts);
  }

  /** The first character of the top row. */
  first_in_sight() {
    return this.starts[Math.floor((this.element.scrollTop + this.offset()) / ROW)] ?? 0;
  }

  scroll_to(row) {
    const view = this.element.clientHeight;
    const wanted = Math.max(0, Math.min(this.height - view, row * ROW));
    const part = this.height <= TALLEST ? 1 : (TALLEST - view) / (this.height - view);
    this.element.scrollTop = wanted * part;
  }

  /** The distance of the rows from the scroll bar, which is too short for a very long text. */
  offset() {
    const view = this.element.clientHeight;
    if (this.height <= TALLEST) return 0;
    const part = this.element.scrollTop / (TALLEST - view);
    return part * (this.height - view) - this.element.scrollTop;
  }

  row_of(i) {
    let low = 0, high = this.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= i) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The direction of a row, "ltr" or "rtl": that of the first letter of its paragraph. */
  direction(row) {
    const above = Math.max(0, row - MOST_ROWS_BACK);
    let first = row;
    while (first > above && !this.breaks(this.starts[first] - 1)) first -= 1;
    for (let i = this.starts[first]; i < this.end_of(row); i++) {
      const text = this.points ? this.shown(i) : this.character(i);
      if (/\p{L}/u.test(text) && this.ids[i] !== this.end) return RIGHT_TO_LEFT.test(text) ? "rtl" : "ltr";
    }
    return "ltr";
  }

  end_of(row) {
    return row + 1 < this.starts.length ? this.starts[row + 1] : this.ids.length;
  }

  schedule() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  redraw() {
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.draw();
  }

  draw() {
    if (!this.starts) return;
    const offset = this.offset();
    const top = this.element.scrollTop + offset;
    const first = Math.max(0, Math.floor(top / ROW) - 4);
    const last = Math.min(this.starts.length, Math.ceil((top + this.element.clientHeight) / ROW) + 4);
    for (const [number, row] of this.rows) {
      if (number < first || number >= last) {
        row.remove();
        this.rows.delete(number);
      }
    }
    const fragment = document.createDocumentFragment();
    for (let number = first; number < last; number++) {
      let row = this.rows.get(number);
      if (!row) {
        row = this.make_row(number);
        this.rows.set(number, row);
        fragment.append(row);
      }
      row.style.top = number * ROW - offset + "px";
    }
    this.space.append(fragment);
  }

  make_row(number) {
    const row = document.createElement("div");
    row.className = "row";
    row.dir = this.direction(number);
    for (let i = this.starts[number]; i < this.end_of(number); i++) {
      const span = document.createElement("span");
      span.textContent = this.shown(i);
      span.className = this.class_of(i);
      span.place = i;
      row.append(span);
    }
    return row;
  }

  class_of(i) {
    let name = this.color(i);
    if (i === this.here) name += " here";
    if (this.span && i >= this.span[0] && i < this.span[1]) name += " chosen";
    if (this.rest(i)) name += " rest";
    if (this.character(i) < " " || this.ids[i] === this.end) name += " mute";
    return name;
  }

  /** Updates the classes of the visible ones among characters [begin, end). */
  repaint(begin, end) {
    for (const row of this.rows.values()) {
      for (const span of row.children) {
        if (span.place >= begin && span.place < end) span.className = this.class_of(span.place);
      }
    }
  }

  move(i, extend = false) {
    const before = this.here;
    this.here = Math.max(0, Math.min(this.ids.length - 1, i));
    if (extend && this.onselect) {
      const begin = Math.min(this.anchor, this.here), end = Math.max(this.anchor, this.here) + 1;
      this.mark(begin, end);
      this.onselect(begin, end);
    }
    this.repaint(before, before + 1);
    this.repaint(this.here, this.here + 1);
    this.onmove(this.here);
  }

  /** Marks a span as selected, without calling onselect. */
  mark(begin, end) {
    const old = this.span ?? [begin, end];
    this.span = [begin, end];
    this.repaint(...old);
    this.repaint(begin, end);
  }

  /** Scrolls to character i if it is not visible; its row is then in the middle. */
  reveal(i) {
    if (!this.starts) return;
    const row = this.row_of(i), view = this.element.clientHeight;
    const top = this.element.scrollTop + this.offset();
    if (row * ROW < top || (row + 1) * ROW > top + view) {
      this.scroll_to(row - view / 2 / ROW);
      this.draw();
    }
  }

  go(i) {
    this.reveal(i);
    this.move(i);
  }

  point(event) {
    if (event.target.place === undefined) return;
    const dragging = this.anchor !== null && this.pressed && event.buttons === 1;
    this.move(event.target.place, dragging);
  }

  press(event) {
    if (!this.onselect || event.target.place === undefined || event.button !== 0) return;
    if (!event.shiftKey || this.anchor === null) this.anchor = event.target.place;
    this.pressed = true;
    this.move(event.target.place, event.shiftKey);
    this.element.focus({ preventScroll: true });
    event.preventDefault();
  }

  release() {
    this.pressed = false;
  }

  key(event) {
    const far = event.ctrlKey && ["Home", "End"].includes(event.key);
    if (!far && (event.ctrlKey || event.metaKey || event.altKey)) return;
    const row = this.row_of(this.here), column = this.here - this.starts[row];
    const in_row = (number) => {
      const there = Math.max(0, Math.min(this.starts.length - 1, number));
      return Math.min(this.starts[there] + column, this.end_of(there) - 1);
    };
    const right = this.starts.length && this.direction(row) === "rtl" ? -1 : 1;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 2);
    const places = {
      ArrowLeft: () => this.here - right,
      ArrowRight: () => this.here + right,
      ArrowUp: () => in_row(row - 1),
      ArrowDown: () => in_row(row + 1),
      PageUp: () => in_row(row - page),
      PageDown: () => in_row(row + page),
      Home: () => (far ? 0 : this.starts[row]),
      End: () => (far ? this.ids.length : this.end_of(row)) - 1,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    if (event.shiftKey && this.anchor === null) this.anchor = this.here;
    if (!event.shiftKey) this.anchor = null;
    this.move(places[event.key](), event.shiftKey);
    this.reveal(this.here);
  }
}

/** A number of characters, or of bytes. */
function counted(number) {
  return plural(number, DATA.unit);
}

/** The name of character i, of a byte also its character, and its place. */
function place_of(view, i) {
  const whole = view.whole(i);
  return [make("b", { class: "mono", id: "character" }, named(view.character(i))),
    whole && [" of ", make("b", { class: "mono", id: "whole" }, whole)], ` at ${grouped.format(i)}`].flat();
}

/** Notes on the characters that this page does not show. */
function omissions() {
  const { shown, characters, skipped_characters: skipped, unknown_characters: unknown } = DATA;
  const notes = [];
  if (shown < characters) {
    notes.push(`This page shows the first ${grouped.format(shown)} of ${counted(characters)}.`);
  }
  if (unknown) notes.push(`Unknown to the model: ${counted(unknown)}.`);
  if (skipped) notes.push(`Unknown to the model and skipped: ${counted(skipped)}.`);
  return notes;
}
