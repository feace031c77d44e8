"""What a server counts and times, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FRAMES = (1, 2, 3, 4, 6, 8, 12, 16)


class Metrics:
    """The counts and times of one server, in a registry of its own.

    Examples:
        >>> metrics = Metrics()
        >>> metrics.refused.labels("queue full").inc()
        >>> 'patchcut_refused_total{reason="queue full"} 1.0' in metrics.text().decode()
        True
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Histogram(
            "patchcut_request_seconds",
            "Requests from their headers to the last byte of the answer.",
            ("route", "status"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "patchcut_stage_seconds",
            "What a frame's time went into; of frames that ran together, each one's share.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batches = Histogram(
            "patchcut_batch_frames",
            "Frames of requests that went through the backbone together.",
            buckets=_FRAMES,
            registry=registry,
        )
        self.refused = Counter(
            "patchcut_refused", "Requests that got no result.", ("reason",), registry=registry
        )
        self.dropped = Counter(
            "patchcut_dropped_frames",
            "Frames of streams, and results of them, that newer ones replaced.",
            registry=registry,
        )
        self.loads = Counter(
            "patchcut_loads", "How often the bundle was loaded again.", ("outcome",), registry=registry
        )
        self._gauges = {
            name: Gauge(name, words, registry=registry)
            for name, words in (
                ("patchcut_queue", "Requests that are taken and not answered yet."),
                ("patchcut_streams", "Streams that are open."),
            )
        }

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Has a gauge tell what `read` returns whenever it is asked for."""
        self._gauges[name].set_function(read)

    def tell(self, timings_ms: Mapping[str, float]) -> None:
        """Adds the stages of one frame."""
        for stage, ms in timings_ms.items():
            self.stages.labels(stage).observe(ms / 1e3)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
