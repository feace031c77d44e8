"""Pixels: how values of any type become 8 bits, and what is transparent a colour. One rule for all inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.errors import FrameError
from patchcut.pixel_rule import AS_IT_COMES, PixelRule, Range, parse_value_range

__all__ = ["AS_IT_COMES", "PixelRule", "Pixels", "Range", "parse_value_range", "to_8_bits"]

# Transparent pixels are laid over mid grey: neither dark nor light drawings vanish on it.
BEHIND_ALPHA = 128
# A pixel that is less opaque than this cannot be seen.
LEAST_OPACITY = 0.1

# Values that use the upper half of what their type holds, over an eighth of it, are taken as they are.
_HIGH_SHARE, _SPREAD_SHARE = 1 / 2, 1 / 8
_PERCENTILES = (0.5, 99.5)
_SAMPLE_PIXELS = 2**18
_STRIP_PIXELS = 2**20

_RANGE_REMEDY = "fix the range with --value-range LO:HI (value_range) where pictures are to be alike"

Values = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of 8 bits.

    Attributes:
        image: [H, W, 3] uint8, its own memory.
        visible: [H, W] bool, False where alpha hides a pixel; None where all can be seen.
        notes: what was decided about them, `[where] what; what to do`.
    """

    image: npt.NDArray[np.uint8]
    visible: npt.NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


def to_8_bits(
    values: Values,
    where: str,
    rule: PixelRule,
    *,
    said: Range | None = None,
    premultiplied: bool = False,
) -> Pixels:
    """Pixels of 8 bits made of any others.

    Args:
        values: [H, W] or [H, W, 1] grey, [H, W, 3] colour, [H, W, 4] colour and alpha; integers or floats.
        where: what notes and errors call it.
        rule: what the caller chose.
        said: the range of values that the picture's format promises; None where it says none.
        premultiplied: whether the colours have been multiplied by alpha already.
    Raises:
        FrameError: there is no finite value.
    Values of more than 8 bits are scaled by the range that the caller chose; else by the range that is said,
    if they keep to it; else, where they use the upper half of what their type holds (65535 for integers, 1
    for floats), by that; else their 0.5 and 99.5 percentiles become 0 and 255, and a note says so.
    Examples:
        >>> ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None]
        >>> patchcut.pixels.to_8_bits(ramp, "frame", patchcut.pixels.PixelRule()).image[0, :, 0].tolist()[-3:]
        [253, 254, 255]
    """
    values = values[..., None] if values.ndim == 2 else values
    colors, alpha = values[..., :3], values[..., 3] if values.shape[2] == 4 else None
    opaque = 0.0 if alpha is None else _opaque(alpha, said)
    visible = None if alpha is None else alpha >= LEAST_OPACITY * opaque
    bounds, notes = _bounds(colors, visible, where, rule, said)
    if visible is not None and not visible.any():
        hidden = f"[{where}] is transparent everywhere; if its fourth channel is no alpha, leave that out"
        notes = (*notes, hidden)
    table = None if bounds is None else _table(values.dtype, bounds)
    image = np.empty((*values.shape[:2], 3), np.uint8)
    for rows in _strips(values.shape):
        strip = _scaled(colors[rows], bounds, table)
        if alpha is not None:
            strip = _over_grey(strip, alpha[rows], opaque, premultiplied)
        image[rows] = strip
    return Pixels(image, None if visible is None or visible.all() else visible, notes)


def _bounds(
    colors: Values, visible: npt.NDArray[np.bool_] | None, where: str, rule: PixelRule, said: Range | None
) -> tuple[Range | None, tuple[str, ...]]:
    """The values that become 0 and 255, None for values that have 8 bits already; and what to say of it."""
    eight_bits = colors.dtype == np.uint8
    if rule.value_range is not None and not eight_bits:
        return rule.value_range, ()
    full = 255.0 if eight_bits else _full(colors.dtype)
    if said is not None and said != (0, full) and said[0] <= colors.min() and colors.max() <= said[1]:
        return said, ()
    if eight_bits:
        return None, ()
    low, high = _percentiles(colors, visible, where)
    as_it_is = high <= full and high >= _HIGH_SHARE * full and high - low >= _SPREAD_SHARE * full
    if (as_it_is and low >= 0) or high == low:
        return (0.0, full) if high <= full and low >= 0 else (low, low + 1), ()
    what = f"its {colors.dtype} values are mostly {low:g} to {high:g}: these became 0 and 255"
    return (low, high), (f"[{where}] {what}; {_RANGE_REMEDY}",)


def _percentiles(colors: Values, visible: npt.NDArray[np.bool_] | None, where: str) -> Range:
    """Robust least and largest value of a sample, of what can be seen where anything can."""
    step = math.ceil(math.sqrt(colors.shape[0] * colors.shape[1] / _SAMPLE_PIXELS))
    sample = colors[::step, ::step]
    if visible is not None and (seen := visible[::step, ::step]).any():
        sample = sample[seen]
    sample = sample[np.isfinite(sample)].astype(np.float64)
    if not sample.size:
        raise FrameError(where, "holds no finite value", "check where it was made")
    with np.errstate(over="ignore"):
        low, high = np.percentile(sample, _PERCENTILES)
    if high == low:  # a small thing on an even ground
        low, high = sample.min(), sample.max()
    return float(low), float(high)


def _full(dtype: np.dtype[Any]) -> float:
    """The largest value of a picture that uses all of its type; 16 bits may come in wider integers."""
    return 1.0 if dtype.kind == "f" else float(min(65535, np.iinfo(dtype).max))


def _opaque(alpha: Values, said: Range | None) -> float:
    """The alpha of what is not transparent at all."""
    if alpha.dtype == np.uint8:
        return 255.0
    full = _full(alpha.dtype) if said is None else said[1]
    largest = float(np.nanmax(alpha, initial=0))
    return full if largest > full / 2 or largest <= 0 else largest


def _table(dtype: np.dtype[Any], bounds: Range) -> npt.NDArray[np.uint8] | None:
    """What each value becomes, for types that have few of them."""
    if dtype not in (np.uint8, np.uint16):
        return None
    return _scaled(np.arange(np.iinfo(dtype).max + 1), bounds, None)


def _scaled(
    values: Values, bounds: Range | None, table: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.uint8]:
    """Values of `bounds` as 0 to 255; what is beyond them becomes the nearest, and NaN 0."""
    if bounds is None:
        return values
    if table is not None:
        return table[values]
    low, high = bounds
    with np.errstate(all="ignore"):  # NaN becomes 0
        halves = np.clip(values.astype(np.float64), low, high) / 2  # so that no difference is infinite
        shares = (halves - low / 2) / (high / 2 - low / 2)
    return np.rint(255 * np.nan_to_num(shares, nan=0)).astype(np.uint8)


def _over_grey(
    strip: npt.NDArray[np.uint8], alpha: Values, opaque: float, premultiplied: bool
) -> npt.NDArray[np.uint8]:
    """A strip [h, W, 3] laid over mid grey as its alpha [h, W] says."""
    share = np.clip(np.nan_to_num(alpha.astype(np.float32), nan=0) / np.float32(opaque), 0, 1)[..., None]
    over = strip.astype(np.float32)
    if not premultiplied:
        over *= share
    over += BEHIND_ALPHA * (1 - share)
    return np.rint(np.minimum(over, 255, out=over), out=over).astype(np.uint8)


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows that are worked on at once, so that no second picture of floats is held."""
    rows = max(1, _STRIP_PIXELS // max(1, shape[1]))
    for begin in range(0, shape[0], rows):
        yield slice(begin, begin + rows)
