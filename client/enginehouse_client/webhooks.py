"""Verify webhooks: Standard Webhooks 1.0 with signatures of version 1 (HMAC-SHA256)."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from enginehouse_client.errors import InvalidSignature

PREFIX = "whsec_"


def verify(
    secret: str, headers: Mapping[str, str], body: bytes | str, *, tolerance: float = 300.0, now: float | None = None
) -> Any:
    """Verify the signature of a webhook and return its parsed body.

    ``headers`` are those of the request, in upper or lower case; ``body`` must be the raw bytes, before any parsing. Messages more
    than ``tolerance`` seconds away from ``now`` (Unix seconds) are rejected, which prevents replays. A repeated delivery has the
    same ``webhook-id``: process each id once. Raises InvalidSignature.
    """
    lower_case = {name.lower(): value for name, value in headers.items()}
    try:
        message, timestamp, signatures = (lower_case[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        sent = int(timestamp)
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except KeyError as missing:
        raise InvalidSignature(f"the request has no header {missing.args[0]}") from None
    except binascii.Error:
        raise InvalidSignature("the secret is not base64 after whsec_") from None
    except ValueError:
        raise InvalidSignature("webhook-timestamp is not a number") from None
    age = (time.time() if now is None else now) - sent
    if abs(age) > tolerance:
        raise InvalidSignature(
            f"the webhook is {age:.0f} s old and the limit is {tolerance:g} s; check the clock of this machine"
        )
    content = body.encode() if isinstance(body, str) else body
    digest = hmac.digest(key, f"{message}.{sent}.".encode() + content, hashlib.sha256)
    expected = b"v1," + base64.b64encode(digest)
    # After a rotation there is a signature for each secret.
    if not any(hmac.compare_digest(expected, signature.encode()) for signature in signatures.split()):
        raise InvalidSignature("no signature matches this secret and body")
    return json.loads(content)
