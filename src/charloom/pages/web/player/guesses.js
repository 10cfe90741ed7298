// The model's guesses for a place: buttons that put them there, with bars of their probabilities.

const shown_id = (id) => named(DATA.names[id]);
const percent = (chance) => (chance >= 0.0995 ? (100 * chance).toFixed(0) : (100 * chance).toFixed(1)) + "%";
const button = (id, text, onclick, properties = {}) =>
  make("button", { type: "button", id, onclick, ...properties }, text);

class Guesses {
  /**
   * - onchoose(k): called when guess k is chosen.
   * - onother(character): called when another one is typed.
   */
  constructor(onchoose, onother) {
    this.title = make("h2", {});
    this.hint = make("p", { class: "soft", id: "hint" });
    this.buttons = Array.from({ length: GUESSES }, (_, k) => {
      const element = button("guess-" + (k + 1), make("kbd", { "aria-hidden": "true" }, String(k + 1)),
        () => onchoose(k), { class: "guess" });
      element.append(make("span", { class: "mono name" }), make("span", { class: "number" }),
        make("span", { class: "tick", "aria-hidden": "true" }, "✓"));
      return element;
    });
    const take = () => {
      const { value } = this.other;
      this.other.value = "";
      if (value) onother(value);
    };
    this.other = make("input", { id: "other", class: "mono", autocomplete: "off", autocapitalize: "off",
      spellcheck: "false", size: 3, oninput: (event) => { if (!event.isComposing) take(); },
      oncompositionend: take });
    this.another = make("label", { class: "inline" }, "or type another one ", this.other);
    this.element = make("section", { class: "card place", "aria-label": "The model's guesses" }, this.title,
      this.hint, make("ol", { class: "guesses" }, this.buttons.map((one) => make("li", {}, one))), this.another);
  }

  /**
   * - guesses: pairs of an id and its probability.
   * - own: the id in this place, or null.
   * - open: whether guesses can be chosen.
   */
  show({ title, hint, guesses, own, open }) {
    this.title.replaceChildren(...title);
    this.hint.textContent = hint;
    this.hint.hidden = !hint;
    this.element.classList.toggle("empty", !guesses.length);
    this.another.hidden = own === null || !open;
    this.buttons.forEach((element, k) => {
      const guess = guesses[k];
      element.parentNode.hidden = guess === undefined;
      if (guess === undefined) return;
      const [id, chance] = guess, name = shown_id(id), share = percent(chance), same = id === own;
      const [, label, number, tick] = element.children;
      label.textContent = name;
      number.textContent = share;
      tick.hidden = !same;
      element.disabled = !open;
      element.setAttribute("aria-label", `${k + 1}: ${name}, ${share}${same ? ", as in the text" : ""}`);
      element.style.setProperty("--chance", `${(100 * chance).toFixed(1)}%`);
    });
  }
}
