"""What patches stand for in pixels of the frame."""

from __future__ import annotations

import pytest
from patchcut.stages import Canvas


@pytest.mark.parametrize(
    ("size_hw", "patches", "expected"),
    [
        ((480, 640), 0.5, 600),
        ((481, 641), 0.5, 603),  # of 602.19: never less than was asked for
        ((3, 3), 0.5, 1),
        ((480, 640), 0.0, 1),
    ],
)
def test_the_smallest_region_is_at_least_what_was_asked_for(
    size_hw: tuple[int, int], patches: float, expected: int
) -> None:
    canvas = Canvas(size_hw, (0, 0), size_hw, (16, 16))
    assert canvas.min_area(patches) == expected
    assert canvas.patch_side**2 == pytest.approx(canvas.patch_area)
