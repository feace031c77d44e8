from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from patchcut import Frame, FrameError, OptionError, PatchcutError
from patchcut.frames import as_frame
from patchcut.pixels import PixelRule
from patchcut.settings import ColorOrder
from patchcut.sources import open_source
from PIL import Image, ImageOps

COLOUR = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (None, "check the path"),
        ("photo.jpg", r"cv2\.imread"),
        (Path("photo.jpg"), r"cv2\.imread"),
        (COLOUR.tolist(), "got list.*np.asarray"),
        (7, "got int"),
        (np.zeros((4, 5, 2), np.uint8), r"got \[4, 5, 2\]"),
        (np.zeros((3, 4, 5), np.uint8), "transpose"),
        (np.zeros((2, 4, 5, 3), np.uint8), "batch"),
        (np.zeros(5, np.uint8), r"got \[5\]"),
        (np.full((4, 5, 3), np.nan), "no finite value"),
        (COLOUR.astype(np.complex64), "got .* complex64; convert it to uint8"),
        (COLOUR.astype(bool), "255"),
        (COLOUR.astype(object), "object"),
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((5, 0, 3), np.uint8), "empty"),
        (Frame(COLOUR[..., :2]), r"got \[2, 3, 2\]"),
    ],
)
def test_what_is_no_frame_is_told_in_one_line(frame: object, said: str) -> None:
    with pytest.raises(FrameError, match=said) as caught:
        as_frame(frame)
    message = str(caught.value)
    assert message.startswith("[frame] ") and "\n" not in message and ";" in message
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, PatchcutError)


@pytest.mark.parametrize("color", ["hsv", "BGR", None, 3])
def test_an_unknown_order_of_channels_lists_the_known(color: object) -> None:
    with pytest.raises(
        OptionError, match=r'\[color\] must be one of "bgr", "rgb", got ' + re.escape(repr(color))
    ):
        as_frame(COLOUR, color)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
def test_pil_images_are_rgb_whatever_color_says(mode: str) -> None:
    image = Image.fromarray(COLOUR, "RGB").convert(mode)
    frame = as_frame(image, "bgr")
    assert frame.color == "rgb"
    np.testing.assert_array_equal(frame.image, np.asarray(image.convert("RGB")))


def test_a_pil_image_cut_short_is_told() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    with pytest.raises(FrameError, match="PIL cannot decode"):
        as_frame(Image.open(io.BytesIO(buffer.getvalue()[:500])))


def test_an_empty_pil_image_is_told() -> None:
    with pytest.raises(FrameError, match="empty"):
        as_frame(Image.new("RGB", (0, 4)))


def test_a_bool_array_is_a_frame_after_what_its_error_says() -> None:
    image = as_frame(COLOUR.astype(bool).astype(np.uint8) * 255).image
    assert set(np.unique(image).tolist()) == {0, 255}


@pytest.mark.parametrize("wrap", [lambda image: image, lambda image: image[..., None], Frame])
def test_a_grey_array_has_three_equal_channels(wrap: Callable[[np.ndarray], object]) -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    np.testing.assert_array_equal(as_frame(wrap(grey)).image, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_alpha_is_laid_over_mid_grey_and_hides(color: ColorOrder) -> None:
    image = np.full((4, 6, 4), (10, 20, 250, 255), np.uint8)
    image[:, 2:4, 3] = 0
    image[:, 4:, 3] = 51
    frame = as_frame(image, color)
    assert frame.color == color and frame.visible is not None and frame.notes == ()
    assert frame.image[0, [0, 2, 4]].tolist() == [[10, 20, 250], [128] * 3, [104, 106, 152]]
    assert frame.visible[0].tolist() == [True, True, False, False, True, True]


def test_alpha_that_hides_nothing_leaves_the_pixels() -> None:
    image = np.dstack([COLOUR, np.full(COLOUR.shape[:2], 255, np.uint8)])
    frame = as_frame(image)
    np.testing.assert_array_equal(frame.image, COLOUR)
    assert frame.visible is None


def test_a_fourth_channel_of_zeros_is_told() -> None:
    frame = as_frame(np.dstack([COLOUR, np.zeros(COLOUR.shape[:2], np.uint8)]))
    assert frame.visible is not None and not frame.visible.any()
    assert frame.notes[0].startswith("[frame] is transparent everywhere; if its fourth channel is no alpha")


def test_a_pil_image_is_taken_as_it_is_stored_and_says_so() -> None:
    image = Image.fromarray(COLOUR)
    image.getexif()[0x0112] = 6
    frame = as_frame(image)
    np.testing.assert_array_equal(frame.image, COLOUR)
    assert "exif_transpose" in frame.notes[0] and "\n" not in frame.notes[0]
    assert as_frame(ImageOps.exif_transpose(image)).notes == ()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_transparent_colour_of_a_pil_image_hides(mode: str) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    image.info["transparency"] = image.getpixel((1, 0))
    visible = as_frame(image).visible
    assert visible is not None and not visible[0, 1] and visible.sum() == visible.size - 1


def test_a_transparent_value_of_16_bits_hides(tmp_path: Path) -> None:
    grey = np.full((8, 9), 1000, np.uint16)
    grey[2:5, 3:7] = 4000
    try:
        Image.fromarray(grey).save(tmp_path / "x.png", transparency=4000)
    except OSError as error:
        pytest.skip(f"this Pillow cannot make it: {error}")
    for frame in (as_frame(Image.open(tmp_path / "x.png")), *open_source(tmp_path / "x.png")):
        assert frame.visible is not None
        assert (frame.visible == (grey == 1000)).all()
        assert (frame.image[grey == 4000] == 128).all()


def test_grey_that_was_multiplied_by_alpha_is_taken() -> None:
    image = as_frame(Image.new("LA", (3, 2), (100, 0)).convert("La"))
    assert image.visible is not None and not image.visible.any()


def test_a_palette_with_alpha_hides() -> None:
    rgba = np.dstack([COLOUR, np.full(COLOUR.shape[:2], 255, np.uint8)])
    rgba[:, 1, 3] = 0
    visible = as_frame(Image.fromarray(rgba).quantize(8)).visible
    assert visible is not None and visible.tolist() == [[True, False, True]] * 2


def test_more_pixels_than_allowed_are_refused() -> None:
    rule = PixelRule(max_pixels=5)
    for large in (COLOUR, COLOUR[..., 0], Image.fromarray(COLOUR), Frame(COLOUR)):
        with pytest.raises(FrameError, match=r"has 3x2 pixels, more than max_pixels allows \(5\); scale it"):
            as_frame(large, "bgr", rule)
    assert as_frame(COLOUR, "bgr", PixelRule(max_pixels=6)).image is COLOUR


def test_an_array_is_not_copied() -> None:
    for view in (COLOUR, COLOUR[::-1, ::-1], COLOUR[..., ::-1], COLOUR[:1]):
        assert np.shares_memory(as_frame(view).image, COLOUR)


def test_read_only_arrays_are_frames() -> None:
    frozen = COLOUR.copy()
    frozen.flags.writeable = False
    assert as_frame(frozen).image is frozen


def test_dlpack_arrays_are_frames() -> None:
    class Foreign:
        def __dlpack__(self, **kwargs: object) -> object:
            return COLOUR.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> tuple[int, int]:
            return COLOUR.__dlpack_device__()

    np.testing.assert_array_equal(as_frame(Foreign()).image, COLOUR)


def test_dlpack_arrays_elsewhere_are_told() -> None:
    class OnGpu:
        def __dlpack__(self, **_: object) -> object:
            raise BufferError("it lies on cuda:0")

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

    with pytest.raises(FrameError, match=r"cuda|device.*cpu\(\)"):
        as_frame(OnGpu())


def test_a_frame_keeps_what_is_known_of_it() -> None:
    frame = Frame(COLOUR, "rgb", "a/b.jpg", 4, 0.5)
    assert as_frame(frame, "bgr") is frame


def test_a_message_stays_one_printable_line() -> None:
    error = PatchcutError("source", "no frame in a\nfolder\x1b[31m", "look\tinside")
    assert str(error) == r"[source] no frame in a folder\x1b[31m; look inside"
    assert str(PatchcutError("source", "nothing")) == "[source] nothing"


def test_a_thread_may_be_loading_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is being imported is in `sys.modules` before its names are there."""
    monkeypatch.setitem(sys.modules, "PIL.Image", ModuleType("PIL.Image"))
    image = np.zeros((4, 5, 3), np.uint8)
    assert as_frame(image).image is image
