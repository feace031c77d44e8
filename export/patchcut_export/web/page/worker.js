// The thread on which the model runs, by onnxruntime-web: WebGPU where there is, else WebAssembly.

import { resize } from "./resize.js";
import { regionsOf } from "./regions.js";

const runtime = new URL("onnxruntime/", import.meta.url);
const MOST_THREADS = 4;
const FIRST_WIDTH = 640, FIRST_HEIGHT = 480; // of the image that only warms up

let ort = null, session = null, about = null;
let last = null; // {image, assignment, ms} of the last image

addEventListener("message", async ({ data }) => {
  const { number, what } = data;
  try {
    const answer = await { open, segment }[what](data);
    postMessage({ number, ...answer }, answer.found ? [answer.found.ids.buffer] : []);
  } catch (error) {
    postMessage({ number, error: error?.message ?? String(error) });
  }
});

async function open(asked) {
  about = asked.about;
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  let why = "";
  if (adapter) {
    try {
      return { runs: await start("webgpu", asked.model) };
    } catch (error) {
      why = `; not WebGPU: ${error.message.slice(0, 80)}`;
    }
  }
  return { runs: (await start("wasm", asked.model)) + why };
}

async function start(provider, model) {
  ort = await import(new URL(`ort.${provider}.min.mjs`, runtime));
  const threads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  Object.assign(ort.env.wasm, { wasmPaths: runtime.href, numThreads: threads });
  session = await ort.InferenceSession.create(model, {
    executionProviders: provider === "webgpu" ? ["webgpu", "wasm"] : ["wasm"],
    graphOptimizationLevel: "all",
    // Weights that lie in 8 bits become floats once; else the arithmetic would be in 8 bits, too.
    extra: { session: about.precision.startsWith("int8") ? {} : { disable_quant_qdq: "1" } },
  });
  // The first image costs more than those after it: better while the page opens than when somebody waits for one.
  await run(new Uint8ClampedArray(4 * FIRST_WIDTH * FIRST_HEIGHT), FIRST_WIDTH, FIRST_HEIGHT);
  return provider === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`;
}

async function segment({ image, pixels, width, height, minScore, unsure }) {
  if (last?.image !== image) {
    if (!pixels) return { forgotten: true };
    last = { image, ...(await run(new Uint8ClampedArray(pixels), width, height)) };
  }
  const begun = performance.now();
  const limit = Math.max(minScore, unsure ? 0 : (about.calibration?.nothing_below ?? 0));
  const found = regionsOf(last.assignment, [height, width], about, limit);
  return { found: { ...found, ms: { ...last.ms, masks: performance.now() - begun } } };
}

async function run(rgba, width, height) {
  const begun = performance.now();
  const frame = resize(rgba, [height, width], about.size_hw, about.fit, about.mean);
  const resized = performance.now();
  const input = new ort.Tensor("uint8", frame, [1, ...about.size_hw, 3]);
  const { assignment } = await session.run({ image: input });
  const data = await assignment.getData();
  return { assignment: data, ms: { resize: resized - begun, model: performance.now() - resized } };
}
