"""Whether tests/embedding's program `segment` wrote what Python got: `python segment_agrees.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

NAMES = ("clusters", "centroids", "assignment", "labels", "confidence", "ids", "mean_confidence")


def main(folder: Path) -> int:
    """Exit status."""
    for name in NAMES:
        want = np.load(folder / f"wanted/{name}.npy")
        assert np.unique(want).size > 1
        if (folder / f"{name}.bin").read_bytes() != want.tobytes():
            print(f"{name}: the program's bytes are not Python's", file=sys.stderr)
            return 1
    print("the program's bytes are Python's:", *NAMES)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
