"""Verification of webhooks that another implementation of Standard Webhooks has signed."""

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from enginehouse_client import InvalidSignature
from enginehouse_client.webhooks import verify

SECRET = "whsec_" + base64.b64encode(b"a secret of at least 24 bytes").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret of 24 bytes or so").decode()
NOW = 1_800_000_000
BODY = '{"type": "job.completed", "data": {"text": "żółć"}}'


def headers(secret: str = SECRET, at: int = NOW) -> dict[str, str]:
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), BODY)
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(at), "Webhook-Signature": signature}


@pytest.mark.parametrize("body", [BODY, BODY.encode()])
def test_a_valid_signature_returns_the_body(body: str | bytes) -> None:
    assert verify(SECRET, headers(), body, now=NOW + 10)["data"]["text"] == "żółć"


def test_one_valid_signature_is_enough() -> None:
    both = headers() | {"Webhook-Signature": f"v1a,x {headers(OTHER)['Webhook-Signature']} {headers()['Webhook-Signature']}"}
    assert verify(SECRET, both, BODY, now=NOW)["type"] == "job.completed"


@pytest.mark.parametrize(
    ("secret", "changed", "body", "says"),
    [
        (OTHER, {}, BODY, "no signature matches this secret"),
        (SECRET, {}, BODY.replace("completed", "failed"), "no signature"),
        (SECRET, {"Webhook-Id": "msg_2"}, BODY, "no signature"),
        (SECRET, {"Webhook-Timestamp": str(NOW + 1)}, BODY, "no signature"),
        (SECRET, {"Webhook-Signature": ""}, BODY, "no signature"),
        (SECRET, {"Webhook-Signature": "v1,ż"}, BODY, "no signature"),
        (SECRET, {"Webhook-Timestamp": "soon"}, BODY, "not a number"),
        ("whsec_!", {}, BODY, "not base64"),
    ],
)
def test_invalid_messages_are_rejected(secret: str, changed: dict[str, str], body: str, says: str) -> None:
    with pytest.raises(InvalidSignature, match=says):
        verify(secret, headers() | changed, body, now=NOW)


@pytest.mark.parametrize("at", [NOW - 301, NOW + 301])
def test_timestamps_outside_the_tolerance_are_rejected(at: int) -> None:
    with pytest.raises(InvalidSignature, match="the limit is 300 s"):
        verify(SECRET, headers(at=at), BODY, now=NOW)


@pytest.mark.parametrize("missing", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_missing_header_is_rejected(missing: str) -> None:
    with pytest.raises(InvalidSignature, match=missing.lower()):
        verify(SECRET, {name: value for name, value in headers().items() if name != missing}, BODY, now=NOW)
