"""Outcomes of requests: the lines of the output and the error file, in the form of OpenAI's API."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.errors import EnginehouseError, InvalidRequest, InvalidValue
from shared.ids import derived_id
from workers.io.request_batches.output import ERRORS, OUTPUT

UNUSED: Mapping[str, int] = {}


class Outcome(NamedTuple):
    """A line to write, to which file, and the tokens that the request has used."""

    file: str
    line: bytes
    usage: Mapping[str, int] = UNUSED


def answered(batch: str, number: int, custom_id: str, body: Mapping[str, Any]) -> Outcome:
    """The outcome of a request with a response."""
    return Outcome(OUTPUT, _line(batch, number, custom_id, response=_response(batch, number, 200, body)), _usage(body))


def refused(batch: str, number: int, custom_id: str, error: EnginehouseError) -> Outcome:
    """The outcome of a request that the API would have answered with this error."""
    # OpenAI's API has no 422; see api/errors.py.
    status = InvalidRequest.status if error.status == InvalidValue.status else error.status
    return Outcome(
        ERRORS,
        _line(batch, number, custom_id, response=_response(batch, number, status, {"error": error.as_json()})),
    )


def unfinished(batch: str, number: int, custom_id: str, code: str, message: str) -> Outcome:
    """The outcome of a request that did not end before its batch."""
    return Outcome(ERRORS, _line(batch, number, custom_id, error={"code": code, "message": message}))


def _line(batch: str, number: int, custom_id: str, *, response: Any = None, error: Any = None) -> bytes:
    request = derived_id("batch_req", batch, str(number))
    content = {"id": request, "custom_id": custom_id, "response": response, "error": error}
    # A lone surrogate, which JSON can have, is written as it came: escaped.
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def _response(batch: str, number: int, status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": derived_id("req", batch, str(number)), "body": body}


def _usage(body: Mapping[str, Any]) -> dict[str, int]:
    """The tokens in a response, by the names that a batch has for them. Calls have two sets of names."""
    usage = body.get("usage") or {}
    details_in = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
    details_out = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": int(usage.get("input_tokens") or usage.get("prompt_tokens") or 0),
        "cached_tokens": int(details_in.get("cached_tokens") or 0),
        "output_tokens": int(usage.get("output_tokens") or usage.get("completion_tokens") or 0),
        "reasoning_tokens": int(details_out.get("reasoning_tokens") or 0),
    }
