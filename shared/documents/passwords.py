"""Passwords of documents, from the upload until the document has been read.

Neither Redis nor the disk alone can tell one: Redis has it combined with random bytes of the same length, which lie in the
document's folder and are removed as soon as it is read. What a backup or Redis' own log still has is then only noise.
"""

import os
from typing import Any

import redis

from shared.documents import keys
from shared.documents.files import DocumentFiles

LONGEST = 1000


class Passwords:
    """``client`` must decode its responses. A password that nobody reads is gone after ``seconds``."""

    def __init__(self, client: "redis.Redis", files: DocumentFiles, seconds: int) -> None:
        self._redis: Any = client
        self._files = files
        self._seconds = seconds

    def keep(self, document_id: str, password: str) -> None:
        plain = password.encode()
        pad = os.urandom(len(plain))
        with self._files.replace(document_id, "pad") as target:
            target.write(pad)
        self._redis.set(keys.password(document_id), _combined(plain, pad).hex(), ex=self._seconds)

    def read(self, document_id: str) -> str:
        """The password that came with the document, or ""."""
        kept = self._redis.get(keys.password(document_id))
        try:
            pad = self._files.path(document_id, "pad").read_bytes()
        except FileNotFoundError:
            return ""
        return _combined(bytes.fromhex(kept), pad).decode() if kept else ""

    def forget(self, document_id: str) -> None:
        self._files.path(document_id, "pad").unlink(missing_ok=True)
        self._redis.delete(keys.password(document_id))


def _combined(some: bytes, pad: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(some, pad, strict=True))
