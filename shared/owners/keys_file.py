"""The keys file: API keys that a deployment provides, for example from a secret of Compose or Kubernetes.

It is JSON such as ``{"keys": [{"name": "app", "secret": "eh_…", "scopes": ["generate"]}]}``; ``sha256`` may take the place of
``secret``. The digest identifies a key. The file's values apply to its keys, and a key that is removed from it is revoked. A revoked
key stays revoked even if the file has it: a restart must not restore a key that an operator has revoked.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.errors import InvalidValue, SettingsError
from shared.owners.store import ApiKey, ApiKeys, KeyOptions, check_name
from shared.rights import check_allowed_names, check_scopes

SETTING = "ENGINEHOUSE_KEYS_FILE"
MAX_BYTES = 1_000_000
MIN_SECRET, MAX_SECRET = 32, 512
FIELDS = ("name", "owner", "scopes", "models", "collections", "expires_at", "requests_per_second", "secret", "sha256")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECRET = re.compile(rf"[!-~]{{{MIN_SECRET},{MAX_SECRET}}}")


@dataclass(frozen=True, kw_only=True)
class FileKey:
    """An entry of the file."""

    digest: str
    name: str
    owner: str
    options: KeyOptions


@dataclass(frozen=True)
class FileChanges:
    """What reading the file has changed. ``refused`` are keys of the file that were revoked before."""

    created: list[ApiKey]
    changed: list[ApiKey]
    revoked: list[ApiKey]
    refused: list[ApiKey]


def read_keys_file(file: Path) -> list[FileKey]:
    """The keys of a file. Raises SettingsError, with one sentence for each problem and without a secret."""
    try:
        content = file.read_bytes()[: MAX_BYTES + 1]
    except OSError as error:
        raise SettingsError([f"{SETTING}: {file} cannot be read: {error.strerror}"]) from None
    if len(content) > MAX_BYTES:
        raise SettingsError([f"{SETTING}: {file} is larger than {MAX_BYTES} bytes"])
    try:
        entries = json.loads(content)["keys"]
    except (ValueError, TypeError, KeyError):
        entries = None
    if not isinstance(entries, list):
        raise SettingsError([f'{SETTING}: {file} must be JSON with a list of keys: {{"keys": [{{"name": …}}]}}'])
    keys, problems = [], []
    for number, entry in enumerate(entries):
        try:
            keys.append(_parse(entry))
        except InvalidValue as error:
            problems.append(f"{SETTING}: {file}: keys[{number}].{error.message}")
    digests = [key.digest for key in keys]
    problems += [f"{SETTING}: {file}: key {key.name} is there twice" for key in keys if digests.count(key.digest) > 1][:1]
    if problems:
        raise SettingsError(problems)
    return keys


def apply_keys_file(entries: list[FileKey], keys: ApiKeys) -> FileChanges:
    """Bring the stored keys in line with the file. Repeating it, or running it in several processes at once, is safe."""
    changes, stored = FileChanges([], [], [], []), keys.by_digest()
    for entry in entries:
        before = stored.get(entry.digest)
        if before is not None and before.revoked_at is not None:
            changes.refused.append(before)
        elif before is None:
            created = keys.add(entry.digest, entry.name, entry.owner, entry.options)
            if created is not None:
                changes.created.append(created)
        else:
            after = keys.take_from_file(before.id, entry.name, entry.owner, entry.options)
            if after != before:
                changes.changed.append(after)
    digests = {entry.digest for entry in entries}
    for digest, key in stored.items():
        if key.from_file and key.revoked_at is None and digest not in digests:
            changes.revoked.append(keys.revoke(key.id))
    return changes


def _parse(entry: Any) -> FileKey:
    """An entry. Raises InvalidValue, whose message begins with the name of the field."""
    if not isinstance(entry, dict):
        raise InvalidValue("name: an entry must be an object with a name")
    for field in entry:
        if field not in FIELDS:
            raise InvalidValue(f"{field[:80]}: is not a field of a key, which are {', '.join(FIELDS)}")
    name, owner = _text(entry, "name"), _text(entry, "owner")
    check_name(name, "name")
    check_name(owner or name, "owner")
    rate = entry.get("requests_per_second")
    if rate is not None and (type(rate) is not int or rate < 1):
        raise InvalidValue("requests_per_second: must be an integer of at least 1")
    options = KeyOptions(
        scopes=None if entry.get("scopes") is None else check_scopes(_texts(entry, "scopes")),
        models=None if entry.get("models") is None else check_allowed_names(_texts(entry, "models"), "models"),
        collections=None
        if entry.get("collections") is None
        else check_allowed_names(_texts(entry, "collections"), "collections"),
        expires_at=_time_ms(entry),
        requests_per_second=rate,
    )
    return FileKey(digest=_digest(entry), name=name, owner=owner or name, options=options)


def _digest(entry: Mapping[str, Any]) -> str:
    secret, digest = _text(entry, "secret"), _text(entry, "sha256")
    if bool(secret) == bool(digest):
        raise InvalidValue("secret: give secret or sha256, not both")
    if digest and not _SHA256.fullmatch(digest):
        raise InvalidValue("sha256: must be 64 digits from 0 to 9 and a to f")
    if secret and not _SECRET.fullmatch(secret):
        raise InvalidValue(f"secret: must be {MIN_SECRET} to {MAX_SECRET} printable ASCII characters without spaces")
    return digest or hashlib.sha256(secret.encode()).hexdigest()


def _time_ms(entry: Mapping[str, Any]) -> int | None:
    """The time at which a key expires: Unix seconds, or a date and time of ISO 8601 with its time zone."""
    value = entry.get("expires_at")
    if value is None:
        return None
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise InvalidValue("expires_at: name the time zone, as in 2030-01-31T00:00:00Z")
            return int(moment.timestamp() * 1000)
        if type(value) in (int, float) and 0 < value < 1e11:
            return int(value * 1000)
    except ValueError:
        pass
    raise InvalidValue("expires_at: must be Unix seconds, or a time such as 2030-01-31T00:00:00Z")


def _text(entry: Mapping[str, Any], field: str) -> str:
    value = entry.get(field, "")
    if not isinstance(value, str):
        raise InvalidValue(f"{field}: must be a string")
    return value


def _texts(entry: Mapping[str, Any], field: str) -> list[str]:
    value = entry[field]
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise InvalidValue(f"{field}: must be a list of strings")
    return value
