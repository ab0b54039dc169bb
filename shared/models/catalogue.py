"""The models file: a JSON list of models, each with a name and where it comes from.

It knows nothing of weights, tokenizers or engines; it says what was asked for, checked. All faults of a file are told at
once, a sentence each, so that nobody has to mend it one start at a time.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from shared.errors import NotFound, SettingsError

GENERATE = "generate"
EMBED = "embed"

ECHO = "echo"
TRANSFORMERS = "transformers"

# A name is also a folder, a part of a queue's name and a part of a URL.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _text(low: int = 1, *, one_of: tuple[str, ...] = (), form: re.Pattern[str] | None = None) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        if len(value) < low:
            return "must not be empty"
        if one_of and value not in one_of:
            return f"must be one of {', '.join(one_of)}"
        if form is not None and not form.fullmatch(value):
            return "must be 1 to 100 letters, digits, dots, dashes and underscores, with a letter or digit first"
        return None

    return check


def _integer(low: int, high: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return "must be a whole number"
        return None if low <= value <= high else f"must be between {low} and {high}"

    return check


def _number(low: float, high: float) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return "must be a number"
        return None if low <= value <= high else f"must be between {low:g} and {high:g}"

    return check


def _devices(value: Any) -> str | None:
    numbers = isinstance(value, list) and value and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    if not numbers or min(value) < 0 or len(set(value)) < len(value):
        return "must be a list of different GPU numbers, such as [0, 1]"
    return None


def _truth(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _stops(value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        return "must be a list of strings that are not empty"
    return None if len(value) <= 16 else "must have at most 16 strings"


def _entry(check: Callable[[Any], str | None], default: Any = MISSING) -> Any:
    return field(metadata={"check": check}) if default is MISSING else field(default=default, metadata={"check": check})


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One model of the file. Only ``name`` and ``url`` have to be given."""

    name: str = _entry(_text(form=_NAME))
    """What clients ask for."""
    url: str = _entry(_text())
    """A hub id, a folder (it starts with ``/``, ``.`` or ``~``), ``package:NAME`` for weights inside an installed Python
    package, or ``echo:SECONDS`` for an echo engine that takes so long for each token."""
    task: str = _entry(_text(one_of=(GENERATE, EMBED)), GENERATE)
    engine: str = _entry(_text(one_of=(TRANSFORMERS, ECHO)), TRANSFORMERS)
    dtype: str = _entry(_text(one_of=("auto", "bfloat16", "float16", "float32")), "auto")
    max_context: int | None = _entry(_integer(16, 10_000_000), None)
    """Tokens of prompt and answer together; by default what the model's own configuration says."""
    max_in_flight: int = _entry(_integer(1, 1024), 16)
    """Jobs that one engine runs at once."""
    max_tokens: int = _entry(_integer(1, 1_000_000), 512)
    """The longest answer, in tokens, of a request that does not say."""
    chat_template: str | None = _entry(_text(), None)
    """Jinja text that turns messages into a prompt; by default the tokenizer's own."""
    stop: tuple[str, ...] = _entry(_stops, ())
    """Texts that end every answer, besides those of the request."""
    gpus: int = _entry(_integer(0, 16), 0)
    """GPUs of one replica; 0 takes one if there is one, and the CPU if not."""
    replicas: int | None = _entry(_integer(1, 64), None)
    """How many times it is loaded by ``enginehouse up``; by default once, or once on each of ``devices``."""
    devices: tuple[int, ...] | None = _entry(_devices, None)
    """The numbers of the GPUs that its replicas take, in this order; by default those with the most free memory."""
    gpu_share: float = _entry(_number(0.05, 1.0), 1.0)
    """The part of its GPU that it is given; below 1, models whose parts add up to no more than 1 may share a GPU."""
    load: bool = _entry(_truth, False)
    """Loaded by ``enginehouse up`` when no model is named there; if no model says so, the default one is."""
    pinned: bool = _entry(_truth, False)
    """Never given up for another model that a job asks for."""
    keep_alive: float | None = _entry(_number(0, 1_000_000_000), None)
    """Seconds without a job after which it is unloaded, 0 for never; by default ENGINEHOUSE_KEEP_ALIVE_SECONDS."""
    parameters: int | None = _entry(_integer(1, 10**13), None)
    """How many parameters it has, so that it can be placed before its weights are here."""
    default: bool = _entry(_truth, False)
    """Serves the requests that name no model for its task."""
    revision: str | None = _entry(_text(), None)
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = _entry(_truth, False)
    """Run Python code that comes with the weights. Only for sources that you would run a program from."""


@dataclass(frozen=True)
class Catalogue:
    """All models of one file, in its order."""

    models: tuple[ModelEntry, ...]

    def get(self, name: str) -> ModelEntry:
        """The model of that name. Raises NotFound, naming those there are."""
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models)
        raise NotFound(f"There is no model {name!r}; there are: {known}", code="model_not_found", param="model")

    def default(self) -> ModelEntry:
        """The model that answers requests that name none. Raises NotFound when none generates text."""
        return self._first(GENERATE)

    def embedding(self) -> ModelEntry:
        """The model that turns chunks and queries into vectors. Raises NotFound when there is none."""
        return self._first(EMBED)

    def _first(self, task: str) -> ModelEntry:
        of_task = [model for model in self.models if model.task == task]
        if not of_task:
            raise NotFound(f"The models file has no model with task {task!r}; add one.", code="model_not_found", param="model")
        return next((model for model in of_task if model.default), of_task[0])


def load_catalogue(path: Path, *, engine: str = "") -> Catalogue:
    """Read and check a models file; ``engine`` replaces the engine of every generating model.

    Raises SettingsError with a sentence for each fault of the file.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SettingsError([f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: the models file cannot be read: {error}"]) from None
    if not isinstance(listed, list) or not listed:
        raise SettingsError([f"{path}: must be a JSON list of at least one model, each an object with name and url"])
    problems: list[str] = []
    models: list[ModelEntry] = []
    for number, item in enumerate(listed, start=1):
        faults = _faults(item)
        name = item.get("name") if isinstance(item, dict) and isinstance(item.get("name"), str) else None
        where = f"{path}: model {number}" + (f" ({name})" if name else "")
        problems += [f"{where}: {fault}" for fault in faults]
        if not faults:
            values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
            models.append(ModelEntry(**values))
    problems += [f"{path}: {fault}" for fault in _faults_together(models)]
    if problems:
        raise SettingsError(problems)
    if engine:
        models = [replace(model, engine=engine) if model.task == GENERATE else model for model in models]
    return Catalogue(tuple(models))


def _faults(item: Any) -> list[str]:
    if not isinstance(item, dict):
        return ["must be an object with at least name and url"]
    known = {entry.name: entry for entry in fields(ModelEntry)}
    faults = [f"{key} is not a field; there are {', '.join(known)}" for key in item if key not in known]
    for key, entry in known.items():
        required = entry.default is MISSING
        if key not in item:
            if required:
                faults.append(f"{key} is missing")
        elif item[key] is not None or entry.default is not None:
            fault = entry.metadata["check"](item[key])
            if fault:
                faults.append(f"{key} is {json.dumps(item[key])[:80]}: it {fault}")
    return faults or _faults_of_devices(item)


def _faults_of_devices(item: dict[str, Any]) -> list[str]:
    devices, gpus, replicas = item.get("devices"), item.get("gpus") or 1, item.get("replicas")
    if item.get("gpu_share", 1) < 1 and gpus > 1:
        return [f"gpu_share is {item['gpu_share']} and gpus {gpus}: a model over several GPUs takes them whole"]
    if devices is None:
        return []
    if len(devices) % gpus:
        return [f"devices has {len(devices)} GPUs, which is no multiple of the {gpus} of one replica (gpus)"]
    if replicas is not None and replicas * gpus != len(devices):
        return [f"devices has {len(devices)} GPUs, but replicas and gpus ask for {replicas} times {gpus}; leave replicas out"]
    return []


def _faults_together(models: list[ModelEntry]) -> list[str]:
    faults = [
        f"the name {name} is given to {count} models"
        for name, count in Counter(model.name for model in models).items()
        if count > 1
    ]
    for task in (GENERATE, EMBED):
        defaults = [model.name for model in models if model.task == task and model.default]
        if len(defaults) > 1:
            faults.append(f"{' and '.join(defaults)} are both the default for task {task}; there can be one")
    return faults
