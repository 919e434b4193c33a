"""Traces by OpenTelemetry: one span a request, one a stage of the road inside it. Needs the extra `traces`.

Who called comes from the header `traceparent` (W3C Trace Context), so a list is a part of the page that asked for it. No span holds an id of a person.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


class Traces:
    """Makes spans and sends them in the background, many at once.

    Args:
        address: of a collector's OTLP endpoint, such as http://127.0.0.1:4318/v1/traces. exporter: takes spans instead; None: the address does.
    """

    def __init__(self, address: str, exporter: SpanExporter | None = None) -> None:
        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=address)
        self._provider = TracerProvider(resource=Resource.create({"service.name": "tastemaker"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tastemaker")
        self._callers = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, route: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span]:
        """The span of a request; stages that end inside are its children."""
        known = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name.startswith(b"trace")}
        caller = self._callers.extract(known)
        with self._tracer.start_as_current_span(route, caller, SpanKind.SERVER, {"http.route": route}) as span:
            yield span

    def stage(self, name: str, seconds: float) -> None:
        """A stage that has just ended."""
        if not trace.get_current_span().is_recording():
            return  # outside a request, as in a batch
        end = time.time_ns()
        self._tracer.start_span(name, start_time=end - int(seconds * 1e9)).end(end)

    def ended(self, span: Span, status: int) -> None:
        """How a request was answered."""
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()
