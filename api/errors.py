"""Error handlers: every error is a JSON response.

Errors of this project have their own status, Flask's errors keep theirs, an outage of Redis or a full disk is a 503, and anything
else is a 500 that reveals nothing about its cause.
"""

import logging

import redis
from flask import Flask, Response, current_app, g, jsonify, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, HTTPException

from shared.disk_space import is_disk_full
from shared.errors import (
    BodyTooLarge,
    DiskFull,
    EnginehouseError,
    IndexUnavailable,
    InternalError,
    InvalidRequest,
    InvalidValue,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    RedisUnavailable,
    RequestTimeout,
    Unavailable,
)
from shared.redis_connection import is_outage

logger = logging.getLogger(__name__)

OPENAI_PATH = "/v1/"
INTERNAL_ERROR = "Internal server error. The server log has the details, under the x-request-id of this response."


def register_error_handlers(app: Flask) -> None:
    """Handle every exception of a request, whichever code raises it."""
    app.register_error_handler(EnginehouseError, error_response)
    app.register_error_handler(IndexUnavailable, _index_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(redis.RedisError, _redis_error)
    app.register_error_handler(OSError, _system_error)
    app.register_error_handler(ParseException, _chunk_error)
    app.register_error_handler(Exception, _unexpected_error)


def error_response(error: EnginehouseError) -> tuple[Response, int]:
    """The error's status and JSON. OpenAI's API has no 422: a client's class for a bad value is that of 400."""
    status = InvalidRequest.status if error.status == InvalidValue.status and is_openai_call() else error.status
    return _json_response(error), status


def is_openai_call() -> bool:
    """Whether the current request is one of ``/v1``, or of a call that is there too."""
    return request.path.startswith(OPENAI_PATH) or (request.blueprint or "").startswith("openai")


def _json_response(error: EnginehouseError) -> Response:
    response = jsonify({"error": error.as_json()})
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.should_retry is not None:
        # OpenAI's client libraries obey this header.
        response.headers["x-should-retry"] = "true" if error.should_retry else "false"
    if error.status == 415:
        response.headers["Accept-Encoding"] = "identity"
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http_error(error: HTTPException) -> tuple[Response, int]:
    status = error.code or 500
    path = request.path[:200]
    if status == 404:
        if request.path.startswith(OPENAI_PATH):
            return error_response(
                NotFound(f"Unknown route: {request.method} {path}. Routes below /v1: {_openai_calls()}.", code="route_not_found")
            )
        return error_response(
            NotFound(f"There is no call {request.method} {path}. GET /openapi.json lists all calls.", code="route_not_found")
        )
    if status == 405:
        # A call that is missing here may have the path of another one, such as POST /v1/responses/compact.
        calls = f" Routes below /v1: {_openai_calls()}." if request.path.startswith(OPENAI_PATH) else ""
        response = _json_response(MethodNotAllowed(f"{path} does not support {request.method}.{calls}"))
        response.headers["Allow"] = ", ".join(getattr(error, "valid_methods", None) or ())
        return response, 405
    if isinstance(error, ClientDisconnected):
        return error_response(RequestTimeout("The body did not arrive in time. Send it faster, or in smaller parts."))
    if status == 413:
        return error_response(BodyTooLarge(_too_large_message()))
    if status < 500:
        return _json_response(InvalidRequest(error.description or error.name)), status
    return error_response(InternalError(INTERNAL_ERROR))


def _openai_calls() -> str:
    calls = (
        operation.call for operation in current_app.extensions["openapi"].operations if operation.path.startswith(OPENAI_PATH)
    )
    return ", ".join(sorted(calls))


def _too_large_message() -> str:
    limit, size = request.max_content_length, request.content_length
    if limit is not None and size is not None and size <= limit:
        # Flask limits these so that a form occupies little memory.
        return f"A form field is larger than {request.max_form_memory_size} bytes, or there are more than {request.max_form_parts} of them."
    return f"The body is larger than {limit} bytes, the limit of this call."


def _index_error(error: IndexUnavailable) -> tuple[Response, int]:
    """The error of a text index that this process reads itself. It is written for the job of a search, so it has no HTTP status."""
    logger.error("%s %r: %s", request.method, request.path, error, extra=_request_id())
    return error_response(Unavailable(error.message, code=error.code, retry_after=5))


def _chunk_error(error: ParseException) -> tuple[Response, int]:
    """The error of a body in chunks whose framing is broken, which is seen when the body is read."""
    return error_response(MalformedBody(f"The body, which is sent in chunks, is malformed: {error}"))


def _redis_error(error: redis.RedisError) -> tuple[Response, int]:
    if not is_outage(error):
        return _unexpected_error(error)
    logger.warning("Redis is unavailable: %s", error, extra=_request_id())
    return error_response(
        RedisUnavailable(
            "Redis is unavailable. Try again; repeat a submission with the same Idempotency-Key so that it counts once.",
            retry_after=2,
        )
    )


def _system_error(error: OSError) -> tuple[Response, int]:
    """An error of the system. The disk that is full may also be the one where a large form waits to be read."""
    if not is_disk_full(error):
        return _unexpected_error(error)
    logger.error("%s %r: a disk is full (%s)", request.method, request.path, error)
    return error_response(
        DiskFull(
            "The server's disk is full, so the request was not carried out. Retry later, or contact its operator.", retry_after=30
        )
    )


def _unexpected_error(error: Exception) -> tuple[Response, int]:
    logger.error("%s %r failed", request.method, request.path, exc_info=error, extra=_request_id())
    return error_response(InternalError(INTERNAL_ERROR))


def _request_id() -> dict[str, str]:
    return {"request_id": g.get("request_id", "")}
