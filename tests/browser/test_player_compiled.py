"""The engine of exported pages in WebAssembly predicts what plain JavaScript predicts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import charloom
from helpers.player import run_engine
from helpers.runs import TINY, train_tiny
from helpers.texts import EINMALEINS

MIXER = ("--counts=context-mixing", "--read-counts")


class Kind(NamedTuple):
    """Options of a training, the units of its last layer, and megabytes of the page."""

    options: tuple[str, ...]
    units: int = 8
    megabytes: float = 4.0


KINDS = {
    "rnn of two layers": Kind(("--cell=rnn", "--layers=2", "--no-mix")),
    "gru that reads a mixer": Kind(("--cell=gru", "--hidden-size=33", *MIXER), 33),
    "normalized gru that reads a mixer": Kind(("--hidden-size=33", "--norm=rms", *MIXER), 33),
    "lstm of lines with n-grams": Kind(("--cell=lstm", "--layers=2", "--lines")),
    "lstm of bytes, pruned": Kind(("--cell=lstm", "--bytes", *MIXER), megabytes=0.3),
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
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], str]:
    """`export(kind)` trains a model and returns its page."""

    def made(kind: Kind) -> str:
        folder = tmp_path_factory.mktemp("player")
        run = train_tiny(folder, EINMALEINS, *TINY, "--steps=20", "--threads=1", *kind.options)
        return str(charloom.export_html(run, size=kind.megabytes))

    return made


@pytest.fixture
def window(browser: Any) -> Iterator[Any]:
    page = browser.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("name", KINDS)
def test_predictions_are_those_of_plain_javascript(
    window: Any, export: Callable[[Kind], str], name: str
) -> None:
    found = run_engine(window, export(KINDS[name]), COMPARE, compiled=True)
    assert found["isCompiled"]
    assert found["isPruned"] == ("pruned" in name)
    assert found["worst"] <= 1e-4
    assert found["activation"] <= 1e-5
    assert found["same"]
    assert found["total"] == pytest.approx(1, abs=1e-3)  # rounded n-grams do not add up to 1
    assert found["size"] == len(found["vocabulary"])
    assert found["units"] == KINDS[name].units


def test_there_is_none_without_its_code_or_vectors_or_a_permission(
    window: Any, export: Callable[[Kind], str], tmp_path: Path
) -> None:
    page = export(KINDS["rnn of two layers"])
    strict = tmp_path / "strict.html"
    strict.write_text(
        '<meta http-equiv="Content-Security-Policy" content="script-src \'self\' blob:">',
        encoding="utf-8",
    )
    script = """
      const without = { ...arrays, "player.wasm": undefined };
      const unknown = { ...arrays, "player.wasm": arrays["player.wasm"].slice(0, 100) };
      const found = [];
      for (const these of [without, unknown, arrays]) {
        found.push((await createCompiledModel(header, these)) === null);
      }
      return found;
    """
    assert run_engine(window, page, script) == [True, True, False]
    window.goto(strict.as_uri())
    assert run_engine(window, page, script) == [True, True, True]
