// Pixels of a picture to the model's size, by patchcut's own filters: no browser's are the same everywhere.

/** {begin, length} of each side [rows, columns] of the model's image that the picture fills. */
export function contentOf(frame, size, fit) {
  const zoom = frame.map((side, i) => size[i] / side);
  const least = zoom[0] <= zoom[1] ? 0 : 1;
  return frame.map((side, i) => {
    // Of a letterbox the other side is side * size / frame of the tighter one, to the nearest, halves up.
    const exact = fit === "letterbox" && i !== least;
    const length = exact
      ? Math.max(1, Math.floor((2 * side * size[least] + frame[least]) / (2 * frame[least])))
      : size[i];
    return { begin: Math.floor((size[i] - length) / 2), length };
  });
}

/**
 * [h * w * 3] bytes, RGB, of RGBA pixels [H * W * 4]: a box filter where a side shrinks, else bilinear.
 * What a letterbox leaves free is the mean of the photos that the model was made with.
 */
export function resize(rgba, frame, size, fit, mean) {
  const [height, width] = frame;
  const [rows, columns] = contentOf(frame, size, fit);
  const across = weightsOf(width, columns.length), down = weightsOf(height, rows.length);
  const sums = new Float64Array(columns.length * 3), line = new Float64Array(columns.length * 3);
  const out = new Uint8Array(size[0] * size[1] * 3);
  if (fit === "letterbox") for (let i = 0; i < out.length; i++) out[i] = Math.round(255 * mean[i % 3]);
  let kept = -1;
  for (let y = 0; y < rows.length; y++) {
    sums.fill(0);
    const { first, weights } = down[y];
    for (let j = 0; j < weights.length; j++) {
      if (kept !== first + j) resizeLine(rgba, (first + j) * width * 4, across, line);
      kept = first + j;
      for (let i = 0; i < sums.length; i++) sums[i] += weights[j] * line[i];
    }
    const at = ((y + rows.begin) * size[1] + columns.begin) * 3;
    for (let i = 0; i < sums.length; i++) out[at + i] = Math.round(sums[i]);
  }
  return out;
}

function resizeLine(rgba, at, across, line) {
  for (let x = 0, i = 0; x < across.length; x++, i += 3) {
    const { first, weights } = across[x];
    let red = 0, green = 0, blue = 0;
    for (let j = 0, p = at + first * 4; j < weights.length; j++, p += 4) {
      red += weights[j] * rgba[p];
      green += weights[j] * rgba[p + 1];
      blue += weights[j] * rgba[p + 2];
    }
    line[i] = red;
    line[i + 1] = green;
    line[i + 2] = blue;
  }
}

/** For each of `size` cells the first of `source` cells that it takes, and how much of each. */
export function weightsOf(source, size) {
  return Array.from({ length: size }, (_, i) => (source > size ? box(source, size, i) : linear(source, size, i)));
}

function box(source, size, i) {
  const begin = (i * source) / size, end = ((i + 1) * source) / size;
  const first = Math.floor(begin), last = Math.min(source, Math.ceil(end));
  const weights = [];
  for (let at = first; at < last; at++) {
    weights.push(((Math.min(end, at + 1) - Math.max(begin, at)) * size) / source);
  }
  return { first, weights };
}

function linear(source, size, i) {
  const at = Math.min(source - 1, Math.max(0, ((i + 0.5) * source) / size - 0.5));
  const first = Math.min(Math.floor(at), Math.max(0, source - 2));
  return { first, weights: source === 1 ? [1] : [1 - (at - first), at - first] };
}
