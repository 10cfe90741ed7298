// A text, each character colored by its surprisal; what was expected there stands at its side.

const LEVELS = 12;
const BITS_AT_TOP = 9; // the strongest color is for so many bits and more

function level(bits) {
  return Math.min(LEVELS, Math.floor((bits / BITS_AT_TOP) * LEVELS));
}

start(async () => {
  const { vocabulary } = DATA;
  const [ids, bits, guesses, probabilities] =
    await Promise.all(["ids", "bits", "guesses", "probabilities"].map(array));
  const count = guesses.length / Math.max(1, ids.length);
  const percent = (chance) => (chance / 100).toFixed(2) + "%";

  const readout = make("div", { id: "readout", "aria-live": "polite" });
  const view = new TextView(vocabulary, ids, {
    color: (i) => "s" + level(bits[i]),
    onmove(i) {
      const rows = [];
      for (let k = 0; k < count; k++) {
        const id = guesses[i * count + k], chance = probabilities[i * count + k];
        const bar = make("span", { class: "bar" });
        bar.style.width = (chance / 10000) * 7 + "rem";
        const mark = id === ids[i] ? " ✓" : "";
        rows.push([named(vocabulary[id]) + mark, percent(chance), bar]);
      }
      readout.replaceChildren(
        make("p", {}, "Character ", make("b", { class: "mono", id: "character" },
          named(vocabulary[ids[i]])), ` at ${grouped.format(i)}`),
        make("p", {}, make("b", { id: "bits" }, bits[i].toFixed(3)), " bits of surprisal"),
        make("p", {}, "Expected: ", make("b", { class: "mono", id: "expected" },
          count ? named(vocabulary[guesses[i * count]]) : "–")),
        table([["likeliest", "mono"], ["probability", "number"], ["", ""]], rows,
          { id: "likeliest" }),
      );
    },
  });

  const legend = [make("span", { class: "name" }, "bits:")];
  for (let k = 0; k <= LEVELS; k++) {
    const from = (k * BITS_AT_TOP) / LEVELS;
    const text = k === LEVELS ? `${BITS_AT_TOP} and more` : Number(from.toFixed(2)) + "";
    legend.push(make("span", { class: "swatch s" + k }, text));
  }

  const context = (i) => {
    const part = (begin, end) => Array.from(ids.subarray(Math.max(0, begin), end),
      (id) => visible(vocabulary[id])).join("");
    return [part(i - 12, i), make("b", {}, part(i, i + 1)), part(i + 1, i + 12)];
  };
  const places = DATA.surprising.map((i) => [
    bits[i].toFixed(2),
    make("button", { class: "mono", "data-place": i, onclick: () => view.go(i) }, context(i)),
  ]);

  const cut = DATA.shown < DATA.characters
    ? make("p", { role: "note" }, `This page shows the first ${grouped.format(DATA.shown)} of ` +
      `${grouped.format(DATA.characters)} characters.`) : null;
  const skipped = DATA.skipped_characters
    ? make("p", {}, `${grouped.format(DATA.skipped_characters)} unknown characters were passed over.`)
    : null;
  show(
    make("h1", {}, "Surprisal of " + DATA.text),
    make("p", {}, `${grouped.format(DATA.characters)} characters, `,
      make("b", { id: "mean" }, DATA.bits_per_character.toFixed(4)), " bits per character, ",
      `${grouped.format(Math.round(DATA.total_bits))} bits in all; protocol ${DATA.protocol}; ` +
      `the ${DATA.model}’s top guess is right ${(100 * DATA.accuracy).toFixed(1)}% of the time.`),
    [cut, skipped].filter(Boolean),
    make("div", { class: "legend", role: "img",
      "aria-label": `Legend: the stronger the color, the more bits, up to ${BITS_AT_TOP}.` }, legend),
    make("div", { class: "reader" },
      view.element,
      make("div", { class: "side" }, readout,
        make("h2", {}, "Most surprising"),
        make("div", { class: "places" },
          table([["bits", "number"], ["place", ""]], places, { id: "surprising" })))),
  );
  view.fit();
  view.move(0);
});
