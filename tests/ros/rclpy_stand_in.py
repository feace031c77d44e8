"""A small stand-in for rclpy: what the node takes of it, without ROS.

Messages have the fields of rosbags' classes, and are held to the types that rclpy wants. What is published is
written and read by rosbags on its way to subscribers.
"""

from __future__ import annotations

import contextlib
import sys
from array import array
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from tests.ros.made_messages import MESSAGES

PACKAGES = (
    "builtin_interfaces",
    "diagnostic_msgs",
    "geometry_msgs",
    "sensor_msgs",
    "std_msgs",
    "vision_msgs",
)


class Success:
    SUCCESS, FAILURE, ERROR = "success", "failure", "error"


class Clock:
    now_ns = 100 * 10**9

    def now(self) -> Any:
        sec, nanosec = divmod(self.now_ns, 10**9)
        stamp = MESSAGES.kind("builtin_interfaces/Time")(sec=sec, nanosec=nanosec)
        return SimpleNamespace(nanoseconds=self.now_ns, to_msg=lambda: stamp)


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, words: str, *, throttle_duration_sec: float = 0.0) -> None:
        self.lines.append(words)

    def error(self, words: str) -> None:
        self.lines.append(words)


class Publisher:
    """Hands what is published, through rosbags, to whoever listens.

    Attributes:
        listeners: called with each message.
        is_activated: of a lifecycle publisher, which drops what comes while it is not.
    """

    def __init__(self, kind: type, topic: str, qos: Any, *, managed: bool) -> None:
        self.kind, self.topic, self.qos = kind, topic, qos
        self.listeners: list[Callable[[Any], None]] = []
        self.is_activated = not managed
        self.is_destroyed = False

    def get_subscription_count(self) -> int:
        return len(self.listeners)

    def publish(self, message: Any) -> None:
        assert not self.is_destroyed and type(message) is self.kind
        if self.is_activated:
            name = message.__msgtype__
            data = MESSAGES.typestore.serialize_cdr(as_rosbags(message), name)
            for listener in self.listeners:
                listener(MESSAGES.typestore.deserialize_cdr(data, name))


def as_rosbags(value: Any) -> Any:
    """What rosbags writes, of what rclpy would have taken: it asserts the types that rclpy's setters do."""
    if isinstance(value, array):
        assert value.typecode == "B"
        return np.frombuffer(value, np.uint8)
    if isinstance(value, bytes):
        assert len(value) == 1
        return value[0]
    if isinstance(value, list):
        return [as_rosbags(one) for one in value]
    if hasattr(value, "__msgtype__"):
        fields = {name: as_rosbags(getattr(value, name)) for name in field_names(value.__msgtype__)}
        return MESSAGES.typestore.types[value.__msgtype__](**fields)
    if isinstance(value, np.ndarray):
        assert value.dtype == np.float64 and value.shape == (36,)
        return value
    assert type(value) in (int, float, str), value
    return value


def field_names(kind: str) -> list[str]:
    return [name for name, _ in MESSAGES.typestore.fielddefs[kind][1]]


class LifecycleNode:
    """rclpy's, as far as the node needs it."""

    def __init__(self, name: str, *, overrides: dict[str, Any] | None = None) -> None:
        self._name = name
        self._parameters: dict[str, Any] = {}
        self._overrides = overrides or {}
        self._check: Callable[[list[Any]], Any] | None = None
        self.state = "unconfigured"
        self.clock, self.logger = Clock(), Logger()
        self.publishers: dict[str, Publisher] = {}
        self.subscriptions: dict[str, Any] = {}
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def declare_parameter(self, name: str, value: Any, descriptor: Any) -> None:
        assert name not in self._parameters and descriptor.dynamic_typing and descriptor.description
        assert type(value) in (str, int, float, bool)
        self._parameters[name] = self._overrides.get(name, value)

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(name=name, value=self._parameters[name])

    def add_on_set_parameters_callback(self, check: Callable[[list[Any]], Any]) -> None:
        self._check = check

    def set_parameters(self, values: dict[str, Any]) -> Any:
        assert self._check is not None
        done = self._check([SimpleNamespace(name=name, value=value) for name, value in values.items()])
        if done.successful:
            self._parameters |= values
        return done

    def create_publisher(self, kind: type, topic: str, qos: Any) -> Publisher:
        return self._publisher(kind, topic, qos, managed=False)

    def create_lifecycle_publisher(
        self, kind: type, topic: str, qos: Any, *, qos_overriding_options: Any
    ) -> Publisher:
        return self._publisher(kind, topic, qos, managed=True)

    def destroy_lifecycle_publisher(self, publisher: Publisher) -> None:
        publisher.is_destroyed = True
        del self.publishers[publisher.topic]

    def create_subscription(
        self, kind: type, topic: str, take: Callable[[Any], None], qos: Any, *, qos_overriding_options: Any
    ) -> Any:
        made = SimpleNamespace(kind=kind, topic=topic, take=take, qos=qos)
        self.subscriptions[topic] = made
        return made

    def destroy_subscription(self, subscription: Any) -> None:
        del self.subscriptions[subscription.topic]

    def create_timer(self, period_s: float, call: Callable[[], None]) -> None:
        self.timers.append((period_s, call))

    def get_logger(self) -> Logger:
        return self.logger

    def get_clock(self) -> Clock:
        return self.clock

    def get_name(self) -> str:
        return self._name

    def destroy_node(self) -> None:
        self.state = "destroyed"

    def on_activate(self, state: Any) -> str:
        for publisher in self.publishers.values():
            publisher.is_activated = True
        return Success.SUCCESS

    def on_deactivate(self, state: Any) -> str:
        for name, publisher in self.publishers.items():
            publisher.is_activated = not name.startswith("~")
        return Success.SUCCESS

    def ask(self, transition: str) -> str:
        """What `ros2 lifecycle set` does."""
        ways = {
            "configure": ("unconfigured", "inactive"),
            "activate": ("inactive", "active"),
            "deactivate": ("active", "inactive"),
            "cleanup": ("inactive", "unconfigured"),
        }
        begin, end = ways[transition]
        assert self.state == begin
        done: str = getattr(self, f"on_{transition}")(None)
        if done == Success.SUCCESS:
            self.state = end
        return done

    def _publisher(self, kind: type, topic: str, qos: Any, *, managed: bool) -> Publisher:
        assert topic not in self.publishers
        self.publishers[topic] = Publisher(kind, topic, qos, managed=managed)
        return self.publishers[topic]


class Spun:
    """What `rclpy.init`, `spin` and `try_shutdown` were called with; `spin` does what a test wants."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.spin: Callable[[Any], None] = lambda node: None

    def module(self) -> dict[str, Any]:
        def spin(node: Any) -> None:
            self.calls.append("spin")
            self.spin(node)

        return {
            "init": lambda args=None: self.calls.append("init"),
            "spin": spin,
            "try_shutdown": lambda: self.calls.append("shutdown"),
        }


class ExternalShutdownException(Exception):
    pass


@contextlib.contextmanager
def installed() -> Iterator[Spun]:
    """The stand-in takes rclpy's place among the modules, and those of messages."""
    words = ("KEEP_LAST", "BEST_EFFORT", "RELIABLE", "VOLATILE")
    policy = SimpleNamespace(**{word: word for word in words})
    spun = Spun()
    modules: dict[str, dict[str, Any]] = {
        "rclpy": spun.module(),
        "rclpy.executors": {"ExternalShutdownException": ExternalShutdownException},
        "rclpy.lifecycle": {"LifecycleNode": LifecycleNode, "TransitionCallbackReturn": Success},
        "rclpy.qos": {
            "QoSProfile": SimpleNamespace,
            **dict.fromkeys(("DurabilityPolicy", "HistoryPolicy", "ReliabilityPolicy"), policy),
        },
        "rclpy.qos_overriding_options": {
            "QoSOverridingOptions": SimpleNamespace(with_default_policies=lambda: "default policies")
        },
        "rcl_interfaces.msg": {
            "ParameterDescriptor": SimpleNamespace,
            "SetParametersResult": SimpleNamespace,
        },
        **{f"{package}.msg": _classes_of(package) for package in PACKAGES},
    }
    before = {name: sys.modules.get(name) for name in (*modules, "patchcut_ros.node")}
    sys.modules.pop("patchcut_ros.node", None)
    for name, members in modules.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(members)
    try:
        yield spun
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def _classes_of(package: str) -> dict[str, Any]:
    start = f"{package}/msg/"
    found = {
        name.removeprefix(start): kind
        for name, kind in MESSAGES.typestore.types.items()
        if name.startswith(start)
    }
    if package == "diagnostic_msgs":  # rclpy has `byte` as bytes
        levels = {name: bytes([i]) for i, name in enumerate(("OK", "WARN", "ERROR", "STALE"))}
        found["DiagnosticStatus"] = type("DiagnosticStatus", (found["DiagnosticStatus"],), levels)
    return found
