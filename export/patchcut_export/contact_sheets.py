"""Contact sheets: rows of small pictures, each row below a caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from patchcut.errors import SourceError
from patchcut.sources.photos import read_photo

Picture = npt.NDArray[np.uint8]

TILE, COLUMNS = 128, 10
_CAPTION = 22


def read_picture(path: Path) -> Picture | None:
    """A photo, [H, W, 3] uint8 BGR; None where it has gone, or cannot be read any more."""
    try:
        return read_photo(path)
    except SourceError:
        return None


def fitted_tile(image: Picture) -> Picture:
    """The whole of a picture in a tile, [TILE, TILE, 3] uint8, on white."""
    shrink = TILE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink))
    tile = np.full((TILE, TILE, 3), 255, np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return tile


def captioned_row(caption: str, tiles: Sequence[Picture]) -> Picture:
    """Up to COLUMNS tiles side by side below a caption."""
    row = np.full((_CAPTION + TILE, COLUMNS * TILE, 3), 255, np.uint8)
    where = (4, _CAPTION - 6)
    cv2.putText(row, caption, where, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for x, tile in enumerate(tiles):
        row[_CAPTION:, x * TILE : (x + 1) * TILE] = tile
    return row
