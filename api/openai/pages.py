"""Pages of lists, and objects that clients poll, in the form of OpenAI's API."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, jsonify

from api.openapi.operation import in_query

# Clients of OpenAI wait this long before they look again, and a second if the response does not say.
POLL_MS = 300

# Parameters of the lists of items: those of a conversation, and those before a response.
PAGE_OF_ITEMS = (
    in_query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Maximum number of items.", 10),
    in_query("after", {"type": "string"}, "The id of the last item of the previous page."),
    in_query("order", {"enum": ["asc", "desc"], "default": "desc"}, "`desc` begins with the newest item.", "asc"),
)


def page_response(entries: Sequence[dict[str, Any]], *, has_more: bool) -> Response:
    """A page. Clients continue after its ``last_id``."""
    ids = [entry["id"] for entry in entries]
    return jsonify(
        {
            "object": "list",
            "data": list(entries),
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
            "has_more": has_more,
        }
    )


def poll_response(value: Mapping[str, Any]) -> Response:
    """An object with ``status``, and when to look again if that is ``in_progress``."""
    response = jsonify(value)
    if value["status"] == "in_progress":
        response.headers["openai-poll-after-ms"] = str(POLL_MS)
    return response
