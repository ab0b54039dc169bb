"""``enginehouse config``: the settings in force, and where each comes from."""

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from cli.output import Output
from shared.settings import Settings, from_environment, read_sources
from shared.urls import without_login

DEFAULT = "default"


def show_settings(
    environment: Mapping[str, str], *, every: bool, out: Output, options: Mapping[str, tuple[str, Any]] = MappingProxyType({})
) -> None:
    """Print the settings that are set, or all of them. Secrets are hidden. ``options`` are those of the command by name, with the
    field that each one sets and its value. Raises SettingsError."""
    settings = from_environment(environment, **dict(options.values()))
    given = read_sources(environment, [])
    option_of = {field: option for option, (field, _) in options.items()}
    rows = []
    for item in fields(Settings):
        name = item.metadata["name"]
        source = option_of.get(item.name) or (given[name].source if name in given else DEFAULT)
        if every or source != DEFAULT:
            rows.append({"setting": name, "value": _shown(getattr(settings, item.name), item.metadata), "source": source})
    out.print_list(("setting", "value", "source"), rows, lambda row: tuple(row.values()), to_json=lambda row: row)


def _shown(value: Any, metadata: Mapping[str, Any]) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if value is None or value == "":
        return ""
    if metadata["secret"]:
        return without_login(str(value)) if "://" in str(value) else "(hidden)"
    return str(value)
