"""The node: a thin shell of rclpy around the loop."""

from __future__ import annotations

import threading
from array import array
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from patchcut import OptionError, PatchcutError, Result, Segmenter
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from patchcut_ros.health import Health, diagnostics_of
from patchcut_ros.loop import Images, Loop, Mailbox, Origin
from patchcut_ros.messages import ANSWERS
from patchcut_ros.parameters import PARAMETERS, Chosen, read_parameters

_JOIN_S = 5.0
_LOG_EVERY_S = 5.0


def _profile(depth: int, reliability: Any) -> Any:
    """A profile of its own: rclpy writes into one what an operator overrides."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=DurabilityPolicy.VOLATILE,
    )


class RosMessages:
    """The classes of messages of this ROS; a `Messages`."""

    def kind(self, name: str) -> Any:
        package, _, kind = name.partition("/")
        return getattr(import_module(f"{package}.msg"), kind)

    def octets(self, values: npt.NDArray[np.uint8]) -> Any:
        octets = array("B")  # of anything else rclpy looks at each value
        octets.frombytes(np.ascontiguousarray(values).data)
        return octets


class _Published:
    """Publishes one kind of answer; an `Output`."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher

    def is_wanted(self) -> bool:
        return bool(self._publisher.is_activated and self._publisher.get_subscription_count() > 0)

    def put(self, message: Any, origin: Origin) -> None:
        self._publisher.publish(message)


class PatchcutNode(LifecycleNode):  # type: ignore[misc]  # rclpy has no types here
    """Segments a camera's images.

    Subscribes to `image_raw` or `image_raw/compressed`; publishes `~/labels`, `~/regions`, `~/detections`,
    `~/overlay` and, once a second, `/diagnostics`. It opens the bundle when it is configured, and takes
    images while it is active; tracks go on when it is activated again. Images that cannot be read are told
    of and left out.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__("patchcut", **how)
        self._messages = RosMessages()
        self._health = Health()
        self._running: _Running | None = None
        self._subscription: Any = None
        for one in PARAMETERS:
            about = ParameterDescriptor(description=one.description, dynamic_typing=True)
            self.declare_parameter(one.name, one.default, about)
        self.add_on_set_parameters_callback(self._check_parameters)
        self._diagnostics = self.create_publisher(
            self._messages.kind("diagnostic_msgs/DiagnosticArray"), "/diagnostics", 1
        )
        self._timer = self.create_timer(1.0, self.diagnose)

    def on_configure(self, state: Any) -> Any:
        """Opens the bundle that the parameters name."""
        try:
            chosen = read_parameters({one.name: self.get_parameter(one.name).value for one in PARAMETERS})
            segmenter = Segmenter.open(chosen.settings)
        except PatchcutError as error:
            self._fail(str(error))
            return TransitionCallbackReturn.FAILURE
        self._health.warn_after_s = chosen.warn_after
        publishers = {
            name: self.create_lifecycle_publisher(
                self._messages.kind(answer.kind),
                f"~/{name}",
                # Subscribers of either kind get it, and a slow one gets nothing old.
                _profile(2, ReliabilityPolicy.RELIABLE),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for name, answer in ANSWERS.items()
        }
        self._running = _Running(self, chosen, segmenter, publishers)
        self._health.begin("inactive")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> Any:
        """Takes images from now on."""
        assert self._running is not None
        compressed = self._running.chosen.image_transport == "compressed"
        self._subscription = self.create_subscription(
            self._messages.kind(f"sensor_msgs/{'CompressedImage' if compressed else 'Image'}"),
            "image_raw/compressed" if compressed else "image_raw",
            self._take,
            _profile(1, ReliabilityPolicy.BEST_EFFORT),  # which publishers of either kind meet
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._health.begin("active")
        return super().on_activate(state)

    def on_deactivate(self, state: Any) -> Any:
        """Takes no more images; what was found of their objects is kept."""
        assert self._running is not None
        self.destroy_subscription(self._subscription)
        self._subscription = None
        self._running.mailbox.clear()
        self._health.begin("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> Any:
        """Closes the bundle; what was found is forgotten."""
        self.close()
        self._health.begin("unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> Any:
        """Ends whatever runs."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: Any) -> Any:
        """Ends whatever runs; the node can be configured again."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Ends whatever runs; harmless when called again."""
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self._running is not None:
            self._running.end()
            for publisher in self._running.publishers.values():
                self.destroy_lifecycle_publisher(publisher)
            self._running = None

    def diagnose(self) -> None:
        """Publishes how the node is."""
        about = {} if self._running is None else self._running.about
        device = about.get("device", "not configured")
        stamp = self.get_clock().now().to_msg()
        told = diagnostics_of(self._health, self.get_name(), device, stamp, self._messages, **about)
        self._diagnostics.publish(told)

    def _take(self, message: Any) -> None:
        self._health.come()
        if self._running is not None:
            self._running.mailbox.put(message, self.get_clock().now().nanoseconds)

    def _fail(self, words: str) -> None:
        self._health.fail(words)
        self.get_logger().error(words)

    def _check_parameters(self, changed: list[Any]) -> Any:
        """Whether parameters may have new values: while nothing runs, and where they are allowed."""
        own = {one.name for one in PARAMETERS}
        new = {one.name: one.value for one in changed if one.name in own}
        if not new:
            return SetParametersResult(successful=True)
        try:
            if self._running is not None:
                what = "is read when the node is configured, and it is"
                raise OptionError(next(iter(new)), what, "clean it up first: ros2 lifecycle set ... cleanup")
            read_parameters({one.name: self.get_parameter(one.name).value for one in PARAMETERS} | new)
        except PatchcutError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _tell(self, words: str) -> None:
        self._health.tell(words)
        self.get_logger().warning(words, throttle_duration_sec=_LOG_EVERY_S)

    def _count(self, origin: Origin, result: Result) -> None:
        stamp = origin.header.stamp
        age_ns = self.get_clock().now().nanoseconds - (stamp.sec * 10**9 + stamp.nanosec)
        self._health.answer(result, 1e-6 * age_ns)


class _Running:
    """What there is from `configure` to `cleanup`: the segmenter, its mailbox, and the thread that answers.

    Attributes:
        chosen: the parameters.
        publishers: of answers, by their names.
        mailbox: where images go.
        about: what runs, for diagnostics.
    """

    def __init__(
        self, node: PatchcutNode, chosen: Chosen, segmenter: Segmenter, publishers: dict[str, Any]
    ) -> None:
        self.chosen, self.publishers = chosen, publishers
        self.mailbox = Mailbox()
        described = segmenter.describe()
        self.about = {
            "bundle": described.bundle,
            "engine": described.settings.engine,
            "device": described.settings.device,
            "precision": described.settings.precision,
            "mode": described.settings.mode,
        }
        loop = Loop(
            segmenter=segmenter,
            images=Images(self.mailbox, node._tell, chosen.settings.pixel_rule),
            stream=chosen.stream,
            messages=node._messages,
            outputs={name: _Published(publisher) for name, publisher in publishers.items()},
            on_result=node._count,
        )
        self._thread = threading.Thread(
            target=partial(_run, loop, node), name="patchcut-answers", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Ends the thread after the image that it answers now."""
        self.mailbox.close()
        self._thread.join(_JOIN_S)


def _run(loop: Loop, node: PatchcutNode) -> None:
    """Runs the loop; whatever ends it is told, and the node lives on."""
    try:
        loop.run()
    except PatchcutError as error:
        node._fail(str(error))
    except Exception as error:  # of an own head, or of rclpy while it shuts down
        node._fail(str(PatchcutError("patchcut", f"{type(error).__name__}: {error}", "configure it again")))


def main(args: list[str] | None = None) -> None:
    """Runs the node until it is told to stop."""
    rclpy.init(args=args)
    node = PatchcutNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
