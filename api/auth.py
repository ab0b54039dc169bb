"""Who makes a request. While no API key exists, whoever calls from this machine is one owner; then a key must be shown."""

import ipaddress

from flask import Flask, g, request

from api.services import services
from shared.errors import Forbidden, Unauthorized
from shared.owners.store import LOCAL, ApiKey, Owners

# Health must be seen by those who have no key, and a page cannot send one before it is loaded; what the calls are is no secret.
OPEN = ("/health/live", "/health/ready", "/openapi.json", "/docs")


class Gate:
    """Decides for each request of one process."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._keys_exist = False

    def owner_of_request(self) -> tuple[str, bool]:
        """The owner, and whether it may administer. Raises Unauthorized or Forbidden."""
        # Once there is a key there always is one, so this is asked until then only.
        self._keys_exist = self._keys_exist or self._owners.exist()
        if not self._keys_exist:
            if _is_local(request.remote_addr) or services().settings.allow_open:
                return LOCAL, True
            raise Forbidden(
                "no API key exists yet, so only this machine is answered; make one with: enginehouse keys create --name NAME",
                code="keys_missing",
            )
        key = self._key()
        return key.owner, key.admin

    def _key(self) -> ApiKey:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized("send an API key: `Authorization: Bearer eh_…`", code="key_missing", param="Authorization")
        key = self._owners.find(secret.strip())
        if key is None:
            raise Unauthorized("this API key is not known here, or was revoked", code="key_unknown", param="Authorization")
        return key


def install(app: Flask, owners: Owners) -> None:
    """Find the owner before each request that needs one."""
    gate = Gate(owners)

    @app.before_request
    def find_owner() -> None:
        # No rule: a 404 or 405 tells nothing that a key protects.
        if request.url_rule is None or request.path in OPEN or request.blueprint == "page" or request.method == "OPTIONS":
            return
        g.owner, g.admin = gate.owner_of_request()


def require_admin() -> None:
    """Raises Forbidden unless the key of the request may administer."""
    # A browser's question before the call shows no key.
    if request.method != "OPTIONS" and not g.admin:
        raise Forbidden("this call wants a key made with --admin", code="admin_only")


def _is_local(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
