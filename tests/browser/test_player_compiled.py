"""The engine of exported pages in WebAssembly predicts what plain JavaScript predicts."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import charloom
from helpers.player import run_engine
from helpers.runs import TINY, train_tiny
from helpers.texts import EINMALEINS

MIXER = ("--counts=context-mixing", "--read-counts")


class Kind(NamedTuple):
    """Options of a training, and megabytes of the page."""

    options: tuple[str, ...]
    megabytes: float = 4.0


KINDS = {
    "rnn, two layers": Kind(("--cell=rnn", "--layers=2", "--no-mix")),
    "gru, n-grams": Kind(("--cell=gru",)),
    "lstm, n-grams of lines": Kind(("--cell=lstm", "--layers=2", "--lines")),
    "gru that reads a mixer": Kind(("--cell=gru", "--hidden-size=33", *MIXER)),
    "gru beside a mixer of lines": Kind(("--cell=gru", "--lines", "--counts=context-mixing")),
    "lstm of bytes, pruned": Kind(("--cell=lstm", "--bytes", *MIXER), 0.3),
}

# Both models read a text of their own samples, from copies of a state, and the state they are
# copied from stays as it was.
COMPARE = """
  const plain = new PlayerModel(header, arrays);
  const models = [plain, model];
  const numbers = new RandomNumbers(7);
  let states = models.map((one) => one.newState());
  let [id, worst, activation] = [header.start, 0, 0];
  const step = () => {
    const [a, b] = models.map((one, i) => one.step(states[i], id).slice());
    a.forEach((log, v) => { worst = Math.max(worst, Math.abs(log - b[v])); });
    const [x, y] = models.map((one, i) => one.activations(states[i]));
    x.forEach((value, i) => { activation = Math.max(activation, Math.abs(value - y[i])); });
    id = chooseNext(a, { temperature: 1.5, top_k: null, top_p: null, min_p: null }, numbers.next());
    return b;
  };
  for (let i = 0; i < 150; i++) step();
  const [before, last] = [states, id];
  states = models.map((one, i) => one.cloneState(before[i]));
  const once = step();
  for (let i = 0; i < 30; i++) step();
  [states, id] = [before, last];
  const again = step();
  const total = again.reduce((sum, log) => sum + Math.exp(log), 0);
  return {
    worst, activation, total, size: again.length, units: model.activations(states[1]).length,
    same: once.every((log, v) => log === again[v]), isCompiled: model instanceof CompiledModel,
    vocabulary: model.vocabulary, isPruned: header.counts?.probing ?? false,
  };
"""


@pytest.fixture(scope="module")
def open_engine(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Any]]:
    """`open_engine(kind)` trains a model, exports it and opens its page.

    The page is without its own script, which would take the arrays away, and without a part of its
    policy.
    """
    window = browser.new_context()

    def open_(kind: Kind, without: str = "") -> Any:
        folder = tmp_path_factory.mktemp("player")
        run = train_tiny(folder, EINMALEINS, *TINY, "--steps=20", "--threads=1", *kind.options)
        html = str(charloom.export_html(run, size=kind.megabytes))
        html = re.sub("<script>.*?</script>", "", html, flags=re.DOTALL)
        path = folder / "page.html"
        path.write_text(html.replace(without, ""), encoding="utf-8")
        page = window.new_page()
        page.goto(path.as_uri())
        return page

    yield open_
    window.close()


@pytest.mark.parametrize("name", KINDS)
def test_predictions_are_those_of_plain_javascript(
    open_engine: Callable[..., Any], name: str
) -> None:
    page = open_engine(KINDS[name])
    found = run_engine(page, COMPARE, compiled=True)
    assert found["isCompiled"]
    assert found["isPruned"] == ("pruned" in name)
    assert found["worst"] <= 1e-4
    assert found["activation"] <= 1e-5
    assert found["same"]
    assert found["total"] == pytest.approx(1, abs=1e-3)  # rounded n-grams do not add up to 1
    assert found["size"] == len(found["vocabulary"])
    assert found["units"] == (33 if "33" in "".join(KINDS[name].options) else 8)


def test_there_is_none_without_its_code_or_vectors_or_a_permission(
    open_engine: Callable[..., Any],
) -> None:
    page = open_engine(KINDS["rnn, two layers"], " 'wasm-unsafe-eval'")
    script = """
      const without = { ...arrays, "player.wasm": undefined };
      const unknown = { ...arrays, "player.wasm": arrays["player.wasm"].slice(0, 100) };
      const found = [];
      for (const these of [without, unknown, arrays]) {
        found.push(await createCompiledModel(header, these));
      }
      return [...found, WebAssembly.validate(arrays["player.wasm"])];
    """
    assert run_engine(page, script) == [None, None, None, True]
