"""Show a thing of a camera once, and it is found from then on.

python show_thing.py 0    # needs opencv-python, which has windows; s shows a thing, q ends
"""

from __future__ import annotations

import sys
import threading

import cv2
import patchcut

WINDOW, SAVED = "patchcut", "mine.patchcut"


def run(source: object, bundle: str = "default", saved: str = SAVED) -> None:
    """Shows what is found; with s a box is drawn around a thing, which has a name a moment later."""
    segmenter = patchcut.load(bundle=bundle, head="concepts")
    shown: list[threading.Thread] = []
    for result in segmenter.stream(source):
        cv2.imshow(WINDOW, result.overlay())
        key = cv2.waitKey(1) & 0xFF
        if key == ord("s") and result.frame is not None:
            frame = result.frame.copy()
            x, y, width, height = cv2.selectROI(WINDOW, frame, showCrosshair=False)
            if width * height:
                called = (f"thing {len(shown) + 1}", [frame])
                how = {"boxes": [(x, y, x + width, y + height)]}
                shown.append(threading.Thread(target=segmenter.concepts.add, args=called, kwargs=how))
                shown[-1].start()  # frames go on meanwhile
        if key == ord("q"):
            break
    for thread in shown:
        thread.join()
    if segmenter.concepts.names:
        segmenter.concepts.save(saved)
        print(f"{saved} has {', '.join(segmenter.concepts.names)}")


if __name__ == "__main__":
    run(sys.argv[1] if len(sys.argv) > 1 else "0")
    cv2.destroyAllWindows()
