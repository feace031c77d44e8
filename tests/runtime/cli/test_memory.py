"""What a run takes at most: 12 times the picture's decoded bytes and 200 MB, with weights in fp32 300 MB.

Pages of libraries, which are the system's to drop and of which it maps more or fewer, are not counted.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.output.sinks import SINKS

HEIGHT, WIDTH = 3000, 4000

# Not ru_maxrss, which begins at what the parent held when it forked.
MEASURED_RUN = """
import atexit, re, sys
from patchcut.cli.app import main

def tell() -> None:
    kb = dict(re.findall(r"(\\w+):\\s*([0-9]+) kB", open("/proc/self/status").read()))
    print("peak_kb", int(kb["VmHWM"]) - int(kb["RssFile"]), file=sys.stderr)

atexit.register(tell)
main()
"""


@pytest.fixture(scope="module")
def large_photos(tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray) -> Path:
    """A folder of JPEGs of 12 megapixels with a grain, as a camera has it."""
    image = cv2.resize(photo, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).integers(0, 24, (HEIGHT, WIDTH, 1), np.uint8)
    folder = tmp_path_factory.mktemp("large")
    for name in ("x.jpg", "y.jpg"):
        cv2.imwrite(str(folder / name), cv2.add(image, cv2.merge([grain] * 3)))
    return folder


@pytest.mark.parametrize(
    "source, mode, refine, precision, besides",
    [
        (".", "foreground", "guided", "int8", 200e6),
        ("x.jpg", "scene", "guided", "int8", 200e6),
        ("x.jpg", "scene", "bilateral", "int8", 200e6),
        ("x.jpg", "scene", "bilateral", "fp32", 300e6),
    ],
)
def test_a_large_photo_takes_a_bounded_memory(
    source: str,
    mode: str,
    refine: str,
    precision: str,
    besides: float,
    large_photos: Path,
    tmp_path: Path,
    embedded_bundle: Path,
) -> None:
    options = ["--mode", mode, "--refine", refine, "--nothing-below", "0"]
    options += ["--engine", "onnxruntime", "--precision", precision]
    # Rerun's library alone takes 100 MB, and this head takes no votes.
    words = [word for word in SINKS if word not in ("rerun", "votes")]
    command = ["run", str(large_photos / source), *options, "--out", str(tmp_path), "--save", ",".join(words)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED_RUN, *command], capture_output=True, text=True, check=True
    )
    peak_bytes = 1024 * int(done.stderr.rpartition("peak_kb ")[2])
    assert (tmp_path / "overlay" / "x.jpg").is_file()
    assert peak_bytes <= 12 * 3 * HEIGHT * WIDTH + besides
