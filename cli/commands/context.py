"""What subcommands work with: the settings, the Redis of the stack, and the audit log."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.settings import Settings
from shared.settings_sources import from_environment

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from redis import Redis


def load_settings(**options: Any) -> Settings:
    """The settings from the environment, overridden by the given options, with absolute paths."""
    given = {name: value for name, value in options.items() if value is not None}
    settings = from_environment(os.environ, **given)
    absolute = {"data_dir": settings.data_dir.resolve(), "models_file": settings.models_file.resolve()}
    for name in ("models_dir", "keys_file"):
        if (path := getattr(settings, name)) is not None:
            absolute[name] = path.resolve()
    return from_environment(os.environ, **given | absolute)


def record_action(action: str, data: Path | None, *targets: str, **details: Any) -> "AbstractContextManager[list[str]]":
    """Record the action of a block in the audit log of the data folder."""
    from cli.admin.audit import audited

    return audited(load_settings(data_dir=data), action, *targets, **details)


def stack_redis(data: Path | None, url: str | None) -> "Redis":
    """A client of the Redis at this URL, or of the stack on the data folder."""
    from cli.local.running_stack import connect_to_stack

    return connect_to_stack(load_settings(data_dir=data, redis_url=url), explicit=url is not None)
