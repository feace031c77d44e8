"""Contact sheets: what clusters and names look like, for people who decide about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from patchcut.errors import SourceError
from patchcut.output.whole_files import write_image
from patchcut.sources.photos import read_photo

from patchcut_export.levels.regions import FoundRegions

Picture = npt.NDArray[np.uint8]

_TILE, _COLUMNS, _CAPTION = 128, 10, 22
_MARGIN = 0.1


def write_cluster_sheet(
    path: Path,
    root: Path,
    images: Sequence[str],
    labels: npt.NDArray[np.int32],
    grid_hw: tuple[int, int],
    captions: Sequence[str],
) -> None:
    """Writes a picture with a row for each cluster: images that have many of its patches, the others dark.

    Args:
        root: folder of the images.
        images: N names below it.
        labels: [N, n] int32, the cluster of each patch.
        captions: a line for each cluster.
    Raises:
        OutputError: it cannot be written.
    """
    rows = []
    for k, caption in enumerate(captions):
        order = np.argsort(-(labels == k).sum(axis=1), kind="stable")
        tiles = []
        for i in order[: 4 * _COLUMNS : 4]:
            image = read_picture(root / images[i])
            if image is None:
                continue
            tile = cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
            inside = (labels[i] == k).reshape(grid_hw).astype(np.uint8)
            inside = cv2.resize(inside, (_TILE, _TILE), interpolation=cv2.INTER_NEAREST)
            tiles.append(np.where(inside[..., None] > 0, tile, tile // 5).astype(np.uint8))
        rows.append(_row(caption, tiles))
    write_image(path, np.concatenate(rows))


def write_name_sheet(
    path: Path,
    root: Path,
    images: Sequence[str],
    found: FoundRegions,
    names: npt.NDArray[np.int32],
    centres: npt.NDArray[np.float32],
    labels: Sequence[str],
) -> None:
    """Writes a picture with a row for each name: the regions that are nearest to its centre.

    Args:
        names: [R] int32, of the regions.
        centres: [C, s] float32.
        labels: of the C names.
    Raises:
        OutputError: it cannot be written.
    """
    alike = (found.means * centres[names]).sum(axis=1) if len(names) else np.zeros(0)
    rows = []
    for c, label in enumerate(labels):
        own = np.flatnonzero(names == c)
        order = own[np.argsort(-alike[own], kind="stable")]
        tiles = [_crop(root / images[found.images[r]], found.boxes[r]) for r in order[:_COLUMNS]]
        rows.append(_row(f"{label}: {len(own)} regions", [tile for tile in tiles if tile is not None]))
    write_image(path, np.concatenate(rows))


def read_picture(path: Path) -> Picture | None:
    """The photo [h, w, 3] uint8; None where it has gone since its features were made."""
    try:
        return read_photo(path)
    except SourceError:
        return None


def _crop(path: Path, box: npt.NDArray[np.float32]) -> Picture | None:
    image = read_picture(path)
    if image is None:
        return None
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box * np.array([width, height, width, height], np.float32)
    margin = _MARGIN * max(x1 - x0, y1 - y0)
    part = image[
        max(0, int(y0 - margin)) : int(y1 + margin) + 1, max(0, int(x0 - margin)) : int(x1 + margin) + 1
    ]
    shrink = _TILE / max(part.shape[:2])
    size = max(1, round(part.shape[1] * shrink)), max(1, round(part.shape[0] * shrink))
    tile = np.full((_TILE, _TILE, 3), 255, np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return tile


def _row(caption: str, tiles: Sequence[Picture]) -> Picture:
    row = np.full((_CAPTION + _TILE, _COLUMNS * _TILE, 3), 255, np.uint8)
    where = (4, _CAPTION - 6)
    cv2.putText(row, caption, where, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for x, tile in enumerate(tiles):
        row[_CAPTION:, x * _TILE : (x + 1) * _TILE] = tile
    return row
