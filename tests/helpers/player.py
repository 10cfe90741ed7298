"""The engine of an exported page, in a worker, as the page itself starts it."""

import json
import re
from typing import Any

# Runs a script with `header`, `arrays` and a `model` of one of the engines; resolves to its result.
ENGINE = """async ([engine, header, stored, script, compiled]) => {
  const code = engine + `
    ;(async () => {
      const header = ${header};
      const arrays = {};
      for (const [name, type, text] of ${JSON.stringify(stored)}) {
        const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
        const buffer = await new Response(stream).arrayBuffer();
        const types = { int8: Int8Array, int32: Int32Array, float32: Float32Array };
        arrays[name] = new (types[type] ?? Uint8Array)(buffer);
      }
      const model = ${compiled} ? await createCompiledModel(header, arrays)
        : new PlayerModel(header, arrays);
      return await (async () => { ${script} })();
    })().then((result) => postMessage({ result }), (error) => postMessage({ error: error.stack }))`;
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const answer = await new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => ("result" in data || "error" in data) && resolve(data);
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.terminate();
  if (answer.error) throw new Error(answer.error);
  return answer.result;
}"""
ARRAY = re.compile(r'<script [^>]*id="array-([^"]+)" data-type="(\w+)">([^<]*)</script>')
DATA = re.compile(r'<script type="application/json" id="data">([^<]*)</script>')
CODE = re.compile(r'<script type="text/plain" id="engine">(.*?)</script>', re.DOTALL)


def header_of(html: str) -> dict[str, Any]:
    """Return the data of a page."""
    found = DATA.search(html)
    assert found is not None
    return dict(json.loads(found[1]))


def run_engine(window: Any, html: str, script: str, *, compiled: bool = False) -> Any:
    """Run a script in the engine of a page, in any window of a browser.

    Args:
        window: Playwright's page.
        html: the exported page.
        script: the body of a function, whose result is returned.
        compiled: whether the engine is the one in WebAssembly.
    """
    code = CODE.search(html)
    assert code is not None
    header = json.dumps(header_of(html))
    return window.evaluate(ENGINE, [code[1], header, ARRAY.findall(html), script, compiled])
