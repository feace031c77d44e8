"""With an embedded bundle a frame that shows nothing has no regions."""

from __future__ import annotations

import numpy as np
import patchcut
import pytest

HEIGHT, WIDTH = 480, 640
_RANDOM = np.random.default_rng(5)
_RAMP = np.repeat(np.linspace(0, 255, WIDTH), 3).reshape(1, WIDTH, 3).repeat(HEIGHT, 0)
_SKY = np.array([220, 180, 120]) + _RANDOM.normal(0, 3, (HEIGHT, WIDTH, 3))

EMPTY = {
    "black": np.zeros((HEIGHT, WIDTH, 3)),
    "grey": np.full((HEIGHT, WIDTH, 3), 127),
    "white": np.full((HEIGHT, WIDTH, 3), 255),
    "noise": _RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3)),
    "ramp": _RAMP,
    "sky": _SKY,
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize(("bundle", "size"), [("default", 224), ("default", 448), ("tiny", 126)])
def test_a_frame_that_shows_nothing_has_no_regions(bundle: str, name: str, size: int) -> None:
    result = patchcut.load(bundle, size=size)(EMPTY[name].astype(np.uint8))
    assert result.scores.tolist() == []
    assert not result.foreground.any()
