"""Measure how fast exported pages write in headless Chromium, in characters per second.

    charloom export RUN --to html --out PAGE.html
    python -m benchmarks.player PAGE.html [PAGE.html …] [--length 5000] [--rounds 3]

In a worker, as on the page, the compiled engine and the one in plain JavaScript take turns. Both
write a sample at temperature 1. Each speed is a median.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

PLAIN_SHARE = 10  # a sample in plain JavaScript is shorter by this factor

WORKER = """async ([isCompiled, length]) => {
  const stored = {};
  for (const element of document.querySelectorAll("[id^=array-]")) {
    stored[element.id.slice(6)] = [element.textContent, element.dataset.type];
  }
  const code = document.getElementById("engine").textContent + `
    const kinds = [Int8Array, Uint8Array, Int32Array, Uint32Array, Float32Array];
    const types = Object.fromEntries(
      kinds.map((kind) => [kind.name.replace("Array", "").toLowerCase(), kind]));
    const settings = { temperature: 1, top_k: null, top_p: null, min_p: null };
    function write(model, seed, length) {
      const state = model.newState(), random = new RandomNumbers(seed);
      let id = model.header.start
      while (length-- > 0) id = chooseNext(model.step(state, id), settings, random.next());
    }
    onmessage = async ({ data: [header, stored, isCompiled, length] }) => {
      const arrays = {};
      for (const [name, [text, type]] of Object.entries(stored)) {
        const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
        arrays[name] = new types[type](await new Response(stream).arrayBuffer());
      }
      const model = isCompiled ? await createCompiledModel(header, arrays)
        : new PlayerModel(header, arrays);
      write(model, 0, 200);
      const start = performance.now();
      write(model, 1, length);
      postMessage(length / (performance.now() - start) * 1000);
    };`;
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const header = JSON.parse(document.getElementById("data").textContent);
  const answer = await new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage([header, stored, isCompiled, length]);
  });
  worker.terminate();
  return answer;
}"""


def speeds(page: Any, length: int, rounds: int) -> tuple[float, float]:
    """Return the characters per second of the compiled engine and of the plain one."""
    compiled, plain = [], []
    for _ in range(rounds):
        compiled.append(page.evaluate(WORKER, [True, length]))
        plain.append(page.evaluate(WORKER, [False, length // PLAIN_SHARE]))
    return statistics.median(compiled), statistics.median(plain)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.player",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE.html")
    parser.add_argument("--length", type=int, default=5000, help="characters of a sample")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        print(
            "| page | MB | WebAssembly | plain JavaScript |",
            "| --- | ---: | ---: | ---: |",
            sep="\n",
        )
        for path in options.pages:
            html = path.read_text(encoding="utf-8")
            # The page's own script would take the arrays away.
            silent = Path(name) / "page.html"
            silent.write_text(
                re.sub("<script>.*?</script>", "", html, flags=re.DOTALL), encoding="utf-8"
            )
            page = browser.new_page()
            page.goto(silent.as_uri())
            compiled, plain = speeds(page, options.length, options.rounds)
            size = path.stat().st_size / 1e6
            print(f"| {path.stem} | {size:.2f} | {compiled:,.0f} | {plain:,.0f} |", flush=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
