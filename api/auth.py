"""Authentication. While no API key exists, the user of this machine is one owner; afterwards every call needs a key."""

import hmac
import logging
import math
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from urllib.parse import SplitResult, urlsplit
from weakref import WeakSet

from flask import Flask, Response, current_app, g, request

from api.caller import Caller
from api.openapi.operation import operation_of
from api.peer_user import is_other_user
from api.request_slots import RequestSlots
from api.scopes import scopes_of
from shared.audit_log import Actor, AuditLog
from shared.errors import Forbidden, InvalidRequest, TooMany, Unauthorized
from shared.machine import is_loopback
from shared.owners.closed_marker import ClosedMarker
from shared.owners.keys_file import apply_keys_file, read_keys_file
from shared.owners.store import LOCAL, ApiKeys
from shared.redis_connection import OUTAGE
from shared.rights import ALL_RIGHTS
from shared.settings import Settings

logger = logging.getLogger(__name__)

# Headers that a proxy adds. Behind a proxy every caller has the proxy's address, which is often this machine's.
PROXY_HEADERS = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_FORWARDED")
# How long a stream trusts the last check of its key, and the number of keys whose last check is remembered.
VALID_SECONDS = 0.5
MAX_CHECKED = 10_000
METRICS_ENDPOINT = "metrics.show_metrics"


class HostRefused(InvalidRequest):
    """The request was sent to another host name."""

    code = "host_refused"


class Authenticator:
    """Authenticates the requests of one process."""

    def __init__(self, settings: Settings, keys: ApiKeys, audit_log: AuditLog) -> None:
        """Raises SettingsError if the keys file is invalid."""
        self._keys = keys
        self._marker = ClosedMarker(settings.data_dir)
        self._allowed_hosts = {host.strip().strip("[]").lower() for host in settings.allowed_hosts.split(",")}
        self._allow_open = settings.allow_open
        self._requests_per_second = settings.max_requests_per_second
        self._metrics_token = settings.metrics_token.encode()
        self._audit_log = audit_log
        self._file_keys = read_keys_file(settings.keys_file) if settings.keys_file else None
        self._file_lock = threading.Lock()
        # Keys are required even before the file's keys are stored, for example while Redis is away.
        self._closed = bool(self._file_keys)
        self._own_connections: WeakSet[socket.socket] = WeakSet()
        self._checked: dict[str, tuple[float, bool]] = {}

    def authenticate(self) -> Caller:
        """The caller of the request. Raises Unauthorized, Forbidden, HostRefused, or TooMany above the rate of owner or key."""
        if self._is_scrape():
            return Caller(owner=LOCAL, rights=ALL_RIGHTS, alone=True)
        if not self._requires_key():
            self._check_local_caller()
            return Caller(owner=LOCAL, rights=ALL_RIGHTS, alone=True)
        secret = _bearer_secret()
        self.apply_keys_file()
        found = self._keys.authenticate(secret, requests_per_second=self._requests_per_second)
        if found is None:
            raise Unauthorized("This API key is unknown or was revoked.", code="key_unknown", param="Authorization")
        if found.expired:
            raise Unauthorized(
                f"This API key expired at {utc_time(found.key.expires_at or 0)}. Ask the operator of the server for another one.",
                code="key_expired",
                param="Authorization",
            )
        g.rate = found.rate
        if found.wait_seconds:
            raise TooMany(
                "requests_per_second: you send more requests than the limit of your account or API key. Retry later.",
                code="rate_limited",
                retry_after=math.ceil(found.wait_seconds),
                details={"quota": "requests_per_second"},
            )
        key = found.key
        return Caller(
            owner=key.owner,
            rights=key.rights,
            key_id=key.id,
            key_name=key.name,
            secret=secret,
            expires_at=key.expires_at,
            limits=found.limits,
            requests_per_second=key.requests_per_second,
        )

    def is_valid(self, made_by: Caller) -> bool:
        """Whether a caller would still be accepted, as of at most ``VALID_SECONDS`` ago. True during an outage of Redis."""
        checked_at, valid = self._checked.get(made_by.secret, (0.0, True))
        now = time.monotonic()
        if now >= checked_at + VALID_SECONDS:
            with suppress(*OUTAGE):
                valid = not self._requires_key() if made_by.alone else self._keys.find(made_by.secret) is not None
            if len(self._checked) >= MAX_CHECKED:
                self._checked.clear()
            self._checked[made_by.secret] = (now, valid)
        return valid

    def apply_keys_file(self) -> None:
        """Store the keys of the keys file, once in each process. Retries if Redis is away."""
        if self._file_keys is not None:
            self._apply_keys_file()

    def _apply_keys_file(self) -> None:
        with self._file_lock:
            # Another thread may have been faster.
            if self._file_keys is None:
                return
            changes = apply_keys_file(self._file_keys, self._keys)
            self._keep_closed()
            self._file_keys = None
        actor = Actor(user="keys file")
        for action, changed in (("create", changes.created), ("change", changes.changed), ("revoke", changes.revoked)):
            for key in changed:
                logger.info("Keys file: %s key %s (%s) of owner %s", action, key.id, key.name, key.owner)
                details = {"name": key.name, "for_owner": key.owner, **key.rights.as_json()}
                self._audit_log.record(f"key.{action}", actor, targets=[key.id], details=details)
        for key in changes.refused:
            logger.warning("Keys file: key %s (%s) was revoked and stays so; give its entry another secret", key.id, key.name)

    def _is_scrape(self) -> bool:
        """Whether this is a scrape with the token of the settings, for which Redis is not asked."""
        if not self._metrics_token or request.endpoint != METRICS_ENDPOINT:
            return False
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(secret.strip().encode(), self._metrics_token)

    def _requires_key(self) -> bool:
        """Whether a key was ever created. No request opens the server again, so the answer is looked up until it is yes."""
        # Never assigned False: another thread would take that for the answer, and serve a stranger as the user of this machine.
        if self._closed:
            return True
        if self._marker.is_set():
            self._closed = True
        elif self._keys.any_exist():
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
        if host_name(request.host) not in self._allowed_hosts:
            raise HostRefused(
                f"While no API key exists, this server does not accept requests to {request.host[:80]!r}: "
                "use 127.0.0.1 or localhost, or add the name to ENGINEHOUSE_ALLOWED_HOSTS."
            )
        if any(name.startswith(PROXY_HEADERS) for name in request.environ):
            raise _keys_missing("this request was forwarded by a proxy")
        if not is_loopback(request.remote_addr or ""):
            if not self._allow_open:
                raise _keys_missing("the server accepts calls from its own machine only")
        elif self._is_from_other_user():
            raise _keys_missing("the server accepts calls of the user that runs it only")

    def _is_from_other_user(self) -> bool:
        connection = request.environ.get("gunicorn.socket")
        # A connection stays with the user who opened it. A test client has none.
        if connection is None or connection in self._own_connections:
            return False
        if is_other_user(connection.getpeername()[:2], connection.getsockname()[:2]):
            return True
        self._own_connections.add(connection)
        return False


def require_keys(app: Flask, authenticator: Authenticator, threads: int) -> None:
    """Authenticate every request whose call is not open, and share the threads between owners.

    A thread is occupied until the client has sent the whole request and received the whole response.
    """
    slots = RequestSlots(threads)

    @app.before_request
    def authenticate() -> None:
        # Without a rule the response is a 404 or 405, which reveals nothing that a key protects.
        if request.url_rule is None or request.method == "OPTIONS":
            return
        operation = operation_of(current_app, request.url_rule.endpoint)
        if operation is None or not operation.open:
            made_by = g.caller = authenticator.authenticate()
            if not made_by.alone:
                slots.acquire(made_by.owner, "requests", sys.maxsize)
                g.release_slot = partial(slots.release, made_by.owner, "requests")
            made_by.rights.require_scope(scopes_of(request.url_rule.endpoint))

    @app.after_request
    def release_after_response(response: Response) -> Response:
        if "release_slot" in g:
            response.call_on_close(g.pop("release_slot"))
        return response

    @app.teardown_request
    def release_without_response(_: BaseException | None) -> None:
        if "release_slot" in g:
            g.pop("release_slot")()


@lru_cache(maxsize=1000)
def host_name(host: str) -> str | None:
    """The name in a ``Host`` header, without its port; None if it cannot be parsed."""
    return split_url(f"//{host}").hostname


def split_url(url: str) -> SplitResult:
    """The parts of a URL from a header; all are empty if it cannot be parsed."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def utc_time(time_ms: int) -> str:
    """A time in readable form, to the second."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _bearer_secret() -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("Send an API key: `Authorization: Bearer eh_…`", code="key_missing", param="Authorization")
    return secret.strip()


def _keys_missing(reason: str) -> Forbidden:
    return Forbidden(
        f"No API key exists yet, and {reason}. Create a key with: enginehouse keys create --name NAME", code="keys_missing"
    )
