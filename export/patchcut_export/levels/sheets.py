"""Contact sheets: what clusters and names look like, for people who decide about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from patchcut.output.whole_files import write_image

from patchcut_export.contact_sheets import COLUMNS, TILE, Picture, captioned_row, fitted_tile, read_picture
from patchcut_export.levels.regions import FoundRegions

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
        for i in order[: 4 * COLUMNS : 4]:
            image = read_picture(root / images[i])
            if image is None:
                continue
            tile = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)
            inside = (labels[i] == k).reshape(grid_hw).astype(np.uint8)
            inside = cv2.resize(inside, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
            tiles.append(np.where(inside[..., None] > 0, tile, tile // 5).astype(np.uint8))
        rows.append(captioned_row(caption, tiles))
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
        tiles = [_crop(root / images[found.images[r]], found.boxes[r]) for r in order[:COLUMNS]]
        rows.append(
            captioned_row(f"{label}: {len(own)} regions", [tile for tile in tiles if tile is not None])
        )
    write_image(path, np.concatenate(rows))


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
    return fitted_tile(part)
