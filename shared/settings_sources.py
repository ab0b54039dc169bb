"""Read the settings from the environment, and write them for a child process.

A setting is an environment variable, or a line of the file that ``ENGINEHOUSE_CONFIG`` names; a secret can also be the content of the
file that ``<NAME>_FILE`` names. An invalid value stops the process before it starts, with one sentence per problem. Unknown
``ENGINEHOUSE_*`` names are rejected too, as a misspelt limit would not be applied.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.errors import SettingsError
from shared.ocr_languages import check_ocr_languages
from shared.settings import LOG_LEVELS, Settings

# Variables of commands that call a server. Server processes ignore them.
COMMAND_VARIABLES = ("ENGINEHOUSE_URL", "ENGINEHOUSE_API_KEY")
# Names a file of settings, one NAME=VALUE per line.
CONFIG_VARIABLE = "ENGINEHOUSE_CONFIG"
FILE_SUFFIX = "_FILE"
MAX_FILE_BYTES = 100_000


def from_environment(environment: Mapping[str, str], **overrides: Any) -> Settings:
    """Read the settings from environment variables; ``overrides`` (command line options) take precedence.

    Raises SettingsError with all problems.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    given = read_sources(environment, problems)
    for name, item in _known().items():
        if item.name not in overrides and name in given:
            try:
                values[item.name] = _parse(item, given[name].text)
            except ValueError as error:
                shown = "…" if item.metadata["secret"] else repr(given[name].text)
                problems.append(f"{name}={shown}: {error}" + f" ({given[name].source})" * (given[name].source != ENVIRONMENT))
    values.update(overrides)
    if "models_file" not in values and Path("models.json").exists():
        values["models_file"] = Path("models.json").resolve()
    if problems:
        raise SettingsError(problems)
    settings = Settings(**values)
    problems = _contradictions(settings)
    if problems:
        raise SettingsError(problems)
    return settings


@dataclass(frozen=True)
class Given:
    """The text of a setting, and where it was found."""

    text: str = field(repr=False)
    source: str


ENVIRONMENT = "environment"


def read_sources(environment: Mapping[str, str], problems: list[str]) -> dict[str, Given]:
    """The given settings by name: from the environment, else from a secret's own file, else from the file of settings.

    Problems with names and files are added to ``problems``.
    """
    found: dict[str, Given] = {}
    path = environment.get(CONFIG_VARIABLE, "")
    layers = [(_read_config(path, problems), f"file {path}")] if path else []
    for values, source in [*layers, (environment, ENVIRONMENT)]:
        for name in values:
            if name.startswith("ENGINEHOUSE_") and not _is_known(name):
                problems.append(f"{name} is not a setting (see docs/settings.md)" + f" ({source})" * (source != ENVIRONMENT))
        for name, item in _known().items():
            if values.get(name, "") != "":
                found[name] = Given(values[name], source)
            elif item.metadata["secret"] and (file := values.get(name + FILE_SUFFIX, "")):
                count = len(problems)
                text = _read_file(file, f"{name}{FILE_SUFFIX}", problems).strip()
                if text:
                    found[name] = Given(text, f"file {file}")
                elif len(problems) == count:
                    problems.append(f"{name}{FILE_SUFFIX}: the file {file} is empty")
    return found


def is_given(environment: Mapping[str, str], name: str) -> bool:
    """Whether a setting is given, in the environment or in a file."""
    return name in read_sources(environment, [])


def file_variables() -> set[str]:
    """Variables that name a file with settings. A process that got the values from its parent does not read them again."""
    return {CONFIG_VARIABLE} | {name + FILE_SUFFIX for name, item in _known().items() if item.metadata["secret"]}


def _known() -> dict[str, Any]:
    return {item.metadata["name"]: item for item in fields(Settings)}


def _is_known(name: str) -> bool:
    return name in _known() or name in COMMAND_VARIABLES or name in file_variables()


def _read_config(path: str, problems: list[str]) -> dict[str, str]:
    """The settings in a file of ``NAME=VALUE`` lines. Empty lines and those that begin with ``#`` are skipped."""
    values: dict[str, str] = {}
    for number, line in enumerate(_read_file(path, CONFIG_VARIABLE, problems).splitlines(), start=1):
        name, equals, value = (part.strip() for part in line.removeprefix("export ").partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals:
            problems.append(f"{path}: line {number} is not NAME=VALUE")
        elif name == CONFIG_VARIABLE:
            problems.append(f"{path}: line {number}: a file of settings cannot name another one")
        else:
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            values[name] = value[1:-1] if quoted else value
    return values


def _read_file(path: str, name: str, problems: list[str]) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{name}: {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}")
        return ""
    if len(text) > MAX_FILE_BYTES:
        problems.append(f"{name}: {path} is larger than {MAX_FILE_BYTES} bytes")
        return ""
    return text


def to_environment(settings: Settings) -> dict[str, str]:
    """The environment variables from which another process reads the same settings."""
    result = {}
    for item in fields(Settings):
        value = getattr(settings, item.name)
        if value is not None:
            result[item.metadata["name"]] = ("1" if value else "0") if isinstance(value, bool) else str(value)
    return result


def _parse(item: Any, text: str) -> Any:
    kind, limits = item.type, item.metadata
    value: Any
    if kind is bool:
        words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        if text.lower() not in words:
            raise ValueError("must be 1 or 0")
        return words[text.lower()]
    if kind is int or kind is float:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"must be a{'n integer' if kind is int else ' number'}") from None
        if not limits["low"] <= value <= limits["high"]:
            raise ValueError(f"must be between {limits['low']} and {limits['high']}")
        return value
    if kind is Path or kind == Path | None:
        return Path(text)
    if limits["one_of"] and text not in limits["one_of"]:
        raise ValueError(f"must be one of {', '.join(repr(word) for word in limits['one_of'])}")
    return text


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.renew_seconds * 2 > settings.lease_seconds:
        problems.append(
            "ENGINEHOUSE_RENEW_SECONDS must be at most half of ENGINEHOUSE_LEASE_SECONDS, or a single late renewal loses jobs"
        )
    if settings.chunk_overlap_tokens * 2 > settings.chunk_tokens:
        problems.append("ENGINEHOUSE_CHUNK_OVERLAP_TOKENS must be at most half of ENGINEHOUSE_CHUNK_TOKENS")
    problems += check_ocr_languages(settings.ocr_engine, settings.ocr_language_list)
    for name, ranges in (("WEBHOOK", settings.webhook_allow), ("URL", settings.url_allow)):
        for part in filter(None, map(str.strip, ranges.split(","))):
            try:
                ip_network(part)
            except ValueError as error:
                problems.append(f"ENGINEHOUSE_{name}_ALLOW: {error}")
    for origin in filter(None, map(str.strip, settings.cors_origins.split(","))):
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
            problems.append(f"ENGINEHOUSE_CORS_ORIGINS: must be origins such as https://app.example.org, not {origin!r}")
    for part in filter(None, map(str.strip, settings.log_levels.split(","))):
        logger, equals, level = (text.strip() for text in part.partition("="))
        if not logger or not equals or level.upper() not in LOG_LEVELS:
            problems.append(
                f"ENGINEHOUSE_LOG_LEVELS: {part!r} must be a logger and one of {', '.join(LOG_LEVELS)}, as in workers.cpu=DEBUG"
            )
    if settings.metrics_token and not (
        len(settings.metrics_token) >= 16 and settings.metrics_token.isascii() and settings.metrics_token.isprintable()
    ):
        problems.append("ENGINEHOUSE_METRICS_TOKEN must be at least 16 printable ASCII characters")
    if urlsplit(settings.redis_url).scheme not in ("redis", "rediss", "unix"):
        problems.append(f"REDIS_URL must start with redis://, rediss:// or unix://, not {settings.redis_url.split(':')[0]!r}")
    if urlsplit(settings.chroma_url).scheme not in ("http", "https"):
        problems.append("ENGINEHOUSE_CHROMA_URL must start with http:// or https://")
    if settings.otlp_endpoint and urlsplit(settings.otlp_endpoint).scheme not in ("http", "https"):
        problems.append("OTEL_EXPORTER_OTLP_ENDPOINT must start with http:// or https://")
    for name, address in (("FLOWER", settings.flower_url), ("GRAFANA", settings.grafana_url)):
        if address and urlsplit(address).scheme not in ("http", "https"):
            problems.append(f"ENGINEHOUSE_{name}_URL must start with http:// or https://")
    return problems
