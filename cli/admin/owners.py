"""``enginehouse owners``: weights and limits of single owners, on the machine that runs the stack."""

from collections.abc import Sequence

import redis

from cli.errors import CommandError
from cli.output import Output
from shared.errors import NotFound
from shared.owners.limits import KeyLimits, OwnerLimits
from shared.owners.store import ApiKeys, check_name


def set_owner(client: redis.Redis, owner: str, *, weight: float | None, limits: Sequence[str]) -> None:
    """Set an owner's weight and limits, each as NAME=NUMBER or NAME=default. Raises InvalidValue and CommandError."""
    check_name(owner, "owner")
    store, parsed = OwnerLimits(client), dict(map(_parse_limit, limits))
    store.set_limits(owner, parsed)
    if weight is not None:
        store.set_weight(owner, weight)
    own = ", ".join(f"{name}={value}" for name, value in sorted(store.limits(owner).items()))
    print(f"Owner {owner} has weight {store.weight(owner):g} and {f'the limits {own}' if own else 'no limits of its own'}.")


def limit_key(client: redis.Redis, key_id: str, *, limits: Sequence[str]) -> None:
    """Set limits of an API key, each as NAME=NUMBER, and print all of them. Raises NotFound, InvalidValue and CommandError."""
    parsed = dict(map(_parse_limit, limits))
    if key_id not in {key.id for key in ApiKeys(client).list_keys()}:
        raise NotFound(f"There is no API key {key_id[:80]!r}. Run `enginehouse keys list` to see all keys.", code="key_not_found")
    store = KeyLimits(client)
    store.set_limits(key_id, parsed)
    own = ", ".join(f"{name}={value}" for name, value in sorted(store.limits(key_id).items()))
    print(f"Key {key_id} has {f'the limits {own}' if own else 'no limits'}.")


def list_owners(client: redis.Redis, *, out: Output) -> None:
    """Print the owners that have a weight or limits of their own."""
    store = OwnerLimits(client)
    owners = [(owner, store.weight(owner), store.limits(owner)) for owner in store.owners()]

    def row(entry: tuple[str, float, dict[str, int]]) -> tuple[object, ...]:
        owner, weight, limits = entry
        return owner, f"{weight:g}", " ".join(f"{name}={value}" for name, value in sorted(limits.items()))

    out.print_list(
        ("owner", "weight", "limits"),
        owners,
        row,
        to_json=lambda entry: {"owner": entry[0], "weight": entry[1], "limits": entry[2]},
    )


def _parse_limit(text: str) -> tuple[str, int | None]:
    name, _, value = text.partition("=")
    if value != "default" and not (value.isascii() and value.isdigit()):
        raise CommandError(f"--limit {text}: use NAME=NUMBER, or NAME=default to return to the setting.")
    return name, None if value == "default" else int(value)
