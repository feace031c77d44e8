// Pictures of what was found: tinted masks with outlines, boxes and numbers; and cut-outs.

import { isBackground } from "./coco.js";

// The palette of patchcut.output.overlay; its first colours are apart even for colour-blind eyes.
const PALETTE = [
  [233, 30, 140], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0],
  [120, 60, 200], [150, 220, 60], [130, 80, 60], [20, 230, 230], [255, 160, 160], [150, 150, 150],
  [20, 30, 120], [120, 120, 0], [180, 255, 200],
];
const ROUNDS = [[0, 0], [0, 0.4], [255, 0.45], [0, 0.65], [255, 0.7]];
const TINT = 0.45, BACKGROUND_TINT = 0.25, MARKED_TINT = 0.75;
const MOST_CAPTIONS = 6;

/** [r, g, b] of a region's or a label's number, from 1. */
export function colorOf(number) {
  const i = (number - 1) % (PALETTE.length * ROUNDS.length);
  const [towards, share] = ROUNDS[Math.floor(i / PALETTE.length)];
  return PALETTE[i % PALETTE.length].map((value) => Math.round(value + (towards - value) * share));
}

/** The number by which region i is called and coloured. */
export function numberOf(found, i) {
  const region = found.regions[i];
  if (found.byLabel) return Math.max(1, found.labels.indexOf(region.label));
  return region.track || i + 1;
}

/** Draws the picture and, over it, the regions that `shown` names by their index; `marked` is one of them. */
export function drawOverlay(context, picture, found, shown, marked = -1) {
  const { width, height } = picture;
  context.drawImage(picture, 0, 0, width, height);
  if (!found || !shown.length) return;
  context.drawImage(tinted(found, shown, marked), 0, 0, width, height);
  let front = shown.filter((i) => !isBackground(found.regions[i].label));
  if (found.byLabel) {
    const label = (i) => found.regions[i].label;
    front = front.filter((i, at) => front.findIndex((other) => label(other) === label(i)) === at);
  }
  for (const i of front.slice(0, MOST_CAPTIONS).reverse()) caption(context, found, i);
}

function tinted(found, shown, marked) {
  const { width, height, ids } = found;
  const layer = new OffscreenCanvas(width, height);
  const context = layer.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const fill = new Uint32Array(found.regions.length + 1), line = new Uint32Array(fill.length);
  for (const i of shown) {
    const behind = isBackground(found.regions[i].label);
    const tint = i === marked ? MARKED_TINT : behind ? BACKGROUND_TINT : TINT;
    const [red, green, blue] = colorOf(numberOf(found, i));
    const color = red | (green << 8) | (blue << 16);
    fill[i + 1] = (color | (Math.round(255 * tint) << 24)) >>> 0;
    line[i + 1] = behind ? fill[i + 1] : (color | (255 << 24)) >>> 0;
  }
  const reach = Math.max(1, Math.round(Math.min(width, height) / 300));
  for (let y = 0; y < height; y++) {
    const up = y >= reach ? -reach * width : 0, down = y + reach < height ? reach * width : 0;
    for (let x = 0, at = y * width; x < width; x++, at++) {
      const id = ids[at];
      if (!fill[id]) continue;
      const left = x >= reach ? reach : 0, right = x + reach < width ? reach : 0;
      const inside = ids[at - left] === id && ids[at + right] === id && ids[at + up] === id && ids[at + down] === id;
      pixels[at] = inside ? fill[id] : line[id];
    }
  }
  context.putImageData(image, 0, 0);
  return layer;
}

function caption(context, found, i) {
  const { box, label, score } = found.regions[i];
  const number = numberOf(found, i), color = colorOf(number);
  const size = Math.max(9, Math.round(Math.min(found.width, found.height) / 40));
  const thin = Math.max(1, size / 12), named = found.labels.length > 2 || found.byLabel;
  const text = `${number}${named ? ` ${label}` : ""} ${score.toFixed(2)}`;
  context.lineWidth = thin;
  context.strokeStyle = `rgb(${color})`;
  context.strokeRect(box[0] + thin / 2, box[1] + thin / 2, box[2] - box[0] - thin, box[3] - box[1] - thin);
  context.font = `600 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + size * 0.8, height = size * 1.5;
  const x = Math.max(0, Math.min(box[0], found.width - width));
  const y = Math.max(0, box[1] >= height ? box[1] - height : box[1]);
  context.fillStyle = `rgb(${color})`;
  context.fillRect(x, y, width, height);
  context.fillStyle = color[0] + color[1] + color[2] > 330 ? "#000" : "#fff";
  context.textBaseline = "middle";
  context.fillText(text, x + size * 0.4, y + height / 2 + 1);
}

/** A canvas of the picture's size with the regions that `shown` names; the rest is transparent. */
export function cutOut(picture, found, shown) {
  const { width, height, ids } = found;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  const kept = new Uint8Array(found.regions.length + 1);
  for (const i of shown) kept[i + 1] = 1;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      // Borders are soft by a pixel: how many of nine are kept.
      let sum = 0;
      for (let dy = -1; dy <= 1; dy++) {
        const row = Math.min(height - 1, Math.max(0, y + dy)) * width;
        for (let dx = -1; dx <= 1; dx++) sum += kept[ids[row + Math.min(width - 1, Math.max(0, x + dx))]];
      }
      image.data[4 * at + 3] = Math.round((255 * sum) / 9);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
