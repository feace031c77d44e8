// From an assignment to regions: what patchcut.stages does after the head, in the same order.

import { contentOf, weightsOf } from "./resize.js";

const SURE = 1 - 1e-6; // confidences are cut off here before their logarithm is taken
const SCORE_AREA_SHARE = 0.01;

/** What the page knows as found, of an assignment [n * k], best first; regions that score less than `limit` are none. */
export function regionsOf(assignment, [height, width], about, limit) {
  const canvas = canvasOf([height, width], about);
  const { labels, sure } = upsample(assignment, [height, width], canvas, about);
  const patchArea = (canvas.size[0] * canvas.size[1]) / (about.grid_hw[0] * about.grid_hw[1]);
  const least = Math.max(1, Math.ceil(about.min_area_patches * patchArea));
  const roots = rootsOf(labels, height, width);
  const components = componentsOf(roots, labels, sure, width).filter((one) => one.area >= least);
  for (const one of components) one.score = scoreOf(one, height, width, about.calibration);
  const ranked = components.filter((one) => one.score >= limit).sort((a, b) => b.score - a.score || a.root - b.root);
  return {
    width,
    height,
    labels: about.labels,
    ids: idsOf(ranked, roots),
    regions: ranked.map(({ box, score, label, area }) => (
      { box, score: Math.round(score * 1e4) / 1e4, label: about.labels[label], area, track: 0 })),
    byLabel: about.role === "names",
    lost: [],
  };
}

/** Size and corner of the area that the grid covers, in pixels of the picture. */
export function canvasOf(frame, about) {
  let size = [...frame], corner = [0, 0];
  if (about.fit === "letterbox") {
    const content = contentOf(frame, about.size_hw, "letterbox");
    const scaled = (pixels, i) => Math.floor((2 * pixels * frame[i] + content[i].length) / (2 * content[i].length));
    size = about.size_hw.map(scaled);
    corner = content.map(({ begin }, i) => scaled(begin, i));
  }
  if (about.covered) {
    const whole = size;
    size = whole.map((side, i) => Math.max(1, even((side * about.covered[i][1]) / about.size_hw[i])));
    corner = corner.map((at, i) => at - even((whole[i] * about.covered[i][0]) / about.size_hw[i]));
  }
  return { size, corner };
}

/** The nearest whole number, halves to the even one, as Python rounds. */
function even(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
}

/** The label of each pixel, and how sure it is where that is not 0; bilinear between the rows of the assignment. */
function upsample(assignment, [height, width], canvas, about) {
  const [gridRows, gridColumns] = about.grid_hw;
  const k = about.labels.length;
  const down = between(height, canvas.corner[0], canvas.size[0], gridRows);
  const across = between(width, canvas.corner[1], canvas.size[1], gridColumns);
  const labels = new Uint16Array(height * width), sure = new Float32Array(height * width);
  const line = new Float64Array(gridColumns * k);
  const behind = backgroundOf(assignment, gridRows * gridColumns, k);
  const blank = new Uint8Array(gridColumns); // whether this line has label 0 from a column to the next
  for (let y = 0, at = 0; y < height; y++) {
    const first = down.before[y] * gridColumns, second = Math.min(down.before[y] + 1, gridRows - 1) * gridColumns;
    const share = down.share[y], top = first * k, bottom = second * k;
    for (let i = 0; i < line.length; i++) line[i] = (1 - share) * assignment[top + i] + share * assignment[bottom + i];
    for (let i = 0; i < gridColumns; i++) {
      const next = Math.min(i + 1, gridColumns - 1);
      blank[i] = behind[first + i] & behind[first + next] & behind[second + i] & behind[second + next];
    }
    for (let x = 0; x < width; x++, at++) {
      const cell = across.before[x];
      if (blank[cell]) continue;
      const over = across.share[x], left = cell * k, right = Math.min(cell + 1, gridColumns - 1) * k;
      let best = -Infinity, label = 0;
      for (let c = 0; c < k; c++) {
        const value = (1 - over) * line[left + c] + over * line[right + c];
        if (value > best) {
          best = value;
          label = c;
        }
      }
      labels[at] = label;
      sure[at] = best;
    }
  }
  return { labels, sure };
}

/** 1 for each cell that has label 0: between four of them no pixel has another. */
function backgroundOf(assignment, cells, k) {
  const behind = new Uint8Array(cells).fill(1);
  for (let i = 0; i < cells; i++) {
    for (let c = 1; c < k; c++) if (assignment[i * k + c] > assignment[i * k]) behind[i] = 0;
  }
  return behind;
}

/** For each pixel of a side the cell `before` it, and its `share` of the way from there to the next. */
function between(pixels, corner, side, cells) {
  const weights = cells < side ? weightsOf(cells, side) : null;
  const before = new Int32Array(pixels), share = new Float64Array(pixels);
  for (let at = 0; at < pixels; at++) {
    const on = Math.min(side - 1, Math.max(0, at + corner));
    if (weights) {
      before[at] = weights[on].first;
      share[at] = weights[on].weights[1] ?? 0;
    } else {
      const middle = Math.min(cells - 1, Math.max(0, ((on + 0.5) * cells) / side - 0.5));
      before[at] = Math.min(Math.floor(middle), Math.max(0, cells - 2));
      share[at] = middle - before[at];
    }
  }
  return { before, share };
}

/** Label, area, box and the sum of `sure` of each component, in scan order. */
function componentsOf(roots, labels, sure, width) {
  const byRoot = new Map();
  let one = null; // that of the pixel before: most have the same
  for (let at = 0; at < roots.length; at++) {
    const root = roots[at];
    if (root < 0) continue;
    const x = at % width, y = (at - x) / width;
    if (one?.root !== root) one = byRoot.get(root);
    if (!one) byRoot.set(root, (one = { root, label: labels[at], area: 0, sum: 0, box: [x, y, x + 1, y + 1] }));
    one.area++;
    one.sum += sure[at];
    if (x < one.box[0]) one.box[0] = x;
    if (x >= one.box[2]) one.box[2] = x + 1;
    one.box[3] = y + 1;
  }
  return [...byRoot.values()];
}

/** The first pixel of each pixel's 8-connected component of one label; -1 of the background. */
function rootsOf(labels, height, width) {
  const parents = new Int32Array(height * width).fill(-1);
  const rootOf = (at) => {
    while (parents[at] !== at) at = parents[at] = parents[parents[at]];
    return at;
  };
  const join = (at, near) => {
    if (labels[near] !== labels[at]) return;
    const one = rootOf(at), other = rootOf(near);
    parents[Math.max(one, other)] = Math.min(one, other);
  };
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!labels[at]) continue;
      parents[at] = at;
      if (x) join(at, at - 1);
      if (!y) continue;
      join(at, at - width);
      if (x) join(at, at - width - 1);
      if (x + 1 < width) join(at, at - width + 1);
    }
  }
  for (let at = 0; at < parents.length; at++) if (parents[at] >= 0) parents[at] = rootOf(at);
  return parents;
}

function scoreOf({ area, sum, box }, height, width, calibration) {
  const mean = sum / area, share = area / (height * width);
  if (!calibration) return Math.min(1, (mean * area) / (area + SCORE_AREA_SHARE * height * width));
  const sure = Math.min(SURE, Math.max(1 - SURE, mean));
  const sides = (box[0] <= 0) + (box[1] <= 0) + (box[2] >= width) + (box[3] >= height);
  const fill = area / ((box[2] - box[0]) * (box[3] - box[1]));
  const features = [Math.log(sure / (1 - sure)), Math.log(share), sides, fill];
  const logit = features.reduce((total, value, i) => total + calibration.weights[i] * value, calibration.bias);
  return 1 / (1 + Math.exp(-Math.min(80, Math.max(-80, logit))));
}

function idsOf(ranked, roots) {
  const numbers = new Map(ranked.map(({ root }, i) => [root, i + 1]));
  const ids = new Uint16Array(roots.length);
  for (let at = 0, last = -1, number = 0; at < ids.length; at++) {
    if (roots[at] !== last) {
      last = roots[at];
      number = numbers.get(last) ?? 0;
    }
    ids[at] = number;
  }
  return ids;
}
