// The playground: draws text from a served model as it comes, each character colored by its
// surprisal; a click on one goes on from there with another.

const BITS_AT_TOP = 9, LEVELS = 12;
const GUESSES = 5; // alternatives that are asked for
const ASK_AGAIN = 2000; // milliseconds between two looks for a server that has gone

const level = (bits) => Math.min(LEVELS, Math.floor((bits / BITS_AT_TOP) * LEVELS));

/** The fields of a way to draw, by their names in a request. */
const KNOBS = [
  ["temperature", "1", { min: 0, step: 0.1 }],
  ["top_p", "", { min: 0, max: 1, step: 0.05, placeholder: "1" }],
  ["top_k", "", { min: 1, step: 1, placeholder: "all" }],
  ["min_p", "", { min: 0, max: 1, step: 0.01, placeholder: "0" }],
];

const status = make("p", { id: "status", role: "status" });
function say(text, fault = false) {
  status.textContent = text;
  status.classList.toggle("fault", fault);
}

function field(name, value, properties = {}) {
  const input = make("input", { type: "number", name, value, inputmode: "decimal", ...properties });
  return { input, label: make("label", {}, name.replace("_", " "), input) };
}

/** One way to draw, and what it drew. */
class Pane {
  constructor(letter) {
    this.letter = letter;
    this.fields = KNOBS.map(([name, value, properties]) => field(name, value, properties));
    this.settings = make("div", { class: "settings" }, this.fields.map(({ label }) => label));
    this.output = make("div", {
      class: "output", tabindex: 0, role: "group", id: "output-" + letter,
      "aria-label": "What was drawn. Arrow keys go from character to character, the keys 1 to " +
        `${GUESSES} go on from there with another.`,
      onmouseover: (event) => this.look(event.target.number),
      onclick: (event) => this.look(event.target.number, true),
      onkeydown: (event) => this.key(event),
    });
    this.about = make("div", { class: "alternatives", id: "about-" + letter, "aria-live": "polite" });
    this.title = make("h2", {}, "Settings " + letter);
    this.element = make("section", { class: "pane" }, this.title, this.settings, this.output,
      this.about);
    this.clear("");
  }

  /** What these settings add to a request. */
  values() {
    const values = {};
    for (const { input } of this.fields) {
      if (input.value !== "") values[input.name] = Number(input.value);
    }
    return values;
  }

  clear(prompt) {
    this.prompt = prompt;
    this.drawn = []; // {text, bits, likeliest: [[text, probability], ...]}
    this.here = null;
    this.held = false; // whether a click keeps a character in view
    this.output.replaceChildren(make("span", { class: "given" }, prompt));
    this.about.replaceChildren(make("p", { class: "soft" },
      "Point at a character to see what else could have come."));
  }

  add(token, log_p, top) {
    const bits = -log_p / Math.LN2;
    const likeliest = Object.entries(top ?? {}).sort((a, b) => b[1] - a[1]);
    const span = make("span", { class: "drawn s" + level(bits) }, token);
    span.number = this.drawn.length;
    this.drawn.push({ text: token, bits, span,
      likeliest: likeliest.map(([text, value]) => [text, Math.exp(value)]) });
    return span;
  }

  /** Adds what came at once: the layout is looked at once, not for every character. */
  add_all({ tokens, token_logprobs, top_logprobs }) {
    const box = this.output;
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    box.append(...tokens.map((token, i) => this.add(token, token_logprobs[i], top_logprobs?.[i])));
    if (follows) box.scrollTop = box.scrollHeight;
  }

  /** Shows what could have come in the place of a character; a click holds it. */
  look(number, hold = false) {
    if (number === undefined || (this.held && !hold)) return;
    this.held = hold && !(this.held && this.here === number);
    if (this.here !== null) this.drawn[this.here].span.classList.remove("here");
    this.here = number;
    const { text, bits, span, likeliest } = this.drawn[number];
    span.classList.add("here");
    const rows = likeliest.map(([other, chance], k) => {
      const bar = make("span", { class: "bar" });
      bar.style.width = chance * 6 + "rem";
      return make("li", {},
        make("button", { class: "mono", onclick: () => branch(this, number, other),
          "aria-label": `Go on from here with ${named(other)}` },
        `${k + 1}  ${named(other)}${other === text ? " ✓" : ""}`),
        make("span", { class: "number" }, (100 * chance).toFixed(1) + "%"), bar);
    });
    this.about.replaceChildren(
      make("p", {}, make("b", { class: "mono" }, named(text)), " came with ",
        make("b", {}, bits.toFixed(2)), " bits. Go on from here with"),
      make("ol", {}, rows));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.drawn.length) return;
    const last = this.drawn.length - 1, here = this.here ?? -1;
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: last,
      ArrowDown: here + 20, ArrowUp: here - 20 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.held = false;
      this.look(Math.max(0, Math.min(last, to)), true);
      this.drawn[this.here].span.scrollIntoView({ block: "nearest" });
      return;
    }
    const other = this.here === null ? undefined
      : this.drawn[this.here].likeliest[Number(event.key) - 1];
    if (/^[1-9]$/.test(event.key) && other) {
      event.preventDefault();
      branch(this, this.here, other[0]);
    }
  }

  /** The prompt and what was drawn before a character. */
  before(number) {
    return this.prompt + this.drawn.slice(0, number).map(({ text }) => text).join("");
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
} }, "Back to the last prompt");
const code = make("pre", { id: "code" });
const copied = make("span", { role: "status", class: "soft" });

const earlier = []; // prompts that were branched away from
let running = null; // what aborts the requests that run

const panes = () => (compare.checked ? [first, second] : [first]);

/** The body of a request with a pane's settings. */
function body(pane, text = prompt.value) {
  const values = { model: models.value, prompt: text, max_tokens: Number(length.input.value),
    seed: Number(seed.input.value), ...pane.values() };
  if (stop.value) values.stop = stop.value;
  return values;
}

function headers() {
  const found = { "Content-Type": "application/json" };
  if (key.value) found.Authorization = "Bearer " + key.value;
  return found;
}

/** Goes on from a character with another one in its place. */
function branch(pane, number, other) {
  earlier.push(prompt.value);
  back.disabled = false;
  prompt.value = pane.before(number) + other;
  generate(false);
  pane.output.focus({ preventScroll: true });
}

async function generate(new_seed = fresh.checked) {
  if (running) running.abort();
  if (new_seed) seed.input.value = Math.floor(Math.random() * 2 ** 31);
  refresh_code();
  const mine = (running = new AbortController());
  halt.disabled = false;
  say("Drawing …");
  const started = performance.now();
  try {
    const counts = await Promise.all(panes().map((pane) => draw(pane, mine.signal)));
    const count = counts.reduce((a, b) => a + b, 0);
    const seconds = (performance.now() - started) / 1000;
    if (running === mine) end(`${grouped.format(count)} characters in ${seconds.toFixed(1)} s.`);
  } catch (error) {
    if (running !== mine) return; // another one has taken its place, or it was stopped
    running.abort();
    end("");
    say(error.message, true);
    if (error.gone) wait_for_server();
    if (error.status === 401) show_key();
  }
}

function end(text) {
  const one = running;
  running = null;
  one?.abort();
  halt.disabled = true;
  say(text);
}

class Refused extends Error {
  constructor(message, { status = 0, gone = false } = {}) {
    super(message);
    this.status = status;
    this.gone = gone;
  }
}

/** What the server says; a sentence where it says no, or nothing. */
async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Waiting for it …", { gone: true });
  }
  if (response.ok) return response;
  let message = `The server answers ${response.status} ${response.statusText}.`;
  try {
    message = "The server refuses: " + (await response.json()).error.message;
  } catch { /* no body that says more */ }
  throw new Refused(message, { status: response.status });
}

/** Streams one pane's text; resolves to the number of characters. */
async function draw(pane, signal) {
  const request = { ...body(pane), logprobs: GUESSES, stream: true };
  pane.clear(request.prompt);
  const response = await ask("/v1/completions",
    { method: "POST", body: JSON.stringify(request), signal });
  let done = false;
  for await (const event of events(response)) {
    if (event === "[DONE]") {
      done = true;
      break;
    }
    const found = JSON.parse(event);
    if (found.error) throw new Refused("The server refuses: " + found.error.message);
    const logprobs = found.choices[0]?.logprobs;
    if (logprobs) pane.add_all(logprobs);
  }
  if (!done) throw new Refused("The server is gone in the middle of the text. Waiting for it …",
    { gone: true });
  return pane.drawn.length;
}

/** The data of server-sent events, as they come. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server is gone in the middle of the text. Waiting for it …",
        { gone: true });
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
      await ask("/health");
      await list_models();
      say("The server is back.");
    } catch (error) {
      if (error.gone) wait_for_server();
      else say(error.message, true);
    }
  }, ASK_AGAIN);
}

function show_key() {
  key_label.hidden = false;
  key.focus();
}

async function list_models() {
  const chosen = models.value;
  const { data } = await (await ask("/v1/models")).json();
  models.replaceChildren(...data.map(({ id }) => make("option", { value: id }, id)));
  if (data.some(({ id }) => id === chosen)) models.value = chosen;
  refresh_code();
}

// The same as a command and as a program.

const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function as_curl() {
  const lines = panes().map((pane) => [
    `curl ${quoted(location.origin + "/v1/completions")} \\`,
    "  -H 'Content-Type: application/json' \\",
    ...(key.value ? ['  -H "Authorization: Bearer $CHARLOOM_API_KEY" \\'] : []),
    `  -d ${quoted(JSON.stringify(body(pane)))}`,
  ].join("\n"));
  return lines.join("\n\n");
}

function as_python() {
  const known = ["model", "prompt", "max_tokens", "seed", "temperature", "top_p", "stop"];
  const calls = panes().map((pane) => {
    const all = Object.entries(body(pane));
    const lines = all.filter(([name]) => known.includes(name))
      .map(([name, value]) => `    ${name}=${JSON.stringify(value)},`);
    const others = all.filter(([name]) => !known.includes(name));
    if (others.length) {
      lines.push(`    extra_body={${others.map(([n, v]) => `"${n}": ${JSON.stringify(v)}`).join(", ")}},`);
    }
    return ["completion = client.completions.create(", ...lines, ")",
      "print(completion.choices[0].text)"].join("\n");
  });
  const secret = key.value ? 'os.environ["CHARLOOM_API_KEY"]' : '"none"';
  return [...(key.value ? ["import os", ""] : []), "from openai import OpenAI", "",
    `client = OpenAI(base_url=${JSON.stringify(location.origin + "/v1")}, api_key=${secret})`,
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
  } catch { // a page that is not from this machine may not
    getSelection().selectAllChildren(code);
    copied.textContent = "Selected: press Ctrl+C.";
  }
}

const details = make("details", {}, make("summary", {}, "The same without this page"), code);
const legend = [make("span", { class: "name" }, "bits:")];
for (let k = 0; k <= LEVELS; k += 2) {
  const text = k === LEVELS ? `${BITS_AT_TOP} and more` : String((k * BITS_AT_TOP) / LEVELS);
  legend.push(make("span", { class: "swatch s" + k }, text));
}

show(
  make("div", { class: "top" }, make("h1", {}, "charloom playground"),
    make("label", {}, "model", models), key_label),
  make("label", { for: "prompt" }, "Prompt"), prompt,
  make("div", { class: "settings" }, length.label, seed.label,
    make("label", {}, "stop", stop),
    make("label", { class: "check" }, fresh, "a new seed each time"),
    make("label", { class: "check" }, compare, "compare two settings")),
  make("div", { class: "actions" }, go, halt, back,
    make("button", { id: "curl", onclick: () => copy(as_curl) }, "Copy as curl"),
    make("button", { id: "python", onclick: () => copy(as_python) }, "Copy as Python"), copied),
  status,
  make("div", { class: "legend", role: "img",
    "aria-label": `Legend: the stronger the color, the more bits, up to ${BITS_AT_TOP}.` }, legend),
  make("div", { class: "panes" }, first.element, second.element),
  details,
);
document.addEventListener("input", refresh_code);
key.addEventListener("change", () => list_models().then(() => say("")).catch((e) => say(e.message, true)));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    generate();
  } else if (event.key === "Escape" && running) {
    end("Stopped.");
  }
});
list_models().catch((error) => {
  say(error.message, true);
  if (error.gone) wait_for_server();
  if (error.status === 401) show_key();
});
