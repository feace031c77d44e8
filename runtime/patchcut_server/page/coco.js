// COCO's JSON of one picture, as `patchcut run --save coco` writes it.

import { encodeRle } from "./rle.js";

/** Images, annotations and categories of the regions of `found` that `shown` names by their index. */
export function cocoOf(found, name, shown) {
  const labels = found.labels.slice(1);
  const ids = new Map(labels.map((label, i) => [label, i + 1]));
  const annotations = [];
  for (const i of shown) {
    const { box, area, label, score, track } = found.regions[i];
    annotations.push({
      id: annotations.length + 1,
      image_id: 1,
      category_id: ids.get(label),
      bbox: [box[0], box[1], box[2] - box[0], box[3] - box[1]],
      area,
      segmentation: encodeRle(found.ids, found.width, found.height, i + 1),
      iscrowd: 0,
      score,
      ...(track ? { track_id: track } : {}),
    });
  }
  return {
    info: { description: "made by patchcut" },
    images: [{ id: 1, file_name: name, width: found.width, height: found.height }],
    annotations,
    categories: labels.map((label, i) => ({
      id: i + 1,
      name: label,
      supercategory: isBackground(label) ? "background" : "foreground",
    })),
  };
}

/** Whether a label is one of the background's, which a scene has several of. */
export function isBackground(label) {
  return /^background( \d+)?$/.test(label);
}
