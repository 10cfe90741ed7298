// The playground: streams text from a served model, with each character colored by its surprisal. A
// click on a character shows alternatives, and continues the text with one of them. Settings are
// beside the text; they travel in a link's fragment, and each text is kept with its settings.

const UNUSABLE_STOP = " The model does not know a character of the stop text.";
const TYPING = 250; // milliseconds without a key before a pattern is checked
const DEFAULTS = { max_tokens: "300", n: "1", seed: "0", stop: "", guided_regex: "" };

const status = make("p", { id: "status", role: "status" });
function report(text, fault = false) {
  status.textContent = text;
  status.classList.toggle("fault", fault);
}

const first = new Pane("A", branch), second = new Pane("B", branch);
second.element.hidden = second.settings.hidden = first.title.hidden = true;

const models = make("select", { id: "model", onchange: () => describe_model() });
const key = make("input", { type: "password", autocomplete: "off", id: "key" });
const key_label = make("label", { hidden: true }, "API key", key);
const prompt = make("textarea", { id: "prompt", spellcheck: "false", autocapitalize: "off", dir: "auto" });
const length = field("max_tokens", DEFAULTS.max_tokens, { min: 1, step: 1, id: "length" }, "length");
const count = field("n", DEFAULTS.n, { min: 1, max: 16, step: 1, id: "count" }, "texts");
const seed = field("seed", DEFAULTS.seed, { min: 0, step: 1, id: "seed" });
const stop = make("input", { type: "text", name: "stop", id: "stop", placeholder: "none" });
const fresh = make("input", { type: "checkbox", id: "fresh", checked: true });
const compare = make("input", { type: "checkbox", id: "compare", onchange: () => show_panes() });
const endless = make("input", { type: "checkbox", name: "ignore_eos", id: "endless" });
const endless_label = make("label", { class: "check", hidden: true }, endless, "never end: fill the length");
const pattern = make("input", { type: "text", name: "guided_regex", id: "pattern", class: "mono", dir: "ltr",
  spellcheck: "false", autocapitalize: "off", autocomplete: "off", placeholder: "[A-Z]{4}-[0-9]+",
  "aria-describedby": "pattern-hint", oninput: () => check_pattern_soon() });
const pattern_hint = make("p", { id: "pattern-hint", class: "small", role: "status" });
const go = make("button", { class: "main", id: "go", title: "Ctrl+Enter", onclick: () => generate() }, "Generate");
const halt = make("button", { id: "halt", title: "Escape", disabled: true, onclick: () => end("Stopped.") }, "Stop");
const back = make("button", { id: "back", disabled: true, onclick: () => {
  prompt.value = earlier.pop();
  back.disabled = !earlier.length;
  refresh_code();
} }, "Previous prompt");
const code = make("pre", { id: "code", class: "sample", tabindex: 0 });
const copied = make("span", { role: "status", class: "soft small" });
const written = new Written(restore);

const earlier = []; // previous prompts, for the button
let running = null; // aborts the current requests
let wanted = null; // the model of a link, until the list of models is here

const texts = () => Math.max(1, Number(count.input.value));
const panes = () => (compare.checked ? [first, second] : [first]);
const ask = (path, options) => request(path, key.value, options);

function show_panes() {
  second.element.hidden = second.settings.hidden = first.title.hidden = !compare.checked;
  sampling.classList.toggle("two", compare.checked);
  refresh_code();
}

/** The body of a request with a pane's settings. */
function body(pane, text = prompt.value) {
  const values = { model: models.value, prompt: text, max_tokens: Number(length.input.value),
    seed: Number(seed.input.value), ...pane.values() };
  if (texts() > 1) values.n = texts();
  if (stop.value) values.stop = stop.value;
  if (pattern.value) values.guided_regex = pattern.value;
  if (endless.checked && !endless_label.hidden) values.ignore_eos = true;
  return values;
}

// All settings as texts by name, for a link and for the history.

const inputs = () => Object.fromEntries([length.input, count.input, seed.input, stop, pattern,
  ...first.fields.map(({ input }) => input)].map((input) => [input.name, input]));

function settings() {
  const values = { model: models.value, prompt: prompt.value };
  for (const [name, input] of Object.entries(inputs())) values[name] = input.value;
  if (endless.checked && !endless_label.hidden) values.ignore_eos = "1";
  if (compare.checked) {
    values.compare = "1";
    for (const { input } of second.fields) values["b." + input.name] = input.value;
  }
  return values;
}

/** Sets all settings; those without a value get their default. The seed is then kept. */
function apply(values) {
  prompt.value = values.prompt ?? "";
  for (const [name, input] of Object.entries(inputs())) {
    input.value = values[name] ?? DEFAULTS[name] ?? "";
  }
  compare.checked = values.compare === "1";
  for (const { input } of second.fields) input.value = values["b." + input.name] ?? "";
  endless.checked = values.ignore_eos === "1";
  fresh.checked = false;
  wanted = values.model ?? null;
  choose_wanted();
  show_panes();
  check_pattern_soon();
}

/** Chooses the model that a link or a text needs, if it is served here. */
function choose_wanted() {
  if (wanted === null || !models.length) return;
  const found = [...models.options].some(({ value }) => value === wanted);
  if (found) models.value = wanted;
  else report(`The model ${wanted} is not served here; ${models.value} is chosen instead.`, true);
  wanted = null;
  describe_model();
}

function restore({ settings: values, texts: kept }) {
  if (running) end("");
  report("");
  apply(values);
  panes().forEach((pane, i) => pane.restore(values.prompt, kept[i]));
  if (!status.classList.contains("fault")) report("Restored with its seed: Generate writes the same text again.");
}

function open_link() {
  const values = settings_of(location.hash);
  if (values === null) return;
  apply(values);
  if (!status.classList.contains("fault")) report("The settings are those of the link.");
}

async function share() {
  const link = link_to(settings());
  history.replaceState(null, "", link);
  await copy_text(link, "Link copied; the address bar has it too.", "The address bar has the link: copy it there.");
}

async function copy_text(text, done, otherwise) {
  try {
    await navigator.clipboard.writeText(text);
    copied.textContent = done;
    return true;
  } catch { // browsers forbid it for a page from another machine
    copied.textContent = otherwise;
    return false;
  }
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
  if (running) end("");
  if (new_seed) seed.input.value = Math.floor(Math.random() * 2 ** 31);
  refresh_code();
  const mine = (running = new AbortController());
  mine.used = { settings: settings(), panes: panes() };
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

/** Ends the current requests, and keeps their texts. */
function end(text) {
  const one = running;
  running = null;
  one?.abort();
  halt.disabled = true;
  report(text);
  if (one?.used.panes.some((pane) => pane.symbols().length)) {
    written.add({ settings: one.used.settings, texts: one.used.panes.map((pane) => pane.written()) });
  }
}

/** Streams the texts of a pane, and returns them. */
async function stream(pane, signal) {
  const sent = { ...body(pane), logprobs: ALTERNATIVES, stream: true };
  pane.clear(sent.prompt, Math.min(texts(), 16));
  const response = await ask("v1/completions", { method: "POST", body: JSON.stringify(sent), signal });
  pane.ignored = response.headers.has("X-Ignored-Parameters");
  let done = false;
  for await (const event of events(response)) {
    if (event === "[DONE]") {
      done = true;
      break;
    }
    signal.throwIfAborted(); // the text that had arrived by then is not shown either
    const found = JSON.parse(event);
    if (found.error) throw new RequestError("The server reported: " + found.error.message);
    for (const choice of found.choices) if (choice.logprobs) pane.add_all(choice);
  }
  if (!done) throw new RequestError(GONE, { gone: true });
  return pane.samples;
}

let waiting = null;
function wait_for_server() {
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    try {
      await ask("health");
      await list_models();
      if (status.classList.contains("fault")) report("The server is back."); // not over a newer message
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
  const { data } = await (await ask("v1/models")).json();
  models.replaceChildren(...data.map(({ id }) => make("option", { value: id }, id)));
  if (data.some(({ id }) => id === chosen)) models.value = chosen;
  choose_wanted();
  refresh_code();
  await describe_model();
}

/** Names the texts of a model of documents as such, and offers to exclude their end. */
async function describe_model() {
  const model = models.value;
  const { eos_token: token } = await (await ask("tokenizer_info?model=" + encodeURIComponent(model))).json();
  if (models.value !== model) return;
  count.label.firstChild.data = token === END ? "documents" : "texts";
  endless_label.hidden = token !== END;
  refresh_code();
}

// The pattern is checked by the server while one types.

let typing = null, checking = null;
function check_pattern_soon() {
  clearTimeout(typing);
  checking?.abort();
  pattern.removeAttribute("aria-invalid");
  pattern_hint.textContent = "";
  if (pattern.value && !pattern_hint.hidden) typing = setTimeout(check_pattern, TYPING);
}

async function check_pattern() {
  checking = new AbortController();
  const sent = JSON.stringify({ pattern: pattern.value });
  try {
    const response = await ask("pattern", { method: "POST", body: sent, signal: checking.signal });
    const { valid, shortest, message } = await response.json();
    pattern.setAttribute("aria-invalid", String(!valid));
    pattern_hint.textContent = !valid ? message
      : `Valid. The shortest text has ${plural(shortest, "character")}` +
        (shortest > Number(length.input.value) ? ", more than the length." : ".");
    pattern_hint.classList.toggle("fault", !valid);
  } catch (error) {
    if (error.status === 404) pattern_hint.hidden = true; // a server without this check
  }
}

let shown = as_curl;
function refresh_code() {
  code.textContent = shown(panes().map((pane) => body(pane)), key.value !== "");
}

async function copy(which) {
  shown = which;
  refresh_code();
  details.open = true;
  const done = await copy_text(code.textContent, "Copied.", "Selected: press Ctrl+C.");
  if (!done) getSelection().selectAllChildren(code);
}

const details = make("details", {}, make("summary", {}, "The same request without this page"), code);
const sampling = make("div", { class: "sampling" }, first.settings, second.settings);

show(
  masthead(null, make("h1", {}, "Playground"), make("label", {}, "model", models), key_label,
    make("button", { id: "share", onclick: share }, "Copy link")),
  make("div", { class: "board" },
    make("div", { class: "work" },
      make("label", { for: "prompt" }, "Prompt"), prompt,
      make("div", { class: "actions" }, go, halt, back, status),
      make("div", { class: "panes" }, first.element, second.element),
      make("div", { class: "actions" }, surprisal_legend(2), copied,
        make("button", { id: "curl", onclick: () => copy(as_curl) }, "Copy as curl"),
        make("button", { id: "python", onclick: () => copy(as_python) }, "Copy as Python")),
      details),
    make("aside", { "aria-label": "Settings and history" },
      make("section", { class: "card", "aria-label": "Settings" },
        make("div", { class: "fields" }, length.label, count.label, seed.label, make("label", {}, "stop", stop)),
        make("label", { class: "check" }, fresh, "new seed each time"), endless_label,
        make("label", { class: "check" }, compare, "compare two settings"),
        sampling,
        make("label", { class: "wide" }, "pattern that the text matches", pattern), pattern_hint),
      written.element)),
);
document.addEventListener("input", refresh_code);
key.addEventListener("change", () => list_models().then(() => report("")).catch((e) => report(e.message, true)));
addEventListener("hashchange", open_link);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    generate();
  } else if (event.key === "Escape" && running) {
    end("Stopped.");
  }
});
open_link();
list_models().catch((error) => {
  report(error.message, true);
  if (error.gone) wait_for_server();
  if (error.status === 401) show_key();
});
