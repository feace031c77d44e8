"""What a server counts, and the spans of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from prometheus_client.parser import text_string_to_metric_families

from .conftest import Served


def test_metrics_are_what_prometheus_reads(serve: Callable[..., Served], jpeg: bytes) -> None:
    one = serve()
    for _ in range(3):
        assert one.segment(jpeg).status == 200
    assert one.segment(b"x").status == 415
    text = one.ask("GET", "/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(text.body.decode())}
    counts = {
        sample.labels["stage"]: sample.value
        for sample in families["patchcut_stage_seconds"].samples
        if sample.name.endswith("_count")
    }
    assert set(counts) == {"queue", "decode", "preprocess", "backbone", "head", "masks", "answer"}
    assert set(counts.values()) == {3}
    assert one.metric('patchcut_request_seconds_count{route="/v1/segment",status="200"}') == 3
    assert one.metric('patchcut_request_seconds_count{route="/v1/segment",status="415"}') == 1
    assert one.metric('patchcut_refused_total{reason="bad request"}') == 1
    assert {
        "patchcut_queue",
        "patchcut_streams",
        "patchcut_batch_frames",
        "process_resident_memory_bytes",
    } <= families.keys()


def test_paths_of_strangers_make_no_metrics(serve: Callable[..., Served]) -> None:
    one = serve()
    for i in range(20):
        one.ask("GET", f"/nothing/{i}")
    assert one.metric('patchcut_request_seconds_count{route="other",status="404"}') == 20
    assert b"/nothing" not in one.ask("GET", "/metrics").body


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the spans are OpenTelemetry's")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from patchcut_server import tracing

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    return exporter


def test_a_request_is_a_span_with_its_stages_below_the_callers(
    serve: Callable[..., Served], spans: Any, jpeg: bytes
) -> None:
    one = serve()
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    assert one.segment(jpeg, traceparent=f"00-{trace_id}-{parent}-01").status == 200
    assert one.segment(b"x").status == 415
    found = {
        span.name: span
        for span in spans.get_finished_spans()
        if format(span.context.trace_id, "032x") == trace_id
    }
    assert {"segment", "queue", "decode", "backbone", "masks", "answer"} <= found.keys()
    assert format(found["segment"].parent.span_id, "016x") == parent
    assert found["backbone"].parent.span_id == found["segment"].context.span_id
    assert found["queue"].start_time <= found["decode"].start_time <= found["backbone"].start_time
    refused = spans.get_finished_spans()[-1]
    assert refused.attributes["http.response.status_code"] == 415


def test_without_opentelemetry_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from patchcut_server import tracing

    monkeypatch.setattr(tracing, "_tracer", None)
    with tracing.request_span("segment", {}) as span:
        assert span is None
        tracing.tell_stages(span, [("decode", 0, 1)])
        tracing.tell_refusal(span, 500, "")
