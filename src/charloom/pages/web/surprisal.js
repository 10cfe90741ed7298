// A text in which each character is colored by its surprisal, beside the model's predictions.

const { vocabulary } = DATA;
const CONTEXT = 12; // characters shown on each side of a surprising one

/** Describes one character: its surprisal, and the likeliest characters in its place. */
function describe(i, view, { ids, bits, guesses, probabilities }) {
  const count = guesses.length / Math.max(1, ids.length), rows = [];
  for (let k = 0; k < count; k++) {
    const id = guesses[i * count + k], probability = probabilities[i * count + k] / 10000;
    const bar = make("span", { class: "bar" });
    bar.style.width = probability * 7 + "rem";
    rows.push([named(vocabulary[id]) + (id === ids[i] ? " ✓" : ""),
      (100 * probability).toFixed(2) + "%", bar]);
  }
  return [
    make("p", {}, DATA.unit === "byte" ? "Byte " : "Character ", place_of(view, i)),
    make("p", {}, make("b", { id: "bits" }, bits[i].toFixed(3)), " bits of surprisal"),
    make("p", {}, "Predicted: ", make("b", { class: "mono", id: "expected" },
      count ? named(vocabulary[guesses[i * count]]) : "–")),
    table([["likeliest", "mono"], ["probability", "number"], ["", ""]], rows, { id: "likeliest" }),
  ];
}

/** The most surprising characters, with their contexts; a button moves the view to each. */
function most_surprising(view, bits) {
  const rows = DATA.surprising.map((i) => [
    bits[i].toFixed(2),
    make("button", { class: "mono", dir: "auto", "data-place": i, onclick: () => view.go(i) },
      view.text(i - CONTEXT, i), make("b", {}, view.text(i, i + 1)), view.text(i + 1, i + CONTEXT)),
  ]);
  return table([["bits", "number"], ["place", ""]], rows, { id: "surprising" });
}

function summary() {
  const { documents } = DATA, collection = documents !== null;
  return make("p", {}, collection
    ? `${counted(DATA.characters - documents)} and ` +
      `${grouped.format(documents)} ends of documents, `
    : `${counted(DATA.characters)}, `,
    make("b", { id: "mean" }, DATA.bits_per_character.toFixed(4)),
    ` bits per ${collection ? "symbol" : DATA.unit}, `,
    `${grouped.format(Math.round(DATA.total_bits))} bits in total, protocol ${DATA.protocol}; ` +
    `top-1 accuracy of the ${DATA.model}: ${(100 * DATA.accuracy).toFixed(1)}%.`);
}

start(async () => {
  const [ids, bits, guesses, probabilities] =
    await Promise.all(["ids", "bits", "guesses", "probabilities"].map(array));
  const readout = make("div", { id: "readout", "aria-live": "polite" });
  const view = new TextView(vocabulary, ids, {
    color: (i) => "s" + surprisal_level(bits[i]),
    onmove: (i) => readout.replaceChildren(...describe(i, view, { ids, bits, guesses, probabilities })),
  });
  show(
    masthead("surprisal"), make("h1", {}, "Surprisal of " + DATA.text), summary(),
    omissions().map((note) => make("p", { role: "note" }, note)),
    surprisal_legend(),
    make("div", { class: "reader" }, view.element,
      make("div", { class: "side" }, make("div", { class: "card" }, readout),
        make("div", { class: "card places" }, make("h2", {}, "Most surprising"), most_surprising(view, bits)))),
  );
  view.fit();
  view.move(0);
});
