"""Ids of requests: each response has one in ``x-request-id``. Log lines and jobs of the request have it too, and the id of its trace."""

import re

from flask import Flask, Response, g, request

from shared.ids import new_id
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
        set_work(WorkContext(request_id=g.request_id, traceparent=valid_traceparent(request.headers.get("traceparent", ""))))

    @app.teardown_request
    def end_work(error: BaseException | None) -> None:
        set_work(WorkContext())

    @app.after_request
    def add_request_id(response: Response) -> Response:
        response.headers[HEADER] = g.get("request_id") or new_id("req")
        return response
