"""Idempotency keys: the ``Idempotency-Key`` header of a request and the fingerprint of its content."""

import hashlib
import json
from typing import Any, NamedTuple

from flask import request

from shared.errors import InvalidValue

MAX_KEY_LENGTH = 255


class IdempotencyKey(NamedTuple):
    """A key and the fingerprint of its request; both are empty if the client sent no key."""

    key: str
    fingerprint: str


def read_idempotency_key(content: Any) -> IdempotencyKey:
    """The key of this request, with the fingerprint of ``content``. Raises InvalidValue.

    ``content`` is the validated body, so two spellings of the same request have the same fingerprint.
    """
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return IdempotencyKey("", "")
    if len(key) > MAX_KEY_LENGTH or not key.isprintable():
        raise InvalidValue(f"Idempotency-Key: must be 1 to {MAX_KEY_LENGTH} printable characters", param="Idempotency-Key")
    text = json.dumps([request.method, request.path, content], sort_keys=True, ensure_ascii=False, default=str)
    return IdempotencyKey(key, hashlib.sha256(text.encode()).hexdigest())
