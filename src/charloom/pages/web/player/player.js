// The player of an exported model: it writes as one watches, lets one write with the model's guesses,
// and scores a text. The engine runs in a worker, from which batches of characters arrive.

DATA.unit = DATA.kind === "bytes" ? "byte" : "character"; // as on the other pages of a text
const LONGEST = 50000; // characters of a text, as in worker.js
const SPOKEN = 300; // characters of a new text that are read aloud
const REMEMBERED = 50; // earlier texts

/** A line break that a model of lines does not know ends the document. */
const LINES = DATA.end !== null && !DATA.vocabulary.includes("\n");
const HINTS = {
  write: "Point at a character to see what the model expected there. Choose another one, and the text continues from there.",
  play: "Choose one, or type.",
  score: "Point at a character to see what the model expected there.",
};
const rate = (count, milliseconds) => grouped.format(Math.round(1000 * count / Math.max(1, milliseconds)));

/** A text and its view in one of the page's three rooms: write, play and score. */
class Room {
  constructor(player, name, title, label) {
    Object.assign(this, { player, name, title, sheet: new Sheet(), past: [], same: 0 });
    this.view = new SheetView(this.sheet, label, {
      color: (i) => player.color(this, i),
      onplace: () => player.refresh_place(),
      onkey: (event) => player.key(this, event),
    });
    this.view.element.id = "text-" + name;
    this.tab = make("button", { type: "button", role: "tab", id: "tab-" + name, "aria-controls": "room-" + name,
      onclick: () => player.enter(this) }, title);
    this.controls = make("section", { role: "tabpanel", id: "room-" + name, "aria-labelledby": "tab-" + name,
      class: "room" });
  }

  /** The place whose guesses are shown: the one pointed at; when playing, else the next one. */
  get place() {
    if (this.view.here >= 0) return this.view.here;
    return this.name === "play" ? this.sheet.length : -1;
  }

  remember() {
    if (!this.sheet.length) return;
    this.past.push(this.sheet.kept());
    if (this.past.length > REMEMBERED) this.past.shift();
  }
}

class Player {
  constructor() {
    this.job = 0;
    this.running = null; // {room, job}, while the worker is busy with a text
    this.settings = new Settings(DATA.defaults);
    this.units = new UnitPicker((unit) => this.post("unit", null, { unit }));
    this.strip = new Strip();
    this.status = make("p", { id: "status", role: "status" }, "Opening the model …");
    this.live = make("p", { id: "live", class: "unseen", "aria-live": "polite" });
    this.rooms = [
      new Room(this, "write", "Write", "The written text. Arrow keys go from character to character; " +
        "the keys 1 to 5 put another one in its place, and the text continues from there."),
      new Room(this, "play", "Play", "Your text. Arrow keys go from character to character; the keys 1 to 5 " +
        "put another one in its place."),
      new Room(this, "score", "Score", "The scored text. Arrow keys go from character to character."),
    ];
    [this.write, this.play, this.score] = this.rooms;
    this.build();
  }

  // The elements of the page.

  build() {
    this.build_rooms();
    this.colors = make("select", { id: "colors", onchange: () => this.repaint() },
      make("option", { value: "bits" }, "surprisal"), make("option", { value: "unit" }, "the unit below"));
    this.counter = make("span", { id: "counter", class: "soft", hidden: true });
    const tools = make("div", { class: "tools" },
      make("label", { class: "inline" }, "Colors: ", this.colors), surprisal_legend(2),
      make("span", { class: "push" }),
      this.undo = button("undo", "Undo", () => this.take_back(), { disabled: true }),
      button("copy", "Copy", () => this.copy()), button("download", "Download", () => this.download()));
    this.legend = tools.querySelector(".legend");
    const unit = make("section", { class: "card unit", "aria-label": "A unit of the network" },
      make("div", { class: "unit-head" }, make("h2", {}, "One unit"), this.units.element,
        make("div", { class: "reading" }, "now ", this.strip.value)), this.strip.element);
    this.guesses = new Guesses((k) => this.choose_guess(this.room, k), (value) => this.choose_other(value));
    const tabs = make("div", { class: "tabs", role: "tablist", "aria-label": "What to do with the model",
      onkeydown: (event) => this.switch_tab(event) }, this.rooms.map(({ tab }) => tab));
    show(
      masthead("a model in one page"),
      make("h1", {}, DATA.title), make("p", { class: "lead" },
        `A language model: it guesses the next ${DATA.unit}, and so it writes. Everything runs in this page.`),
      tabs,
      make("div", { class: "bench" },
        make("div", { class: "stage" }, this.rooms.map(({ controls }) => controls),
          make("div", { class: "news" }, this.status, this.counter), this.live,
          this.rooms.map(({ view }) => view.element), tools, unit),
        make("div", { class: "beside" }, this.guesses.element, this.settings.element, this.about())),
    );
    document.addEventListener("keydown", (event) => this.shortcut(event));
    new ResizeObserver(() => {
      this.strip.fit();
      this.schedule();
    }).observe(this.strip.row);
    this.enter(this.write);
  }

  build_rooms() {
    this.prompt = make("textarea", { id: "prompt", rows: 2, dir: "auto", spellcheck: "false",
      autocapitalize: "off" });
    this.prompt.value = DATA.defaults.prompt ?? "";
    this.halt = button("halt", "Stop", () => this.stop(), { disabled: true });
    this.write.controls.append(
      make("label", { for: "prompt" }, "Begin with"), this.prompt,
      make("div", { class: "actions" },
        button("go", "Write", () => this.start_writing(), { class: "main" }),
        button("more", "Continue", () => this.go_on(this.write)), this.halt));
    this.typing = make("textarea", { id: "typing", rows: 1, dir: "auto", spellcheck: "false",
      autocapitalize: "off", autocomplete: "off", autocorrect: "off", enterkeyhint: "enter", "aria-describedby": "typing-help",
      oninput: (event) => { if (!event.isComposing) this.take_typed(); },
      oncompositionend: () => this.take_typed(),
      onkeydown: (event) => this.typing_key(event) });
    this.digits = make("input", { type: "checkbox", id: "digits", checked: true });
    this.points = make("p", { id: "points", class: "figure" });
    this.play.controls.append(
      make("div", { class: "typing-row" },
        make("label", { for: "typing" }, "Type here"), this.typing,
        button("erase", "⌫", () => this.erase(), { "aria-label": "Erase the last character" }),
        button("play-more", "Let it continue", () => this.go_on(this.play)),
        button("clear", "Start over", () => this.start_over())),
      make("p", { id: "typing-help", class: "soft" }, "The keys 1 to 5 take the model's guesses; any other " +
        "key writes itself. ", LINES && "Enter ends the document. ",
      make("label", { class: "check" }, this.digits, "1 to 5 are guesses")),
      this.points);
    this.scored = make("textarea", { id: "scored", rows: 4, dir: "auto", spellcheck: "false" });
    this.result = make("p", { id: "result", class: "figure" });
    this.score.controls.append(
      make("label", { for: "scored" }, "A text to score", LINES && ", one document a line"), this.scored,
      make("div", { class: "actions" }, button("measure", "Score", () => this.start_scoring(), { class: "main" })),
      this.result);
  }

  about() {
    const bytes = Array.from(document.querySelectorAll("script, style"), (one) => one.textContent.length)
      .reduce((sum, length) => sum + length, 0);
    const weights = Object.entries(DATA.arrays).filter(([name]) => /^(rnn|decoder)\./.test(name))
      .reduce((sum, [, { shape }]) => sum + shape.reduce((product, size) => product * size, 1), 0);
    this.engine = make("dd", { id: "engine-kind" }, "…");
    const facts = [
      ["Trained on", DATA.trained_on ?? DATA.title],
      ["Model", DATA.description],
      ["Size", `${plural(weights, "weight")}, page of ${(bytes / 1e6).toFixed(1)} MB`],
      ["Knows", plural(DATA.vocabulary.length - (DATA.end === null ? 0 : 1), `different ${DATA.unit}`) +
        (DATA.end === null ? "" : " and the end of a document")],
      DATA.cost?.sentence ? ["Quality", DATA.cost.sentence] : null,
    ].filter(Boolean);
    const element = make("details", { class: "card about" }, make("summary", {}, "About this model"),
      make("dl", {}, facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
        make("dt", {}, "Computed by"), this.engine));
    element.open = this.settings.element.open;
    return element;
  }

  // Messages to and from the worker.

  post(kind, room, options = {}) {
    this.job += 1;
    this.worker.postMessage({ kind, text: room?.name, job: this.job, ...options });
    return this.job;
  }

  /** Starts a command that can take a while. It replaces the one that runs. */
  begin(kind, room, options) {
    this.stop(null);
    this.running = { room, job: this.post(kind, room, options) };
    this.halt.disabled = this.counter.hidden = false;
    document.body.classList.add("busy");
  }

  /** Stops the worker's work at once. */
  stop(message = "Stopped.") {
    if (!this.running) return;
    this.worker.postMessage({ kind: "halt", job: this.job });
    this.end_running();
    if (message) this.report(message);
  }

  end_running() {
    this.running = null;
    if (document.activeElement === this.halt) this.write.view.element.focus({ preventScroll: true });
    this.halt.disabled = this.counter.hidden = true;
    document.body.classList.remove("busy");
  }

  open() {
    const packed = {};
    for (const element of document.querySelectorAll("[id^=array-]")) {
      packed[element.id.slice("array-".length)] = [element.dataset.type, element.textContent];
      element.remove(); // it takes memory
    }
    const code = document.getElementById("engine").textContent;
    const place = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.worker = new Worker(place);
    this.worker.onmessage = ({ data }) => this["on_" + data.kind](data);
    this.worker.onerror = (event) => this.on_failed(event);
    this.worker.postMessage({ kind: "open", packed, header: DATA });
    this.post("unit", null, { unit: this.units.unit });
  }

  on_ready({ compiled }) {
    this.engine.textContent = compiled ? "WebAssembly" : "JavaScript";
    this.post("erase", this.play, { count: 0 }); // it returns the guesses for the first character
    if (this.running) return; // the reader was faster
    this.report("Ready.");
    this.start_writing(false);
  }

  on_failed({ message }) {
    this.end_running();
    this.report("This page failed: " + (message || "the browser does not start its worker") +
      ". It needs a browser from 2023 or later.", true);
  }

  room_of({ text }) {
    return this.rooms.find(({ name }) => name === text);
  }

  on_characters(batch) {
    const room = this.room_of(batch);
    room.same = Math.min(room.same, batch.begin);
    room.sheet.add(batch);
    this.schedule();
  }

  on_cut(data) {
    const room = this.room_of(data);
    room.same = Math.min(room.same, data.length);
    room.sheet.cut(data);
    this.schedule();
  }

  on_restart(data) {
    this.room_of(data).sheet.restarts.add(data.place);
  }

  on_unit(data) {
    const { sheet } = this.room_of(data);
    if (data.unit !== this.units.unit) return;
    sheet.unit = data.unit;
    sheet.values.set(data.values.subarray(0, sheet.values.length));
    this.schedule();
    this.repaint();
  }

  on_done(data) {
    const room = this.room_of(data);
    room.sheet.next = data.next;
    this.refresh(); // before the report, so that it describes the visible text
    if (room === this.play) this.tell_guesses();
    if (this.running?.job !== data.job) return;
    this.end_running();
    this.report(this.outcome(room, data) + this.unknown(room, data.unknown));
    if (room === this.score) this.show_result(data);
    else if (data.reason !== "restored") this.read_aloud(room.sheet, data.appended);
  }

  /** Has the beginning of the latest text read aloud. */
  read_aloud({ ids, length }, count) {
    const fresh = ids.subarray(Math.max(0, length - count), length).subarray(0, SPOKEN);
    this.say(Array.from(fresh, (id) => DATA.vocabulary[id] || ". ").join(""));
  }

  outcome(room, { reason, computed, appended }) {
    const ends = { end: "The document ended. ", stop: "The stop text came. ",
      full: `The text has ${counted(LONGEST)}, which is the most. ` };
    if (reason === "restored") return "Taken back.";
    const documents = room.sheet.restarts.size + 1;
    const end = documents > 1 ? `${plural(documents, "document")}. ` : ends[reason] ?? "";
    return `${end}${counted(appended)} in ${(computed / 1000).toFixed(2)} s of computing, ` +
      `${rate(appended, computed)} a second` +
      (room === this.score ? "." : `; ${room.sheet.mean().bits.toFixed(2)} bits per ${DATA.unit}.`);
  }

  unknown(room, characters) {
    if (!characters?.length) return "";
    const kinds = [...new Set(characters)], scored = room === this.score && DATA.unseen;
    const name = (one) => (DATA.kind !== "bytes" ? named(one)
      : "\\x" + one.charCodeAt(0).toString(16).padStart(2, "0"));
    const how = scored ? `, at ${DATA.unseen.unknown.toFixed(1)} bits each` : " and skipped";
    return ` Unknown to the model${how}: ${kinds.slice(0, 8).map(name).join(", ")}` +
      `${kinds.length > 8 ? " …" : ""}.`;
  }

  // What the buttons and keys do.

  options() {
    return { ...this.settings.values(), prompt: this.prompt.value };
  }

  valid() {
    const fault = this.settings.fault();
    if (fault) this.report(fault, true);
    return !fault;
  }

  start_writing(renew = true) {
    if (!this.valid()) return;
    if (renew) this.settings.renew();
    this.write.remember();
    this.launch("write", this.write, this.options());
  }

  go_on(room) {
    if (!this.valid()) return;
    if (room === this.write && !room.sheet.length) this.start_writing();
    else this.launch("more", room, this.options());
  }

  launch(kind, room, options) {
    this.begin(kind, room, options);
    room.view.leave();
    this.report(kind === "score" ? "Reading …" : "Writing …");
    this.refresh_undo();
  }

  start_scoring() {
    if (!this.scored.value) {
      this.report("There is no text to score: paste or type one.", true);
      this.scored.focus();
      return;
    }
    this.result.textContent = "";
    this.launch("score", this.score, { scored: this.scored.value });
  }

  /** Puts guess k, or an id, in the place that is pointed at. */
  choose(room, id) {
    const { place } = room;
    if (place < 0 || room === this.score || !this.valid()) return;
    if (place < room.sheet.length) room.remember();
    if (room === this.write) {
      this.launch("choose", room, { place, id, options: this.options() });
      room.view.element.focus({ preventScroll: true });
    } else {
      this.stop(null);
      room.view.leave();
      this.post("choose", room, { place, id, options: null });
    }
    this.refresh_undo();
  }

  choose_guess(room, k) {
    const guess = room.sheet.likeliest(room.place)[k];
    if (guess) this.choose(room, guess[0]);
    return guess !== undefined;
  }

  take_typed() {
    const typed = this.typing.value;
    this.typing.value = "";
    if (!typed) return;
    this.stop(null);
    this.play.view.leave();
    if (this.digits.checked && /^[1-5]$/.test(typed)) {
      this.post("take", this.play, { guess: Number(typed) - 1 });
    } else if (LINES && typed === "\n") {
      this.post("choose", this.play, { place: null, id: DATA.end });
    } else {
      this.post("type", this.play, { typed });
    }
  }

  typing_key(event) {
    if (event.key === "Backspace" && !this.typing.value) {
      event.preventDefault();
      this.erase();
    } else if (event.key === "ArrowUp" && this.play.sheet.length) {
      event.preventDefault();
      this.play.view.element.focus();
      this.play.view.pin(this.play.sheet.length - 1);
    }
  }

  erase() {
    this.stop(null);
    const { view, sheet } = this.play;
    let count = 1;
    while (view.points?.[sheet.length - count] === REST && count < sheet.length) count += 1;
    this.post("erase", this.play, { count });
    this.typing.focus();
  }

  start_over() {
    this.stop(null);
    this.play.remember();
    this.post("erase", this.play, { count: this.play.sheet.length + LONGEST });
    this.refresh_undo();
    this.typing.focus();
  }

  take_back() {
    const { room } = this, past = room.past.pop();
    if (!past) return;
    this.launch("restore", room, past);
  }

  /** A key in the view of a text. Returns true if it has been used. */
  key(room, event) {
    if (!/^[1-9]$/.test(event.key) || room.view.here < 0) return false;
    if (this.choose_guess(room, Number(event.key) - 1)) event.preventDefault();
    return true;
  }

  shortcut(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (this.room === this.write) this.start_writing();
      if (this.room === this.play) this.go_on(this.play);
      if (this.room === this.score) this.start_scoring();
    } else if (event.key === "Escape") {
      this.stop();
    }
  }

  switch_tab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const { rooms } = this;
    const next = rooms[(rooms.indexOf(this.room) + step + rooms.length) % rooms.length];
    this.enter(next);
    next.tab.focus();
  }

  enter(room) {
    if (this.running && this.running.room !== room) this.stop();
    this.room = room;
    for (const one of this.rooms) {
      const here = one === room;
      one.controls.hidden = one.view.element.hidden = !here;
      one.tab.setAttribute("aria-selected", String(here));
      one.tab.tabIndex = here ? 0 : -1;
    }
    this.settings.element.hidden = room === this.score;
    this.status.textContent = "";
    this.refresh_undo();
    this.schedule();
    if (room === this.play && matchMedia("(pointer: fine)").matches) this.typing.focus({ preventScroll: true });
  }

  async copy() {
    const text = this.room.sheet.text();
    if (!text) return this.report("There is no text to copy.", true);
    // The old command first, because a frame of another origin must not use the clipboard's interface.
    const field = make("textarea", { class: "unseen", "aria-hidden": "true", tabindex: -1 });
    const { activeElement } = document;
    field.value = text;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    activeElement?.focus({ preventScroll: true });
    try {
      if (!copied) await navigator.clipboard.writeText(text);
    } catch {
      return this.report("The browser does not permit copying: use Download.", true);
    }
    return this.report("Copied.");
  }

  download() {
    const { sheet, name } = this.room;
    if (!sheet.length) {
      this.report("There is no text to download.", true);
      return;
    }
    const title = DATA.title.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "-") || "text";
    const seed = name === "write" ? "-seed-" + this.settings.seed.value : "";
    const link = make("a", { download: `${title}${seed}.txt`,
      href: URL.createObjectURL(new Blob([sheet.bytes()], { type: "text/plain" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    this.report("Downloaded as " + link.download + ".");
  }

  // Updates of the page.

  report(text, fault = false) {
    this.status.textContent = text;
    this.status.classList.toggle("fault", fault);
  }

  /** Has a text read aloud, unless another one follows at once. */
  say(text) {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { this.live.textContent = text; }, 500);
  }

  tell_guesses() {
    const { sheet } = this.play;
    if (document.activeElement !== this.typing || !sheet.next) return;
    this.say("Guesses: " + sheet.likeliest(sheet.length).map(([id], k) => `${k + 1} ${shown_id(id)}`).join(", "));
  }

  color(room, i) {
    if (room.sheet.given[i]) return "";
    return this.colors.value === "unit" ? activation_level(room.sheet.values[i])
      : "s" + surprisal_level(room.sheet.bits[i]);
  }

  repaint() {
    this.legend.hidden = this.colors.value === "unit";
    for (const { view, sheet } of this.rooms) view.repaint(0, sheet.length);
  }

  /** Shows the characters that have arrived, with the next frame. */
  schedule() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.refresh();
    });
  }

  refresh() {
    const { room } = this;
    if (room.same < room.sheet.length || room.view.known !== room.sheet.length) {
      room.view.grow(room.same);
      room.same = room.sheet.length;
    }
    this.strip.show(room.view, room.view.here);
    this.counter.textContent = plural(room.sheet.length, DATA.unit);
    if (room === this.play) this.show_points();
    this.refresh_place();
  }

  refresh_undo() {
    this.undo.disabled = !this.room.past.length;
  }

  show_points() {
    const { bits, count, first, five } = this.play.sheet.mean();
    this.points.replaceChildren(...(count ? [make("b", {}, bits.toFixed(2)), ` bits per ${DATA.unit} · `,
      make("b", {}, percent(first)), " were its first guess · ", make("b", {}, percent(five)), " were among its five"]
      : ["Surprise the model, or let it lead you."]));
  }

  show_result({ left_out, unknown }) {
    const { bits, count, first } = this.score.sheet.mean();
    const missed = DATA.unseen && !left_out ? unknown.length : 0, total = count + missed;
    const mean = (bits * count + (missed && missed * DATA.unseen.unknown)) / Math.max(1, total);
    this.result.replaceChildren(make("b", { id: "mean" }, mean.toFixed(3)), ` bits per ${DATA.unit} · ` +
      `${plural(total, DATA.unit)}${DATA.end === null ? "" : ", ends included"} · `,
    make("b", {}, percent(first * count / Math.max(1, total))), " were its first guess",
    left_out ? ` · the last ${plural(left_out, DATA.unit)} were omitted` : "");
  }

  /** Shows the guesses for the place that is pointed at. */
  refresh_place() {
    const { room } = this;
    if (!room) return;
    const { sheet, view, place } = room, inside = place >= 0 && place < view.ids.length;
    const guesses = place < 0 ? [] : sheet.likeliest(place);
    if (this.strip.row.isConnected) this.strip.show(view, view.here);
    const state = [room.name, place, inside && sheet.ids[place], view.pinned, ...guesses.flat()].join();
    if (state === this.last_place) return;
    this.last_place = state;
    const whole = inside ? view.whole(place) : null;
    const title = inside ? [make("b", { class: "mono", id: "character" }, shown_id(sheet.ids[place])),
      ...(whole ? [" of ", make("b", { class: "mono" }, whole)] : []), ": surprisal ",
      make("b", { id: "bits" }, sheet.bits[place].toFixed(2)), " bits"]
      : [place < 0 ? "The model's guesses" : "Next " + DATA.unit];
    this.guesses.show({ title, guesses, hint: inside ? "" : HINTS[room.name],
      own: inside ? sheet.ids[place] : null, open: room !== this.score });
    if (inside && view.pinned) {
      this.say(`${shown_id(sheet.ids[place])}, ${sheet.bits[place].toFixed(1)} bits. ` +
        guesses.map(([id, chance], k) => `${k + 1} ${shown_id(id)} ${percent(chance)}`).join(", "));
    }
  }

  /** Takes a character that has been typed for the place that is pointed at. */
  choose_other(value) {
    const id = DATA.vocabulary.indexOf(value);
    if (id >= 0) this.choose(this.room, id);
    else this.report("Unknown to the model: " + Array.from(value).map(named).join(" ") + ".", true);
  }
}

start(async () => {
  new Player().open();
});
