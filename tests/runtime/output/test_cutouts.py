from __future__ import annotations

import cv2
import numpy as np
import pytest
from patchcut import Frame, FrameError, OptionError, Segmenter
from patchcut.output import cutouts
from patchcut.output.cutouts import crop, cut_out
from patchcut.settings import Mode
from PIL import Image

from tests.runtime.results import boxes_result, made_result

GREY = np.full((200, 200, 3), 100, np.uint8)


def alpha_of(foreground: np.ndarray, soft_mask: np.ndarray, softness: float = 10.0) -> np.ndarray:
    frame = Frame(np.full((*foreground.shape, 3), 100, np.uint8))
    confidence = np.where(foreground, soft_mask, 1 - soft_mask).astype(np.float32)
    return cut_out(frame, foreground, confidence, softness)[..., 3]


def test_objects_are_kept_and_the_rest_is_gone(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    result = toy_segmenter(photo)
    picture = result.cutout()
    assert (picture.shape, picture.dtype) == ((*photo.shape[:2], 4), np.uint8)
    np.testing.assert_array_equal(picture[..., 3] >= 128, result.foreground)
    seen = picture[..., 3] > 0
    np.testing.assert_array_equal(picture[seen, :3], photo[seen])
    assert not picture[~seen].any(), "what cannot be seen is not hidden in the file"
    assert 0.05 < result.foreground.mean() < 0.95


def test_a_cutout_keeps_the_frames_order_of_channels(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    result = toy_segmenter(photo)
    flipped = np.ascontiguousarray(photo[..., ::-1])
    in_bgr, in_rgb = result.cutout(), result.cutout(Image.fromarray(flipped))
    np.testing.assert_array_equal(in_bgr[..., [2, 1, 0, 3]], in_rgb)


def test_alpha_is_soft_at_the_border_and_nowhere_else() -> None:
    foreground = np.zeros((120, 200), bool)
    foreground[:, 100:] = True
    unsure = np.where(foreground, 0.6, 0.4)  # everywhere: no hole in the object, no ghost outside
    alpha = alpha_of(foreground, unsure)
    assert np.all(alpha[:, 110:] == 255) and np.all(alpha[:, :90] == 0)
    assert np.all(np.diff(alpha[60].astype(int)) >= 0) and len(np.unique(alpha[60])) > 8
    sure = np.where(foreground, 1.0, 0.0)
    np.testing.assert_array_equal(alpha_of(foreground, sure), np.where(foreground, 255, 0))


@pytest.mark.parametrize("full", [False, True])
def test_alpha_of_one_side_only(full: bool) -> None:
    foreground = np.full((30, 40), full)
    assert np.all(alpha_of(foreground, np.full((30, 40), 0.5)) == (255 if full else 0))


def test_strips_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.random((300, 211)).astype(np.float32), (0, 0), 8)
    soft = np.clip(0.5 + 6 * (noise - 0.5), 0, 1)
    whole = alpha_of(soft >= 0.5, soft)
    assert 0.2 < (whole > 127).mean() < 0.8 and len(np.unique(whole)) > 50
    monkeypatch.setattr(cutouts, "_STRIP_PIXELS", 211 * 7)
    np.testing.assert_array_equal(alpha_of(soft >= 0.5, soft), whole)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_cutouts_of_tiny_frames(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    result = boxes_result([(0, 0, width, height)], size_hw=size_hw)
    assert np.all(result.cutout(np.zeros((height, width, 3), np.uint8))[..., 3] == 255)
    assert result.crop(frame=np.zeros((height, width, 3), np.uint8)).shape == (height, width, 3)  # type: ignore[union-attr]


def test_nothing_found_is_a_transparent_cutout_and_no_crop() -> None:
    nothing, frame = made_result(0), np.full((4, 6, 3), 9, np.uint8)
    assert not nothing.cutout(frame).any()
    assert nothing.crop(frame=frame) is None


def test_a_crop_is_the_best_objects_box_and_a_margin() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    result = boxes_result([(20, 30, 60, 130), (150, 150, 200, 200)])
    np.testing.assert_array_equal(result.crop(0, frame), frame[30:130, 20:60])
    np.testing.assert_array_equal(result.crop(frame=frame), frame[25:135, 15:65])
    np.testing.assert_array_equal(result.crop(5, frame), frame)
    corner = boxes_result([(0, 0, 10, 10)])
    np.testing.assert_array_equal(corner.crop(0.5, frame), frame[:15, :15])


def test_a_crop_is_a_copy() -> None:
    frame = GREY.copy()
    cropped = crop(Frame(frame), (10, 10, 30, 30))
    assert not np.shares_memory(cropped, frame)


@pytest.mark.parametrize(("mode", "columns"), [("foreground", (10, 40)), ("parts", (10, 90))])
def test_the_crop_of_an_object_in_parts_holds_all_of_it(mode: Mode, columns: tuple[int, int]) -> None:
    """The first two boxes touch; the third is another object."""
    result = boxes_result([(10, 20, 40, 60), (40, 20, 90, 60), (120, 20, 150, 60)], mode=mode)
    cropped = result.crop(0, GREY)
    assert cropped is not None and cropped.shape[:2] == (40, columns[1] - columns[0])


def test_the_crop_of_a_scene_is_of_an_object() -> None:
    background = boxes_result([(0, 0, 200, 100)], mode="scene", background_columns=(0, 1))
    assert background.crop(frame=GREY) is None


@pytest.mark.parametrize("op", ["cutout", "crop"])
def test_a_missing_or_foreign_frame_is_told(op: str) -> None:
    result = made_result()
    with pytest.raises(FrameError, match=rf"\[{op}\] this result holds no frame"):
        getattr(result, op)()
    with pytest.raises(FrameError, match=rf"\[{op}\] frame and result must have one size"):
        getattr(result, op)(frame=GREY)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), 1e9, "a", None])
def test_a_margin_is_checked(margin: object) -> None:
    with pytest.raises(OptionError, match=r"\[margin\] must be a number from 0 to 100, got"):
        boxes_result([(0, 0, 9, 9)]).crop(margin, GREY)  # type: ignore[arg-type]
