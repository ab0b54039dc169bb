"""A note from the workers that the index answers for itself but not for a collection.

Chroma gets into this state when its disk was full for a while: every request for the collection then waits for ever, until
the server is started again. Only the workers see it, and only whoever runs the server can mend it.
"""

import redis

from shared.redis_connection import PREFIX

KEY = f"{PREFIX}index:silent"
# A note that nobody takes is of the past after this time; workers go on writing it while it is true.
NOTE_SECONDS = 120


def note_silence(client: redis.Redis) -> None:
    """A request for a collection was not answered in time, and the server lives."""
    client.set(KEY, "1", ex=NOTE_SECONDS)


def is_silent(client: redis.Redis) -> bool:
    """Whether that was noted lately."""
    return bool(client.exists(KEY))


def take_note(client: redis.Redis) -> bool:
    """The same, for whoever does something about it: the note is gone afterwards."""
    return client.getdel(KEY) is not None
