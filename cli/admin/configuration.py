"""``enginehouse config``: the settings in force, and where each comes from."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from cli.local.data_folder_lock import lock_holder
from cli.local.settings_report import DEFAULT, Options, describe_settings, find_sources
from cli.output import Output
from shared.settings_sources import from_environment


def show_settings(environment: Mapping[str, str], *, every: bool, out: Output, options: Options = MappingProxyType({})) -> None:
    """Print the settings of the stack that runs on the data folder, else those of this environment: the ones that are set, or all of
    them. Secrets are hidden. Raises SettingsError."""
    settings = from_environment(environment, **{field: value for field, value in options.values() if value is not None})
    folder, stack = settings.data_dir, lock_holder(settings.data_dir)
    rows = _settings_of_stack(folder) if stack is not None else None
    if rows is not None:
        out.print_note(f"Settings of the Enginehouse that runs on the data folder {folder} (process {stack}):")
    else:
        reason = "no Enginehouse runs" if stack is None else "an Enginehouse that does not report its own runs"
        out.print_note(f"Settings of this environment, as {reason} on the data folder {folder}:")
        rows = describe_settings(settings, find_sources(environment, options))
    shown = [row for row in rows if every or row["source"] != DEFAULT]
    out.print_list(("setting", "value", "source"), shown, lambda row: tuple(row.values()), to_json=lambda row: row)


def _settings_of_stack(data_dir: Path) -> list[dict[str, str]] | None:
    """What the stack on a data folder has reported; None if it is starting or of an earlier version."""
    try:
        rows: list[dict[str, str]] | None = json.loads((data_dir / "state.json").read_text()).get("settings")
    except (OSError, ValueError):
        return None
    return rows
