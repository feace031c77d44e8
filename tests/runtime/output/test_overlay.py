from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import patchcut_kernels as kernels
import pytest
from patchcut import Frame, FrameError, PatchcutError, Result, Segmenter
from patchcut.output import overlay as overlay_module
from patchcut.output.overlay import BACKGROUND_TINT, COLORS, PALETTE_RGB, TINT, color_of
from patchcut.settings import Mode
from PIL import Image

from tests.runtime.results import boxes_result, made_result


def test_an_overlay_is_a_drawn_copy(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    before = photo.copy()
    overlay = toy_segmenter(photo).overlay(photo)
    assert (overlay.shape, overlay.dtype) == (photo.shape, np.uint8)
    assert not np.shares_memory(overlay, photo)
    np.testing.assert_array_equal(photo, before)
    assert np.any(overlay != photo)


def test_masks_are_tinted_with_their_regions_colour(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    result = toy_segmenter(photo)
    check_tints(result, result.region_ids, range(1, 3), photo)


def test_parts_are_tinted_with_their_labels_colour(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    result = dataclasses.replace(toy_segmenter(photo), mode="parts")
    check_tints(result, result.label_map, (1, 2), photo)


def check_tints(result: Result, ids: np.ndarray, numbers: Sequence[int], photo: np.ndarray) -> None:
    overlay = result.overlay(photo).astype(np.float64)
    for number in numbers:
        mask = ids == number
        tinted = photo[mask] * (1 - TINT) + np.array(color_of(number, "bgr")) * TINT
        drawn = np.abs(overlay[mask] - tinted).max(axis=1) > 1
        assert drawn.mean() < 0.25  # lines and text lie over the rest
    background = ids == 0
    assert np.mean(np.any(overlay[background] != photo[background], axis=1)) < 0.25


@pytest.mark.parametrize(("mode", "same"), [("foreground", False), ("parts", True)])
def test_two_objects_of_one_label_differ_and_two_pieces_of_a_part_do_not(mode: Mode, same: bool) -> None:
    result = boxes_result([(20, 20, 90, 90), (110, 20, 180, 90)], mode=mode)
    overlay = result.overlay(np.full((*result.label_map.shape, 3), 100, np.uint8))
    assert np.array_equal(overlay[85, 80], overlay[85, 170]) == same
    assert not np.array_equal(overlay[85, 80], overlay[100, 100])


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


def test_colours_stay_apart() -> None:
    count = len(PALETTE_RGB)
    assert count == 16 and color_of(1) == color_of(COLORS + 1) == PALETTE_RGB[0]
    apart = np.abs(np.array(PALETTE_RGB)[:, None] - np.array(PALETTE_RGB)).sum(axis=2)
    assert np.sort(apart, axis=1)[:, 1].min() >= 80
    assert len({color_of(number) for number in range(1, COLORS + 1)}) == COLORS == 80
    assert color_of(1, "bgr") == color_of(1)[::-1]


def test_more_regions_than_bytes_are_tinted_alike() -> None:
    boxes = [(x, y, x + 8, y + 8) for y in range(0, 200, 10) for x in range(0, 200, 10)]
    result = boxes_result(boxes, size_hw=(200, 200))
    assert len(result) == 400
    overlay = result.overlay(np.full((200, 200, 3), 100, np.uint8)).astype(int)
    middles = np.array([overlay[y + 4, x + 4] for x, y, _, _ in boxes])
    tinted = [100 * (1 - TINT) + np.array(color_of(i + 1, "bgr")) * TINT for i in range(400)]
    right = np.all(np.abs(middles - tinted) <= 1, axis=1)
    assert right.mean() > 0.8 and right[-1], "the others have a number there"


def test_regions_of_the_background_are_tinted_a_little_and_not_outlined() -> None:
    result = made_result()
    scaled = {name: getattr(result, name).repeat(40, 0).repeat(40, 1) for name in ("label_map", "region_ids")}
    divided = dataclasses.replace(
        result, **scaled, boxes=result.boxes * 40, background_columns=(0, 1), mode="scene"
    )
    frame = np.full((160, 240, 3), 100, np.uint8)
    overlay = divided.overlay(frame)
    plate = np.all(overlay == color_of(1, "bgr"), axis=2)  # with its number
    assert 50 < plate.sum() < 400 and not plate[divided.label_map != 1].any()
    rows, columns = (slice(where.min() - 1, where.max() + 2) for where in np.nonzero(plate))
    bare = divided.label_map == 1
    bare[rows, columns] = False
    colors = np.unique(overlay[bare], axis=0)
    expected = 100 * (1 - BACKGROUND_TINT) + np.array(color_of(1, "bgr")) * BACKGROUND_TINT
    np.testing.assert_allclose(colors, expected[None], atol=1)


@pytest.fixture
def plates(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, np.ndarray]]]:
    """The texts that overlays have, each with where its plate is: [H, W] bool."""
    put: list[tuple[str, np.ndarray]] = []
    real = overlay_module._Plates.put

    def spy(self: overlay_module._Plates, text: str, *args: object, **kwargs: object) -> bool:
        before = self._free.copy()
        done: bool = real(self, text, *args, **kwargs)  # type: ignore[arg-type]
        if done:
            put.append((text, before & ~self._free))
        return done

    monkeypatch.setattr(overlay_module._Plates, "put", spy)
    yield put
    total = sum(plate.astype(int) for _, plate in put)
    assert np.max(total) <= 1, "no text covers another"


Plates = list[tuple[str, np.ndarray]]


def test_captions_say_which_mask_file_is_which(plates: Plates) -> None:
    result = boxes_result([(20, 20, 90, 90), (110, 20, 180, 90)], scores=(0.874, 0.25))
    result.overlay(np.full((*result.label_map.shape, 3), 100, np.uint8))
    assert [text for text, _ in plates] == ["1 0.87", "2 0.25"]
    plates.clear()
    named = made_result()
    scaled = {name: getattr(named, name).repeat(60, 0).repeat(60, 1) for name in ("label_map", "region_ids")}
    dataclasses.replace(named, **scaled, boxes=named.boxes * 60).overlay(np.zeros((240, 360, 3), np.uint8))
    assert [text for text, _ in plates] == ["1: dog 0.75", "2: cat 0.25"]


def test_an_object_keeps_its_number_and_its_colour_whatever_its_rank(plates: Plates) -> None:
    left, right = (20, 60, 90, 150), (110, 60, 180, 150)
    frame = np.full((200, 200, 3), 100, np.uint8)
    for boxes, ids in (((left, right), (3, 85)), ((right, left), (85, 3))):
        result = boxes_result(boxes, scores=(0.9, 0.5), track_ids=np.array(ids, np.int32))
        overlay = result.overlay(frame)
        for x, number in ((40, 3), (130, 85)):
            tinted = 100 * (1 - TINT) + np.array(color_of(number, "bgr")) * TINT
            np.testing.assert_allclose(overlay[120, x], tinted, atol=1)
        assert sorted(text.split()[0] for text, _ in plates) == ["3", "85"]
        assert plates[0][0] == f"{ids[0]} 0.90"
        plates.clear()


def test_parts_are_called_by_their_rank_whatever_their_object(plates: Plates) -> None:
    result = boxes_result([(20, 60, 90, 150)], mode="parts", track_ids=np.array([7], np.int32))
    result.overlay(np.full((200, 200, 3), 100, np.uint8))
    assert [text for text, _ in plates] == ["1 1.00"]


@pytest.mark.parametrize("mode", ["foreground", "parts", "scene"])
def test_many_regions_have_few_captions_and_all_a_number(plates: Plates, mode: Mode) -> None:
    boxes = [(x, y, x + 70, y + 70) for y in range(10, 480, 80) for x in range(10, 640, 80)]
    result = boxes_result(boxes, size_hw=(490, 650), mode=mode)
    result.overlay(np.full((490, 650, 3), 100, np.uint8))
    captions = [text for text, _ in plates if "." in text]
    assert len(captions) == (6 if mode == "foreground" else 1) and captions[0] == "1 1.00"
    assert sorted(int(text.split()[0]) for text, _ in plates) == list(range(1, 49))
    for text, plate in plates:
        if "." not in text:
            assert np.all(result.region_ids[plate] == int(text)), "a number is on its region"


def test_regions_over_one_another_have_texts_that_do_not_cover_each_other(plates: Plates) -> None:
    boxes = [(10 + 2 * i, 10 + 2 * i, 300 - 2 * i, 300 - 2 * i) for i in range(12)]
    result = boxes_result(boxes, size_hw=(310, 310))
    result.overlay(np.full((310, 310, 3), 100, np.uint8))
    assert len(plates) >= 8 and sum("." in text for text, _ in plates) <= 6


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 7), (1, 900), (900, 2), (24, 32), (48, 64), (96, 128)])
def test_small_pictures_are_not_hidden_by_texts(plates: Plates, size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    halves = [(0, 0, (width + 1) // 2, height), ((width + 1) // 2, 0, width, height)]
    result = boxes_result([box for box in halves if box[0] < box[2]], size_hw=size_hw)
    result.overlay(np.full((height, width, 3), 100, np.uint8))
    assert sum(plate.sum() for _, plate in plates) <= height * width / 8
    assert bool(plates) == (min(size_hw) >= 48)


@pytest.mark.parametrize("seed", range(24))
def test_any_regions_can_be_drawn(plates: Plates, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 400, 2))
    blocks = rng.integers(0, 4, (height // 16 + 1, width // 16 + 1)).astype(np.int32)
    labels = np.kron(blocks, np.ones((16, 16), np.int32))[:height, :width]
    ids, count = kernels.connected_components(np.ascontiguousarray(labels))
    stats = kernels.region_stats(ids, count, label_map=labels)
    result = boxes_result(
        [],
        (height, width),
        mode=("foreground", "parts", "scene")[seed % 3],
        label_map=labels,
        region_ids=ids,
        boxes=stats.boxes_xyxy,
        areas=stats.area,
        scores=rng.random(count, np.float32),
        region_labels=stats.label,
        labels=("background", "a", "b", "a long name of a label"),
        background_columns=(0, 3) if seed % 2 else (0,),
    )
    frame = rng.integers(0, 256, (height, width, 3), np.uint8)
    overlay = result.overlay(frame)
    assert overlay.shape == frame.shape and np.any(overlay != frame) == (count > 0)
    assert sum(plate.sum() for _, plate in plates) <= height * width / 8


@pytest.mark.parametrize(("top", "captioned"), [(44, False), (120, True)])
def test_a_caption_that_would_cover_a_better_regions_goes_elsewhere(top: int, captioned: bool) -> None:
    left, right = np.zeros((200, 300), np.int32), np.zeros((200, 300), np.int32)
    left[40:100, 40:80], right[top : top + 60, 90:150] = 1, 2
    ids = left + right
    boxes = np.array([[40, 40, 80, 100], [90, top, 150, top + 60]], np.float32)
    two = dataclasses.replace(made_result(), label_map=ids, region_ids=ids, boxes=boxes)
    overlay = two.overlay(np.full((200, 300, 3), 100, np.uint8))
    above = overlay[top - 8 : top - 4, 90:150].reshape(-1, 3)
    assert np.all(above == color_of(2, "bgr"), axis=1).any() == captioned
