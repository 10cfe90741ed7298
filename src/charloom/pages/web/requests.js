// Requests of the playground to its server, and the same requests as a command and as a program.

const RETRY = 2000; // milliseconds between two requests to a server that is gone
const GONE = "The connection broke in the middle of the text. Waiting for the server …";

class RequestError extends Error {
  constructor(message, { status = 0, gone = false } = {}) {
    super(message);
    this.status = status;
    this.gone = gone;
  }
}

// Paths are relative to the page, because a proxy can serve it below a prefix.
const address = (path) => new URL(path, document.baseURI.split("#")[0]).href;

/** Requests a path relative to the page; an error's message is a sentence for the reader. */
async function request(path, key, options = {}) {
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: "Bearer " + key }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The server does not respond. Waiting for it …", { gone: true });
  }
  if (response.ok) return response;
  let message = `The server returned ${response.status} ${response.statusText}.`;
  try {
    message = "The server rejected the request: " + (await response.json()).error.message;
  } catch { /* the body has no message */ }
  throw new RequestError(message, { status: response.status });
}

/** Yields the data of server-sent events as they arrive. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new RequestError(GONE, { gone: true });
    }
    if (piece.done) return;
    const lines = (rest + piece.value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

/** Commands that send requests with these bodies. */
function as_curl(bodies, with_key) {
  return bodies.map((body) => [
    `curl ${quoted(address("v1/completions"))} \\`,
    "  -H 'Content-Type: application/json' \\",
    ...(with_key ? ['  -H "Authorization: Bearer $CHARLOOM_API_KEY" \\'] : []),
    `  -d ${quoted(JSON.stringify(body))}`,
  ].join("\n")).join("\n\n");
}

/** A program that sends requests with these bodies. */
function as_python(bodies, with_key) {
  const known = ["model", "prompt", "max_tokens", "n", "seed", "temperature", "top_p", "stop"];
  const literal = (value) => (typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value));
  const calls = bodies.map((body) => {
    const all = Object.entries(body);
    const lines = all.filter(([name]) => known.includes(name))
      .map(([name, value]) => `    ${name}=${literal(value)},`);
    const others = all.filter(([name]) => !known.includes(name));
    if (others.length) {
      lines.push(`    extra_body={${others.map(([n, v]) => `"${n}": ${literal(v)}`).join(", ")}},`);
    }
    const print = body.n > 1 ? "for choice in completion.choices:\n    print(choice.text)"
      : "print(completion.choices[0].text)";
    return ["completion = client.completions.create(", ...lines, ")", print].join("\n");
  });
  const secret = with_key ? 'os.environ["CHARLOOM_API_KEY"]' : '"none"';
  return [...(with_key ? ["import os", ""] : []), "from openai import OpenAI", "",
    `client = OpenAI(base_url=${JSON.stringify(address("v1"))}, api_key=${secret})`,
    ...calls].join("\n");
}
