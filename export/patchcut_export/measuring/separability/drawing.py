"""A drawing of rectangles, lines and words that becomes a PNG or an SVG."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Align = Literal["left", "middle", "right"]
_ANCHORS: dict[Align, tuple[str, str]] = {
    "left": ("start", "ls"),
    "middle": ("middle", "ms"),
    "right": ("end", "rs"),
}
_FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class _Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class _Word:
    """A line of text whose baseline is at y."""

    x: float
    y: float
    text: str
    size: int
    colour: str
    align: Align


@dataclass
class Drawing:
    """Shapes on white, in the order in which they were added; colours are "#rrggbb".

    Args:
        width, height: in units that are pixels of the SVG, and two pixels of the PNG.
    """

    width: int
    height: int
    shapes: list[_Box | _Word] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Adds a rectangle from its upper left corner."""
        self.shapes.append(_Box(x, y, max(0.0, width), max(0.0, height), colour))

    def word(self, x: float, y: float, text: str, size: int, colour: str, align: Align = "left") -> None:
        """Adds a line of text on a baseline."""
        self.shapes.append(_Word(x, y, text, size, colour, align))

    def to_svg(self) -> str:
        """The SVG document."""
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" font-family="{_FONT}">',
            f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>',
        ]
        for one in self.shapes:
            if isinstance(one, _Box):
                size = f'width="{one.width:.2f}" height="{one.height:.2f}"'
                lines.append(f'<rect x="{one.x:.2f}" y="{one.y:.2f}" {size} fill="{one.colour}"/>')
            else:
                anchor = f'text-anchor="{_ANCHORS[one.align][0]}"'
                style = f'font-size="{one.size}" fill="{one.colour}" {anchor}'
                lines.append(f'<text x="{one.x:.2f}" y="{one.y:.2f}" {style}>{escape(one.text)}</text>')
        return "\n".join([*lines, "</svg>\n"])

    def to_image(self) -> Image.Image:
        """The picture, RGB, twice as wide and high."""
        image = Image.new("RGB", (2 * self.width, 2 * self.height), "white")
        pen = ImageDraw.Draw(image)
        for one in self.shapes:
            if isinstance(one, _Box):
                corner = (2 * (one.x + one.width) - 1, 2 * (one.y + one.height) - 1)
                if corner[0] >= 2 * one.x and corner[1] >= 2 * one.y:
                    pen.rectangle((2 * one.x, 2 * one.y, *corner), one.colour)
            else:
                font = ImageFont.load_default(2 * one.size)
                anchor = _ANCHORS[one.align][1]
                pen.text((2 * one.x, 2 * one.y), one.text, one.colour, font, anchor=anchor)
        return image
