"""A picture of which classes were taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.output.whole_files import write_image
from PIL import Image, ImageDraw, ImageFont

from patchcut_export.measuring.metrics import Contingency

_CELL = 30  # pixels: three digits of the smaller font fit in
_FONT, _DIGITS = 14, 12
_GAP = 8
_LEAST, _MOST = (255, 255, 255), (8, 48, 107)  # RGB of 0 and of 1
_INK, _PALE_INK, _LINE, _RIGHT = (0, 0, 0), (255, 255, 255), (215, 215, 215), (225, 110, 0)
_NONE = "no class"
_LONGEST = 24  # characters of a name that are shown
_CAPTION = "rows: true class; columns: what it was taken for; in % of the row's pixels"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write_confusion(path: Path, confusion: Contingency, names: Sequence[str], title: str) -> None:
    """Writes the picture of a confusion matrix: a row for each true class, in which shares sum to 1.

    Args:
        confusion: [c + 1, c] pixels of each class that were taken for each; the last row for none.
        names: of the c classes.
    Raises:
        OutputError: it cannot be written.
    """
    table = confusion.T if confusion[-1].any() else confusion[:-1].T
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    columns = [*names, _NONE][: table.shape[1]]
    picture = draw_confusion(table, names, columns, title)
    write_image(path, np.ascontiguousarray(picture[..., ::-1]))


def draw_confusion(
    table: Contingency, names: Sequence[str], columns: Sequence[str], title: str
) -> npt.NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB: cells in shades of blue, their shares in % where they are at least 1.

    Args:
        table: [c, r] pixels; rows without any are left white.
        names, columns: of its rows and columns.
    """
    font, digits = (ImageFont.load_default(size) for size in (_FONT, _DIGITS))
    left = _GAP + max(_width(font, name) for name in names) + _GAP
    heads = [_text(font, name).rotate(90, expand=True) for name in columns]
    top = 2 * (_FONT + _GAP) + max(head.height for head in heads) + 2 * _GAP
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    width = max(left + _CELL * len(columns), *(_GAP + _width(font, text) for text in (title, _CAPTION)))
    picture = Image.new("RGB", (width + _GAP, top + _CELL * len(names) + _GAP), _PALE_INK)
    draw = ImageDraw.Draw(picture)
    for line, text in enumerate((title, _CAPTION)):
        draw.text((_GAP, _GAP + line * (_FONT + _GAP // 2)), text, _INK, font)
    for column, head in enumerate(heads):
        x = left + column * _CELL + (_CELL - head.width) // 2
        picture.paste(_INK, (x, top - _GAP // 2 - head.height), head)
    for row, name in enumerate(names):
        y = top + row * _CELL
        draw.text((left - _GAP // 2, y + _CELL // 2), name, _INK, font, anchor="rm")
        for column, share in enumerate(shares[row].tolist()):
            _draw_cell(draw, (left + column * _CELL, y), share, row == column, digits)
    return np.asarray(picture)


def _draw_cell(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], share: float, right: bool, font: Font
) -> None:
    """A cell; those of the diagonal have a frame of their own."""
    x, y = corner
    colour = tuple(round(least + (most - least) * share) for least, most in zip(_LEAST, _MOST, strict=True))
    outline = _RIGHT if right else _LINE
    draw.rectangle((x, y, x + _CELL - 1, y + _CELL - 1), colour, outline)
    if share >= 0.01:
        ink = _PALE_INK if share > 0.5 else _INK
        draw.text((x + _CELL // 2, y + _CELL // 2), f"{share:.0%}"[:-1], ink, font, anchor="mm")


def _width(font: Font, text: str) -> int:
    return round(font.getlength(text))


def _text(font: Font, text: str) -> Image.Image:
    """A mask of one line of text, in a box that has the same height for any text."""
    mask = Image.new("L", (max(1, _width(font, text)), _FONT + 4))
    ImageDraw.Draw(mask).text((0, _FONT // 2 + 2), text, 255, font, anchor="lm")
    return mask
