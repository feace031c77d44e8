// What segments: here the server that this page came from.
//
// Every engine has the same face, so that the rest of the page knows none of them:
//   open(token)                 → offers: what may be chosen
//   segment(image, settings)    → found: {width, height, labels, ids, regions, byLabel, ms}
//   stream(settings, pointed)   → {next(image) → found, prompt(what), close()}
//   teach(image, name, box), forget(name) → names of the concepts, where offers.concepts is a list
// An image is {canvas, width, height, name, file}. `ids` has i + 1 at each pixel of region i, row by row.
// A region is {box, score, label, area, track}; ms holds the milliseconds of each step.

import { decodeRle } from "./rle.js";

const SERVER = new URL("../", import.meta.url);
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];

let secret = "";
let offers = null;

/** What the server offers. Throws an Error whose `needsToken` is set where the token is missing or wrong. */
export async function open(token = "") {
  secret = token;
  const told = await (await ask("v1/model")).json();
  offers = {
    ...told,
    about: `${told.name} on this server`,
    minScore: told.min_score,
    maxPixels: Math.min(told.max_pixels, 2 ** 24),
    prompts: true,
    samples: ["astronaut", "chelsea", "coffee", "rocket"],
  };
  return offers;
}

/** What is found in an image; `settings.prompts` is a list of {point: [x, y]} and {box: [x0, y0, x1, y1]}. */
export async function segment(image, settings, signal) {
  const query = wordsOf(settings);
  for (const prompt of settings.prompts ?? []) {
    const [kind, numbers] = Object.entries(prompt)[0];
    query.append(kind, numbers.map((value) => Math.round(value)).join(","));
  }
  const answer = await ask(`v1/segment?${query}`, { method: "POST", body: await encoded(image), signal });
  return found(await answer.json(), settings);
}

/** A stream of frames; with `pointed` it follows what `prompt` points at, in the frame that comes next. */
export async function stream(settings, pointed = false) {
  const address = new URL("v1/stream", SERVER);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const query = wordsOf(settings);
  if (pointed) query.set("track", "pointed");
  if (secret) query.set("token", secret);
  address.search = query;
  const socket = new WebSocket(address);
  let waiting = null; // who waits for the answer to a frame
  const settle = (how, value) => {
    waiting?.[how](value);
    waiting = null;
  };
  socket.onmessage = ({ data }) => {
    const told = JSON.parse(data);
    if ("added" in told || "removed" in told) return;
    if ("error" in told) settle("reject", new Error(told.error));
    else settle("resolve", found(told, settings));
  };
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("The server takes no stream now: it has as many as it may."));
  });
  socket.onclose = ({ reason }) => settle("reject", new Error(reason || "The stream has ended."));
  return {
    async next(image) {
      const frame = await encoded(image, 0.85);
      if (socket.readyState !== WebSocket.OPEN) throw new Error("The stream has ended.");
      return new Promise((resolve, reject) => {
        waiting = { resolve, reject };
        socket.send(frame);
      });
    },
    prompt: (what) => socket.send(JSON.stringify(what)),
    close: () => socket.close(),
  };
}

/** Shows a thing, or what a box shows of it, and gives it a name. */
export async function teach(image, name, box) {
  const query = new URLSearchParams({ name });
  if (box) query.set("box", box.map((value) => Math.round(value)).join(","));
  const answer = await ask(`v1/concepts?${query}`, { method: "POST", body: await encoded(image) });
  return (await answer.json()).concepts;
}

/** Has a name forgotten. */
export async function forget(name) {
  const answer = await ask(`v1/concepts?${new URLSearchParams({ name })}`, { method: "DELETE" });
  return (await answer.json()).concepts;
}

async function ask(path, how = {}) {
  const headers = secret ? { Authorization: `Bearer ${secret}` } : {};
  let answer;
  try {
    answer = await fetch(new URL(path, SERVER), { ...how, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const error = new Error(told.error ?? `The server answered ${answer.status}.`);
  error.needsToken = answer.status === 401;
  throw error;
}

/** The settings that are not the server's own. */
function wordsOf(settings) {
  const query = new URLSearchParams();
  for (const name of ["head", "mode", "refine"]) {
    if (settings[name] && settings[name] !== offers[name]) query.set(name, settings[name]);
  }
  if (settings.minScore !== offers.minScore) query.set("min_score", settings.minScore);
  if (settings.unsure) query.set("nothing_below", 0);
  return query;
}

async function encoded(image, quality = 0.95) {
  const { file, canvas } = image;
  if (file && SENT_AS_THEY_ARE.includes(file.type) && file.size <= offers.max_bytes) return file;
  return canvas.convertToBlob({ type: "image/jpeg", quality });
}

function found(told, settings) {
  const [height, width] = told.size_hw;
  const ids = new Uint16Array(height * width);
  told.regions.forEach((region, i) => decodeRle(region.mask, ids, i + 1));
  const head = offers.heads.find((one) => one.name === (settings.head || offers.head));
  return {
    width,
    height,
    labels: told.labels,
    ids,
    regions: told.regions.map(({ box_xyxy, score, label, area, track_id }) => (
      { box: box_xyxy, score, label, area, track: track_id ?? 0 })),
    byLabel: Boolean(head?.named) || (settings.mode ?? offers.mode) !== "foreground",
    lost: told.lost ?? [],
    ms: told.timings_ms,
  };
}
