"""Every error as JSON: ours by their class, Flask's by their status, Redis' as 503, anything else as 500 without its insides."""

import logging

import redis
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from api.responses import Answer
from shared.errors import (
    BodyTooLarge,
    EnginehouseError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RedisUnavailable,
)
from shared.redis_connection import is_outage

logger = logging.getLogger(__name__)


def install(app: Flask) -> None:
    """Register the handlers."""
    app.register_error_handler(EnginehouseError, answer)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(redis.RedisError, _redis)
    app.register_error_handler(RecursionError, lambda error: answer(InvalidRequest("the body is nested too deep")))
    app.register_error_handler(Exception, _unexpected)


def answer(error: EnginehouseError) -> Answer:
    """The error's status and body."""
    response: Response = jsonify({"error": error.as_json()})
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.should_retry is not None:
        # The header that OpenAI's clients obey.
        response.headers["x-should-retry"] = "true" if error.should_retry else "false"
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response, error.status


def _http(error: HTTPException) -> Answer:
    status = error.code or 500
    if status == 404:
        return answer(
            NotFound(
                f"there is no {request.method} {request.path[:200]}; docs/http-api.md lists the calls", code="route_not_found"
            )
        )
    if status == 405:
        response, _ = answer(MethodNotAllowed(f"{request.path[:200]} does not take {request.method}"))  # type: ignore[misc]
        response.headers["Allow"] = ", ".join(getattr(error, "valid_methods", None) or ())
        return response, 405
    if status == 413:
        limit = request.max_content_length
        return answer(BodyTooLarge(f"the body is larger than the {limit} bytes that this call takes"))
    if status < 500:
        refused = InvalidRequest(error.description or error.name)
        return jsonify({"error": refused.as_json()}), status
    return answer(InternalError("the server met a fault; its log tells more"))


def _redis(error: redis.RedisError) -> Answer:
    if not is_outage(error):
        return _unexpected(error)
    logger.warning("Redis is away: %s", error)
    return answer(
        RedisUnavailable(
            "Redis does not answer now; try again, a submission with the same Idempotency-Key so that it counts once",
            retry_after=2,
        )
    )


def _unexpected(error: Exception) -> Answer:
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return answer(InternalError("the server met a fault; its log tells more"))
