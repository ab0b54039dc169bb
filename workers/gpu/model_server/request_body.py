"""Request body: from a job's spec to the call of an OpenAI-compatible server that answers it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.models.catalogue import ModelEntry
from workers.gpu.generation_request import max_tokens_of
from workers.gpu.prompt_encoding import callable_tools, forced_tool
from workers.rag_prompt import RagPrompt

# OpenAI's own newer models refuse the name that all other servers know.
MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
CHAT, COMPLETIONS = "/chat/completions", "/completions"

# Fields with the same name and meaning in a spec.
COPIED_FIELDS = (
    *("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias"),
    *("min_p", "stop_token_ids", "ignore_eos"),
)


@dataclass(frozen=True)
class ServerPrompt:
    """What a job asks: ``messages``, or a raw prompt as text or token ids. ``text`` is that of a raw prompt, for its echo."""

    messages: Sequence[Mapping[str, Any]] | None = None
    raw: str | list[int] = ""
    text: str = ""
    rag: RagPrompt | None = None

    @property
    def is_chat(self) -> bool:
        return self.messages is not None

    @property
    def path(self) -> str:
        return CHAT if self.is_chat else COMPLETIONS


def build_body(spec: Mapping[str, Any], prompt: ServerPrompt, entry: ModelEntry) -> dict[str, Any]:
    """The body of a streamed call. Fields that the job leaves open are left to the server."""
    body: dict[str, Any] = {
        "model": entry.remote_model or entry.name,
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: spec[name] for name in COPIED_FIELDS if spec.get(name) is not None},
    }
    body[MAX_TOKENS_FIELDS[entry.server == "openai"]] = max_tokens_of(spec, entry)
    stops = [*(() if spec.get("ignore_eos") else entry.stop), *(spec.get("stop") or ())]
    if stops:
        body["stop"] = list(dict.fromkeys(stops))
    # Our 0 means no limit; where 0 has another meaning, no value has ours.
    if spec.get("top_k"):
        body["top_k"] = spec["top_k"]
    if spec.get("repetition_penalty") is not None:
        body["repeat_penalty" if entry.server == "llama.cpp" else "repetition_penalty"] = spec["repetition_penalty"]
    if prompt.messages is None:
        body["prompt"] = prompt.raw
        if spec.get("logprobs") is not None:
            body["logprobs"] = spec["logprobs"]
        return _without_neutral(body)
    body["messages"] = list(prompt.messages)
    if spec.get("logprobs") is not None:
        body["logprobs"] = True
        body["top_logprobs"] = spec["logprobs"]
    if spec.get("template_options"):
        body["chat_template_kwargs"] = spec["template_options"]
    if constraint := spec.get("constraint"):
        body["response_format"] = _response_format(constraint)
    if tools := callable_tools(spec):
        body["tools"] = tools
        body["tool_choice"] = _tool_choice(spec)
        if spec.get("parallel_tool_calls") is not None:
            body["parallel_tool_calls"] = spec["parallel_tool_calls"]
    return _without_neutral(body)


def _without_neutral(body: dict[str, Any]) -> dict[str, Any]:
    """Leave out what changes nothing, as a server may refuse a field that it does not know whatever its value."""
    neutral = {"min_p": 0, "repetition_penalty": 1, "repeat_penalty": 1, "ignore_eos": False, "stop_token_ids": []}
    return {name: value for name, value in body.items() if name not in neutral or value != neutral[name]}


def _response_format(constraint: Mapping[str, Any]) -> dict[str, Any]:
    if constraint["type"] == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": constraint["schema"]}}


def _tool_choice(spec: Mapping[str, Any]) -> Any:
    name = forced_tool(spec)
    if name is None:
        return "auto"
    return {"type": "function", "function": {"name": name}} if name else "required"
