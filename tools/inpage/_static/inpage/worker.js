// @ts-check
// Python in a thread of its own, so that the page never waits for it. The first message
// brings the runtime's addresses, every other a request, which runner.py answers.

/** @type {any} */
const scope = self;
const plainFetch = scope.fetch.bind(scope);

/** @param {unknown} error */
function tell(error) {
  scope.postMessage({ failed: String(error).trim().split("\n").pop() });
}

/** Fetch from this browser's own store where it has the file, and count what arrives.
 * @param {{cache: string, total: number}} runtime */
function countedFetch({ cache, total }) {
  let loaded = 0;
  const store = scope.caches?.open(cache).catch(() => null);
  return async (/** @type {string | URL} */ file) => {
    const shelf = await store;
    let answer = await shelf?.match(file);
    if (!answer) {
      // Asked anew: what an older edition of the book left behind would stay for good.
      answer = await plainFetch(file, { cache: "no-cache" });
      if (!answer.ok) throw Error(`${String(file).split("/").pop()}: ${answer.statusText}`);
      shelf?.put(file, answer.clone()).catch(() => {}); // a full disk: fetched again next time
    }
    const count = new TransformStream({
      transform(chunk, next) {
        loaded += chunk.byteLength;
        scope.postMessage({ fetched: Math.min(1, loaded / total) });
        next.enqueue(chunk);
      },
    });
    const whole = await new Response(answer.body.pipeThrough(count)).blob();
    return new Response(whole, { headers: answer.headers });
  };
}

/** @param {{base: string, pyodide: string, wheels: string[], cache: string, total: number}} runtime */
async function start(runtime) {
  for (const name of (await scope.caches?.keys().catch(() => [])) ?? [])
    if (name.startsWith("bnlib-") && name !== runtime.cache) scope.caches.delete(name);
  const fetch = countedFetch(runtime);
  scope.fetch = async (/** @type {string | URL} */ file) => {
    try {
      return await fetch(file);
    } catch (error) {
      tell(error); // Pyodide would wait for ever
      throw error;
    }
  };
  // Loaded by address they would not be in the store, and Pyodide needs a network.
  for (const name of ["pyodide.js", "pyodide.asm.js"]) {
    const file = await scope.fetch(runtime.pyodide + name);
    scope.importScripts(URL.createObjectURL(await file.blob()));
  }
  const python = await scope.loadPyodide({ indexURL: runtime.pyodide });
  for (const wheel of runtime.wheels) {
    const file = await scope.fetch(runtime.base + wheel);
    python.unpackArchive(await file.arrayBuffer(), "wheel");
  }
  const source = await (await scope.fetch(`${runtime.base}runner.py`)).text();
  python.FS.writeFile("runner.py", source);
  scope.fetch = plainFetch;
  return python.pyimport("runner");
}

/** @type {Promise<any> | undefined} */
let runner;

scope.onmessage = async (/** @type {MessageEvent} */ { data }) => {
  try {
    const python = await (runner ??= start(data.runtime));
    scope.postMessage({ started: true });
    if (!data.request) return;
    scope.postMessage({ answer: JSON.parse(python.answer(JSON.stringify(data.request))) });
  } catch (error) {
    tell(error);
  }
};
