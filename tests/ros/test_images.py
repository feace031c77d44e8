"""Images of ROS become the frames that they are: encodings, padding, order of bytes, and what is wrong."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
import pytest
from patchcut import FrameError
from patchcut.pixels import PixelRule

pytest.importorskip("rosbags", reason="needs the package rosbags")

from patchcut_ros.images import ENCODINGS, frame_of
from tests.ros.made_messages import MESSAGES, compressed, header, image

# red, green / blue, grey: what tells every order of channels apart
RGB = np.array([[[250, 10, 20], [30, 240, 40]], [[50, 60, 230], [90, 90, 90]]], np.uint8)


def rgb_of(message: Any, **rule: Any) -> np.ndarray:
    frame = frame_of(message, rule=PixelRule(**rule))
    assert frame.image.dtype == np.uint8 and frame.visible is None
    return frame.image if frame.color == "rgb" else frame.image[..., ::-1]


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.zeros(pixels.shape[:2], pixels.dtype)])  # as some cameras fill it


@pytest.mark.parametrize("padding", [0, 1, 7, 32])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", with_alpha(RGB)),
        ("bgra8", with_alpha(RGB[..., ::-1])),
        ("8UC3", RGB[..., ::-1]),
        ("8UC4", with_alpha(RGB[..., ::-1])),
    ],
)
def test_colours_of_8_bits(encoding: str, pixels: np.ndarray, padding: int) -> None:
    np.testing.assert_array_equal(rgb_of(image(pixels, encoding, padding=padding)), RGB)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("encoding", "turned"), [("rgb16", 1), ("bgr16", -1), ("rgba16", 1), ("bgra16", -1)])
def test_colours_of_16_bits(encoding: str, turned: int, big_endian: bool) -> None:
    pixels = 257 * RGB[..., ::turned].astype(np.uint16)
    pixels = with_alpha(pixels) if "a" in encoding else pixels
    message = image(pixels, encoding, padding=3, big_endian=big_endian)
    np.testing.assert_array_equal(rgb_of(message, value_range=(0, 65535)), RGB)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey(encoding: str) -> None:
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    np.testing.assert_array_equal(rgb_of(image(grey, encoding, padding=5)), np.dstack([grey] * 3))


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 6])
def test_grey_of_16_bits_in_either_order_of_bytes(encoding: str, big_endian: bool, padding: int) -> None:
    grey = np.linspace(0, 4095, 5 * 7).astype(np.uint16).reshape(5, 7)
    message = image(grey, encoding, big_endian=big_endian, padding=padding)
    wanted = np.rint(grey * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(rgb_of(message, value_range=(0, 4095)), np.dstack([wanted] * 3))
    wrong_way = image(grey.byteswap(), encoding, big_endian=big_endian, padding=padding)
    assert (rgb_of(wrong_way, value_range=(0, 4095)) != np.dstack([wanted] * 3)).any()


def test_the_range_of_16_bits_is_told_where_it_was_found() -> None:
    grey = np.linspace(1000, 2000, 5 * 7).astype(np.uint16).reshape(5, 7)
    (note,) = frame_of(image(grey, "mono16")).notes
    assert "uint16 values are mostly" in note and "value_range" in note


def bt601(y: float, u: float, v: float) -> np.ndarray:
    """RGB of limited-range YUV: ITU-R BT.601."""
    light = 255 / 219 * (y - 16)
    rgb = [
        light + 1.596 * (v - 128),
        light - 0.813 * (v - 128) - 0.391 * (u - 128),
        light + 2.018 * (u - 128),
    ]
    return np.clip(rgb, 0, 255)


@pytest.mark.parametrize(("encoding", "first"), [("yuv422", 1), ("uyvy", 1), ("yuv422_yuy2", 0), ("yuyv", 0)])
def test_yuv(encoding: str, first: int) -> None:
    """Two pairs of pixels: both of a pair have one colour, and each its own light."""
    pairs = [((60, 200), 90, 160), ((120, 130), 180, 70)]
    pixels = np.zeros((2, 4, 2), np.uint8)
    for i, (lights, u, v) in enumerate(pairs):
        for j in range(2):
            pixels[:, 2 * i + j, first] = lights[j]
            pixels[:, 2 * i + j, 1 - first] = (u, v)[j]
    wanted = [bt601(light, u, v) for lights, u, v in pairs for light in lights]
    np.testing.assert_allclose(rgb_of(image(pixels, encoding, padding=2))[0], wanted, atol=2)


def mosaic_of(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """[H, W], of each pixel the channel that the pattern has there."""
    channels = ["rgb".index(letter) for letter in pattern]
    seen = np.zeros(rgb.shape[:2], rgb.dtype)
    for i, channel in enumerate(channels):
        seen[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, channel]
    return seen


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_mosaics(photo: np.ndarray, pattern: str, bits: int) -> None:
    rgb = cv2.GaussianBlur(photo, (5, 5), 0)[..., ::-1]  # no detail that a mosaic cannot hold
    stored = rgb if bits == 8 else 257 * rgb.astype(np.uint16)
    message = image(mosaic_of(stored, pattern), f"bayer_{pattern}{bits}", padding=bits)
    seen = rgb_of(message, value_range=(0, 65535))
    apart = np.abs(seen.astype(int) - rgb)[2:-2, 2:-2]
    assert apart.mean() < 2
    turned = np.abs(seen[..., ::-1].astype(int) - rgb)[2:-2, 2:-2]
    assert turned.mean() > 10


def test_every_encoding_is_tested_or_an_alias() -> None:
    tested = "rgb8 bgr8 rgba8 bgra8 8UC3 8UC4 rgb16 bgr16 rgba16 bgra16 mono8 8UC1 mono16 16UC1"
    mosaics = {f"bayer_{it}{bits}" for it in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}
    assert set(ENCODINGS) == {*tested.split(), "yuv422", "uyvy", "yuv422_yuy2", "yuyv", *mosaics}


def test_a_frame_of_8_bits_is_the_messages_memory() -> None:
    for encoding in ("rgb8", "bgr8", "rgba8"):
        pixels = with_alpha(RGB) if "a" in encoding else RGB
        message = image(pixels, encoding, padding=4)
        assert np.shares_memory(frame_of(message).image, message.data)


def test_the_data_of_rclpy_is_read_as_that_of_rosbags() -> None:
    message = image(RGB, "rgb8", padding=4)
    message.data = array("B", message.data.tobytes())
    np.testing.assert_array_equal(rgb_of(message), RGB)


def test_stamp_and_frame_id_go_with_the_frame() -> None:
    frame = frame_of(image(RGB, "rgb8", sec=12, nanosec=500_000_000), 7)
    assert (frame.time_s, frame.name, frame.index) == (12.5, "camera", 7)


@pytest.mark.parametrize(
    ("suffix", "described", "tolerance"),
    [
        (".jpg", "jpeg", 6),
        (".jpg", "bgr8; jpeg compressed bgr8", 6),
        (".jpg", "rgb8; jpeg compressed bgr8", 6),
        (".png", "png", 0),
        (".png", "rgb8; png compressed bgr8", 0),
        (".png", "8UC3; png compressed ", 0),
    ],
)
def test_compressed_images(photo: np.ndarray, suffix: str, described: str, tolerance: float) -> None:
    seen = rgb_of(compressed(photo, suffix, described))
    assert np.abs(seen[..., ::-1].astype(int) - photo).mean() <= tolerance


@pytest.mark.parametrize("described", ["rgb8; png compressed rgb8", "bgr8; png compressed "])
def test_red_and_blue_that_changed_places_change_back(photo: np.ndarray, described: str) -> None:
    """As compressed_image_transport writes an image that it did not bring into the encoder's order."""
    message = compressed(photo[..., ::-1], ".png", described)
    np.testing.assert_array_equal(rgb_of(message), photo[..., ::-1])


def test_a_compressed_image_of_16_bits() -> None:
    grey = np.linspace(0, 4095, 5 * 7).astype(np.uint16).reshape(5, 7)
    seen = rgb_of(compressed(grey, ".png", "mono16; png compressed "), value_range=(0, 4095))
    np.testing.assert_array_equal(seen[..., 0], np.rint(grey * (255 / 4095)).astype(np.uint8))


def test_a_compressed_image_is_not_turned() -> None:
    """camera_info is about the pixels as they are stored."""
    pil = pytest.importorskip("PIL.Image", reason="writes the EXIF")
    import io

    exif = pil.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    pil.fromarray(np.zeros((20, 40, 3), np.uint8)).save(file, "jpeg", exif=exif)
    data = np.frombuffer(file.getvalue(), np.uint8)
    message = MESSAGES.kind("sensor_msgs/CompressedImage")(header=header(), format="jpeg", data=data)
    assert frame_of(message).image.shape == (20, 40, 3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"encoding": "yuv444"}, "has the encoding 'yuv444', which is none of rgb8, bgr8"),
        ({"encoding": ""}, "has the encoding ''"),
        ({"encoding": "rgb8\nx" * 999}, "has the encoding"),
        ({"encoding": "32FC1"}, "has the encoding '32FC1'"),
        ({"height": 0}, "has 2x0 pixels"),
        ({"width": 0}, "has 0x2 pixels"),
        ({"step": 5}, "has a step of 5 bytes, and a row of 2 pixels rgb8 has 6"),
        ({"step": 0}, "has a step of 0 bytes"),
        ({"data": np.zeros(11, np.uint8)}, "has 11 bytes, and step * height are 12"),
        ({"data": np.zeros(0, np.uint8)}, "has 0 bytes"),
        ({"height": 10**5, "width": 10**5, "step": 3 * 10**5}, "more than max_pixels allows"),
        ({"height": 2**32 - 1}, "max_pixels"),
        ({"encoding": "yuv422", "width": 3, "step": 6}, "is 3 pixels wide, and yuv422 comes in pairs"),
        ({"encoding": "bayer_rggb8"}, "has 2x2 pixels, and a mosaic at least 3x3"),
    ],
)
def test_what_is_wrong_is_one_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(FrameError) as caught:
        frame_of(image(RGB, fields.pop("encoding", "rgb8"), **fields), rule=PixelRule(max_pixels=10**6))
    line = str(caught.value)
    assert line.startswith("[image] ") and said in line and ";" in line
    assert "\n" not in line and len(line) < 1500


@pytest.mark.parametrize(
    ("described", "data", "said"),
    [
        ("jpeg", b"", "is empty"),
        ("jpeg", b"no picture at all", "'jpeg'"),
        ("16UC1; compressedDepth png", b"x" * 40, "distances, no picture"),
        ("h264", bytes([0, 0, 0, 1, 0x67, 0x42]), "'h264'"),
    ],
)
def test_what_is_wrong_with_a_compressed_image_is_one_line(described: str, data: bytes, said: str) -> None:
    octets = np.frombuffer(data, np.uint8)
    message = MESSAGES.kind("sensor_msgs/CompressedImage")(header=header(), format=described, data=octets)
    with pytest.raises(FrameError) as caught:
        frame_of(message)
    line = str(caught.value)
    assert line.startswith("[image] ") and said in line and "\n" not in line


def test_a_picture_that_claims_to_be_huge_is_not_decoded(photo: np.ndarray) -> None:
    with pytest.raises(FrameError, match="more than max_pixels allows"):
        frame_of(compressed(photo, ".png", "png"), rule=PixelRule(max_pixels=1000))


def test_damaged_messages_end_in_a_frame_or_in_one_line(photo: np.ndarray) -> None:
    """Random numbers, cut and flipped data: nothing else is raised."""
    rng = np.random.default_rng(3)
    outcomes = {"frame": 0, "error": 0}
    good = [
        image(photo, "bgr8", padding=3),
        compressed(photo, ".jpg", "jpeg"),
        compressed(photo, ".png", "png"),
    ]
    for _ in range(400):
        first = good[rng.integers(len(good))]
        fields = {**vars(first), "data": np.array(first.data)}
        data = fields["data"]
        data[rng.integers(0, len(data), 5)] ^= rng.integers(1, 256, 5, np.uint8)
        if rng.random() < 0.3:
            fields["data"] = data[: rng.integers(len(data))]
        if "encoding" in fields and rng.random() < 0.7:
            fields["encoding"] = str(rng.choice(ENCODINGS))
            fields |= {name: int(rng.integers(0, 500)) for name in ("height", "width", "step")}
        try:
            frame = frame_of(type(first)(**fields), rule=PixelRule(max_pixels=10**6))
        except FrameError as error:
            outcomes["error"] += 1
            assert "\n" not in str(error)
        else:
            outcomes["frame"] += 1
            assert frame.image.ndim == 3 and frame.image.shape[2] == 3
    assert min(outcomes.values()) > 20
