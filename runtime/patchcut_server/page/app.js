// The page: pictures come in, the engine segments them, and what it found is shown and saved.

import { cocoOf } from "./coco.js";
import { ConceptPanel } from "./concepts.js";
import { Controls } from "./controls.js";
import { cutOut, drawOverlay } from "./draw.js";
import * as engine from "./engine.js";
import { Live } from "./live.js";
import { fileIn, grabFrame, openPicture, readClipboard, save } from "./picture.js";
import { Player } from "./player.js";
import { Results, saidOf } from "./results.js";
import { Stage } from "./stage.js";

const TOKEN = "patchcut token";
const SAY_MS = 2000; // between two sentences about a video

const at = (id) => document.getElementById(id);
const page = document.documentElement;

let offers = null;
let image = null, found = null; // what is shown
let live = null;
let asking = null; // aborts the request that is under way
let said = 0;

const stage = new Stage(at("stage"), { onPoint: prompt, onBox: prompt, onEscape: takeBack });
const results = new Results(
  { list: at("objects"), count: at("count"), empty: at("no-objects"), times: at("times") },
  (marked) => draw(marked),
);
const controls = new Controls(at("settings"), settingsChanged);
const player = new Player({ box: at("player"), play: at("play"), seek: at("seek"), snapshot: at("snapshot"), stop: at("stop") },
  { onSnapshot: takePhoto, onStop: closeLive });
const concepts = new ConceptPanel(engine, {
  image: () => image,
  onTaught: () => { controls.chooseHead("concepts"); stage.prompts = []; useTool("all"); settingsChanged(); },
  onForgotten: settingsChanged,
  onOnly: (names) => { results.only = names; results.show(found, false); draw(); },
  onProblem: tellProblem,
  say,
});

// ---- pictures come in

at("open").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", ({ target }) => { openFile(target.files[0]); target.value = ""; });
at("paste").addEventListener("click", async () => {
  try {
    const blob = await readClipboard();
    if (blob) await openFile(blob, "pasted.png");
    else say("No picture is in the clipboard. Copy one, then press Ctrl+V here.");
  } catch {
    say("The browser does not show the clipboard. Press Ctrl+V instead.");
  }
});
addEventListener("paste", ({ clipboardData }) => openFile(fileIn(clipboardData), "pasted.png"));
for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") openFile(fileIn(event.dataTransfer));
  });
}
at("camera").addEventListener("click", openCamera);

async function openFile(file, name = file?.name ?? "picture") {
  if (!file) return undefined;
  if (!offers) return say("The model is still loading.");
  performance.mark("opened");
  if (file.type.startsWith("video/")) return openVideo(URL.createObjectURL(file), name);
  try {
    const opened = await openPicture(file, name, offers.maxPixels);
    closeLive();
    if (opened.scaled) say(`${name} was scaled down to ${opened.width} by ${opened.height} pixels.`);
    await showPicture(opened);
  } catch (error) {
    tellProblem(error);
  }
  return undefined;
}

async function openSample(name) {
  const answer = await fetch(new URL(`samples/${name}.jpg`, import.meta.url));
  await openFile(await answer.blob(), `${name}.jpg`);
}

async function openCamera() {
  try {
    if (!navigator.mediaDevices) throw new Error("Cameras need https, or this machine's own address.");
    const source = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    performance.mark("opened");
    await openVideo(source, "camera");
  } catch (error) {
    tellProblem(error.name === "NotAllowedError" ? new Error("The browser was not allowed to use the camera.") : error);
  }
}

async function openVideo(source, name) {
  closeLive();
  reset();
  try {
    const video = await player.open(source);
    live = new Live({ engine, video, name, settings: () => controls.settings, onFound: showFrame, onProblem: tellProblem });
    say(offers.prompts ? `${name} plays. Click an object to follow it.` : `${name} plays.`);
    if (offers.prompts) useTool("point");
  } catch {
    tellProblem(new Error(`${name} is no video that this browser can play.`));
  }
}

function closeLive() {
  live?.close();
  live = null;
  player.close();
}

async function takePhoto() {
  const taken = grabFrame(live.video, Infinity, "photo.jpg");
  closeLive();
  useTool("all");
  await showPicture(taken);
}

// ---- the engine segments them

async function showPicture(opened) {
  reset();
  image = opened;
  stage.show(image, null, []);
  at("drop").classList.remove("empty");
  await run(true);
}

async function run(fresh = false) {
  if (!image || live) return;
  asking?.abort();
  const mine = (asking = new AbortController());
  busy(true);
  const begun = performance.now();
  try {
    const prompts = stage.tool === "name" ? [] : stage.prompts;
    const got = await engine.segment(image, { ...controls.settings, prompts }, mine.signal);
    if (mine.signal.aborted) return;
    showFound(got, performance.now() - begun, fresh);
    say(saidOf(found, results.shown));
  } catch (error) {
    if (error.name === "AbortError" || mine.signal.aborted) return;
    tellProblem(error);
  }
  busy(false);
}

function showFound(got, ms, fresh) {
  found = got;
  results.show(found, fresh);
  draw();
  tellProblem(null);
  at("latency").textContent = `${Math.round(ms)} ms`;
  page.dataset.overlays = Number(page.dataset.overlays ?? 0) + 1;
  if (performance.getEntriesByName("opened").length) {
    performance.measure("first overlay", "opened");
    performance.clearMarks("opened");
  }
}

function showFrame(frame, got, ms) {
  const lastMs = ms;
  at("drop").classList.remove("empty");
  image = frame;
  showFound(got, lastMs, false);
  at("latency").textContent = `${Math.round(lastMs)} ms, ${player.rate()} a second`;
  if (performance.now() - said > SAY_MS) {
    const lost = got.lost?.length ? ` Not in sight: ${got.lost.join(", ")}.` : "";
    say(`${saidOf(found, results.shown)}${lost}`);
  }
}

function draw(marked = -1) {
  if (!image) return;
  const { shown } = results;
  stage.show(image, found, shown, marked);
  at("stage").setAttribute("aria-label", `${image.name}: ${saidOf(found, shown)}`);
  for (const id of ["save-overlay", "save-cutout", "save-coco"]) at(id).disabled = !found || !shown.length;
}

function settingsChanged() {
  concepts.show(offers, controls.settings.head);
  if (live) live.restart();
  else run();
}

// ---- somebody points at objects

at("tools").addEventListener("change", ({ target }) => useTool(target.value));

function useTool(tool) {
  document.querySelector(`input[name=tool][value=${tool}]`).checked = true;
  stage.use(tool);
  concepts.use(tool);
  if (tool !== "all" && tool !== "name") return;
  if (stage.prompts.length) forgetPrompts();
  else if (live?.pointed) live.restart(false);
}

function prompt(what) {
  if (stage.tool === "name") {
    stage.prompts = [what];
    concepts.box = what.box;
    stage.redraw();
    return;
  }
  if (live) {
    live.point(what);
    say("Following it from here on.");
    return;
  }
  stage.prompts.push(what);
  stage.redraw();
  run(true);
}

function takeBack() {
  if (live) {
    useTool("all");
  } else if (stage.prompts.pop()) {
    run(true);
  }
}

function forgetPrompts() {
  stage.prompts = [];
  if (!live) run(true);
}

// ---- what was found is saved

const baseName = () => image.name.replace(/\.\w+$/, "");
at("save-overlay").addEventListener("click", async () => {
  const canvas = new OffscreenCanvas(image.width, image.height);
  drawOverlay(canvas.getContext("2d"), image.canvas, found, results.shown);
  save(await canvas.convertToBlob(), `${baseName()}-overlay.png`);
});
at("save-cutout").addEventListener("click", async () => {
  save(await cutOut(image.canvas, found, results.shown).convertToBlob(), `${baseName()}-cutout.png`);
});
at("save-coco").addEventListener("click", () => {
  const coco = JSON.stringify(cocoOf(found, image.name, results.shown));
  save(new Blob([coco], { type: "application/json" }), `${baseName()}-coco.json`);
});

// ---- what is said

function say(words) {
  said = performance.now();
  at("status").textContent = words;
}

function tellProblem(error) {
  const box = at("problem");
  box.hidden = !error;
  box.textContent = error?.message ?? "";
  if (error) busy(false);
}

function busy(on) {
  page.dataset.state = on ? "busy" : "ready";
  at("drop").setAttribute("aria-busy", String(on));
}

function reset() {
  asking?.abort();
  found = null;
  stage.prompts = [];
  results.show(null, true);
}

// ---- the start

async function start(token) {
  try {
    offers = await engine.open(token);
  } catch (error) {
    if (error.needsToken) return askToken(Boolean(token));
    at("model").textContent = "not connected";
    return tellProblem(error);
  }
  if (token) sessionStorage.setItem(TOKEN, token);
  controls.build(offers);
  concepts.show(offers, offers.head);
  at("model").textContent = offers.about;
  at("tools").disabled = false;
  at("tools").hidden = !offers.prompts && !offers.concepts;
  at("samples").replaceChildren(...offers.samples.map(sampleButton));
  busy(false);
}

function sampleButton(name) {
  const button = document.createElement("button"), picture = document.createElement("img");
  button.type = "button";
  picture.src = new URL(`samples/${name}.jpg`, import.meta.url).href;
  picture.alt = `Sample: ${name}`;
  button.append(picture);
  button.addEventListener("click", () => openSample(name).catch(tellProblem));
  return button;
}

function askToken(wasWrong) {
  const dialog = at("ask-token");
  at("token-wrong").hidden = !wasWrong;
  dialog.addEventListener("close", () => start(at("token").value.trim()), { once: true });
  dialog.showModal();
}

start(sessionStorage.getItem(TOKEN) ?? "");
