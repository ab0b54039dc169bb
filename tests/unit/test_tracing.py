"""Without an endpoint, spans do nothing and nothing of OpenTelemetry is imported; a trace that a client has begun is passed on."""

import subprocess
import sys

import pytest

from shared.errors import SettingsError
from shared.settings import Settings
from shared.settings_sources import from_environment
from shared.tracing import configure_tracing, is_tracing, span, start_span
from shared.work_context import WorkContext, current_work, working_on

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_without_an_endpoint_spans_pass_on_the_trace_of_the_client() -> None:
    configure_tracing("test", Settings())
    assert not is_tracing()
    with working_on(WorkContext(traceparent=PARENT)), span("a step", attributes={"a": 1}) as step:
        step.set_attributes({"b": 2})
        step.add_event("first_token")
        step.fail("code")
        assert (step.traceparent, current_work().traceparent) == (PARENT, PARENT)
    assert start_span("another").traceparent == ""


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, shared.tracing as tracing; from shared.settings import Settings\n"
        "tracing.configure_tracing('api', Settings())\n"
        "with tracing.span('x'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wrong_endpoint_stops_the_process_before_it_starts() -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT must start with http"):
        from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317"})
