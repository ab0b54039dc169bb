"""Features of engines: which fields of a request each can honour, so that the others are rejected before a job is accepted.

The engine ``transformers`` can do everything. What a server can do depends on its program, which the entry's ``server`` names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import InvalidValue
from shared.models.catalogue import VLLM, ModelEntry

UNSUPPORTED = "unsupported_by_engine"

# Fields of a spec that OpenAI's API does not have, so not every server knows them.
EXTENSIONS: Final = frozenset(
    ("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "template_options", "prompt_ids", "prompt_logprobs")
)
ENCODE, DECODE, DESCRIBE = "tokenize", "detokenize", "info"
"""Operations of a tokenizer: the ``op`` of jobs of kind ``tokenize``."""

# The names of spec fields in requests, where they differ.
REQUEST_NAMES: Mapping[str, str] = {
    "prompt_ids": "prompt",
    "prompt_logprobs": "logprobs",
    "template_options": "chat_template_kwargs",
    "echo_ids": "echo",
}
DESCRIPTIONS: Mapping[str, str] = {
    "prompt": "cannot continue a raw prompt; send messages",
    "prompt_ids": "takes no token ids as prompt; send text",
    "prompt_logprobs": "has no log-probabilities of prompts; leave out echo or logprobs",
    "deterministic": "cannot compute a request in separate steps; omit it",
    "echo_ids": "cannot turn token ids into text; send the prompt as text, or leave out echo",
}
NEUTRAL_VALUES: Mapping[str, tuple[Any, ...]] = {
    "top_k": (0,),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "stop_token_ids": ([],),
    "ignore_eos": (False,),
    "template_options": ({},),
    "deterministic": (False,),
}


@dataclass(frozen=True)
class EngineFeatures:
    """What an engine can do. ``unsupported`` has fields of specs; a value that changes nothing is accepted all the same."""

    unsupported: frozenset[str] = frozenset()
    tokenizer: frozenset[str] = frozenset((ENCODE, DECODE, DESCRIBE))
    continues_chat: bool = False
    """Of a server: whether it can continue the last message of a conversation."""
    max_stops: int | None = None
    """Of a server: how many stop texts it takes, with those of the model's entry."""
    continues_adjusted: bool = True
    """Whether it can continue an answer that has a grammar, or presence or frequency penalties, in the middle."""


LOCAL = EngineFeatures()
ENGINES: Mapping[str, EngineFeatures] = {VLLM: EngineFeatures(frozenset(("deterministic",)), continues_adjusted=False)}

_NO_TOKENIZER: frozenset[str] = frozenset()

SERVERS: Mapping[str, EngineFeatures] = {
    "generic": EngineFeatures(EXTENSIONS, _NO_TOKENIZER),
    "openai": EngineFeatures(EXTENSIONS | {"prompt"}, _NO_TOKENIZER, max_stops=4),
    "vllm": EngineFeatures(frozenset(("prompt_logprobs",)), frozenset((ENCODE, DECODE)), continues_chat=True),
    "sglang": EngineFeatures(frozenset(("prompt_logprobs",)), _NO_TOKENIZER, continues_chat=True),
    "llama.cpp": EngineFeatures(
        frozenset(("stop_token_ids", "prompt_logprobs")), frozenset((ENCODE, DECODE)), continues_chat=True
    ),
    "enginehouse": EngineFeatures(frozenset(("prompt_logprobs",))),
}


def features_of(entry: ModelEntry) -> EngineFeatures:
    """The features of a model's engine."""
    return SERVERS[entry.server] if entry.uses_server else ENGINES.get(entry.engine, LOCAL)


def check_generation(entry: ModelEntry, spec: Mapping[str, Any]) -> None:
    """Raise InvalidValue, which names field and engine, if the engine cannot honour a field of this spec."""
    features = features_of(entry)
    fields = [name for name, value in spec.items() if value is not None and value not in NEUTRAL_VALUES.get(name, ())]
    if spec.get("collection"):
        # Passages make a conversation of a prompt.
        fields = [name for name in fields if name != "prompt"]
    if spec.get("echo") and spec.get("prompt_ids") is not None and DECODE not in features.tokenizer:
        fields.append("echo_ids")
    for field in fields:
        if field in features.unsupported or field == "echo_ids":
            raise _error(entry, REQUEST_NAMES.get(field, field), DESCRIPTIONS.get(field, "does not support it; leave it out"))
    count = len({*entry.stop, *(spec.get("stop") or ())})
    if features.max_stops is not None and count > features.max_stops:
        raise _error(entry, "stop", f"takes at most {features.max_stops} stop texts with those of the models file, not {count}")


def check_tokenization(entry: ModelEntry, operation: str) -> None:
    """Raise InvalidValue if the tokenizer of this model cannot be asked for this operation."""
    if operation not in features_of(entry).tokenizer:
        raise _error(entry, "model", f"does not support the tokenizer call {operation!r}; use another model")


def _error(entry: ModelEntry, param: str, problem: str) -> InvalidValue:
    engine = f"engine {entry.engine}" + (f" (server {entry.server})" if entry.uses_server else "")
    return InvalidValue(f"{param}: model {entry.name!r} runs on {engine}, which {problem}", param=param, code=UNSUPPORTED)
