"""``enginehouse keys``: create, list and revoke API keys on the machine that runs the stack."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import redis
from rich.console import Console
from rich.table import Table

from shared.owners.store import ApiKey, ApiKeys


def create_key(client: redis.Redis, name: str, *, owner: str, admin: bool, weight: float | None, as_json: bool) -> None:
    """Create a key and print its secret, which is not stored. Raises InvalidValue."""
    key, secret = ApiKeys(client).create(name, owner=owner, admin=admin, weight=weight)
    if as_json:
        print(json.dumps({"id": key.id, "name": key.name, "owner": key.owner, "admin": key.admin, "key": secret}))
        return
    print(f"Created key {key.id} for owner {key.owner}. Store it now, as it cannot be shown again:\n\n  {secret}\n")
    print(f"Use it as: curl -H 'Authorization: Bearer {secret[:6]}…' …")


def list_keys(client: redis.Redis, *, as_json: bool) -> None:
    """Print all keys without their secrets."""
    keys = ApiKeys(client).list_keys()
    if as_json:
        print(json.dumps([asdict(key) for key in keys]))
        return
    table = Table("id", "name", "owner", "prefix", "admin", "created", "revoked")
    for key in keys:
        table.add_row(key.id, key.name, key.owner, key.prefix, "yes" if key.admin else "", _day(key.created_at), _revoked(key))
    Console().print(table)


def revoke_key(client: redis.Redis, key_id: str) -> None:
    """Revoke a key. Raises NotFound."""
    key = ApiKeys(client).revoke(key_id)
    print(f"Key {key.id} ({key.name}) is revoked. The jobs of owner {key.owner} are kept.")


def _revoked(key: ApiKey) -> str:
    return _day(key.revoked_at) if key.revoked_at else ""


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")
