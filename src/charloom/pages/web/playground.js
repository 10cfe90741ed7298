// The playground: streams text from a served model, with each character colored by its surprisal. A
// click on a character shows alternatives, and continues the text with one of them.

const ALTERNATIVES = 5; // likeliest characters to request for every place
const END = "<end>"; // the token of the end of a document, which is not part of the text
const BYTE = /^\\x([0-9a-f]{2})$/; // the token of a byte that is not a whole character
const RETRY = 2000; // milliseconds between two requests to a server that is gone
const UNUSABLE_STOP = " The model does not know a character of the stop text.";
const GONE = "The connection broke in the middle of the text. Waiting for the server …";

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

const status = make("p", { id: "status", role: "status" });
function report(text, fault = false) {
  status.textContent = text;
  status.classList.toggle("fault", fault);
}

function field(name, value, properties = {}) {
  const input = make("input", { type: "number", name, value, inputmode: "decimal", ...properties });
  return { input, label: make("label", {}, name.replace("_", " "), input) };
}

/** Sampling settings, and the texts that were sampled with them. */
class Pane {
  constructor(letter) {
    this.letter = letter;
    this.fields = SETTINGS.map(([name, value, properties]) => field(name, value, properties));
    this.settings = make("div", { class: "settings" }, this.fields.map(({ label }) => label));
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
    this.element = make("section", { class: "pane" }, this.title, this.settings, this.output,
      this.about);
    this.clear("");
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
      element: make("div", { class: "one-text" }, make("span", { class: "given" }, prompt)),
      bytes: [], // the latest symbols that are bytes of one character
      drawn: [], // {text, bits, likeliest: [[text, probability], ...], span, sample, number}
    }));
    this.here = null; // the element of `drawn` whose alternatives are shown
    this.held = false; // true while a click keeps the alternatives of a character shown
    this.output.replaceChildren(...this.samples.map(({ element }) => element));
    this.about.replaceChildren(make("p", { class: "soft" },
      "Point at a character to see its alternatives."));
  }

  add(sample, token, log_p, top) {
    const bits = -log_p / Math.LN2;
    const likeliest = Object.entries(top ?? {}).sort((a, b) => b[1] - a[1]);
    const span = make("span", { class: "drawn s" + surprisal_level(bits) }, token);
    span.classList.toggle("end", token === END);
    span.number = sample.drawn.length;
    span.symbol = { text: token, bits, span, sample, number: span.number,
      likeliest: likeliest.map(([text, value]) => [text, Math.exp(value)]) };
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
    sample.element.append(...tokens.map((token, i) =>
      this.add(sample, token, token_logprobs[i], top_logprobs?.[i])));
    if (follows) box.scrollTop = box.scrollHeight;
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
      bar.style.width = chance * 6 + "rem";
      const title = `${k + 1}  ${named(other)}${other === text ? " ✓" : ""}`;
      return make("li", {},
        other === END || this.text_with(symbol, other) === null ? make("span", { class: "mono ending" }, title)
          : make("button", { class: "mono", onclick: () => branch(this, symbol, other),
            "aria-label": `Continue from here with ${named(other)}` }, title),
        make("span", { class: "number" }, (100 * chance).toFixed(1) + "%"), bar);
    });
    this.about.replaceChildren(
      make("p", {}, make("b", { class: "mono" }, named(text)), ": surprisal ",
        make("b", {}, bits.toFixed(2)), " bits. Continue from here with"),
      make("ol", {}, rows));
  }

  key(event) {
    const all = this.symbols(), last = all.length - 1, here = all.indexOf(this.here);
    if (event.ctrlKey || event.metaKey || event.altKey || !all.length) return;
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: last,
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
      branch(this, this.here, other[0]);
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

const first = new Pane("A"), second = new Pane("B");
second.element.hidden = true;
first.title.hidden = true;

const models = make("select", { id: "model" });
const key = make("input", { type: "password", autocomplete: "off", id: "key" });
const key_label = make("label", { hidden: true }, "API key", key);
const prompt = make("textarea", { id: "prompt", spellcheck: "false", autocapitalize: "off" });
const length = field("max_tokens", "300", { min: 1, step: 1, id: "length" });
const count = make("input", { type: "number", name: "n", id: "count", value: 1, min: 1, max: 16,
  step: 1, inputmode: "decimal" });
const seed = field("seed", "0", { min: 0, step: 1, id: "seed" });
const stop = make("input", { type: "text", name: "stop", id: "stop", placeholder: "none" });
const fresh = make("input", { type: "checkbox", id: "fresh", checked: true });
const compare = make("input", { type: "checkbox", id: "compare", onchange: () => {
  second.element.hidden = !compare.checked;
  first.title.hidden = !compare.checked;
  refresh_code();
} });
const go = make("button", { class: "main", id: "go", onclick: () => generate() }, "Generate");
const halt = make("button", { id: "halt", disabled: true, onclick: () => end("Stopped.") }, "Stop");
const back = make("button", { id: "back", disabled: true, onclick: () => {
  prompt.value = earlier.pop();
  back.disabled = !earlier.length;
  refresh_code();
} }, "Previous prompt");
const code = make("pre", { id: "code" });
const copied = make("span", { role: "status", class: "soft" });

const earlier = []; // previous prompts, for the button
let running = null; // aborts the current requests

// Paths are relative to the page, because a proxy can serve it below a prefix.
const address = (path) => new URL(path, document.baseURI).href;
const texts = () => Math.max(1, Number(count.value));
const panes = () => (compare.checked ? [first, second] : [first]);

/** The body of a request with a pane's settings. */
function body(pane, text = prompt.value) {
  const values = { model: models.value, prompt: text, max_tokens: Number(length.input.value),
    seed: Number(seed.input.value), ...pane.values() };
  if (texts() > 1) values.n = texts();
  if (stop.value) values.stop = stop.value;
  return values;
}

function headers() {
  const found = { "Content-Type": "application/json" };
  if (key.value) found.Authorization = "Bearer " + key.value;
  return found;
}

/** Continues the text with another character in the place of one. */
function branch(pane, symbol, other) {
  earlier.push(prompt.value);
  back.disabled = false;
  prompt.value = pane.text_with(symbol, other);
  generate(false);
  pane.output.focus({ preventScroll: true });
}

async function generate(new_seed = fresh.checked) {
  if (running) running.abort();
  if (new_seed) seed.input.value = Math.floor(Math.random() * 2 ** 31);
  refresh_code();
  const mine = (running = new AbortController());
  halt.disabled = false;
  report("Sampling …");
  const started = performance.now();
  try {
    const sampled = (await Promise.all(panes().map((pane) => stream(pane, mine.signal)))).flat();
    const characters = sampled.flatMap(({ drawn }) => drawn).filter(({ text }) => text !== END);
    const seconds = (performance.now() - started) / 1000;
    if (running === mine) {
      end(`${plural(characters.length, "character")} in ${seconds.toFixed(1)} s.` +
        ended(sampled) + (panes().some(({ ignored }) => ignored) ? UNUSABLE_STOP : ""));
    }
  } catch (error) {
    if (running !== mine) return; // replaced by another request, or stopped
    running.abort();
    end("");
    report(error.message, true);
    if (error.gone) wait_for_server();
    if (error.status === 401) show_key();
  }
}

/** A sentence about the documents that have ended, empty if none has. */
function ended(sampled) {
  const count = sampled.filter(({ drawn }) => drawn.at(-1)?.text === END).length;
  if (count === 0) return "";
  return sampled.length === 1 ? " The document ended."
    : ` ${count} of ${sampled.length} documents ended.`;
}

function end(text) {
  const one = running;
  running = null;
  one?.abort();
  halt.disabled = true;
  report(text);
}

class RequestError extends Error {
  constructor(message, { status = 0, gone = false } = {}) {
    super(message);
    this.status = status;
    this.gone = gone;
  }
}

/** Requests a path relative to the page; an error's message is a sentence for the reader. */
async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The server does not respond. Waiting for it …", { gone: true });
  }
  if (response.ok) return response;
  let message = `The server returned ${response.status} ${response.statusText}.`;
  try {
    message = "The server rejected the request: " + (await response.json()).error.message;
  } catch { /* the body has no message */ }
  throw new RequestError(message, { status: response.status });
}

/** Streams the texts of a pane, and returns them. */
async function stream(pane, signal) {
  const sent = { ...body(pane), logprobs: ALTERNATIVES, stream: true };
  pane.clear(sent.prompt, Math.min(texts(), 16));
  const response = await request("v1/completions",
    { method: "POST", body: JSON.stringify(sent), signal });
  pane.ignored = response.headers.has("X-Ignored-Parameters");
  let done = false;
  for await (const event of events(response)) {
    if (event === "[DONE]") {
      done = true;
      break;
    }
    const found = JSON.parse(event);
    if (found.error) throw new RequestError("The server reported: " + found.error.message);
    for (const choice of found.choices) if (choice.logprobs) pane.add_all(choice);
  }
  if (!done) throw new RequestError(GONE, { gone: true });
  return pane.samples;
}

/** Yields the data of server-sent events as they arrive. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new RequestError(GONE, { gone: true });
    }
    if (piece.done) return;
    const lines = (rest + piece.value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

let waiting = null;
function wait_for_server() {
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    try {
      await request("health");
      await list_models();
      report("The server is back.");
    } catch (error) {
      if (error.gone) wait_for_server();
      else report(error.message, true);
    }
  }, RETRY);
}

function show_key() {
  key_label.hidden = false;
  key.focus();
}

async function list_models() {
  const chosen = models.value;
  const { data } = await (await request("v1/models")).json();
  models.replaceChildren(...data.map(({ id }) => make("option", { value: id }, id)));
  if (data.some(({ id }) => id === chosen)) models.value = chosen;
  refresh_code();
}

// The same request as a command and as a program.

const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function as_curl() {
  const lines = panes().map((pane) => [
    `curl ${quoted(address("v1/completions"))} \\`,
    "  -H 'Content-Type: application/json' \\",
    ...(key.value ? ['  -H "Authorization: Bearer $CHARLOOM_API_KEY" \\'] : []),
    `  -d ${quoted(JSON.stringify(body(pane)))}`,
  ].join("\n"));
  return lines.join("\n\n");
}

function as_python() {
  const known = ["model", "prompt", "max_tokens", "n", "seed", "temperature", "top_p", "stop"];
  const calls = panes().map((pane) => {
    const all = Object.entries(body(pane));
    const lines = all.filter(([name]) => known.includes(name))
      .map(([name, value]) => `    ${name}=${JSON.stringify(value)},`);
    const others = all.filter(([name]) => !known.includes(name));
    if (others.length) {
      lines.push(`    extra_body={${others.map(([n, v]) => `"${n}": ${JSON.stringify(v)}`).join(", ")}},`);
    }
    const print = texts() > 1 ? "for choice in completion.choices:\n    print(choice.text)"
      : "print(completion.choices[0].text)";
    return ["completion = client.completions.create(", ...lines, ")", print].join("\n");
  });
  const secret = key.value ? 'os.environ["CHARLOOM_API_KEY"]' : '"none"';
  return [...(key.value ? ["import os", ""] : []), "from openai import OpenAI", "",
    `client = OpenAI(base_url=${JSON.stringify(address("v1"))}, api_key=${secret})`,
    ...calls].join("\n");
}

let shown = as_curl;
function refresh_code() {
  code.textContent = shown();
}

async function copy(which) {
  shown = which;
  refresh_code();
  details.open = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
    copied.textContent = "Copied.";
  } catch { // browsers forbid it for a page from another machine
    getSelection().selectAllChildren(code);
    copied.textContent = "Selected: press Ctrl+C.";
  }
}

const details = make("details", {}, make("summary", {}, "The same request without this page"), code);

show(
  make("div", { class: "top" }, make("h1", {}, "charloom playground"),
    make("label", {}, "model", models), key_label),
  make("label", { for: "prompt" }, "Prompt"), prompt,
  make("div", { class: "settings" }, length.label,
    make("label", {}, "texts", count), seed.label,
    make("label", {}, "stop", stop),
    make("label", { class: "check" }, fresh, "new seed each time"),
    make("label", { class: "check" }, compare, "compare two settings")),
  make("div", { class: "actions" }, go, halt, back,
    make("button", { id: "curl", onclick: () => copy(as_curl) }, "Copy as curl"),
    make("button", { id: "python", onclick: () => copy(as_python) }, "Copy as Python"), copied),
  status,
  surprisal_legend(2),
  make("div", { class: "panes" }, first.element, second.element),
  details,
);
document.addEventListener("input", refresh_code);
key.addEventListener("change", () => list_models().then(() => report("")).catch((e) => report(e.message, true)));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    generate();
  } else if (event.key === "Escape" && running) {
    end("Stopped.");
  }
});
list_models().catch((error) => {
  report(error.message, true);
  if (error.gone) wait_for_server();
  if (error.status === 401) show_key();
});
