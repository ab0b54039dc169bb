"""Identifiers that sort by creation time.

An id has a prefix for the type of object, an underscore, 48 bits of Unix milliseconds and 80 random bits, both in Crockford's
base 32 (the layout of ULID, https://github.com/ulid/spec). Ids of one type therefore sort in creation order, and a page of a
list can start after a given id.
"""

import hashlib
import os
import threading
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

JOB = "job"
DOCUMENT = "doc"
COLLECTION = "col"
SESSION = "ses"
CLAIM = "clm"

# Between the name of a model and that of its adapter. No other name has it.
ADAPTER_SEPARATOR = ":"


_lock = threading.Lock()
_latest = 0


def _monotonic(number: int) -> int:
    """Make the number larger than all earlier ones, because the random bits would shuffle ids of the same millisecond."""
    global _latest
    with _lock:
        _latest = max(number, _latest + 1)
        return _latest


def new_id(prefix: str, *, now_ms: int | None = None, random: bytes | None = None) -> str:
    """Create an id such as ``job_01k9w3c5…`` (26 characters after the underscore). It sorts after all earlier ids of this process.

    ``now_ms`` (Unix milliseconds) and ``random`` (10 bytes) are for tests.
    """
    milliseconds = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10) if random is None else random, "big")
    if now_ms is None and random is None:
        number = _monotonic(number)
    digits = []
    for _ in range(26):
        digits.append(ALPHABET[number & 31])
        number >>= 5
    return f"{prefix}_{''.join(reversed(digits))}"


def time_prefix(milliseconds: int) -> str:
    """The digits with which ids of this time start, after the underscore."""
    return "".join(ALPHABET[(milliseconds >> 5 * (9 - place)) & 31] for place in range(10))


def derived_id(prefix: str, parent: str, *names: str) -> str:
    """A deterministic id for an object that these names identify within the job ``parent``. It has the job's creation time."""
    digest = int.from_bytes(hashlib.sha256("\0".join((prefix, parent, *names)).encode()).digest()[:10], "big")
    digits = [ALPHABET[(digest >> 5 * index) % 32] for index in range(16)]
    return f"{prefix}_{parent.partition('_')[2][:10]}{''.join(digits)}"


def is_id(prefix: str, text: str) -> bool:
    """Whether ``text`` has the format of an id with this prefix. The object may not exist."""
    found, _, digits = text.partition("_")
    return found == prefix and len(digits) == 26 and all(character in ALPHABET for character in digits)


def split_adapter(name: str) -> tuple[str, str]:
    """The names of a model and of its adapter, "" if ``name`` is that of a model alone."""
    model, _, adapter = name.partition(ADAPTER_SEPARATOR)
    return model, adapter
