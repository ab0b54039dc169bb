"""Request model of ``POST /v1/chat/completions``."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag

from shared.openai.requests.field_rules import FieldRule
from shared.openai.requests.sampling import Integer, Metadata, SamplingFields

FUNCTION_NAME = re.compile(r"^[A-Za-z0-9_.:-]{1,128}$")
FunctionName = Annotated[str, StringConstraints(pattern=FUNCTION_NAME)]


class Part(BaseModel):
    """A piece of a message. Fields of other types than text are ignored, as the piece is refused by its type."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Annotated[str, StringConstraints(max_length=100)]
    text: str | None = None
    refusal: str | None = None


def _content_form(value: Any) -> str:
    return "(parts)" if isinstance(value, list) else "(text)"


Content = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[Part], Tag("(parts)"), Field(max_length=10_000)], Discriminator(_content_form)
]


class FunctionCall(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    name: FunctionName
    arguments: str | dict[str, Any] = "{}"


class ToolCall(BaseModel):
    """A call that the model has made in an earlier turn."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: Annotated[str, StringConstraints(max_length=200)] = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: Annotated[str, StringConstraints(max_length=200)] | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=1000)
    tool_call_id: Annotated[str, StringConstraints(max_length=200)] | None = None


class FunctionDefinition(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool. Those of other types than ``function`` run on OpenAI's servers; they are skipped."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Annotated[str, StringConstraints(max_length=100)] = "function"
    function: FunctionDefinition | None = None


class JsonSchema(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    name: Annotated[str, StringConstraints(max_length=200)] = "answer"
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


def _named_function(value: Any) -> Any:
    """The name in ``{"type": "function", "function": {"name": …}}``, with which "auto" and the like cannot be confused."""
    if isinstance(value, dict) and value.get("type", "function") == "function":
        function = value.get("function", value)
        return {"name": function.get("name") if isinstance(function, dict) else None}
    if isinstance(value, dict):
        raise ValueError("only a tool of type function can be chosen")
    return value


class NamedFunction(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    name: FunctionName


def _tool_choice_form(value: Any) -> str:
    return "(named)" if isinstance(value, dict | NamedFunction) else "(word)"


def _describe_tool_choice(schema: dict[str, Any]) -> None:
    schema.clear()
    name = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    named = {"type": "object", "properties": {"type": {"const": "function"}, "function": name}, "required": ["type", "function"]}
    schema["anyOf"] = [{"enum": ["auto", "none", "required"]}, named, {"type": "null"}]


ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("(word)")] | Annotated[NamedFunction, Tag("(named)")],
    Discriminator(_tool_choice_form),
    BeforeValidator(_named_function),
]


class ChatCompletionRequest(SamplingFields):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=10_000,
        description="text, alone or in parts; roles `system`, `developer` (taken as `system`), `user`, `assistant` and `tool`",
    )
    max_completion_tokens: Integer | None = Field(default=None, le=1_000_000, description="the newer name of `max_tokens`")
    logprobs: bool | None = Field(default=None, description="add the log-probability of each token of the answer")
    top_logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = Field(
        default=None, description="number of most likely tokens to add at each position; needs `logprobs`"
    )
    response_format: ResponseFormat | None = Field(
        default=None,
        description="`text`, `json_object`, or a `json_schema` that the answer is forced to match; not together with forced tools",
    )
    tools: list[Tool] | None = Field(
        default=None, max_length=256, description="functions that the model may call; tools of other types are skipped"
    )
    tool_choice: ToolChoice | None = Field(
        default=None,
        description="`auto`, `none`, `required`, or a function that must be called",
        json_schema_extra=_describe_tool_choice,
    )
    parallel_tool_calls: bool | None = Field(default=None, description="false allows at most one call in an answer")
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, max_length=32, description="variables of the model's chat template, such as `enable_thinking`"
    )
    enable_thinking: bool | None = Field(default=None, description="the same as in `chat_template_kwargs`")
    reasoning_effort: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="`none` sets `enable_thinking` to false; other values are ignored"
    )
    service_tier: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None,
        description="`flex` runs after other jobs (priority 8), `priority` before them (2); others run by default. The answer says which",
    )
    metadata: Metadata | None = Field(default=None, description="kept with the job")
    safety_identifier: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="used as `user` if that is omitted"
    )

    harmless: ClassVar[Mapping[str, str]] = {
        "store": "every job is kept, for as long as the settings say",
        "verbosity": "models here have no such setting",
        "prompt_cache_key": "prefixes of prompts are found without it",
        "prompt_cache_options": "prefixes of prompts are found without it",
        "prompt_cache_retention": "prefixes of prompts are kept as long as there is memory",
    }
    neutral: ClassVar[Mapping[str, FieldRule]] = {
        "audio": FieldRule("models here write text, not audio; leave it out"),
        "modalities": FieldRule('models here write text; use ["text"]', ([], ["text"])),
        "prediction": FieldRule("predicted output is not supported; leave it out"),
        "web_search_options": FieldRule("no web search is built in; give the model a tool that searches"),
        "moderation": FieldRule("no moderation is built in; leave it out"),
        "functions": FieldRule("OpenAI replaced it by tools; send tools", ([],)),
        "function_call": FieldRule("OpenAI replaced it by tool_choice; send tool_choice", ("none", "auto")),
    }
