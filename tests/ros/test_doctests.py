"""The examples in the docstrings of patchcut_ros run."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import Segmenter

pytest.importorskip("rosbags", reason="needs the package rosbags")

from patchcut_ros.loop import Arrived
from tests.doctests import find_examples, module_of, run_example
from tests.ros import rclpy_stand_in
from tests.ros.made_messages import MESSAGES, header, image, write_bag
from tests.runtime.results import boxes_result

with rclpy_stand_in.installed():
    EXAMPLES = find_examples("patchcut_ros")


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test: doctest.DocTest, seg: Segmenter, photo: np.ndarray, tmp_path: Path) -> None:
    small = np.zeros((512, 512, 3), np.uint8)
    names = {
        "np": np,
        "patchcut": patchcut,
        "Arrived": Arrived,
        "messages": MESSAGES,
        "header": header(),
        "image": image,
        "frame": small,
        "seg": seg,
        "folder": tmp_path,
        "result": boxes_result([(10, 10, 90, 90)], size_hw=(512, 512), frame=small),
    }
    if "bag," in test.docstring:
        messages = [("/camera/image_raw", i, image(photo, "bgr8", sec=i)) for i in range(2)]
        names["bag"] = write_bag(tmp_path / "bag", messages)
    module = module_of(test.name)
    run_example(test, {**vars(module), **names})
