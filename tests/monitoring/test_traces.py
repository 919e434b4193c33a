"""Traces: a span a request, a child of its caller's, with one a stage inside it, at a real collector's door."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from live_service import JSON, serving
from toy_bundle import write_workspace

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `traces` is not installed")


def test_spans_reach_a_collector(tmp_path: Path) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans: list[object] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    write_workspace(tmp_path / "space")
    caller, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with serving(tmp_path / "space", "--set", f"serving.traces=http://127.0.0.1:{collector.server_port}/v1/traces") as service:
        headers = {**JSON, "traceparent": f"00-{caller}-{parent}-01"}
        assert service.raw("POST", "/v1/recommend", '{"user_id": "u1"}', headers)[0] == 200
        deadline = time.monotonic() + 15
        while not spans and time.monotonic() < deadline:
            time.sleep(0.1)
    collector.shutdown()
    told = {span.name: span for span in spans}  # type: ignore[attr-defined]
    assert set(told) == {"recommend", "source", "filter", "score", "select"}
    assert told["recommend"].parent_span_id.hex() == parent
    assert {span.trace_id.hex() for span in told.values()} == {caller}
    for stage in ("source", "filter", "score", "select"):
        assert told[stage].parent_span_id == told["recommend"].span_id
        assert told["recommend"].start_time_unix_nano <= told[stage].start_time_unix_nano < told[stage].end_time_unix_nano
    assert "u1" not in str(spans)
