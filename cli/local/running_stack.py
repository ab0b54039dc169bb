"""Reaching Redis and Chroma of a stack that runs: by settings, else by what ``enginehouse up`` wrote into its data folder."""

import json
import os
from dataclasses import replace

import redis

from cli.errors import CommandError
from cli.local.redis_server import redact_password
from shared.redis_connection import OUTAGE, connect
from shared.settings import Settings


def connect_to_stack(settings: Settings, *, given: bool) -> redis.Redis:
    """A client of the stack's Redis, which has answered. ``given``: the settings name it. Raises Refusal."""
    url = settings.redis_url
    if not given and not os.environ.get("REDIS_URL"):
        state = settings.data_dir / "state.json"
        try:
            url = json.loads(state.read_text())["redis"]
        except FileNotFoundError:
            raise CommandError(
                f"No Enginehouse runs on the data folder {settings.data_dir}: start it with `enginehouse up`, "
                "name another folder with --data, or a Redis with --redis."
            ) from None
    client = connect(url, timeout=5, retries=0)
    try:
        client.ping()
    except OUTAGE as error:
        raise CommandError(f"Redis at {redact_password(url)} does not answer ({error}).") from None
    return client


def with_stack_chroma(settings: Settings) -> Settings:
    """The settings with the Chroma server of the stack on this data folder, if one runs there and none is named."""
    state = settings.data_dir / "state.json"
    if os.environ.get("ENGINEHOUSE_CHROMA_URL") or not state.exists():
        return settings
    return replace(settings, chroma_url=json.loads(state.read_text())["chroma"])
