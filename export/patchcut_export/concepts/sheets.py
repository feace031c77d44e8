"""Pictures of which part of which photograph was taken for a concept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from patchcut.output.whole_files import write_image
from patchcut_kernels import default_threads

from patchcut_export.concepts.archives import Archive
from patchcut_export.contact_sheets import Picture, read_picture

_TILE, _COLUMNS, _CAPTION = 144, 10, 16


def write_concept_sheet(
    path: Path, archive: Archive, taken: npt.NDArray[np.bool_], cosines: npt.NDArray[np.float32]
) -> None:
    """Writes a picture of all photographs, the least alike first; what was taken is bright, the rest dark.

    Args:
        taken: [m, n] bool, patches of each image.
        cosines: [m] float32, how much each image is like the others; with its file's name above it.
    Raises:
        OutputError: it cannot be written.
    """
    with ThreadPoolExecutor(default_threads(), "patchcut-sheet") as pool:
        order = np.argsort(cosines, kind="stable")
        tiles = list(pool.map(lambda i: _tile(archive, taken, cosines, int(i)), order))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % _COLUMNS)
    rows = [np.concatenate(tiles[i : i + _COLUMNS], axis=1) for i in range(0, len(tiles), _COLUMNS)]
    write_image(path, np.concatenate(rows))


def _tile(
    archive: Archive, taken: npt.NDArray[np.bool_], cosines: npt.NDArray[np.float32], i: int
) -> Picture:
    tile = np.full((_CAPTION + _TILE, _TILE, 3), 255, np.uint8)
    name = Path(archive.images[i]).name[-16:]
    text, font = f"{cosines[i]:.2f} {name}", cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(tile, text, (2, _CAPTION - 4), font, 0.35, (0, 0, 0), 1, cv2.LINE_AA)
    image = read_picture(archive.paths[i])
    if image is not None:
        shrunk = cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
        inside = taken[i].reshape(archive.grid_hw).astype(np.uint8)
        inside = cv2.resize(inside, (_TILE, _TILE), interpolation=cv2.INTER_NEAREST)
        tile[_CAPTION:] = np.where(inside[..., None] > 0, shrunk, shrunk // 4)
    return tile
