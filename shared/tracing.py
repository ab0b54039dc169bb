"""Traces for OpenTelemetry: spans from a request through its jobs to the engine, documents and webhooks.

Without an OTLP endpoint in the settings, or without the extra ``otel``, OpenTelemetry is not imported and a span does nothing.
A span never has a prompt, an answer or a text of a document. ``work_context`` carries the current span to log lines and to jobs; a job's
record carries it to workers.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from shared.packaged_files import installed_version
from shared.settings import Settings
from shared.work_context import current_work, set_traceparent

logger = logging.getLogger(__name__)

Kind = Literal["server", "client", "consumer", "internal"]
Attribute = str | int | float | bool


class Span:
    """A part of a trace. This one does nothing: it stands for all spans while traces are off.

    ``traceparent`` names it for the next part; it may be empty.
    """

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def set_attributes(self, attributes: Mapping[str, Attribute]) -> None:
        """Add what is known now."""

    def add_event(self, name: str, at_seconds: float | None = None) -> None:
        """Note that something happened, now or at this Unix time."""

    def fail(self, reason: str) -> None:
        """Mark the span as failed. The reason is a code or the name of an error."""

    def end(self, at_seconds: float | None = None) -> None:
        """End the span, now or at this Unix time."""


class _Exporting(Span):
    """A span that is exported when it has ended."""

    def __init__(self, span: Any) -> None:
        context = span.get_span_context()
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}")
        self._span = span

    def set_attributes(self, attributes: Mapping[str, Attribute]) -> None:
        self._span.set_attributes(attributes)

    def add_event(self, name: str, at_seconds: float | None = None) -> None:
        self._span.add_event(name, timestamp=_nanoseconds(at_seconds))

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, reason))

    def end(self, at_seconds: float | None = None) -> None:
        self._span.end(_nanoseconds(at_seconds))


class _Exporter:
    """The tracer of this process."""

    tracer: Any = None


def configure_tracing(service: str, settings: Settings) -> None:
    """Export the spans of this process, if the settings name an endpoint. ``service`` is the name of the part, such as ``api``.

    OpenTelemetry's own variables for headers, sampling and resources apply. Call this after a fork.
    """
    if not settings.otlp_endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, but no traces are sent: install enginehouse[otel]")
        return
    version = installed_version()
    resource = Resource.create({"service.name": f"enginehouse-{service}", **({"service.version": version} if version else {})})
    provider = TracerProvider(resource=resource)
    endpoint = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _Exporter.tracer = provider.get_tracer("enginehouse")


def is_tracing() -> bool:
    """Whether spans are exported."""
    return _Exporter.tracer is not None


def start_span(
    name: str,
    kind: Kind = "internal",
    attributes: Mapping[str, Attribute] | None = None,
    *,
    parent: str | None = None,
    at_seconds: float | None = None,
) -> Span:
    """Start a span under ``parent``, a traceparent, or under the current work's. It began now or at this Unix time."""
    if parent is None:
        parent = current_work().traceparent
    if _Exporter.tracer is None:
        return Span(parent)
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent})
    kind_of_span = SpanKind[kind.upper()]
    return _Exporting(
        _Exporter.tracer.start_span(
            name, context=context, kind=kind_of_span, attributes=attributes, start_time=_nanoseconds(at_seconds)
        )
    )


@contextmanager
def span(
    name: str, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None, *, parent: str | None = None
) -> Iterator[Span]:
    """A span for the block, in which it is the current work. An exception marks it as failed with its name."""
    started = start_span(name, kind, attributes, parent=parent)
    before = current_work().traceparent
    set_traceparent(started.traceparent)
    try:
        yield started
    except Exception as error:
        started.fail(type(error).__name__)
        raise
    finally:
        set_traceparent(before)
        started.end()


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e9)
