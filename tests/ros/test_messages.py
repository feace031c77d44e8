"""Results become messages that rosbags can write and read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs the package rosbags")

from patchcut_ros.bags import full_name
from patchcut_ros.messages import ANSWERS, detections_of, labels_of, overlay_of, regions_of
from tests.ros.made_messages import MESSAGES, header, pixels_of
from tests.runtime.results import boxes_result

HEADER = header(12, 345, "eye")
BOXES = [(10, 20, 50, 60), (100, 0, 200, 30), (0, 150, 9, 200)]


def through_a_bag(message: Any) -> Any:
    store, kind = MESSAGES.typestore, message.__msgtype__
    return store.deserialize_cdr(store.serialize_cdr(message, kind), kind)


def result_of(**fields: Any) -> Any:
    frame = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    ids = np.array([7, 3, 0], np.int32)
    return boxes_result(BOXES, **{"frame": frame, "track_ids": ids, **fields})


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_of_its_kind_and_has_the_images_header(name: str) -> None:
    answer = ANSWERS[name]
    message = through_a_bag(answer.make(result_of(), HEADER, MESSAGES))
    assert message.__msgtype__ == full_name(answer.kind)
    assert message.header == HEADER


def test_maps_of_labels_and_regions() -> None:
    result = result_of()
    for made, wanted in ((labels_of, result.label_map), (regions_of, result.region_ids)):
        message = through_a_bag(made(result, HEADER, MESSAGES))
        assert message.encoding == "mono8" and message.step == 200
        np.testing.assert_array_equal(pixels_of(message), wanted)


def test_more_labels_than_8_bits_hold() -> None:
    labels = tuple(f"kind {i}" for i in range(300))
    label_map = np.arange(200 * 200, dtype=np.int32).reshape(200, 200) % 300
    message = through_a_bag(labels_of(result_of(labels=labels, label_map=label_map), HEADER, MESSAGES))
    assert message.encoding == "mono16" and message.step == 400 and message.is_bigendian == 0
    np.testing.assert_array_equal(pixels_of(message), label_map)


@pytest.mark.parametrize(("count", "encoding"), [(255, "mono8"), (256, "mono16")])
def test_as_many_regions_as_8_bits_hold(count: int, encoding: str) -> None:
    boxes = [(i % 100 * 2, i // 100 * 2, i % 100 * 2 + 1, i // 100 * 2 + 1) for i in range(count)]
    result = boxes_result(boxes)
    message = regions_of(result, HEADER, MESSAGES)
    assert message.encoding == encoding
    np.testing.assert_array_equal(pixels_of(message), result.region_ids)


@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_the_overlay(color: str) -> None:
    result = result_of(color=color)
    message = through_a_bag(overlay_of(result, HEADER, MESSAGES))
    assert message.encoding == f"{color}8"
    np.testing.assert_array_equal(pixels_of(message), result.overlay())
    assert (pixels_of(message) != result.frame).any()


def test_detections() -> None:
    result = result_of(labels=("background", "cup"))
    message = through_a_bag(detections_of(result, HEADER, MESSAGES))
    assert [one.id for one in message.detections] == ["7", "3", ""]
    for one, (x0, y0, x1, y1), score in zip(message.detections, BOXES, result.scores, strict=True):
        centre, size = one.bbox.center, (one.bbox.size_x, one.bbox.size_y)
        assert (centre.position.x, centre.position.y, centre.theta) == ((x0 + x1) / 2, (y0 + y1) / 2, 0)
        assert size == (x1 - x0, y1 - y0) and one.header == HEADER
        (hypothesis,) = [it.hypothesis for it in one.results]
        assert hypothesis.class_id == "cup" and hypothesis.score == pytest.approx(score)


def test_detections_of_what_is_not_tracked() -> None:
    assert [one.id for one in detections_of(result_of(track_ids=None), HEADER, MESSAGES).detections] == [
        ""
    ] * 3


def test_a_frame_without_regions() -> None:
    result = boxes_result([], frame=np.zeros((200, 200, 3), np.uint8))
    assert through_a_bag(detections_of(result, HEADER, MESSAGES)).detections == []
    assert not pixels_of(labels_of(result, HEADER, MESSAGES)).any()
