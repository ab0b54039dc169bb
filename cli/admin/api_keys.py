"""``enginehouse keys``: API keys, made on the machine that runs the stack."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import redis
from rich.console import Console
from rich.table import Table

from shared.owners.store import ApiKey, Owners


def create(client: redis.Redis, name: str, *, owner: str, admin: bool, weight: float, as_json: bool) -> None:
    """Make a key and print it, the only time that it is seen. Raises InvalidValue."""
    key, secret = Owners(client).create(name, owner=owner, admin=admin, weight=weight)
    if as_json:
        print(json.dumps({"id": key.id, "name": key.name, "owner": key.owner, "admin": key.admin, "key": secret}))
        return
    print(f"Key {key.id} for owner {key.owner}. It is shown this once and cannot be had again:\n\n  {secret}\n")
    print(f"Use it as: curl -H 'Authorization: Bearer {secret[:6]}…' …")


def show(client: redis.Redis, *, as_json: bool) -> None:
    """Print all keys, without their secrets."""
    keys = Owners(client).keys()
    if as_json:
        print(json.dumps([asdict(key) for key in keys]))
        return
    table = Table("id", "name", "owner", "begins", "may administer", "made", "revoked")
    for key in keys:
        table.add_row(key.id, key.name, key.owner, key.prefix, "yes" if key.admin else "", _day(key.created_at), _revoked(key))
    Console().print(table)


def revoke(client: redis.Redis, key_id: str) -> None:
    """Make a key worthless. Raises NotFound."""
    key = Owners(client).revoke(key_id)
    print(f"Key {key.id} ({key.name}) is revoked. Jobs of owner {key.owner} stay.")


def _revoked(key: ApiKey) -> str:
    return _day(key.revoked_at) if key.revoked_at else ""


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")
