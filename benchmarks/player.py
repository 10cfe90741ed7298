"""Measure the engines of exported pages in headless Chromium: characters per second that they write.

    python -m benchmarks.player RUN [RUN …] [--size 4] [--length 5000] [--rounds 3]

A page is exported of every run. In a worker, as on the page, the compiled engine and the one in
plain JavaScript take turns and write a sample at temperature 1. Each speed is a median.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import charloom

PLAIN_SHARE = 10  # a sample in plain JavaScript is so many times shorter

WORKER = """async ([isCompiled, length]) => {
  const stored = {};
  for (const element of document.querySelectorAll("[id^=array-]")) {
    stored[element.id.slice(6)] = [element.textContent, element.dataset.type];
  }
  const code = document.getElementById("engine").textContent + `
    const types = {
      int8: Int8Array, uint8: Uint8Array, int32: Int32Array, uint32: Uint32Array,
      float32: Float32Array,
    };
    const settings = { temperature: 1, top_k: null, top_p: null, min_p: null };
    function write(model, seed, length) {
      const sample = new Sample(model, { settings, seed, length });
      while (sample.next());
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
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--size", type=float, default=4.0, help="megabytes of a page")
    parser.add_argument("--length", type=int, default=5000, help="characters of a sample")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as started:
        pages = []
        for number, run in enumerate(options.runs):
            html = charloom.export_html(run, size=options.size)
            pages.append((run, len(html.encode()), Path(name) / f"{number}.html"))
            # The page's own script would take the arrays away.
            shown = re.sub("<script>.*?</script>", "", html, flags=re.DOTALL)
            pages[-1][2].write_text(shown, encoding="utf-8")
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        print("| run | page in MB | WebAssembly | plain JavaScript |\n| --- | ---: | ---: | ---: |")
        for run, size, path in pages:
            page = browser.new_page()
            page.goto(path.as_uri())
            compiled, plain = speeds(page, options.length, options.rounds)
            print(f"| {run} | {size / 1e6:.2f} | {compiled:,.0f} | {plain:,.0f} |", flush=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
