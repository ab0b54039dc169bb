"""Operations on API keys, for administrators."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from enginehouse_client.effects import Operation
from enginehouse_client.jobs import JobCalls
from enginehouse_client.models import ApiKey

Restriction = Literal["scopes", "models", "collections", "expires_at", "requests_per_second"]


class KeyCalls(JobCalls):
    """A key acts for an owner, limited to its scopes, models and collections."""

    def keys(self) -> Operation[list[ApiKey]]:
        """List all API keys, oldest first, including revoked and expired ones."""
        response = yield from self._call("GET", "/admin/keys")
        return [ApiKey.from_json(item) for item in response.json()["data"]]

    def key(self, key: str) -> Operation[ApiKey]:
        """Return one API key. Raises NotFound."""
        response = yield from self._call("GET", _path(key))
        return ApiKey.from_json(response.json())

    def create_key(
        self,
        name: str,
        *,
        owner: str | None = None,
        scopes: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        collections: Sequence[str] | None = None,
        expires_in: float | None = None,
        requests_per_second: int | None = None,
        limits: Mapping[str, int | None] | None = None,
    ) -> Operation[ApiKey]:
        """Create an API key. Only the result of this call and of ``rotate_key`` has the secret. By default the key has every
        scope except ``metrics`` and ``admin``, and never expires; ``expires_in`` is in seconds. ``limits`` are tokens by name:
        ``tokens_per_minute``, ``tokens_per_day``, ``tokens_per_month``."""
        fields = {"name": name, "owner": owner, "scopes": scopes, "models": models, "collections": collections}
        more = {"expires_in": expires_in, "requests_per_second": requests_per_second, "limits": limits}
        return (yield from self._send("POST", "/admin/keys", {**fields, **more}))

    def change_key(
        self,
        key: str,
        *,
        name: str | None = None,
        scopes: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        collections: Sequence[str] | None = None,
        expires_in: float | None = None,
        requests_per_second: int | None = None,
        limits: Mapping[str, int | None] | None = None,
        clear: Sequence[Restriction] = (),
    ) -> Operation[ApiKey]:
        """Change the given fields and ``limits``, of which None removes one; ``clear`` names restrictions to remove. Raises NotFound, and Conflict if the key was revoked."""
        fields = {"name": name, "scopes": scopes, "models": models, "collections": collections}
        changes = {**fields, "expires_in": expires_in, "requests_per_second": requests_per_second, "limits": limits}
        return (yield from self._send("PATCH", _path(key), changes, cleared=dict.fromkeys(clear)))

    def rotate_key(self, key: str, *, overlap: float = 86_400) -> Operation[ApiKey]:
        """Create a key with the same rights and return it with its secret. The old one expires after ``overlap`` seconds.
        Raises NotFound, and Conflict for a key that is not valid any more."""
        return (yield from self._send("POST", f"{_path(key)}/rotate", {"overlap": overlap}))

    def revoke_key(self, key: str) -> Operation[ApiKey]:
        """Revoke a key at once. Raises NotFound."""
        response = yield from self._call("DELETE", _path(key))
        return ApiKey.from_json(response.json())

    def _send(
        self, method: str, path: str, fields: Mapping[str, Any], *, cleared: Mapping[str, None] | None = None
    ) -> Operation[ApiKey]:
        # A repeated POST would create two keys.
        body = {name: value for name, value in fields.items() if value is not None} | dict(cleared or {})
        response = yield from self._call(method, path, json=body, repeatable=method != "POST")
        return ApiKey.from_json(response.json())


def _path(key: str) -> str:
    return f"/admin/keys/{quote(key, safe='')}"
