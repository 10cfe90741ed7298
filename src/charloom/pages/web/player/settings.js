// The fields of the page: how to sample, and which unit to show.

const PACES = [["at once", 0], ["fast", 400], ["steady", 120], ["slow", 20]]; // characters per second
const SEED = /^[0-9]{1,30}$/;

function number_field(id, label, value, properties = {}) {
  const input = make("input", { type: "number", id, name: id, value, inputmode: "decimal", ...properties });
  return { input, label: make("label", { class: "field" }, make("span", {}, label), input) };
}

class Settings {
  constructor(defaults) {
    const or = (value, other) => (value === null || value === undefined ? other : value);
    const at = or(defaults.temperature, 1);
    this.slider = make("input", { type: "range", min: 0, max: 2, step: 0.05, value: at,
      "aria-label": "temperature, from 0 to 2", oninput: () => { this.temperature.value = this.slider.value; } });
    const temperature = number_field("temperature", "temperature", at, { min: 0, step: "any",
      required: true });
    this.temperature = temperature.input;
    this.temperature.addEventListener("input", () => { this.slider.value = this.temperature.value; });
    const rest = [
      number_field("top_k", "top k", or(defaults.top_k, ""), { min: 1, step: 1, placeholder: "all" }),
      number_field("top_p", "top p", or(defaults.top_p, ""), { min: 0, max: 1, step: "any", placeholder: "1" }),
      number_field("min_p", "min p", or(defaults.min_p, ""), { min: 0, max: 1, step: "any", placeholder: "0" }),
      number_field("length", "length", or(defaults.length, 500), { min: 1, max: 50000, step: 1,
        required: true }),
    ];
    this.documents = DATA.end === null ? null
      : number_field("documents", "documents", or(defaults.documents, 5), { min: 1, max: 1000, step: 1,
        required: true });
    this.stop = make("input", { id: "stop", name: "stop", placeholder: "none", autocomplete: "off",
      autocapitalize: "off", spellcheck: "false" });
    this.seed = make("input", { id: "seed", name: "seed", value: or(defaults.seed, 0), inputmode: "numeric",
      pattern: "[0-9]{1,30}", required: true, autocomplete: "off" });
    this.fresh = make("input", { type: "checkbox", id: "fresh", checked: true });
    this.pace = make("select", { id: "pace" }, PACES.map(([name, value]) =>
      make("option", { value }, name)));
    this.pace.value = matchMedia("(prefers-reduced-motion: reduce)").matches ? "0" : "120";
    this.fields = [this.temperature, ...rest.map(({ input }) => input), this.seed,
      ...(this.documents ? [this.documents.input] : [])];
    this.element = make("details", { class: "card settings" }, make("summary", {}, "Settings"),
      make("div", { class: "dial" }, temperature.label, this.slider),
      make("div", { class: "fields" }, rest.map(({ label }) => label), this.documents?.label,
        make("label", { class: "field" }, make("span", {}, "stop text"), this.stop),
        make("label", { class: "field" }, make("span", {}, "seed"), this.seed),
        make("label", { class: "field" }, make("span", {}, "pace"), this.pace),
        make("label", { class: "check" }, this.fresh, "new seed each time")));
    this.element.open = matchMedia("(min-width: 60rem)").matches;
  }

  /** Sets another seed if each text should have its own. */
  renew() {
    if (this.fresh.checked) this.seed.value = Math.floor(Math.random() * 2 ** 31);
  }

  /** A sentence about the first field with an invalid value, and marks it; null if all are valid. */
  fault() {
    const wrong = this.fields.find((input) => !input.checkValidity());
    for (const input of this.fields) input.setAttribute("aria-invalid", String(input === wrong));
    if (!wrong) return null;
    this.element.open = true;
    wrong.focus();
    const { min, max } = wrong;
    const range = wrong === this.seed ? "a whole number of at most 30 digits"
      : max ? `a number from ${min} to ${grouped.format(max)}` : `a number of at least ${min}`;
    const whole = wrong.step === "1" ? range.replace("a ", "a whole ") : range;
    return `Invalid ${wrong.name.replace("_", " ")}: enter ${whole}.`;
  }

  values() {
    const number = (name) => {
      const { value } = this.fields.find((input) => input.name === name);
      return value === "" ? null : Number(value);
    };
    return {
      settings: { temperature: number("temperature"), top_k: number("top_k"), top_p: number("top_p") || null,
        min_p: number("min_p") || null },
      length: number("length"), documents: this.documents ? number("documents") : 1,
      stop: this.stop.value ? [this.stop.value] : [], seed: this.seed.value, pace: Number(this.pace.value),
    };
  }
}

/** The choice of a unit: one that has a name, or any one by its number. */
class UnitPicker {
  constructor(onunit) {
    const units = DATA.units ?? [];
    this.onunit = onunit;
    this.unit = units[0]?.unit ?? 0;
    this.number = make("input", { type: "number", id: "unit", min: 0, max: DATA.hidden - 1, step: 1,
      value: this.unit, inputmode: "numeric", oninput: () => this.choose(Number(this.number.value)) });
    this.names = units.length ? make("select", { id: "units", onchange: () => {
      if (this.names.value !== "") this.choose(Number(this.names.value));
    } }, units.map(({ unit, label, correlation }) => make("option", { value: unit },
      `h${unit}: ${label} (${fixed(correlation, 2)})`)),
      make("option", { value: "" }, "another one, by its number")) : null;
    this.element = [
      this.names && make("label", { class: "field wide" }, make("span", {}, "unit that follows"), this.names),
      make("label", { class: "field" }, make("span", {}, `unit, 0 to ${DATA.hidden - 1}`), this.number),
    ].filter(Boolean);
  }

  choose(unit) {
    if (!this.number.checkValidity() && unit === Number(this.number.value)) return;
    this.unit = unit;
    if (Number(this.number.value) !== unit) this.number.value = unit;
    if (this.names) {
      const known = (DATA.units ?? []).some((one) => one.unit === unit);
      this.names.value = known ? unit : "";
    }
    this.onunit(unit);
  }
}
