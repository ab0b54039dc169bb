"""Identifiers that sort by the time they were made.

An id is a prefix that tells what it names, an underscore, 48 bits of Unix milliseconds and 80 random bits, both in
Crockford's base 32 (the layout of ULID, https://github.com/ulid/spec), so that the order of ids of one kind is the
order of their making and a page of a list can start "after this id".
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


_lock = threading.Lock()
_latest = 0


def _after_the_latest(number: int) -> int:
    """Of two ids made in the same millisecond the random bits would decide the order; here it is that of their making."""
    global _latest
    with _lock:
        _latest = max(number, _latest + 1)
        return _latest


def new_id(prefix: str, *, now_ms: int | None = None, random: bytes | None = None) -> str:
    """A new id such as ``job_01k9w3c5…`` (26 characters after the underscore), which sorts after all that this process made.

    ``now_ms`` (Unix milliseconds) and ``random`` (10 bytes) are for tests.
    """
    milliseconds = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10) if random is None else random, "big")
    if now_ms is None and random is None:
        number = _after_the_latest(number)
    digits = []
    for _ in range(26):
        digits.append(ALPHABET[number & 31])
        number >>= 5
    return f"{prefix}_{''.join(reversed(digits))}"


def derived_id(prefix: str, parent: str, *what: str) -> str:
    """The one id that stands for ``what`` under the job ``parent``, and sorts beside it. Whoever makes it gets the same."""
    digest = int.from_bytes(hashlib.sha256("\0".join((prefix, parent, *what)).encode()).digest()[:10], "big")
    digits = [ALPHABET[(digest >> 5 * place) % 32] for place in range(16)]
    return f"{prefix}_{parent.partition('_')[2][:10]}{''.join(digits)}"


def is_id(prefix: str, text: str) -> bool:
    """Whether ``text`` has the form of an id of this kind; says nothing about whether it exists."""
    head, _, tail = text.partition("_")
    return head == prefix and len(tail) == 26 and all(character in ALPHABET for character in tail)
