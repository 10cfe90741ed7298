// The history of the playground, a list that restores a text with its settings, and links to the page.
// A link has the settings in its fragment, which no browser sends to a server.

const MOST_WRITTEN = 50; // texts in the list
const MOST_STORED = 2e6; // characters of JSON in the tab's storage; older texts are then forgotten
const EXCERPT = 160; // characters of a text in the list

/** The settings of a link's fragment: values by name, as text. It is null without any. */
function settings_of(fragment) {
  const found = Object.fromEntries(new URLSearchParams(fragment.replace(/^#/, "")));
  return Object.keys(found).length ? found : null;
}

/** The page's address with settings in the fragment. Empty values are omitted. */
function link_to(settings) {
  const filled = Object.entries(settings).filter(([, value]) => value !== "");
  return address("").split("#")[0] + "#" + new URLSearchParams(filled);
}

/** The beginning of a text of tokens. The last of them can be a byte in the middle of a character. */
function beginning(tokens) {
  const texts = [0, 1, 2, 3].map((bytes) => text_of(tokens.slice(0, EXCERPT - bytes)));
  return texts.find((text) => text !== null) ?? tokens.slice(0, EXCERPT).join("");
}

/** The list of written texts, latest first. The tab's storage keeps it over a reload. */
class Written {
  /** - onrestore(entry): called to show a text and its settings again. */
  constructor(onrestore) {
    this.onrestore = onrestore;
    this.name = "charloom " + address("");
    this.entries = this.stored(); // {settings, texts: a pane's texts, or those of both}
    this.list = make("ol", { class: "written" });
    this.note = make("p", { class: "soft small" }, "Texts of this tab appear here, with their seeds.");
    this.clear_button = make("button", { id: "clear", onclick: () => this.keep([]) }, "Clear");
    this.element = make("section", { class: "card", id: "history", "aria-label": "History" },
      make("div", { class: "titled" }, make("h2", {}, "History"), this.clear_button), this.note, this.list);
    this.draw();
  }

  stored() {
    try {
      return JSON.parse(sessionStorage.getItem(this.name)) ?? [];
    } catch { // no storage, or not ours
      return [];
    }
  }

  add(entry) {
    this.keep([entry, ...this.entries].slice(0, MOST_WRITTEN));
  }

  keep(entries) {
    this.entries = entries;
    this.draw();
    const pieces = [];
    let length = 0;
    for (const piece of entries.map((entry) => JSON.stringify(entry))) {
      length += piece.length + 1;
      if (length > MOST_STORED) break;
      pieces.push(piece);
    }
    try {
      sessionStorage.setItem(this.name, `[${pieces}]`);
    } catch { /* a browser without storage keeps the list until the page is closed */ }
  }

  draw() {
    this.note.hidden = this.entries.length > 0;
    this.clear_button.hidden = !this.entries.length;
    this.list.replaceChildren(...this.entries.map((entry) => make("li", {}, this.button(entry))));
  }

  button(entry) {
    const { settings, texts } = entry;
    const written = texts[0].map((symbols) =>
      beginning(symbols.map(([text]) => text).filter((text) => text !== END))).join(" · ");
    const facts = [`seed ${settings.seed}`, `temperature ${settings.temperature || 1}`,
      ...(texts[0].length > 1 ? [plural(texts[0].length, "text")] : []),
      ...(texts.length > 1 ? ["two settings"] : []), ...(settings.guided_regex ? ["a pattern"] : []),
      settings.model];
    return make("button", { onclick: () => this.onrestore(entry) },
      make("span", { class: "mono excerpt", dir: "auto" },
        make("span", { class: "given" }, settings.prompt.slice(-EXCERPT / 4)), written.slice(0, EXCERPT)),
      make("span", { class: "soft facts" }, facts.join(" · ")));
  }
}
