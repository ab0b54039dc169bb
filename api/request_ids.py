"""Request ids: each response has one in ``x-request-id``. Log lines and jobs of the request have it, and the trace id."""

import re
from typing import cast

from flask import Flask, Response, g, request

from shared.ids import new_id
from shared.tracing import Span, start_span
from shared.work_context import WorkContext, set_work, valid_traceparent

HEADER = "x-request-id"

# Anything else could be a line of a log, or break one.
_VALID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def name_requests(app: Flask) -> None:
    """Give each request the id that it brings, if that is a plain word, or a new one."""

    @app.before_request
    def set_request_id() -> None:
        given = request.headers.get(HEADER, "")
        g.request_id = given if _VALID.fullmatch(given) else new_id("req")
        given_parent = valid_traceparent(request.headers.get("traceparent", ""))
        span = _start_span(given_parent)
        g.span = span
        set_work(WorkContext(request_id=g.request_id, traceparent=span.traceparent if span is not None else given_parent))

    @app.teardown_request
    def end_work(error: BaseException | None) -> None:
        span = cast(Span | None, g.get("span"))
        if span is not None:
            span.end()
        set_work(WorkContext())

    @app.after_request
    def add_request_id(response: Response) -> Response:
        response.headers[HEADER] = g.get("request_id") or new_id("req")
        span = cast(Span | None, g.get("span"))
        if span is not None:
            span.set_attributes({"http.response.status_code": response.status_code})
            if response.status_code >= 500:
                span.fail(str(response.status_code))
        return response


def _start_span(parent: str) -> Span | None:
    """The span of a request, which ends when its response starts. Probes and scrapes get none: they would hide the others."""
    rule = request.url_rule.rule if request.url_rule is not None else "none"
    if rule == "/metrics" or rule.startswith("/health/"):
        return None
    attributes = {"http.request.method": request.method, "http.route": rule, "enginehouse.request_id": g.request_id}
    return start_span(f"{request.method} {rule}", "server", attributes, parent=parent)
