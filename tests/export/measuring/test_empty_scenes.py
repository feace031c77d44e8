from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut_export.measuring.empty_scenes import background_crop, blank_images, largest_rectangle


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.booleans()))
def test_the_largest_rectangle_is_what_trying_all_finds(mask: np.ndarray) -> None:
    x0, y0, x1, y1 = largest_rectangle(mask)
    assert mask[y0:y1, x0:x1].all()
    rows, columns = range(mask.shape[0] + 1), range(mask.shape[1] + 1)
    areas = [
        (b - t) * (r - left)
        for t in rows
        for b in rows[t + 1 :]
        for left in columns
        for r in columns[left + 1 :]
        if mask[t:b, left:r].all()
    ]
    assert (x1 - x0) * (y1 - y0) == max(areas, default=0)


def test_a_crop_holds_only_background() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    foreground = np.full((6, 9), 0.1, np.float32)
    foreground[1:5, 5:8] = 0.9
    image[10:50, 50:80] = 255
    crop = background_crop(image, foreground)
    assert crop is not None
    assert crop.shape == (60, 50, 3)
    assert crop.max() == 0


def test_where_little_background_is_left_there_is_no_crop() -> None:
    foreground = np.ones((6, 6), np.float32)
    foreground[:, 0] = 0
    assert background_crop(np.zeros((60, 60, 3), np.uint8), foreground) is None
    assert background_crop(np.zeros((2, 1, 3), np.uint8), foreground * 0) is not None


def test_blank_images_differ_and_depend_on_the_seed_alone() -> None:
    first, again, other = (list(blank_images(8, seed)) for seed in (0, 0, 1))
    assert all(image.shape == (224, 224, 3) and image.dtype == np.uint8 for image in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({image.tobytes() for image in first}) == 8
    assert np.ptp(first[0].reshape(-1, 3), axis=0).max() == 0
    assert all(np.ptp(image.reshape(-1, 3), axis=0).max() > 0 for image in first[1:4])
