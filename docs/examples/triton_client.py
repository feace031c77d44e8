"""Asks Triton what is in a photo, and draws it: python triton_client.py photo.jpg overlay.png

`patchcut export triton` makes the models; `patchcut serve` answers the same questions without Triton.
Needs tritonclient[http] and opencv-python-headless, and nothing of patchcut.
"""

from __future__ import annotations

import argparse
from typing import Any

import cv2
import numpy as np
import tritonclient.http as triton

OUTPUTS = ("region_ids", "boxes", "scores", "label_names")
COLORS = ((60, 180, 75), (230, 25, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240))


def size_of(metadata: dict[str, Any]) -> tuple[list[int], bool]:
    """Height and width of the frames that a model takes, -1 for any, and whether it takes batches."""
    (shape,) = (one["shape"] for one in metadata["inputs"] if one["name"] == "image")
    return shape[-3:-1], len(shape) == 4


def ask(client: Any, model: str, photo: np.ndarray) -> dict[str, np.ndarray]:
    """What a model finds in a photo [H, W, 3] uint8 BGR; boxes and region_ids are of the photo's size."""
    (height, width), batched = size_of(client.get_model_metadata(model))
    frame = photo
    if height > 0:  # the model takes one size, and boxes are told in its pixels
        frame = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    tensor = triton.InferInput("image", [1, *frame.shape] if batched else list(frame.shape), "UINT8")
    tensor.set_data_from_numpy(frame[None] if batched else frame)
    answer = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput(name) for name in OUTPUTS])
    found = {name: answer.as_numpy(name)[0] if batched else answer.as_numpy(name) for name in OUTPUTS}
    scale = np.divide(photo.shape[1::-1], frame.shape[1::-1])
    found["boxes"] = found["boxes"] * np.tile(scale, 2)
    found["region_ids"] = cv2.resize(
        found["region_ids"].astype(np.float32), photo.shape[1::-1], interpolation=cv2.INTER_NEAREST
    ).astype(np.int32)
    return found


def draw(photo: np.ndarray, found: dict[str, np.ndarray]) -> np.ndarray:
    """The photo with masks and boxes, [H, W, 3] uint8 BGR."""
    drawn = photo.copy()
    for i, (x0, y0, x1, y1) in enumerate(found["boxes"].round().astype(int).tolist()):
        color = COLORS[i % len(COLORS)]
        mask = found["region_ids"] == i + 1
        drawn[mask] = (0.5 * drawn[mask] + 0.5 * np.array(color)).astype(np.uint8)
        cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), color, 2)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask Triton what is in a photo, and draw it.")
    parser.add_argument("photo")
    parser.add_argument("overlay", help="picture to write")
    parser.add_argument("--model", default="default")
    parser.add_argument("--address", default="127.0.0.1:8000")
    chosen = parser.parse_args()
    photo = cv2.imread(chosen.photo)
    if photo is None:
        parser.error(f"{chosen.photo} cannot be read as a picture")
    client = triton.InferenceServerClient(chosen.address, connection_timeout=10.0)
    try:
        found = ask(client, chosen.model, photo)
    except (OSError, triton.InferenceServerException) as error:
        parser.exit(1, f"{chosen.address}: {error}\n")
    for name, score, box in zip(found["label_names"], found["scores"], found["boxes"], strict=True):
        print(f"{name.decode()} {score:.2f} at {box.round().astype(int).tolist()}")
    if not cv2.imwrite(chosen.overlay, draw(photo, found)):
        parser.exit(1, f"{chosen.overlay} cannot be written\n")


if __name__ == "__main__":
    main()
