// What segments: here the model beside this page, in the browser, on a thread of its own.
//
// The same face as the server's engine, whose first lines say what it is. The model has one head and no
// settings of its own but the score; nothing is followed, pointed at or named.

const folder = new URL("model/", import.meta.url);
const root = new URL("../", import.meta.url);
const ISOLATED = "patchcut isolated"; // whether that was tried in this tab
const ISOLATE_MS = 3000; // until it is given up

let worker = null;
let numbers = 0;
const waiting = new Map(); // number of a question → who waits for the answer
const known = new WeakMap(); // image → its number

/** What the model offers, once it is loaded. */
export async function open() {
  await isolate();
  const answer = await fetch(new URL("about.json", folder));
  if (!answer.ok) throw new Error("The model is not beside this page. Export it again.");
  const about = await answer.json();
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => settle(data);
  worker.onerror = ({ message }) => {
    for (const number of waiting.keys()) settle({ number, error: message || "The model's thread could not start." });
  };
  const { runs } = await ask({ what: "open", about, model: new URL("model.onnx", folder).href });
  return {
    about: `${about.bundle}, ${runs}`,
    heads: [{ name: about.head, named: about.role === "names" }],
    head: about.head,
    modes: ["foreground"],
    mode: "foreground",
    refines: ["none"],
    refine: "none",
    minScore: 0,
    maxPixels: 2 ** 24,
    prompts: false,
    concepts: null,
    samples: about.samples,
  };
}

/** What is found in an image, as the server's engine gives it. */
export async function segment(image, settings, signal) {
  const first = !known.has(image);
  if (first) known.set(image, ++numbers);
  const { canvas, width, height } = image;
  // One that was seen before is not sent again: the thread keeps what the model made of the last one.
  const pixels = () => canvas.getContext("2d").getImageData(0, 0, width, height).data.buffer;
  const question = { what: "segment", image: known.get(image), width, height, minScore: settings.minScore, unsure: settings.unsure };
  let answer = await ask(first ? { ...question, pixels: pixels() } : question);
  if (answer.forgotten) answer = await ask({ ...question, pixels: pixels() });
  if (signal?.aborted) throw new DOMException("Something newer was asked.", "AbortError");
  return answer.found;
}

/** A stream of frames, each by itself. */
export async function stream(settings) {
  return { next: (image) => segment(image, settings), prompt() {}, close() {} };
}

/** No concepts can be added to what has none. */
export async function teach() {
  throw new Error("Concepts need a server: patchcut serve.");
}

export const forget = teach;

/** Where threads may share no memory, loads the page once more with the headers for it. */
async function isolate() {
  if (globalThis.crossOriginIsolated || !navigator.serviceWorker || sessionStorage.getItem(ISOLATED)) return;
  sessionStorage.setItem(ISOLATED, "tried");
  try {
    await navigator.serviceWorker.register(new URL("isolate.js", root), { scope: root.href });
    const late = new Promise((resolve) => setTimeout(resolve, ISOLATE_MS));
    if (!(await Promise.race([navigator.serviceWorker.ready, late]))) return;
  } catch {
    return; // as in a private window: one thread, then
  }
  location.reload();
  await new Promise(() => {});
}

function ask(question) {
  const number = ++numbers;
  return new Promise((resolve, reject) => {
    waiting.set(number, { resolve, reject });
    worker.postMessage({ ...question, number }, question.pixels ? [question.pixels] : []);
  });
}

function settle({ number, error, ...answer }) {
  const { resolve, reject } = waiting.get(number) ?? {};
  waiting.delete(number);
  if (error) reject?.(new Error(error));
  else resolve?.(answer);
}
