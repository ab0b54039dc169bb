"""The models file: a JSON list of models, validated by pydantic.

``load_catalogue`` reports every problem of a file at once, one sentence each, with the entry and the field.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from shared.errors import NotFound, SettingsError
from shared.ids import ADAPTER_SEPARATOR, split_adapter

GENERATE: Final = "generate"
EMBED: Final = "embed"
RERANK: Final = "rerank"

ECHO: Final = "echo"
OPENAI: Final = "openai"
TRANSFORMERS: Final = "transformers"
VLLM: Final = "vllm"

# The name is also a folder, part of a queue's name and part of a URL.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

# A commit on the hub. Branches and tags can be moved to other weights, and other code.
COMMIT = re.compile(r"[0-9a-f]{40}")

# What the server of an ``openai`` engine decides by itself, and what only that engine needs.
LOCAL_FIELDS = ("dtype", "chat_template", "gpus", "devices", "gpu_share", "parameters", "revision", "trust_remote_code")
SERVER_FIELDS = ("server", "remote_model", "api_key_env", "api_key_file")

# Arguments of vLLM that fields of the entry decide, and those that the engine itself needs.
OWN_VLLM_ARGS = {
    "model": "url",
    "tokenizer": "url",
    "revision": "revision",
    "dtype": "dtype",
    "max_model_len": "max_context",
    "max_num_seqs": "max_in_flight",
    "tensor_parallel_size": "gpus",
    "gpu_memory_utilization": "gpu_share",
    "trust_remote_code": "trust_remote_code",
    "disable_log_stats": None,
    "structured_outputs_config": None,
    "skip_tokenizer_init": None,
    "enable_log_requests": None,
    "max_logprobs": None,
    "enable_lora": "adapters",
    "max_lora_rank": None,
}

Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def _distinct(devices: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(devices)) < len(devices):
        raise ValueError("a GPU is listed twice")
    return devices


class ModelEntry(BaseModel):
    """One model of the file. Only ``name`` and ``url`` are required."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME_PATTERN)
    """The name that clients use."""
    url: Text
    """A hub id, a folder (starting with ``/``, ``~``, or ``.`` for the folder of the models file), ``package:NAME`` for weights inside an installed Python package,
    ``echo:SECONDS`` for an echo engine that takes that long per token, ``overlap:`` for a reranker without weights that counts common
    words, or the base URL of an OpenAI-compatible server."""
    task: Literal["generate", "embed", "rerank"] = GENERATE
    engine: Literal["transformers", "vllm", "openai", "echo"] = TRANSFORMERS
    server: Literal["generic", "openai", "vllm", "sglang", "llama.cpp", "enginehouse"] = "generic"
    """With engine ``openai``: the server's program, which decides what it supports beyond what all of them do."""
    remote_model: Text | None = None
    """With engine ``openai``: the server's name for the model; defaults to ``name``."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """With engine ``openai``: the environment variable of the worker that has the server's API key."""
    api_key_file: Text | None = None
    """The same from a file. It is read for each request, so the key can be replaced while the worker runs."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """With engine ``vllm``: further arguments of vLLM's AsyncEngineArgs, by name."""
    adapters: dict[Name, Text] = Field(default_factory=dict, max_length=1000)
    """With engine ``vllm``: LoRA adapters by name, each a folder or a hub id, which may end in ``@`` and a revision. Requests name one as
    ``model:adapter``."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_context: int | None = Field(None, ge=16, le=10_000_000)
    """Maximum tokens of prompt and answer together; defaults to the model's own configuration."""
    max_in_flight: int = Field(16, ge=1, le=1024)
    """Jobs that one engine runs concurrently."""
    max_tokens: int = Field(512, ge=1, le=1_000_000)
    """Maximum answer length, in tokens, of a request that sets none."""
    chat_template: Text | None = None
    """Jinja template that turns messages into a prompt; defaults to the tokenizer's own."""
    neighbours: int | None = Field(None, ge=0, le=5)
    """Chunks before and after each passage that the model also reads; defaults to ENGINEHOUSE_RETRIEVE_NEIGHBOURS."""
    query_prefix: Annotated[str, Field(max_length=2000)] | None = None
    """With task ``embed``: text in front of each query; defaults to the prompt ``query`` of the model's own configuration."""
    passage_prefix: Annotated[str, Field(max_length=2000)] | None = None
    """The same for passages of documents, whose prompt is called ``document``, ``passage`` or ``corpus``."""
    stop: tuple[Text, ...] = Field((), max_length=16)
    """Strings that end every answer, in addition to those of the request."""
    gpus: int = Field(0, ge=0, le=16)
    """GPUs per replica; 0 uses one GPU if there is one and the CPU otherwise."""
    replicas: int | None = Field(None, ge=1, le=64)
    """How many times ``enginehouse up`` loads the model; defaults to one, or to one per entry of ``devices``."""
    devices: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_distinct)] | None = None
    """GPU numbers for the replicas, in this order; defaults to the GPUs with the most free memory."""
    gpu_share: float = Field(1.0, ge=0.05, le=1.0)
    """Fraction of a GPU's memory. Models whose fractions add up to at most 1 may share a GPU."""
    load: bool = False
    """Load this model in ``enginehouse up`` when no model is named there. If no entry sets it, the default model is loaded."""
    pinned: bool = False
    """Never unload this model to make room for another one."""
    keep_alive: float | None = Field(None, ge=0, le=1_000_000_000)
    """Seconds without a job before the model is unloaded; 0 keeps it loaded. Defaults to ENGINEHOUSE_KEEP_ALIVE_SECONDS."""
    parameters: int | None = Field(None, ge=1, le=10**13)
    """Number of parameters, so that the model can be placed before its weights are downloaded."""
    default: bool = False
    """Use this model for requests of its task that name no model."""
    revision: Text | None = None
    """Branch, tag or commit on the hub; with ``trust_remote_code`` it must be a commit."""
    trust_remote_code: bool = False
    """Run Python code that ships with the weights. Enable it only for sources whose programs you would run."""

    @model_validator(mode="after")
    def _check_gpus(self) -> "ModelEntry":
        gpus = self.gpus or 1
        if self.gpu_share < 1 and gpus > 1:
            raise ValueError(
                f"gpu_share is {self.gpu_share:g} and gpus is {gpus}: a model on several GPUs uses each of them whole"
            )
        if self.devices is None:
            return self
        if len(self.devices) % gpus:
            raise ValueError(f"devices lists {len(self.devices)} GPUs, which is not a multiple of the {gpus} per replica (gpus)")
        if self.replicas is not None and self.replicas * gpus != len(self.devices):
            raise ValueError(
                f"devices lists {len(self.devices)} GPUs, but replicas and gpus need {self.replicas} times {gpus}; remove replicas"
            )
        return self

    @model_validator(mode="after")
    def _check_revision(self) -> "ModelEntry":
        if self.trust_remote_code and self.is_on_hub and not COMMIT.fullmatch(self.revision or ""):
            given = f"revision is {self.revision!r}" if self.revision else "revision is missing"
            raise ValueError(
                f"{given} and trust_remote_code is true: set revision to the commit (40 hexadecimal digits) whose code you have read, "
                "because a branch or tag can change"
            )
        return self

    @model_validator(mode="after")
    def _check_prefixes(self) -> "ModelEntry":
        for name in ("query_prefix", "passage_prefix"):
            if self.task != EMBED and getattr(self, name) is not None:
                raise ValueError(f"{name} is set and task is {self.task}: only a model with task embed uses it")
        return self

    @model_validator(mode="after")
    def _check_server(self) -> "ModelEntry":
        is_server = urlsplit(self.url).scheme in ("http", "https")
        if self.engine != OPENAI:
            if is_server:
                raise ValueError(f"url is {self.url!r} and engine is {self.engine}: only the engine openai uses a server")
            if fields := [name for name in SERVER_FIELDS if getattr(self, name) != type(self).model_fields[name].default]:
                raise ValueError(f"{fields[0]} is set and engine is {self.engine}: only the engine openai uses it")
            return self
        if self.task != GENERATE:
            raise ValueError(f"task is {self.task} and engine is openai: that engine generates text only")
        if not is_server or not urlsplit(self.url).hostname:
            raise ValueError(
                f"url is {self.url!r}: with engine openai it is the base URL of a server, such as http://host:8000/v1"
            )
        if urlsplit(self.url).username is not None or urlsplit(self.url).query:
            raise ValueError("url has a user name or a query: the key of the server belongs into api_key_env or api_key_file")
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file are both set; remove one of them")
        if fields := [name for name in LOCAL_FIELDS if getattr(self, name) != type(self).model_fields[name].default]:
            raise ValueError(f"{fields[0]} is set and engine is openai: the server runs the model, so set it there")
        return self

    @model_validator(mode="after")
    def _check_engine_args(self) -> "ModelEntry":
        if self.engine != VLLM:
            for field in ("engine_args", "adapters"):
                if getattr(self, field):
                    raise ValueError(f"{field} is set and engine is {self.engine}: only the engine vllm uses it")
            return self
        for name in self.engine_args:
            if name in OWN_VLLM_ARGS:
                own = OWN_VLLM_ARGS[name]
                raise ValueError(
                    f"engine_args has {name}: " + (f"set {own} of the entry instead" if own else "the engine sets it")
                )
        stages = self.engine_args.get("pipeline_parallel_size", 1)
        if type(stages) is not int or stages < 1 or max(1, self.gpus) % stages:
            raise ValueError(
                f"engine_args has pipeline_parallel_size {stages!r}: it must be a whole number that divides gpus, which is {self.gpus}"
            )
        return self

    @property
    def is_on_hub(self) -> bool:
        """Whether the weights are downloaded from the Hugging Face hub."""
        return not self.url.startswith((".", "/", "~", "package:", "echo:", "hash:", "overlap:", "http:", "https:"))

    @property
    def uses_server(self) -> bool:
        """Whether another program runs the model, so that its worker needs no weights, tokenizer or GPU."""
        return self.engine == OPENAI

    @property
    def is_pinned_to_commit(self) -> bool:
        """Whether the weights cannot change without a change of this entry."""
        return not self.is_on_hub or COMMIT.fullmatch(self.revision or "") is not None


class RequestedModel(NamedTuple):
    """What a request names: a model, alone or with one of its adapters ("" for none)."""

    entry: ModelEntry
    adapter: str = ""

    @property
    def name(self) -> str:
        """The name that requests use: ``model`` or ``model:adapter``."""
        return f"{self.entry.name}{ADAPTER_SEPARATOR}{self.adapter}" if self.adapter else self.entry.name


class Catalogue:
    """All models of one file, in its order."""

    def __init__(self, models: tuple[ModelEntry, ...]) -> None:
        self.models = models

    def get_model(self, name: str, *, task: str = "") -> ModelEntry:
        """The model with this name. Raises NotFound, which lists the names of the models with that task, or of all."""
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models if task in ("", model.task))
        raise NotFound(f"There is no model {name!r}; there are: {known}", code="model_not_found", param="model")

    def find_requested(self, name: str, *, task: str = "") -> RequestedModel:
        """The model of a request that names ``model`` or ``model:adapter``. Raises NotFound, which lists what there is."""
        model, adapter = split_adapter(name)
        entry = next((entry for entry in self.models if entry.name == model), None)
        if not adapter or entry is None:
            return RequestedModel(self.get_model(name, task=task))
        if adapter in entry.adapters:
            return RequestedModel(entry, adapter)
        known = ", ".join(entry.adapters)
        raise NotFound(
            f"Model {model!r} has no adapter {adapter!r}; " + (f"there are: {known}" if known else "it has none"),
            code="model_not_found",
            param="model",
        )

    def default(self) -> ModelEntry:
        """The model for requests that name none. Raises NotFound if no model generates text."""
        return self._default_for(GENERATE)

    def embedding(self) -> ModelEntry:
        """The default embedding model. Raises NotFound if there is none."""
        return self._default_for(EMBED)

    def reranking(self) -> ModelEntry:
        """The default model that ranks documents. Raises NotFound if there is none."""
        return self._default_for(RERANK)

    def _default_for(self, task: str) -> ModelEntry:
        models = [model for model in self.models if model.task == task]
        if not models:
            raise NotFound(f"The models file has no model with task {task!r}; add one.", code="model_not_found", param="model")
        return next((model for model in models if model.default), models[0])


def load_catalogue(path: Path, *, engine: str = "") -> Catalogue:
    """Read and validate a models file; ``engine`` replaces the engine of every generation model.

    Raises SettingsError with one sentence per problem.
    """
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SettingsError([f"{path}: invalid JSON: {error.msg} at line {error.lineno}, column {error.colno}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: the models file cannot be read: {error}"]) from None
    if not isinstance(items, list) or not items:
        raise SettingsError([f"{path}: must be a JSON list of at least one model, each an object with name and url"])
    problems: list[str] = []
    models: list[ModelEntry] = []
    for number, item in enumerate(items, start=1):
        try:
            # In JSON mode a strict tuple accepts a list, as JSON has no tuples.
            model = ModelEntry.model_validate_json(json.dumps(item), strict=True)
            models.append(_with_absolute_paths(model, path.parent))
        except ValidationError as error:
            name = item.get("name") if isinstance(item, dict) else None
            entry = f"{path}: model {number}" + (f" ({name})" if isinstance(name, str) and name else "")
            problems += [f"{entry}: {sentence}" for sentence in _sentences(error, item)]
    problems += [f"{path}: {sentence}" for sentence in _conflicts(models)]
    if problems:
        raise SettingsError(problems)
    return Catalogue(tuple(_with_engine(model, engine) if engine else model for model in models))


def _with_absolute_paths(model: ModelEntry, folder: Path) -> ModelEntry:
    def absolute(url: str) -> str:
        return str((folder / url).resolve()) if url.startswith(".") else url

    adapters = {name: absolute(url) for name, url in model.adapters.items()}
    return model.model_copy(update={"url": absolute(model.url), "adapters": adapters})


def _with_engine(model: ModelEntry, engine: str) -> ModelEntry:
    # The echo engine can stand for every model, but the weights of one on a server are not known here.
    is_possible = model.task == GENERATE and (engine == ECHO or not model.uses_server)
    return model.model_copy(update={"engine": engine}) if is_possible else model


def _sentences(error: ValidationError, item: Any) -> list[str]:
    """One sentence per field, as an error of a list may come once per element."""
    if not isinstance(item, dict):
        return ["must be an object with at least name and url"]
    first = {str(details["loc"][0]) if details["loc"] else "": details for details in reversed(error.errors())}
    return [_sentence(name, details, item) for name, details in reversed(first.items())]


def _sentence(name: str, details: ErrorDetails, item: dict[str, Any]) -> str:
    match details["type"]:
        case "missing":
            return f"{name} is missing"
        case "extra_forbidden":
            return f"{name} is not a field; the fields are {', '.join(ModelEntry.model_fields)}"
        case "value_error" if not name:
            return details["msg"].removeprefix("Value error, ")
    return f"{name} is {json.dumps(item[name])[:80]}: it {_requirement(name, details)}"


def _requirement(name: str, details: ErrorDetails) -> str:
    if name == "devices":
        return "must be a list of different GPU numbers, such as [0, 1]"
    if name == "stop":
        return "must be a list of at most 16 strings that are not empty"
    if name == "adapters":
        return "must be an object of names (letters, digits, dots, dashes, underscores) with the folder or hub id of each adapter"
    if name == "api_key_env":
        return "must be the name of an environment variable"
    field = ModelEntry.model_fields[name]
    match details["type"]:
        case "string_too_long":
            return "must have at most 2,000 characters"
        case "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":
            return "must be 1 to 100 letters, digits, dots, dashes and underscores, starting with a letter or digit"
        case "literal_error":
            return f"must be one of {', '.join(get_args(field.annotation))}"
        case "greater_than_equal" | "less_than_equal":
            low, high = (getattr(limit, bound) for bound in ("ge", "le") for limit in field.metadata if hasattr(limit, bound))
            return f"must be between {_number(low)} and {_number(high)}"
        case "int_type" | "int_from_float":
            return "must be a whole number"
        case "float_type":
            return "must be a number"
        case "bool_type":
            return "must be true or false"
        case "string_type":
            return "must be a string"
    return details["msg"][:1].lower() + details["msg"][1:]


def _number(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


def _conflicts(models: list[ModelEntry]) -> list[str]:
    """Problems between entries."""
    names = Counter(model.name for model in models)
    problems = [f"the name {name} is used by {count} models" for name, count in names.items() if count > 1]
    for task in (GENERATE, EMBED, RERANK):
        defaults = [model.name for model in models if model.task == task and model.default]
        if len(defaults) > 1:
            problems.append(f"{' and '.join(defaults)} are both the default for task {task}; only one may be")
    return problems
