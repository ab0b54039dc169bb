"""``enginehouse keys``: create, list, show, change, rotate and revoke API keys on the machine that runs the stack."""

import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime

import redis

from cli.errors import CommandError
from cli.output import Output, clock, plural
from cli.remote.administration import duration
from shared.owners.closed_marker import ClosedMarker
from shared.owners.limits import KeyLimits
from shared.owners.store import LOCAL, ApiKey, ApiKeys, KeyOptions
from shared.rights import OWNER_SCOPES, SCOPES

NEVER = "never"
CLEARABLE = ("scopes", "models", "collections", "expires", "requests-per-second")


def create_key(
    client: redis.Redis,
    marker: ClosedMarker,
    name: str,
    *,
    owner: str,
    admin: bool,
    requests_per_second: int | None,
    out: Output,
    options: KeyOptions | None = None,
) -> ApiKey:
    """Create a key and print its secret, which is not stored. Raises InvalidValue."""
    keys = ApiKeys(client)
    first, closed = not keys.any_exist(), marker.is_set()
    given = KeyOptions(requests_per_second=requests_per_second)
    given.update(options or {})
    key, secret = keys.create(name, owner=owner, admin=admin, **given)
    marker.set()
    _print_secret(key, secret, {}, out, f"Created key {key.id} for owner {key.owner}.")
    if not first:
        return key
    if closed:
        out.print_note(
            "Redis has no other key, although this server had some: they were lost with its data and stay rejected. "
            "Create those that callers need again."
        )
        return key
    out.print_note("This is the first key: from now on, every call needs a key.")
    if key.owner != LOCAL:
        out.print_note(
            f"Jobs and documents created so far belong to owner `{LOCAL}`. Only keys created with `--owner {LOCAL}` can see them."
        )
    return key


def list_keys(client: redis.Redis, *, out: Output) -> None:
    """Print all keys without their secrets."""
    keys = ApiKeys(client)
    uses, found = keys.last_uses(), keys.list_keys()
    limits = KeyLimits(client).limits_of([key.id for key in found])

    def row(key: ApiKey) -> tuple[object, ...]:
        return (
            *(key.id, key.name, key.owner, _scopes_text(key), _state(key)),
            *(_time(uses.get(key.id)), _time(key.expires_at), _time(key.created_at), key.prefix),
        )

    columns = ("key", "name", "owner", "scopes", "state", "last used", "expires", "created", "prefix")
    out.print_list(columns, found, row, to_json=lambda key: key.as_json(uses.get(key.id), limits[key.id]))


def show_key(client: redis.Redis, key_id: str, *, out: Output) -> None:
    """Print one key without its secret. Raises NotFound."""
    keys = ApiKeys(client)
    _print_key(client, keys.get(key_id), out)


def change_key(
    client: redis.Redis, key_id: str, *, name: str | None, options: KeyOptions, clear: Iterable[str], out: Output
) -> None:
    """Change a key; ``clear`` names restrictions to remove. Raises NotFound, InvalidValue, Conflict and CommandError."""
    changes = KeyOptions(**options)
    for word in clear:
        match word:
            case "scopes":
                changes["scopes"] = None
            case "models":
                changes["models"] = None
            case "collections":
                changes["collections"] = None
            case "expires":
                changes["expires_at"] = None
            case "requests-per-second":
                changes["requests_per_second"] = None
            case _:
                raise CommandError(f"--clear {word}: must be one of {', '.join(CLEARABLE)}.")
    if not changes and name is None:
        raise CommandError("Nothing to change: `enginehouse keys change --help` lists the options.")
    keys = ApiKeys(client)
    _print_key(client, keys.change(key_id, changes, name=name), out)


def rotate_key(client: redis.Redis, key_id: str, *, overlap: str, out: Output) -> ApiKey:
    """Replace a key and print the new secret. Raises NotFound, Conflict, InvalidValue and CommandError."""
    keys, seconds = ApiKeys(client), duration(overlap, "--overlap")
    key, secret = keys.rotate(key_id, overlap_seconds=seconds)
    old = keys.get(key_id)
    text = f"Created key {key.id}, which takes the place of {old.id} ({old.name}) of owner {old.owner}."
    _print_secret(key, secret, KeyLimits(client).limits(key.id), out, text)
    out.print_note(f"The old key expires at {_time(old.expires_at)}.")
    return key


def revoke_key(client: redis.Redis, key_id: str) -> None:
    """Revoke a key. Raises NotFound."""
    keys = ApiKeys(client)
    revoked_before = {key.id for key in keys.list_keys() if key.revoked_at is not None}
    key = keys.revoke(key_id)
    if key.id in revoked_before:
        print(f"Key {key.id} ({key.name}) was already revoked.")
    else:
        print(f"Key {key.id} ({key.name}) is revoked. The jobs of owner {key.owner} are kept.")
    now_ms = int(time.time() * 1000)
    if not any(other.is_active(now_ms) for other in keys.list_keys()):
        print(
            "No active key is left. The server stays closed and rejects every call until you create a key: "
            "`enginehouse keys create --name NAME`."
        )


def remove_all_keys(client: redis.Redis, marker: ClosedMarker) -> None:
    """Delete all keys, so that a restarted server needs none."""
    removed = ApiKeys(client).remove_all()
    marker.remove()
    print(
        f"Removed {plural(removed, 'key')}. Restart the stack: it then accepts calls without a key again, from its own machine and user only. "
        "Jobs and documents of all owners are kept."
    )


def key_options(
    *,
    scopes: list[str] | None,
    models: list[str] | None,
    collections: list[str] | None,
    expires: str | None,
    requests_per_second: int | None,
) -> KeyOptions:
    """The options that a command line has. Raises CommandError."""
    options = KeyOptions()
    if scopes:
        options["scopes"] = scopes
    if models:
        options["models"] = models
    if collections:
        options["collections"] = collections
    if expires is not None:
        options["expires_at"] = parse_expiry(expires)
    if requests_per_second is not None:
        options["requests_per_second"] = requests_per_second
    return options


def parse_expiry(text: str) -> int | None:
    """When a key expires, in Unix milliseconds: after a duration, or at a time in ISO 8601. Raises CommandError."""
    if text == NEVER:
        return None
    try:
        # A time without a zone is in this machine's zone.
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except ValueError:
        pass
    try:
        return int(1000 * (time.time() + duration(text, "--expires")))
    except CommandError:
        raise CommandError(
            f"--expires {text}: use a duration such as 90d, a time such as 2030-01-31T12:00, or {NEVER}."
        ) from None


def _print_secret(key: ApiKey, secret: str, limits: Mapping[str, int], out: Output, text: str) -> None:
    if out.as_json:
        print(json.dumps({**key.as_json(None, limits), "admin": key.admin, "key": secret}))
        return
    print(f"{text} Store it now, as it cannot be shown again:\n\n  {secret}\n")
    print(
        f"Use it as: curl -H 'Authorization: Bearer {secret[:6]}…' …, or set ENGINEHOUSE_API_KEY for the `enginehouse` command."
    )


def _print_key(client: redis.Redis, key: ApiKey, out: Output) -> None:
    uses, limits = ApiKeys(client).last_uses(), KeyLimits(client).limits(key.id)
    if out.as_json:
        out.print_json(key.as_json(uses.get(key.id), limits))
        return
    rows = (
        ("key", key.id),
        ("name", key.name),
        ("owner", key.owner),
        ("prefix", key.prefix),
        ("state", _state(key)),
        ("scopes", _scopes_text(key)),
        ("models", "all" if key.models is None else list(key.models) or "none"),
        ("collections", "all" if key.collections is None else list(key.collections) or "none"),
        ("requests per second", key.requests_per_second),
        *((name.replace("_", " "), number) for name, number in limits.items()),
        ("created", _time(key.created_at)),
        ("last used", _time(uses.get(key.id))),
        ("expires", _time(key.expires_at)),
        ("revoked", _time(key.revoked_at)),
        ("takes the place of", key.successor_of),
        ("from the keys file", "yes" if key.from_file else ""),
    )
    out.print_record(key, rows)


def _scopes_text(key: ApiKey) -> str:
    if key.scopes == SCOPES:
        return "all"
    return "owner" if key.scopes is None or key.scopes == OWNER_SCOPES else ", ".join(key.scopes)


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "active" if key.is_active(int(time.time() * 1000)) else "expired"


def _time(time_ms: int | None) -> str:
    return clock(None if time_ms is None else time_ms / 1000)
