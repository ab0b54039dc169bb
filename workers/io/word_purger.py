"""Word purger: removes the words of deleted chunks, which SQLite only marks, from the files of the text index."""

import logging
import time
from collections.abc import Callable

import redis

from shared.documents.text_index import TextIndex
from shared.errors import IndexUnavailable
from shared.redis_connection import PREFIX

logger = logging.getLogger(__name__)

CHECK_SECONDS = 600.0
TURN_KEY = PREFIX + "index:purging"
# Shorter than the interval, so that a worker that has died does not keep others from the next check.
TURN_MS = int(900 * CHECK_SECONDS)
ROUND_SECONDS = 0.25
"""After this time in a round, the rest is left to the next one: other duties of the same thread wait meanwhile."""

CHUNKS_PER_STEP = 200


class WordPurger:
    """Purges every index from which a chunk was removed more than ``seconds`` ago.

    Every ten minutes, one worker looks for them. It works in short rounds, and if it dies, the next check continues where it was. The first
    check is not at start: during a rolling upgrade, an older process may write, which does not know of a purge under way.
    """

    def __init__(
        self,
        client: redis.Redis,
        texts: TextIndex,
        seconds: float,
        now: float,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._texts = texts
        self._seconds = seconds
        self._clock = clock
        self._timer = timer
        self._indexes: list[str] = []
        self._next_check = now + CHECK_SECONDS

    def run_once(self, now: float) -> None:
        if self._indexes:
            self._client.set(TURN_KEY, "", px=TURN_MS)
        elif now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            if self._client.set(TURN_KEY, "", nx=True, px=TURN_MS):
                self._indexes = self._texts.list_indexes()
        end = self._timer() + ROUND_SECONDS
        while self._indexes and self._timer() < end:
            if not self._needs_more(self._indexes[-1]):
                self._indexes.pop()

    def _needs_more(self, index: str) -> bool:
        try:
            return self._texts.purge_words(index, removed_before=self._clock() - self._seconds, limit=CHUNKS_PER_STEP)
        except IndexUnavailable as error:
            logger.warning("words of deleted chunks stay in index %s until the next check: %s", index, error.message)
            return False
