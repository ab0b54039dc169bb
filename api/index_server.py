"""Whether the index server (Chroma) answers."""

import http.client
import urllib.request

from shared.urls import without_login

TIMEOUT_SECONDS = 2.0


def index_answers(url: str) -> bool:
    """Whether the server at this URL answers its health check in time. Needs no password."""
    try:
        with urllib.request.urlopen(f"{without_login(url).rstrip('/')}/api/v2/heartbeat", timeout=TIMEOUT_SECONDS) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False
