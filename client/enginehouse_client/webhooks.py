"""Whether a webhook comes from the server: Standard Webhooks 1.0, signatures of version 1 (HMAC-SHA256)."""

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
    """The JSON of a webhook's body, once its signature was checked.

    ``headers`` are the request's, in any case of letters; ``body`` its bytes as they came, before any parsing. A message more
    than ``tolerance`` seconds from ``now`` (Unix seconds) is refused, so that none can be kept and sent again. The same
    ``webhook-id`` comes again when a delivery is repeated: act on each once. Raises InvalidSignature.
    """
    told = {name.lower(): value for name, value in headers.items()}
    try:
        message, timestamp, signatures = (told[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        sent = int(timestamp)
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except KeyError as missing:
        raise InvalidSignature(f"the request has no header {missing.args[0]}") from None
    except binascii.Error:
        raise InvalidSignature("the secret is not base64 after whsec_") from None
    except ValueError:
        raise InvalidSignature("webhook-timestamp is no number") from None
    age = (time.time() if now is None else now) - sent
    if abs(age) > tolerance:
        raise InvalidSignature(f"the webhook is {age:.0f} s old, and {tolerance:g} s is the limit; is the clock right?")
    content = body.encode() if isinstance(body, str) else body
    digest = hmac.digest(key, f"{message}.{sent}.".encode() + content, hashlib.sha256)
    expected = b"v1," + base64.b64encode(digest)
    # While a secret is being changed there is a signature of each.
    if not any(hmac.compare_digest(expected, signature.encode()) for signature in signatures.split()):
        raise InvalidSignature("no signature is of this secret and this body")
    return json.loads(content)
