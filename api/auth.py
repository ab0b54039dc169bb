"""Authentication. While no API key exists, callers from this machine are one owner; afterwards every call needs a key."""

import ipaddress

from flask import Flask, current_app, g, request

from api.openapi.operation import operation_of
from api.services import services
from shared.errors import Forbidden, Unauthorized
from shared.owners.store import LOCAL, ApiKey, ApiKeys


class Authenticator:
    """Authenticates the requests of one process."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys
        self._keys_exist = False

    def authenticate(self) -> tuple[str, bool]:
        """The owner of the request, and whether it is an administrator. Raises Unauthorized or Forbidden."""
        # Keys are revoked and never removed, so once there is one there always is.
        self._keys_exist = self._keys_exist or self._keys.any_exist()
        if not self._keys_exist:
            if _is_loopback(request.remote_addr) or services().settings.allow_open:
                return LOCAL, True
            raise Forbidden(
                "No API key exists yet, so the server accepts calls from its own machine only. "
                "Create a key with: enginehouse keys create --name NAME",
                code="keys_missing",
            )
        key = self._find_key()
        return key.owner, key.admin

    def _find_key(self) -> ApiKey:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized("Send an API key: `Authorization: Bearer eh_…`", code="key_missing", param="Authorization")
        key = self._keys.find(secret.strip())
        if key is None:
            raise Unauthorized("This API key is unknown or was revoked.", code="key_unknown", param="Authorization")
        return key


def require_keys(app: Flask, keys: ApiKeys) -> None:
    """Authenticate every request whose call is not open."""
    authenticator = Authenticator(keys)

    @app.before_request
    def authenticate() -> None:
        # Without a rule the response is a 404 or 405, which reveals nothing that a key protects.
        if request.url_rule is None or request.method == "OPTIONS":
            return
        operation = operation_of(current_app, request.url_rule.endpoint)
        if operation is None or not operation.open:
            g.owner, g.admin = authenticator.authenticate()


def require_admin() -> None:
    """Raise Forbidden unless the request has an administrator's key."""
    # A browser's preflight request carries no key.
    if request.method != "OPTIONS" and not g.admin:
        raise Forbidden("This call needs a key that was created with --admin.", code="admin_only")


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
