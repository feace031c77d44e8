// COCO's compressed run lengths: masks by columns, as pycocotools reads and writes them.

/** Writes `value` into ids [height * width] where a mask {size: [height, width], counts} is. */
export function decodeRle(mask, ids, value) {
  const [height, width] = mask.size;
  const runs = readCounts(mask.counts);
  let at = 0; // in columns
  for (let i = 0; i < runs.length; i++) {
    if (i % 2) {
      let x = Math.floor(at / height), y = at % height;
      for (let left = runs[i]; left > 0; left--) {
        ids[y * width + x] = value;
        if (++y === height) { y = 0; x++; }
      }
    }
    at += runs[i];
  }
}

/** {size, counts} of the pixels of ids [height * width] that are `value`. */
export function encodeRle(ids, width, height, value) {
  const runs = [];
  let run = 0, inside = false;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if ((ids[at] === value) !== inside) {
        runs.push(run);
        run = 0;
        inside = !inside;
      }
      run++;
    }
  }
  runs.push(run);
  return { size: [height, width], counts: writeCounts(runs) };
}

function readCounts(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 0x1f) << shift;
      shift += 5;
    } while (code & 0x20 && at < text.length);
    if (code & 0x10 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

function writeCounts(runs) {
  let text = "";
  runs.forEach((run, i) => {
    let value = i > 2 ? run - runs[i - 2] : run;
    for (let more = true; more;) {
      let code = value & 0x1f;
      value >>= 5;
      more = code & 0x10 ? value !== -1 : value !== 0;
      if (more) code |= 0x20;
      text += String.fromCharCode(code + 48);
    }
  });
  return text;
}
