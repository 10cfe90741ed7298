"""The engine of an exported page, in the worker that the page itself would start."""

from typing import Any

# Runs a script with `header`, `arrays` and a `model` of one of the engines; resolves to its result.
ENGINE = """async ([script, compiled]) => {
  const stored = {};
  for (const element of document.querySelectorAll("[id^=array-]")) {
    stored[element.id.slice(6)] = [element.textContent, element.dataset.type];
  }
  const code = document.getElementById("engine").textContent + `
    ;(async () => {
      const header = ${document.getElementById("data").textContent};
      const arrays = {};
      for (const [name, [text, type]] of Object.entries(${JSON.stringify(stored)})) {
        const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
        const buffer = await new Response(stream).arrayBuffer();
        const types = { int8: Int8Array, uint8: Uint8Array, int32: Int32Array, float32: Float32Array };
        arrays[name] = new types[type](buffer);
      }
      const model = ${compiled} ? await createCompiledModel(header, arrays)
        : new PlayerModel(header, arrays);
      return await (async () => { ${script} })();
    })().then((result) => postMessage({ result }), (error) => postMessage({ error: error.stack }))`;
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const answer = await new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.terminate();
  if (answer.error) throw new Error(answer.error);
  return answer.result;
}"""


def run_engine(page: Any, script: str, *, compiled: bool = False) -> Any:
    """Run a script in the engine of a page; `compiled` for the one in WebAssembly."""
    return page.evaluate(ENGINE, [script, compiled])
