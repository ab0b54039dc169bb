"""Pages of lists in the form of OpenAI's API."""

from collections.abc import Sequence
from typing import Any

from flask import Response, jsonify


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
