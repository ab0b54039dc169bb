"""``enginehouse keys``: create, list and revoke API keys on the machine that runs the stack."""

import json
from dataclasses import asdict

import redis

from cli.output import Output, clock, plural
from shared.owners.closed_marker import ClosedMarker
from shared.owners.store import LOCAL, ApiKey, ApiKeys


def create_key(
    client: redis.Redis, marker: ClosedMarker, name: str, *, owner: str, admin: bool, requests_per_second: int | None, out: Output
) -> None:
    """Create a key and print its secret, which is not stored. Raises InvalidValue."""
    keys = ApiKeys(client)
    first = not keys.any_exist()
    key, secret = keys.create(name, owner=owner, admin=admin, requests_per_second=requests_per_second)
    marker.set()
    if out.as_json:
        print(json.dumps({"id": key.id, "name": key.name, "owner": key.owner, "admin": key.admin, "key": secret}))
    else:
        print(f"Created key {key.id} for owner {key.owner}. Store it now, as it cannot be shown again:\n\n  {secret}\n")
        print(
            f"Use it as: curl -H 'Authorization: Bearer {secret[:6]}…' …, or set ENGINEHOUSE_API_KEY for the `enginehouse` command."
        )
    if not first:
        return
    out.print_note("This is the first key: from now on, every call needs a key.")
    if key.owner != LOCAL:
        out.print_note(
            f"Jobs and documents created so far belong to owner `{LOCAL}`. Only keys created with `--owner {LOCAL}` can see them."
        )


def list_keys(client: redis.Redis, *, out: Output) -> None:
    """Print all keys without their secrets."""

    def row(key: ApiKey) -> tuple[object, ...]:
        revoked = clock(key.revoked_at / 1000) if key.revoked_at else ""
        return key.id, key.name, key.owner, "yes" if key.admin else "", revoked, clock(key.created_at / 1000), key.prefix

    columns = ("key", "name", "owner", "admin", "revoked", "created", "prefix")
    out.print_list(columns, ApiKeys(client).list_keys(), row, to_json=asdict)


def revoke_key(client: redis.Redis, key_id: str) -> None:
    """Revoke a key. Raises NotFound."""
    keys = ApiKeys(client)
    revoked_before = {key.id for key in keys.list_keys() if key.revoked_at is not None}
    key = keys.revoke(key_id)
    if key.id in revoked_before:
        print(f"Key {key.id} ({key.name}) was already revoked.")
    else:
        print(f"Key {key.id} ({key.name}) is revoked. The jobs of owner {key.owner} are kept.")
    if all(other.revoked_at is not None for other in keys.list_keys()):
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
