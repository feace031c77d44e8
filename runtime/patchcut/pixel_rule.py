"""What a caller chooses of how pixels are read; it takes no numpy, so that a command's help comes at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from patchcut.checks import shown
from patchcut.errors import OptionError

MAX_PIXELS = 2**28

Range = tuple[float, float]


@dataclass(frozen=True)
class PixelRule:
    """What a caller chooses of how pixels are read; `Settings.pixel_rule` is that of some settings.

    Attributes:
        value_range: which values of more than 8 bits become 0 and 255; None finds them in each picture.
        max_pixels: pictures of more are refused before they are decoded.
    Examples:
        >>> patchcut.pixels.PixelRule((0, 4095)).max_pixels == 2**28
        True
    """

    value_range: Range | None = None
    max_pixels: int = MAX_PIXELS

    def too_large(self, height: int, width: int) -> tuple[str, str] | None:
        """What is wrong with a picture of this size and what to do, None where it is not too large.

        Examples:
            >>> patchcut.pixels.PixelRule(max_pixels=100).too_large(10, 11)[0]
            'has 11x10 pixels, more than max_pixels allows (100)'
        """
        if height * width <= self.max_pixels:
            return None
        what = f"has {width}x{height} pixels, more than max_pixels allows ({self.max_pixels})"
        return what, "scale it down, or raise --max-pixels (max_pixels) where there is memory for it"


AS_IT_COMES = PixelRule()


def parse_value_range(option: str, text: object) -> Range | None:
    """The range that "LO:HI" names, None for "auto".

    Raises:
        OptionError: "[value_range] must be auto or LO:HI such as 0:4095, got '5'".
    Examples:
        >>> patchcut.pixels.parse_value_range("value_range", "0:4095")
        (0.0, 4095.0)
    """
    if not isinstance(text, str):
        raise OptionError(option, f"must be auto or LO:HI such as 0:4095, got {shown(text)}")
    if text == "auto":
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise OptionError(option, f"must be auto or LO:HI such as 0:4095, got {shown(text)}")
    return low, high
