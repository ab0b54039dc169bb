"""Authentication. While no API key exists, the user of this machine is one owner; afterwards every call needs a key."""

import logging
from urllib.parse import SplitResult, urlsplit

from flask import Flask, current_app, g, request

from api.openapi.operation import operation_of
from api.peer_user import is_other_user
from shared.errors import Forbidden, InvalidRequest, Unauthorized
from shared.machine import is_loopback
from shared.owners.closed_marker import ClosedMarker
from shared.owners.store import LOCAL, ApiKey, ApiKeys
from shared.settings import Settings

logger = logging.getLogger(__name__)

# Headers that a proxy adds. Behind a proxy every caller has the proxy's address, which is often this machine's.
PROXY_HEADERS = ("Forwarded", "Via", "X-Real-Ip")
PROXY_PREFIX = "X-Forwarded-"


class HostRefused(InvalidRequest):
    """The request was sent to another host name."""

    code = "host_refused"


class Authenticator:
    """Authenticates the requests of one process."""

    def __init__(self, settings: Settings, keys: ApiKeys) -> None:
        self._keys = keys
        self._marker = ClosedMarker(settings.data_dir)
        self._allowed_hosts = {host.strip().strip("[]").lower() for host in settings.allowed_hosts.split(",")}
        self._allow_open = settings.allow_open
        self._closed = False

    def authenticate(self) -> tuple[str, bool]:
        """The owner of the request, and whether it is an administrator. Raises Unauthorized, Forbidden or HostRefused."""
        if not self._requires_key():
            self._check_local_caller()
            return LOCAL, True
        key = self._find_key()
        return key.owner, key.admin

    def _requires_key(self) -> bool:
        """Whether a key was ever created. No request opens the server again, so the answer is looked up until it is yes."""
        if not self._closed:
            self._closed = self._marker.is_set()
            if not self._closed and self._keys.any_exist():
                self._closed = True
                self._keep_closed()
        return self._closed

    def _keep_closed(self) -> None:
        try:
            self._marker.set()
        except OSError as error:
            logger.warning("The data folder does not record that API keys are required: %s", error)

    def _check_local_caller(self) -> None:
        """Raise unless the request comes from the user of this machine: not from a proxy, another user, or a rebound host name."""
        # A page whose host name was made to resolve to loopback sends that name.
        if split_url(f"//{request.host}").hostname not in self._allowed_hosts:
            raise HostRefused(
                f"While no API key exists, this server does not accept requests to {request.host[:80]!r}: "
                "use 127.0.0.1 or localhost, or add the name to ENGINEHOUSE_ALLOWED_HOSTS."
            )
        if any(name in PROXY_HEADERS or name.startswith(PROXY_PREFIX) for name, _ in request.headers):
            raise _keys_missing("this request was forwarded by a proxy")
        if not is_loopback(request.remote_addr or ""):
            if not self._allow_open:
                raise _keys_missing("the server accepts calls from its own machine only")
        elif _is_from_other_user():
            raise _keys_missing("the server accepts calls of the user that runs it only")

    def _find_key(self) -> ApiKey:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized("Send an API key: `Authorization: Bearer eh_…`", code="key_missing", param="Authorization")
        key = self._keys.find(secret.strip())
        if key is None:
            raise Unauthorized("This API key is unknown or was revoked.", code="key_unknown", param="Authorization")
        return key


def require_keys(app: Flask, authenticator: Authenticator) -> None:
    """Authenticate every request whose call is not open."""

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


def split_url(url: str) -> SplitResult:
    """The parts of a URL from a header; all are empty if it cannot be parsed."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _keys_missing(reason: str) -> Forbidden:
    return Forbidden(
        f"No API key exists yet, and {reason}. Create a key with: enginehouse keys create --name NAME", code="keys_missing"
    )


def _is_from_other_user() -> bool:
    connection = request.environ.get("gunicorn.socket")
    if connection is None:  # a test client, without a network
        return False
    return is_other_user(connection.getpeername()[:2], connection.getsockname()[:2])
