"""The node's shell, run against a stand-in for rclpy: there is no ROS where these tests run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut import EngineError, Segmenter

pytest.importorskip("rosbags", reason="needs the package rosbags")

from patchcut_ros.parameters import PARAMETERS
from tests.ros import rclpy_stand_in
from tests.ros.made_messages import compressed, image, pixels_of, said_of

ANSWERS = ("labels", "regions", "detections", "overlay")
NOW_S = 100


@pytest.fixture
def ros() -> Iterator[rclpy_stand_in.Spun]:
    with rclpy_stand_in.installed() as spun:
        yield spun


@pytest.fixture
def make_node(ros: rclpy_stand_in.Spun, toy: Path) -> Iterator[Callable[..., Any]]:
    made = []

    def make(**parameters: Any) -> Any:
        made.append(
            import_module("patchcut_ros.node").PatchcutNode(
                overrides={"bundle": str(toy), "device": "cpu", "threads": 1, **parameters}
            )
        )
        return made[-1]

    yield make
    for node in made:
        node.close()
    assert not [one for one in threading.enumerate() if one.name == "patchcut-answers"]


def wait_for(is_so: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.005)


def listen(node: Any, *names: str) -> dict[str, list[Any]]:
    """What is published from now on, by the names of answers."""
    heard: dict[str, list[Any]] = {name: [] for name in names}
    for name in names:
        node.publishers[f"~/{name}"].listeners.append(heard[name].append)
    return heard


def send(node: Any, message: Any, topic: str = "image_raw") -> None:
    node.subscriptions[topic].take(message)


def diagnosed(node: Any) -> Any:
    """The node's next diagnostics: their one status."""
    heard: list[Any] = []
    node.publishers["/diagnostics"].listeners.append(heard.append)
    ((period_s, call),) = node.timers
    assert period_s == 1.0
    call()
    node.publishers["/diagnostics"].listeners.clear()
    (status,) = heard[0].status
    assert heard[0].header.stamp.sec == NOW_S
    return status


def values_of(status: Any) -> dict[str, str]:
    return {one.key: one.value for one in status.values}


def active(node: Any) -> Any:
    assert node.ask("configure") == "success" and node.ask("activate") == "success"
    return node


def test_an_image_is_answered_with_its_header(
    make_node: Callable[..., Any], photo: np.ndarray, seg: Segmenter
) -> None:
    node = active(make_node())
    heard = listen(node, *ANSWERS)
    message = image(photo, "bgr8", padding=8, sec=NOW_S - 1, nanosec=500)
    send(node, message)
    wait_for(lambda: all(heard.values()))
    assert {said_of(one.header) for (one,) in heard.values()} == {(NOW_S - 1, 500, "camera")}
    wanted = seg.with_settings(refine="guided")(photo)
    np.testing.assert_array_equal(pixels_of(heard["labels"][0]), wanted.label_map)
    assert [one.id for one in heard["detections"][0].detections] == ["1", "2", "3", "4", "5"]
    wait_for(lambda: node._health.answered == 1)
    told = values_of(diagnosed(node))
    assert told["images answered"] == "1" and 999 <= float(told["age when published ms"]) <= 1001


def test_what_nobody_listens_to_is_not_made(
    make_node: Callable[..., Any], photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = active(make_node())
    heard = listen(node, "labels")
    monkeypatch.setattr("patchcut.Result.overlay", lambda self: pytest.fail("nobody wants it"))
    send(node, image(photo, "bgr8"))
    wait_for(lambda: heard["labels"])
    wait_for(lambda: node._health.answered == 1)
    assert diagnosed(node).level == 0


def test_the_newest_image_wins(make_node: Callable[..., Any], photo: np.ndarray) -> None:
    """While one is answered four more come: the last of them is the next."""
    node = active(make_node())
    heard = listen(node, "labels")
    begun, go_on = threading.Event(), threading.Event()

    def slow(message: Any) -> None:
        begun.set()
        assert go_on.wait(60)

    node.publishers["~/labels"].listeners.append(slow)
    send(node, image(photo, "bgr8", sec=0))
    assert begun.wait(60)
    for sec in range(1, 5):
        send(node, image(photo, "bgr8", sec=sec))
    go_on.set()
    wait_for(lambda: node._health.answered == 2)
    assert [one.header.stamp.sec for one in heard["labels"]] == [0, 4]
    assert values_of(diagnosed(node))["images dropped"] == "3"


def test_compressed_images(make_node: Callable[..., Any], photo: np.ndarray) -> None:
    node = active(make_node(image_transport="compressed"))
    assert list(node.subscriptions) == ["image_raw/compressed"]
    heard = listen(node, "labels")
    send(node, compressed(photo, ".png", "rgb8; png compressed bgr8", sec=7), "image_raw/compressed")
    wait_for(lambda: heard["labels"])
    assert heard["labels"][0].header.stamp.sec == 7


def test_bad_images_are_told_and_the_node_lives_on(make_node: Callable[..., Any], photo: np.ndarray) -> None:
    node = active(make_node())
    heard = listen(node, "labels")
    bad = [
        image(photo, "yuv444"),
        image(photo, "bgr8", data=np.zeros(9, np.uint8)),
        image(photo, "bgr8", width=0),
        image(photo, "bgr8", step=1),
    ]
    for refused, message in enumerate(bad, start=1):
        send(node, message)
        wait_for(lambda refused=refused: node._health.refused == refused)
    status = diagnosed(node)
    assert status.level == 1 and status.message == node.logger.lines[-1]
    assert values_of(status)["images refused"] == "4" and values_of(status)["problem"] == status.message
    assert len(node.logger.lines) == 4 and all(line.startswith("[image] ") for line in node.logger.lines)
    send(node, image(photo, "bgr8", sec=3))
    wait_for(lambda: heard["labels"])
    assert heard["labels"][0].header.stamp.sec == 3


def test_the_lifecycle(make_node: Callable[..., Any], photo: np.ndarray) -> None:
    """Inactive it takes no images, and when it is active again its objects have the ids they had."""
    node = make_node()
    assert list(node.publishers) == ["/diagnostics"] and diagnosed(node).message == "unconfigured"
    assert node.ask("configure") == "success"
    assert not node.subscriptions and diagnosed(node).message == "inactive"
    assert node.ask("activate") == "success"
    heard = listen(node, "detections")
    for answered in (1, 2):
        send(node, image(photo, "bgr8"))
        wait_for(lambda answered=answered: node._health.answered == answered)
        assert node.ask("deactivate") == "success" and not node.subscriptions
        assert node.ask("activate") == "success"
    first, second = ([one.id for one in message.detections] for message in heard["detections"])
    assert first[0] == second[0] == "1" and len(second) > 1 and set(second) <= set(first)
    node.ask("deactivate")
    assert node.ask("cleanup") == "success"
    assert list(node.publishers) == ["/diagnostics"] and diagnosed(node).message == "unconfigured"
    active(node)
    heard = listen(node, "labels")
    send(node, image(photo, "bgr8"))
    wait_for(lambda: heard["labels"])


def test_quality_of_service(make_node: Callable[..., Any]) -> None:
    node = active(make_node())
    taken = node.subscriptions["image_raw"].qos
    assert (taken.reliability, taken.history, taken.depth) == ("BEST_EFFORT", "KEEP_LAST", 1)
    given = [node.publishers[f"~/{name}"].qos for name in ANSWERS]
    assert {(one.reliability, one.durability, one.depth) for one in given} == {("RELIABLE", "VOLATILE", 2)}
    assert len({id(one) for one in given}) == len(given), "rclpy writes what is overridden into them"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"bundle": "nowhere.patchcut"}, "nowhere.patchcut"),
        ({"mode": "objects"}, "[mode] must be one of"),
        ({"engine": "none"}, "[engine] "),
        ({"size": 31}, "[size] "),
        ({"min_score": "high"}, "[min_score] must be a number from 0 to 1, got 'high'"),
        ({"image_transport": "theora"}, '[image_transport] must be one of "raw", "compressed"'),
    ],
)
def test_what_cannot_be_configured_is_one_line(
    make_node: Callable[..., Any], parameters: dict[str, Any], said: str
) -> None:
    node = make_node(**parameters)
    assert node.ask("configure") == "failure" and node.state == "unconfigured"
    (line,) = node.logger.lines
    status = diagnosed(node)
    assert said in line and "\n" not in line
    assert status.level == 2 and status.message == line and status.hardware_id == "not configured"


def test_parameters_are_checked_when_they_are_set(make_node: Callable[..., Any], toy: Path) -> None:
    node = make_node()
    assert node.set_parameters({"min_score": 0.5, "use_sim_time": True}).successful
    refused = node.set_parameters({"min_score": 7})
    assert not refused.successful
    assert refused.reason == "[min_score] must be a number from 0 to 1, got 7"
    assert node.ask("configure") == "success"
    late = node.set_parameters({"min_score": 0.1})
    assert not late.successful and "is read when the node is configured" in late.reason
    assert node.set_parameters({"use_sim_time": False}).successful
    assert node._running.chosen.settings.min_score == 0.5


def test_an_engine_that_fails_is_an_error_and_the_node_can_be_configured_again(
    make_node: Callable[..., Any], photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = active(make_node())

    def fail(*args: Any, **how: Any) -> Any:
        raise EngineError("onnxruntime", "failed to run: out of memory", "use a smaller size")

    with monkeypatch.context() as patch:
        patch.setattr("patchcut.stages.extractor.Extractor.run", fail)
        send(node, image(photo, "bgr8"))
        wait_for(lambda: node.logger.lines)
    status = diagnosed(node)
    assert status.level == 2 and "out of memory" in status.message
    node.ask("deactivate")
    node.ask("cleanup")
    active(node)
    heard = listen(node, "labels")
    send(node, image(photo, "bgr8"))
    wait_for(lambda: heard["labels"])
    wait_for(lambda: node._health.answered == 1)
    assert diagnosed(node).level == 0


def test_the_program_spins_and_ends_what_runs(ros: rclpy_stand_in.Spun, toy: Path, photo: np.ndarray) -> None:
    module = import_module("patchcut_ros.node")
    nodes = []

    def spin(node: Any) -> None:
        nodes.append(node)
        node._parameters["bundle"] = str(toy)
        active(node)
        raise rclpy_stand_in.ExternalShutdownException

    ros.spin = spin
    module.main()
    assert ros.calls == ["init", "spin", "shutdown"] and nodes[0].state == "destroyed"
    assert nodes[0]._running is None and not nodes[0].subscriptions


def test_every_parameter_is_declared(make_node: Callable[..., Any]) -> None:
    assert list(make_node()._parameters) == [one.name for one in PARAMETERS]
