from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from patchcut import Frame, FrameError, PatchcutError, Segmenter
from patchcut.output.overlay import BACKGROUND_TINT, PALETTE_RGB, TINT, color_of
from PIL import Image

from tests.runtime.results import made_result


def test_an_overlay_is_a_drawn_copy(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    before = photo.copy()
    overlay = toy_segmenter(photo).overlay(photo)
    assert (overlay.shape, overlay.dtype) == (photo.shape, np.uint8)
    assert not np.shares_memory(overlay, photo)
    np.testing.assert_array_equal(photo, before)
    assert np.any(overlay != photo)


def test_masks_are_tinted_with_their_columns_colour(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    result = toy_segmenter(photo)
    overlay = result.overlay(photo).astype(np.float64)
    for column in (1, 2):
        mask = result.label_map == column
        tinted = photo[mask] * (1 - TINT) + np.array(color_of(column, "bgr")) * TINT
        drawn = np.abs(overlay[mask] - tinted).max(axis=1) > 1
        assert drawn.mean() < 0.25  # lines and text lie over the rest
    background = result.label_map == 0
    assert np.mean(np.any(overlay[background] != photo[background], axis=1)) < 0.25


def test_an_overlay_keeps_the_frames_order_of_channels(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    result = toy_segmenter(photo)
    flipped = np.ascontiguousarray(photo[..., ::-1])
    in_bgr, in_rgb = result.overlay(photo), result.overlay(Image.fromarray(flipped))
    np.testing.assert_array_equal(in_bgr[..., ::-1], in_rgb)
    np.testing.assert_array_equal(result.overlay(Frame(flipped, "rgb")), in_rgb)


def test_no_regions_is_the_frame_itself() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(made_result(0).overlay(frame), frame)


@pytest.mark.parametrize("scale", [1, 2, 10, 200])
def test_every_region_shows_at_any_size(scale: int) -> None:
    result = made_result()
    big = dataclasses.replace(
        result,
        label_map=result.label_map.repeat(scale, 0).repeat(scale, 1),
        region_ids=result.region_ids.repeat(scale, 0).repeat(scale, 1),
        boxes=result.boxes * scale,
    )
    frame = np.full((4 * scale, 6 * scale, 3), 128, np.uint8)
    overlay = big.overlay(frame)
    for mask in big.masks:
        assert np.all(np.any(overlay[mask] != 128, axis=1))


def test_a_frame_of_another_size_is_told(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    with pytest.raises(FrameError, match=r"\[overlay\] frame and result must have one size"):
        toy_segmenter(photo).overlay(photo[:-1])


def test_what_is_no_frame_is_told() -> None:
    with pytest.raises(FrameError, match="got str"):
        made_result().overlay("x.jpg")


def test_a_result_draws_on_its_own_frame(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    flipped = np.ascontiguousarray(photo[..., ::-1])
    for frame in (photo, Image.fromarray(flipped), Frame(flipped, "rgb")):
        result = toy_segmenter(frame)
        np.testing.assert_array_equal(result.overlay(), result.overlay(frame))
    with pytest.raises(FrameError, match=r"this result holds no frame; pass the frame it was made from"):
        made_result().overlay()


def test_a_missing_opencv_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(PatchcutError, match=r"cv2 cannot be imported.*pip install .*\[cpu\]'"):
        made_result().overlay(np.zeros((4, 6, 3), np.uint8))


def test_colours_go_with_the_column() -> None:
    count = len(PALETTE_RGB)
    assert count == 16 and color_of(count + 1) == color_of(1) == PALETTE_RGB[0]
    apart = np.abs(np.array(PALETTE_RGB)[:, None] - np.array(PALETTE_RGB)).sum(axis=2)
    assert np.sort(apart, axis=1)[:, 1].min() >= 80
    assert color_of(1, "bgr") == color_of(1)[::-1]


def test_regions_of_the_background_are_tinted_a_little_and_not_outlined() -> None:
    result = made_result()
    scaled = {name: getattr(result, name).repeat(40, 0).repeat(40, 1) for name in ("label_map", "region_ids")}
    divided = dataclasses.replace(result, **scaled, boxes=result.boxes * 40, background_columns=(0, 1))
    frame = np.full((160, 240, 3), 100, np.uint8)
    overlay = divided.overlay(frame)
    colors = np.unique(overlay[divided.label_map == 1].reshape(-1, 3), axis=0)
    expected = 100 * (1 - BACKGROUND_TINT) + np.array(color_of(1, "bgr")) * BACKGROUND_TINT
    np.testing.assert_allclose(colors, expected[None], atol=1)


@pytest.mark.parametrize(("top", "captioned"), [(44, False), (120, True)])
def test_a_caption_that_would_cover_a_better_regions_is_left_out(top: int, captioned: bool) -> None:
    left, right = np.zeros((200, 300), np.int32), np.zeros((200, 300), np.int32)
    left[40:100, 40:80], right[top : top + 60, 90:150] = 1, 2
    ids = left + right
    boxes = np.array([[40, 40, 80, 100], [90, top, 150, top + 60]], np.float32)
    two = dataclasses.replace(made_result(), label_map=ids, region_ids=ids, boxes=boxes)
    overlay = two.overlay(np.full((200, 300, 3), 100, np.uint8))
    above = overlay[top - 8 : top - 4, 90:150].reshape(-1, 3)
    assert np.all(above == color_of(1, "bgr"), axis=1).any() == captioned
