"""The contact sheet of a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from patchcut.output.whole_files import write_image

from patchcut_export.contact_sheets import COLUMNS, TILE, captioned_row, fitted_tile, read_picture
from patchcut_export.retrieval.index import Hit

_GONE = 235  # grey


def write_search_sheet(path: Path, hits: Sequence[Hit]) -> int:
    """Writes a picture of what was found, ten a row, the nearest first; how many files have gone.

    Args:
        path: an image file.
        hits: at least one.
    Raises:
        OutputError: it cannot be written.
    """
    rows, gone = [], 0
    for begin in range(0, len(hits), COLUMNS):
        part = hits[begin : begin + COLUMNS]
        pictures = [read_picture(hit.path) for hit in part]
        gone += sum(one is None for one in pictures)
        blank = np.full((TILE, TILE, 3), _GONE, np.uint8)
        tiles = [blank if one is None else fitted_tile(one) for one in pictures]
        cosines = f"cosine {part[0].cosine:.3f} to {part[-1].cosine:.3f}"
        rows.append(captioned_row(f"{begin + 1} to {begin + len(part)}: {cosines}", tiles))
    write_image(path, np.concatenate(rows))
    return gone
