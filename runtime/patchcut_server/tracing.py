"""Spans of OpenTelemetry, where it is installed; nothing where it is not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:
    _tracer: Any = None
else:
    _tracer = trace.get_tracer("patchcut_server")

# A stage, when it began in nanoseconds since 1970, and how many it took.
Stage = tuple[str, int, int]


@contextmanager
def request_span(name: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """The span of a request, below the caller's own if its headers name one; None without OpenTelemetry.

    Examples:
        >>> with request_span("segment", {}) as span:
        ...     tell_stages(span, [("decode", 0, 1_000_000)])
    """
    if _tracer is None:
        yield None
        return
    parent = propagate.extract(dict(headers))
    own = {"record_exception": False, "set_status_on_exception": False}  # a refusal is no failure
    with _tracer.start_as_current_span(name, context=parent, kind=trace.SpanKind.SERVER, **own) as span:
        yield span


def tell_stages(span: Any, stages: Sequence[Stage]) -> None:
    """Adds a span below `span` for each stage, whose times are known by now."""
    if _tracer is None or span is None:
        return
    context = trace.set_span_in_context(span)
    for name, begun_ns, took_ns in stages:
        one = _tracer.start_span(name, context=context, start_time=begun_ns)
        one.end(end_time=begun_ns + took_ns)


def tell_refusal(span: Any, status: int, words: str) -> None:
    """Says in a span what its request was refused with."""
    if span is None:
        return
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(trace.Status(trace.StatusCode.ERROR, words))


def now_ns() -> int:
    """Nanoseconds since 1970."""
    return time.time_ns()
