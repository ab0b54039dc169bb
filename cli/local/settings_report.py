"""Settings of a stack with where each comes from and without secrets, as ``state.json`` has them for ``enginehouse config``."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from shared.settings import Settings
from shared.settings_sources import read_sources
from shared.urls import without_login

DEFAULT = "default"
# What `up` chooses itself, such as the address of its own Redis.
CHOSEN = "enginehouse up"

Options = Mapping[str, tuple[str, Any]]
"""The options of a command by name, each with the field of the settings that it overrides and its value, None if it is not given."""


def find_sources(environment: Mapping[str, str], options: Options) -> dict[str, str]:
    """Where each setting comes from that is given: an option, the environment or a file."""
    names = {item.name: item.metadata["name"] for item in fields(Settings)}
    given = {name: found.source for name, found in read_sources(environment, []).items()}
    return given | {names[field]: option for option, (field, value) in options.items() if value is not None}


def describe_settings(settings: Settings, sources: Mapping[str, str]) -> list[dict[str, str]]:
    """All settings with their values and sources. ``sources`` has those of the settings that were given."""
    default, rows = Settings(), []
    for item in fields(Settings):
        name, value = item.metadata["name"], getattr(settings, item.name)
        source = sources.get(name) or (DEFAULT if value == getattr(default, item.name) else CHOSEN)
        rows.append({"setting": name, "value": _shown(value, item.metadata), "source": source})
    return rows


def _shown(value: Any, metadata: Mapping[str, Any]) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if value is None or value == "":
        return ""
    if metadata["secret"]:
        return without_login(str(value)) if "://" in str(value) else "(hidden)"
    return str(value)
