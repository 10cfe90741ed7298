// A pane of the playground: sampling settings, and the texts that were sampled with them, with each
// character colored by its surprisal. A character shows its alternatives.

const ALTERNATIVES = 5; // likeliest characters to request for every place
const END = "<end>"; // the token of the end of a document, which is not part of the text
const BYTE = /^\\x([0-9a-f]{2})$/; // the token of a byte that is not a whole character

const HINTS = [ // until there is a text
  "Generate, or Ctrl+Enter, writes a text here. Each character is colored by how much it surprises the model.",
  "Point at a character to see what the model expected there.",
  "Click one of these to continue with it, or press its number.",
];

/** The fields of the sampling settings: the name in a request, the value, the element's attributes. */
const SETTINGS = [
  ["temperature", "1", { min: 0, step: 0.1 }],
  ["top_p", "", { min: 0, max: 1, step: 0.05, placeholder: "1" }],
  ["top_k", "", { min: 1, step: 1, placeholder: "all" }],
  ["min_p", "", { min: 0, max: 1, step: 0.01, placeholder: "0" }],
];

/** The text of tokens, null if one of their bytes belongs to no whole character. */
function text_of(tokens) {
  const encoder = new TextEncoder();
  const bytes = tokens.flatMap((token) =>
    BYTE.test(token) ? parseInt(token.match(BYTE)[1], 16) : [...encoder.encode(token)]);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return null;
  }
}

function field(name, value, properties = {}, label = name.replace("_", " ")) {
  const input = make("input", { type: "number", name, value, inputmode: "decimal", ...properties });
  return { input, label: make("label", {}, label, input) };
}

class Pane {
  /**
   * - letter: A or B.
   * - onbranch(pane, symbol, other): called to continue with another character in the place of one.
   */
  constructor(letter, onbranch) {
    this.onbranch = onbranch;
    this.fields = SETTINGS.map(([name, value, properties]) => field(name, value, properties));
    this.settings = make("div", { class: "fields", id: "settings-" + letter, role: "group",
      "aria-label": "Sampling settings " + letter }, this.fields.map(({ label }) => label));
    this.output = make("div", {
      class: "output", tabindex: 0, role: "group", id: "output-" + letter,
      "aria-label": "The sampled text. Arrow keys go from character to character; the keys 1 to " +
        `${ALTERNATIVES} continue from there with another one.`,
      onmouseover: (event) => this.look(event.target.symbol),
      onclick: (event) => this.look(event.target.symbol, true),
      onkeydown: (event) => this.key(event),
    });
    this.about = make("div", { class: "alternatives", id: "about-" + letter, "aria-live": "polite" });
    this.title = make("h2", {}, "Settings " + letter);
    this.element = make("section", { class: "pane card" }, this.title, this.output, this.about);
    this.clear("", 0);
    this.output.append(make("ul", { class: "soft hint" }, HINTS.map((hint) => make("li", {}, hint))));
  }

  /** The settings as fields of a request. */
  values() {
    const values = {};
    for (const { input } of this.fields) {
      if (input.value !== "") values[input.name] = Number(input.value);
    }
    return values;
  }

  clear(prompt, count = 1) {
    this.prompt = prompt;
    this.samples = Array.from({ length: count }, () => ({
      element: make("div", { class: "one-text", dir: "auto" }, make("span", { class: "given" }, prompt)),
      bytes: [], // the latest symbols that are bytes of one character
      drawn: [], // {text, bits, likeliest: [[text, probability], ...], span, sample, number}
    }));
    this.here = null; // the element of `drawn` whose alternatives are shown
    this.held = false; // true while a click keeps the alternatives of a character shown
    this.output.replaceChildren(...this.samples.map(({ element }) => element));
    this.about.replaceChildren(make("p", { class: "soft" },
      "Point at a character to see its alternatives."));
  }

  add(sample, text, bits, likeliest) {
    const span = make("span", { class: "drawn s" + surprisal_level(bits) }, text);
    span.classList.toggle("end", text === END);
    span.number = sample.drawn.length;
    span.symbol = { text, bits, likeliest, span, sample, number: span.number };
    sample.drawn.push(span.symbol);
    this.show_bytes(sample, span.symbol);
    return span;
  }

  /** Shows the bytes of a whole character as the character, at its first byte. */
  show_bytes(sample, symbol) {
    const byte = BYTE.test(symbol.text) ? parseInt(symbol.text.match(BYTE)[1], 16) : 0;
    if (byte < 0x80 || byte >= 0xc0) sample.bytes = []; // no further byte of a character
    if (byte) sample.bytes.push(symbol);
    const whole = sample.bytes.length > 1 && text_of(sample.bytes.map(({ text }) => text));
    if (!whole) return;
    sample.bytes.forEach(({ span }, i) => {
      span.textContent = i ? "" : whole;
      span.classList.toggle("rest", i > 0);
    });
    sample.bytes = [];
  }

  /** Adds the characters of one event. The layout is read once, because reading it is slow. */
  add_all({ index, logprobs: { tokens, token_logprobs, top_logprobs } }) {
    const box = this.output, sample = this.samples[index];
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    sample.element.append(...tokens.map((token, i) => {
      const likeliest = Object.entries(top_logprobs?.[i] ?? {}).sort((a, b) => b[1] - a[1]);
      return this.add(sample, token, -token_logprobs[i] / Math.LN2,
        likeliest.map(([text, value]) => [text, Math.exp(value)]));
    }));
    if (follows) box.scrollTop = box.scrollHeight;
  }

  /** The sampled texts as plain values: for each text its symbols, [text, bits, likeliest]. */
  written() {
    return this.samples.map(({ drawn }) => drawn.map(({ text, bits, likeliest }) => [text, Number(bits.toFixed(3)),
      likeliest.map(([other, chance]) => [other, Number(chance.toFixed(5))])]));
  }

  /** Shows texts that `written` returned. */
  restore(prompt, texts) {
    this.clear(prompt, texts.length);
    texts.forEach((symbols, i) => {
      const sample = this.samples[i];
      sample.element.append(...symbols.map((symbol) => this.add(sample, ...symbol)));
    });
    this.output.scrollTop = 0;
  }

  /** The sampled characters and ends of all texts, in their order on the page. */
  symbols() {
    return this.samples.flatMap(({ drawn }) => drawn);
  }

  /** Shows the alternatives of a character. A click keeps them shown. */
  look(symbol, hold = false) {
    if (symbol === undefined || (this.held && !hold)) return;
    this.held = hold && !(this.held && this.here === symbol);
    this.here?.span.classList.remove("here");
    this.here = symbol;
    const { text, bits, span, likeliest } = symbol;
    span.classList.add("here");
    const rows = likeliest.map(([other, chance], k) => {
      const bar = make("span", { class: "bar" });
      bar.style.width = 100 * chance + "%";
      const title = `${k + 1}  ${named(other)}${other === text ? " ✓" : ""}`;
      return make("li", {},
        other === END || this.text_with(symbol, other) === null ? make("span", { class: "mono ending" }, title)
          : make("button", { class: "mono", onclick: () => this.onbranch(this, symbol, other),
            "aria-label": `Continue from here with ${named(other)}` }, title),
        make("span", { class: "number" }, (100 * chance).toFixed(1) + "%"),
        make("span", { class: "track" }, bar));
    });
    this.about.replaceChildren(
      make("p", {}, make("b", { class: "mono" }, named(text)), ": surprisal ",
        make("b", {}, bits.toFixed(2)), " bits. Continue from here with"),
      make("ol", {}, rows));
  }

  key(event) {
    const all = this.symbols(), last = all.length - 1, here = all.indexOf(this.here);
    if (event.ctrlKey || event.metaKey || event.altKey || !all.length) return;
    const text = this.here?.sample.element;
    const right = text && getComputedStyle(text).direction === "rtl" ? -1 : 1;
    const to = { ArrowRight: here + right, ArrowLeft: here - right, Home: 0, End: last,
      ArrowDown: here + 20, ArrowUp: here - 20 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.held = false;
      this.look(all[Math.max(0, Math.min(last, to))], true);
      this.here.span.scrollIntoView({ block: "nearest" });
      return;
    }
    const other = this.here?.likeliest[Number(event.key) - 1];
    if (/^[1-9]$/.test(event.key) && other && other[0] !== END &&
        this.text_with(this.here, other[0]) !== null) {
      event.preventDefault();
      this.onbranch(this, this.here, other[0]);
    }
  }

  /**
   * The prompt and the sampled text before a character, with another one in its place. It is null for a
   * byte that is not a whole character, because a prompt is text.
   */
  text_with({ sample, number }, other) {
    const text = text_of([...sample.drawn.slice(0, number).map((symbol) => symbol.text), other]);
    return text === null ? null : this.prompt + text;
  }
}
