"""Draw a box around an object of a video or camera, and watch it being followed.

python draw_box.py video.mp4    # needs opencv-python, which has windows; q ends
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
import patchcut

WINDOW = "patchcut"


def run(source: object, bundle: str = "default") -> None:
    """Asks for a box on the first frame, then shows each frame with the object's mask."""
    segmenter = patchcut.load(bundle=bundle)
    with patchcut.open_source(source) as opened:
        first = next(iter(opened)).image
    x, y, width, height = cv2.selectROI(WINDOW, first, showCrosshair=False)
    if not width * height:
        return
    boxes = [(x, y, x + width, y + height)]
    for result in segmenter.track(source, boxes=boxes):
        seen = bool(len(result))
        picture = np.ascontiguousarray(result.overlay())
        says = f"{result.labels[result.region_labels[0]]} {result.scores[0]:.2f}" if seen else "out of sight"
        cv2.putText(picture, says, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2)
        cv2.imshow(WINDOW, picture)
        if cv2.waitKey(1) & 0xFF == ord("q"):
            break


if __name__ == "__main__":
    run(sys.argv[1] if len(sys.argv) > 1 else "0")
    cv2.destroyAllWindows()
