"""`patchcut demo`: the sample photos, segmented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.cli.printing import make_console
from patchcut.cli.run import run
from patchcut.cli.run_options import RunOptions
from patchcut.opencv import load_cv2
from patchcut.output.whole_files import write_image
from patchcut.settings import Settings
from patchcut.sources.photos import read_photo

SAMPLES = Path(__file__).parent.parent / "samples"
_OVERVIEW_HEIGHT = 320


def demo(out: Path, settings: Settings) -> int:
    """Exit status, after overlays, masks and an overview of the sample photos were written to `out`."""
    options = RunOptions(
        sources=(str(SAMPLES),),
        out=out,
        save=("overlay", "masks"),
        overwrite=True,  # the demo may be run twice
        settings=settings,
    )
    status = run(options)
    if status == 0:
        write_image(out / "overview.jpg", _overview(out / "overlay"))
        make_console().print(f"look at: {out / 'overview.jpg'}")
    return status


def _overview(overlays: Path) -> npt.NDArray[np.uint8]:
    """[2 * 320, W, 3] uint8 BGR: the samples in a row, their overlays under them."""
    cv2 = load_cv2()
    photos = sorted(SAMPLES.glob("*.jpg"))
    rows = [[folder / photo.name for photo in photos] for folder in (SAMPLES, overlays)]
    overview: npt.NDArray[np.uint8] = np.vstack(
        [np.hstack([_scaled(cv2, read_photo(path)) for path in row]) for row in rows]
    )
    return overview


def _scaled(cv2: Any, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    width = round(image.shape[1] * _OVERVIEW_HEIGHT / image.shape[0])
    scaled: npt.NDArray[np.uint8] = cv2.resize(image, (width, _OVERVIEW_HEIGHT), interpolation=cv2.INTER_AREA)
    return scaled
