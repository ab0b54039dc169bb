"""Document passwords, stored from the upload until the document has been read.

Neither Redis nor the disk alone reveals a password. Redis stores it combined with random bytes of the same length, which are stored
in the document's folder and deleted once the document is read. Copies in backups or in Redis' append-only file are then useless.
"""

import os
from typing import Any

import redis

from shared.documents import keys
from shared.documents.files import DocumentFiles

MAX_PASSWORD_LENGTH = 1000


class Passwords:
    """Stores passwords. ``client`` must decode its responses. An unread password expires after ``seconds``."""

    def __init__(self, client: "redis.Redis", files: DocumentFiles, seconds: int) -> None:
        self._redis: Any = client
        self._files = files
        self._seconds = seconds

    def keep(self, document_id: str, password: str) -> None:
        """Store the password of a document, instead of an earlier one."""
        plain = password.encode()
        pad = os.urandom(len(plain))
        with self._files.replace(document_id, "pad") as target:
            target.write(pad)
        self._redis.set(keys.password(document_id), _xor(plain, pad).hex(), ex=self._seconds)

    def look_up(self, document_id: str) -> str:
        """The password that was uploaded with the document, or ""."""
        stored = self._redis.get(keys.password(document_id))
        try:
            pad = self._files.path(document_id, "pad").read_bytes()
        except FileNotFoundError:
            return ""
        return _xor(bytes.fromhex(stored), pad).decode() if stored else ""

    def forget(self, document_id: str) -> None:
        """Delete the password of a document, if it has one."""
        self._files.path(document_id, "pad").unlink(missing_ok=True)
        self._redis.delete(keys.password(document_id))


def _xor(data: bytes, pad: bytes) -> bytes:
    return bytes(byte ^ pad_byte for byte, pad_byte in zip(data, pad, strict=True))
