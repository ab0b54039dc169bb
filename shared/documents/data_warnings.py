"""Warnings about the data: what an operator has to do although jobs run."""

import redis

from shared.documents.data_state import MESSAGES, DataState
from shared.documents.index_health import list_problems
from shared.settings import Settings


def data_warnings(client: redis.Redis, settings: Settings) -> list[str]:
    """The warnings. Without names of collections, as every caller may see them. Raises RedisError."""
    records, problems = DataState(client, settings).records(), list_problems(client)
    warnings = [] if records == "complete" else [f"{MESSAGES[records]}: run `enginehouse collections recover`"]
    if problems:
        count = "1 collection has" if len(problems) == 1 else f"{len(problems)} collections have"
        warnings.append(f"{count} to be reindexed: `enginehouse collections check` shows which")
    return warnings
