"""Writes ``docs/settings.md`` from the settings themselves: ``python -m cli.settings_docs > docs/settings.md``.

A test compares the two, so a setting cannot be added without its line on the page.
"""

from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from shared.settings import DAY, HOUR, MIB, Settings

HEAD = """\
# Settings

Every process reads its settings once, from environment variables, when it starts. A value that cannot be used stops the
process with one sentence for each bad value; so does a variable that begins with `ENGINEHOUSE_` and is not in this table.
Options of the `enginehouse` command win over the environment. Two variables are for the commands that call a server alone:
`ENGINEHOUSE_URL` says which, `ENGINEHOUSE_API_KEY` has the key.

Some rules go beyond a single value: `ENGINEHOUSE_RENEW_SECONDS` may be at most half of `ENGINEHOUSE_LEASE_SECONDS`,
`ENGINEHOUSE_CHUNK_OVERLAP_TOKENS` at most half of `ENGINEHOUSE_CHUNK_TOKENS`, the two URLs need a scheme that is known
(`redis`, `rediss` or `unix`; `http` or `https`), and origins are a scheme, a host and perhaps a port (`https://app.example.org`).

Names that end in `_SECONDS` are in seconds, names that end in `_BYTES` in bytes. This page is made by
`python -m cli.settings_docs` from `shared/settings.py`; change it there.

| setting | default | allowed | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The whole page, as Markdown."""
    return HEAD + "".join(_row(setting) for setting in fields(Settings))


def _row(setting: "Field[Any]") -> str:
    name = setting.metadata["name"]
    return f"| `{name}` | {_default(setting)} | {_allowed(setting)} | {setting.metadata['doc']} |\n"


def _default(setting: "Field[Any]") -> str:
    value = setting.default
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return "`1`" if value else "`0`"
    if isinstance(value, Path):
        # An absolute path is that of a packaged file, and depends on the installation.
        return f"`{value.name if value.is_absolute() else value}`"
    return f"`{_number(value)}`{_in_words(setting, value)}" if isinstance(value, int | float) else f"`{value}`"


def _allowed(setting: "Field[Any]") -> str:
    limits = setting.metadata
    if isinstance(setting.default, bool):
        return "`1` or `0`"
    if limits["one_of"]:
        return ", ".join(f"`{word}`" for word in limits["one_of"] if word)
    return "" if limits["low"] is None else f"{_number(limits['low'])} to {_number(limits['high'])}"


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_words(setting: "Field[Any]", value: float) -> str:
    units = {"_seconds": ((DAY, "d"), (HOUR, "h")), "_bytes": ((1024 * MIB, "GiB"), (MIB, "MiB"))}
    for ending, scale in units.items():
        for size, unit in scale:
            if setting.name.endswith(ending) and value >= size and value % size == 0:
                return f" ({int(value // size)} {unit})"
    return ""


if __name__ == "__main__":
    print(page(), end="")
