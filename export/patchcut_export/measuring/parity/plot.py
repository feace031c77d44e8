"""A picture of a parity report: a bar for each way, its agreement beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from patchcut.errors import OutputError
from patchcut.output.whole_files import write_image
from PIL import Image, ImageDraw, ImageFont

from patchcut_export.measuring.parity.report import ParityReport, ParityRow

_SUFFIXES = (".png", ".jpg", ".jpeg")
_WIDTH, _LINE, _MARGIN = 1320, 40, 32
_NAMES, _BARS = 300, 400  # width of each column; the rest is for numbers
_INK, _PALE, _WARNING = (34, 38, 43), (120, 126, 133), (178, 34, 34)
# Okabe and Ito's colours, which are told apart by all eyes.
_COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0))


def check_plot(path: Path) -> None:
    """Checks that the name of `path` says a format in which a plot can be written.

    Raises:
        OutputError: it is none of PNG and JPEG.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise OutputError("output", f"cannot draw {path}", "name a .png or .jpg file")


def write_plot(path: Path, report: ParityReport) -> None:
    """Writes the picture: for each size the ways by their time, with how near they come to the reference.

    Raises:
        OutputError: it cannot be written.
    """
    write_image(path, np.asarray(draw(report))[..., ::-1])


def draw(report: ParityReport) -> Image.Image:
    """The picture, RGB."""
    sizes = list(dict.fromkeys(row.size for row in report.rows))
    lines = 2 + sum(2 + sum(row.size == size for row in report.rows) for size in sizes)
    image = Image.new("RGB", (_WIDTH, 2 * _MARGIN + lines * _LINE), "white")
    pen = ImageDraw.Draw(image)
    engines = sorted({row.engine for row in report.rows})
    y = _MARGIN
    pen.text((_MARGIN, y), report.bundle[:80], _INK, ImageFont.load_default(24))
    said = f"{report.machine}, {report.threads} threads; agreement with fp32 on {report.images} images"
    pen.text((_MARGIN, y + 32), said[:110], _PALE, ImageFont.load_default(16))
    y += 2 * _LINE
    for size in sizes:
        rows = sorted((row for row in report.rows if row.size == size), key=lambda row: row.times.median_ms)
        pen.text((_MARGIN, y), f"{size}x{size}, milliseconds a frame", _INK, ImageFont.load_default(20))
        y += _LINE
        longest = max(row.times.median_ms for row in rows)
        for row in rows:
            colour = _COLOURS[engines.index(row.engine) % len(_COLOURS)]
            _draw_row(pen, y, row, row.times.median_ms / longest, colour)
            y += _LINE
        y += _LINE
    return image


def _draw_row(
    pen: ImageDraw.ImageDraw, y: int, row: ParityRow, share: float, colour: tuple[int, int, int]
) -> None:
    font, small = ImageFont.load_default(18), ImageFont.load_default(16)
    left = _MARGIN + _NAMES
    end = left + max(2, round(share * _BARS))
    pen.text((_MARGIN, y), row.name[:30], _INK, font)
    pen.rectangle((left, y, end, y + _LINE - 14), colour)
    pen.text((end + 8, y), f"{row.times.median_ms:.1f}", _INK, font)
    found = row.agreement
    text = f"cosine {found.cosine_mean:.4f}, worst {found.cosine_worst:.3f}; masks' IoU {found.iou_mean:.3f}"
    if row.reference:
        text = "the reference"
    bad = row.accepted is False
    said = f"INACCURATE: {text}" if bad else text
    pen.text((left + _BARS + 70, y + 2), said, _WARNING if bad else _PALE, small)
