"""What one grey level in one pixel changes: the rounding of an 8-bit backbone, and what heads make of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import patchcut
from patchcut import Result, Segmenter
from patchcut.bundle import Precision, open_bundle
from patchcut.settings import MODES, Mode
from patchcut.sources.photos import read_photo

from bench import subjects
from bench.cases import Options, Target
from bench.rows import Outcome

TITLE = "photographs beside themselves with one grey level more in one pixel"
REPEATS = 1
_FOLDER, _SIZE = "ecssd-dev", 224
_PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")
CASES = tuple(f"{_FOLDER} {mode} {precision}" for mode in MODES for precision in _PRECISIONS)
TARGETS = (
    *(
        Target(f"{_FOLDER} {mode} fp32", "pixels changed", "<=", 0.001, "", f"{mode}, fp32, pixels changed")
        for mode in MODES
    ),
    Target(
        f"{_FOLDER} foreground int8", "pixels changed", "<=", 0.01, "", "foreground, int8, pixels changed"
    ),
)
# Every 25th photograph, 12 of the 300; and where the pixel lies, in shares of height and width.
_EVERY = 25
_PLACES = ((0.5, 0.5), (0.25, 0.33), (0.75, 0.67))

Image = npt.NDArray[np.uint8]


def run(options: Options) -> Iterator[Outcome]:
    """A row a mode and precision that the bundle has."""
    folder = options.dataset("stability", _FOLDER, "images") / "images"
    photos = [read_photo(path) for path in sorted(folder.iterdir())[::_EVERY]]
    with open_bundle(options.bundle) as bundle:
        held = {graph.precision for graph in bundle.spec.backbone.graphs if graph.size_hw == (_SIZE, _SIZE)}
    for case in CASES:
        _, mode, precision = case.split(" ")
        if precision in held:
            settings = replace(options.settings, size=_SIZE, mode=cast("Mode", mode), precision=precision)
            yield _outcome(case, patchcut.load(settings=settings), photos, options.bundle)


def _outcome(case: str, segmenter: Segmenter, photos: list[Image], bundle: Path) -> Outcome:
    changes = np.array([_changes(segmenter, photo) for photo in photos])  # [photos, places, numbers]
    pixels = changes[:, :, 0].max(axis=1)
    quality = {
        "pixels changed": float(changes[:, :, 0].mean()),
        "most pixels changed": float(pixels.max()),
        "share of photos with 1 % changed": float((pixels > 0.01).mean()),
        "least IoU of the foregrounds": float(changes[:, :, 1].min()),
        "features moved": float(changes[:, :, 2].mean()),
    }
    inside = f"no clock; {len(photos)} images, {len(_PLACES)} pixels of each"
    precision = segmenter.describe().settings.precision
    return Outcome(case, "patchcut", inside, dtype=precision, quality=quality, bundle=bundle)


def _changes(segmenter: Segmenter, photo: Image) -> list[tuple[float, float, float]]:
    """For each place: share of pixels with another label, IoU of both foregrounds, how far features moved."""
    before, rows = segmenter(photo), _features(segmenter, photo)
    found = []
    for y, x in _PLACES:
        other = brightened(photo, (int(y * photo.shape[0]), int(x * photo.shape[1])))
        after = segmenter(other)
        moved = np.linalg.norm(_features(segmenter, other) - rows) / np.linalg.norm(rows)
        found.append((float((_names(before) != _names(after)).mean()), _iou(before, after), float(moved)))
    return found


def brightened(photo: Image, pixel_yx: tuple[int, int]) -> Image:
    """A copy of [H, W, 3] uint8 with one green value a grey level higher; lower where it is the highest."""
    other: Image = np.array(photo)
    y, x = pixel_yx
    value = int(photo[y, x, 1])
    other[y, x, 1] = value + 1 if value < 255 else value - 1
    return other


def _features(segmenter: Segmenter, photo: Image) -> npt.NDArray[np.float32]:
    return subjects.first(subjects.features(segmenter.extractor, photo).default)


def _names(result: Result) -> npt.NDArray[np.str_]:
    """[H, W], the name of each pixel's column."""
    names: npt.NDArray[np.str_] = np.array(result.labels)[result.label_map]
    return names


def _iou(a: Result, b: Result) -> float:
    either = np.count_nonzero(a.foreground | b.foreground)
    return np.count_nonzero(a.foreground & b.foreground) / either if either else 1.0
