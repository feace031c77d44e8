from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from patchcut import Frame, FrameError, OptionError, PatchcutError
from patchcut.frames import as_frame
from PIL import Image

COLOUR = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (None, "check the path"),
        ("photo.jpg", r"cv2\.imread"),
        (Path("photo.jpg"), r"cv2\.imread"),
        (COLOUR.tolist(), "got list.*np.asarray"),
        (7, "got int"),
        (COLOUR[..., 0], "GRAY2BGR"),
        (COLOUR[..., :1], "GRAY2BGR"),
        (np.zeros((4, 5, 4), np.uint8), "alpha.*frame\\[..., :3\\]"),
        (np.zeros((4, 5, 2), np.uint8), r"got \[4, 5, 2\]"),
        (np.zeros((3, 4, 5), np.uint8), "transpose"),
        (np.zeros((2, 4, 5, 3), np.uint8), "batch"),
        (np.zeros(5, np.uint8), r"got \[5\]"),
        (COLOUR.astype(np.uint16), "257"),
        (COLOUR.astype(np.float32), "got .* float32; scale"),
        (np.full((4, 5, 3), np.nan), "float64; scale"),
        (COLOUR.astype(np.int64), r"astype\(np.uint8\)"),
        (COLOUR.astype(bool), "255"),
        (COLOUR.astype(object), "object"),
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((5, 0, 3), np.uint8), "empty"),
        (Frame(COLOUR[..., 0]), "GRAY2BGR"),
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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "F", "YCbCr"])
def test_pil_images_are_rgb_whatever_color_says(mode: str) -> None:
    image = Image.fromarray(COLOUR, "RGB").convert(mode) if mode != "I;16" else Image.new("I;16", (3, 2), 900)
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
    assert str(error) == "[source] no frame in a folder?[31m; look inside"
    assert str(PatchcutError("source", "nothing")) == "[source] nothing"
