// Pictures of files, addresses and videos, as engines take them.

/** {canvas, width, height, name, file} of a picture file; one of too many pixels is scaled down. */
export async function openPicture(file, name, maxPixels) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name} is no picture that this browser can read.`);
  }
  const scale = Math.min(1, Math.sqrt(maxPixels / (bitmap.width * bitmap.height)));
  const image = drawn(bitmap, Math.round(bitmap.width * scale), Math.round(bitmap.height * scale), name);
  bitmap.close();
  return { ...image, file: scale === 1 ? file : null, scaled: scale < 1 };
}

/** The frame that a video shows now, no side of which is longer than `side`. */
export function grabFrame(video, side, name) {
  const { videoWidth, videoHeight } = video;
  const scale = Math.min(1, side / Math.max(videoWidth, videoHeight));
  return drawn(video, Math.max(1, Math.round(videoWidth * scale)), Math.max(1, Math.round(videoHeight * scale)), name);
}

/** The first picture or video of what was dropped or pasted; undefined where there is none. */
export function fileIn(transfer) {
  return [...transfer.files].find((one) => /^(image|video)\//.test(one.type)) ?? transfer.files[0];
}

/** The picture in the clipboard; null where there is none, or where the browser does not show it. */
export async function readClipboard() {
  if (!navigator.clipboard?.read) return null;
  for (const item of await navigator.clipboard.read()) {
    const type = item.types.find((one) => one.startsWith("image/"));
    if (type) return item.getType(type);
  }
  return null;
}

/** Has the browser save a blob. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function drawn(source, width, height, name) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(source, 0, 0, width, height);
  return { canvas, width, height, name, file: null, scaled: false };
}
