"""Whether the default 8-bit backbone on an emulated processor agrees with fp32 on the real one.

python tests/emulation/int8_agrees.py write FOLDER           on this processor
EMULATOR python tests/emulation/int8_agrees.py check FOLDER  status 1 where too far
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut
import patchcut_kernels
from patchcut.features import to_host
from patchcut.opencv import load_cv2

PHOTOS = ("astronaut", "chelsea")
MIN_COSINE, MIN_IOU = 0.998, 0.9
Answers = dict[str, npt.NDArray[Any]]


class Listening:
    """A head that keeps the features it was given: under an emulator a backbone takes a minute."""

    def __init__(self, head: Any) -> None:
        self._head = head
        self.heard: npt.NDArray[np.float32] = np.empty(0, np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._head, name)

    def __call__(self, features: patchcut.Features) -> Any:
        self.heard = np.array(to_host(features.default)[0])
        return self._head(features)


def answers(precision: str) -> Answers:
    """The features [n, d] and the foreground [H, W] of each photo, under its name."""
    segmenter = patchcut.load(engine="onnxruntime", device="cpu", precision=precision)
    segmenter.head = head = Listening(segmenter.head)
    samples = Path(patchcut.__file__).parent / "samples"
    found: Answers = {}
    for name in PHOTOS:
        frame = load_cv2().imread(str(samples / f"{name}.jpg"))
        found[f"{name}.foreground"] = segmenter(frame).foreground
        found[f"{name}.features"] = head.heard
    return found


def check(got: Answers, want: Answers) -> bool:
    """Whether each photo's features and foreground are near enough."""
    cosines, ious = [], []
    for name in PHOTOS:
        a, b = (each[f"{name}.features"].astype(np.float64) for each in (got, want))
        cosines.append(np.mean((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))))
        ours, theirs = got[f"{name}.foreground"], want[f"{name}.foreground"]
        assert 0.01 < theirs.mean() < 0.99, "the foreground could not fail the check"
        ious.append((ours & theirs).sum() / (ours | theirs).sum())
        print(f"{name}: features' cosine {cosines[-1]:.5f}, foreground's IoU {ious[-1]:.4f}")
    return bool(min(cosines) >= MIN_COSINE and min(ious) >= MIN_IOU)


def main(action: str, folder: Path) -> int:
    """Exit status."""
    if action == "write":
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "fp32.npz", **answers("fp32"))
        return 0
    print("kernels:", patchcut_kernels.get_isa())
    with np.load(folder / "fp32.npz") as want:
        if check(answers("int8"), dict(want)):
            return 0
    print(f"wanted cosines of at least {MIN_COSINE}, and an IoU of at least {MIN_IOU}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
