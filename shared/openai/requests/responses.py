"""Request model of ``POST /v1/responses``."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from shared.openai.requests.chat import Content, FunctionName
from shared.openai.requests.field_rules import FieldRule, OpenAIRequest
from shared.openai.requests.file_search import MAX_STORES, Filters, RankingOptions, ResultCount, StoreId
from shared.openai.requests.sampling import Integer, Metadata, ModelName, SamplingOptions

MAX_ITEMS = 10_000
FILE_SEARCH = "file_search"

Id = Annotated[str, StringConstraints(max_length=200)]
TypeName = Annotated[str, StringConstraints(max_length=100)]

# Items that other models and OpenAI's own tools produce. Models here cannot read them, so they are skipped.
SKIPPED_ITEMS = frozenset(
    {
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction_summary",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "configuration_update",
        "context_compaction",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)


class Item(BaseModel):
    """An item of the input. Fields that are not listed are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: Id | None = None
    type: TypeName


class MessageItem(Item):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class FunctionCallItem(Item):
    """A call that the model has made in an earlier turn."""

    type: Literal["function_call"]
    call_id: Id
    name: FunctionName
    arguments: str


class FunctionCallOutputItem(Item):
    type: Literal["function_call_output"]
    call_id: Id | None = None
    output: Content


class CustomToolCallItem(Item):
    """A call of a tool that takes plain text, by another model."""

    type: Literal["custom_tool_call"]
    call_id: Id
    name: FunctionName
    input: str


class CustomToolCallOutputItem(Item):
    type: Literal["custom_tool_call_output"]
    call_id: Id
    output: Content


class ReasoningItem(Item):
    type: Literal["reasoning"]
    summary: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_ITEMS)
    content: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_ITEMS)


class FileSearchCallItem(Item):
    """A search of an earlier turn. The model has read its results then."""

    type: Literal["file_search_call"]
    queries: list[str] = Field(default=[], max_length=MAX_ITEMS)
    results: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_ITEMS)


class CompactionItem(Item):
    """A summary of everything before it, as ``/v1/responses/compact`` makes it. One of another server is skipped."""

    type: Literal["compaction"]
    encrypted_content: str = ""


class ItemReference(Item):
    """An item of an earlier response that was stored."""

    id: Id
    type: Literal["item_reference"] = "item_reference"


class SkippedItem(Item):
    """An item that is skipped."""

    type: Annotated[TypeName, Field(json_schema_extra={"enum": sorted(SKIPPED_ITEMS)})]


def _refuse_type(value: Any) -> Any:
    raise PydanticCustomError("item_type", "is not a type of items that is known")


class UnknownItem(Item):
    """An item that may be any other, and is refused."""

    type: Annotated[str, BeforeValidator(_refuse_type), WithJsonSchema({"not": {}})]


_READ_ITEMS = (
    *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
    *("reasoning", "file_search_call", "compaction", "item_reference"),
)


def _item_form(value: Any) -> str:
    """Which item this is. Messages and references may leave out their type."""
    name = value.get("type") if isinstance(value, dict) else None
    if name is None:
        return "(item_reference)" if isinstance(value, dict) and "id" in value and "role" not in value else "(message)"
    if name in _READ_ITEMS:
        return f"({name})"
    return "(skipped)" if isinstance(name, str) and name in SKIPPED_ITEMS else "(unknown)"


InputItem = Annotated[
    Annotated[MessageItem, Tag("(message)")]
    | Annotated[FunctionCallItem, Tag("(function_call)")]
    | Annotated[FunctionCallOutputItem, Tag("(function_call_output)")]
    | Annotated[CustomToolCallItem, Tag("(custom_tool_call)")]
    | Annotated[CustomToolCallOutputItem, Tag("(custom_tool_call_output)")]
    | Annotated[ReasoningItem, Tag("(reasoning)")]
    | Annotated[FileSearchCallItem, Tag("(file_search_call)")]
    | Annotated[CompactionItem, Tag("(compaction)")]
    | Annotated[ItemReference, Tag("(item_reference)")]
    | Annotated[SkippedItem, Tag("(skipped)")]
    | Annotated[UnknownItem, Tag("(unknown)")],
    Discriminator(_item_form),
]


def _input_form(value: Any) -> str:
    return "(items)" if isinstance(value, list) else "(text)"


Input = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[InputItem], Tag("(items)"), Field(max_length=MAX_ITEMS)],
    Discriminator(_input_form),
]


class ResponseTool(BaseModel):
    """A function, or a tool of another type, which runs on OpenAI's servers or needs another model and is skipped."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: TypeName
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FileSearchTool(BaseModel):
    """A search in vector stores, before the model answers."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["file_search"]
    vector_store_ids: list[StoreId] = Field(min_length=1, max_length=MAX_STORES)
    max_num_results: ResultCount | None = None
    filters: Filters | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: bool | None = None


def _tool_form(value: Any) -> str:
    return "(file_search)" if isinstance(value, dict) and value.get("type") == FILE_SEARCH else "(tool)"


Tool = Annotated[
    Annotated[FileSearchTool, Tag("(file_search)")] | Annotated[ResponseTool, Tag("(tool)")], Discriminator(_tool_form)
]


class ResponseToolChoice(BaseModel):
    """``auto``, ``none``, ``required`` or a function, of all functions or only of ``allowed`` ones. ``file_search`` says whether that may
    be used, and a choice of it alone is ``required`` without a name."""

    model_config = ConfigDict(extra="ignore", strict=True)

    mode: Literal["auto", "none", "required"]
    name: FunctionName | None = None
    allowed: list[FunctionName] | None = Field(default=None, max_length=256)
    file_search: bool = True
    is_file_search: bool = False


def _read_tool_choice(value: Any) -> Any:
    """A choice in any of OpenAI's forms."""
    if isinstance(value, str) and value in ("auto", "none", "required"):
        return {"mode": value, "file_search": value != "none"}
    if not isinstance(value, dict):
        raise ValueError("must be auto, none, required or an object")
    match value.get("type"):
        case "function":
            if value.get("name") is None:
                raise ValueError("needs the name of a function")
            return {"mode": "required", "name": value["name"], "file_search": False}
        case "file_search":
            return {"mode": "required", "is_file_search": True}
        case "allowed_tools":
            tools = value.get("tools")
            if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
                raise ValueError("allowed_tools needs a list of tools")
            names = [tool.get("name") for tool in tools if tool.get("type", "function") == "function"]
            searches = any(tool.get("type") == FILE_SEARCH for tool in tools)
            return {"mode": value.get("mode", "auto"), "allowed": names, "file_search": searches}
    raise ValueError("only file_search and tools of type function can be chosen")


def _describe_tool_choice(schema: dict[str, Any]) -> None:
    schema.clear()
    name = {"type": "string"}
    function = {"type": "object", "properties": {"type": {"const": "function"}, "name": name}, "required": ["type", "name"]}
    file_search = {"type": "object", "properties": {"type": {"const": FILE_SEARCH}}, "required": ["type"]}
    allowed = {
        "type": "object",
        "properties": {
            "type": {"const": "allowed_tools"},
            "mode": {"enum": ["auto", "required"]},
            "tools": {"type": "array", "items": {"anyOf": [function, file_search]}},
        },
        "required": ["type", "mode", "tools"],
    }
    schema["anyOf"] = [{"enum": ["auto", "none", "required"]}, function, file_search, allowed, {"type": "null"}]


class TextFormat(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, StringConstraints(max_length=200)] | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    format: TextFormat | None = None
    verbosity: Annotated[str, StringConstraints(max_length=32)] | None = None


class ReasoningOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    effort: Annotated[str, StringConstraints(max_length=32)] | None = None
    summary: Annotated[str, StringConstraints(max_length=32)] | None = None


class BackgroundOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    completion_window: Literal["soonest", "2h", "8h"] | None = None


def _read_conversation_id(value: Any) -> Any:
    """The id of a conversation, which OpenAI's clients send alone or in an object."""
    return value.get("id") if isinstance(value, dict) else value


def _describe_conversation(schema: dict[str, Any]) -> None:
    schema.clear()
    id = {"type": "string", "maxLength": 200}
    schema["anyOf"] = [id, {"type": "object", "properties": {"id": id}, "required": ["id"]}, {"type": "null"}]


class InputFields(OpenAIRequest):
    """Fields that say which conversation the model reads."""

    input: Input | None = Field(
        default=None,
        description="a text, or items: messages of text, function calls and their outputs, references to items of stored responses; "
        "reasoning is left out, and items of tools that only OpenAI runs are skipped",
    )
    instructions: str | None = Field(
        default=None, description="a system message before the input; not carried over by `previous_response_id`"
    )
    previous_response_id: Id | None = Field(
        default=None, description="a stored response whose input and output come before the input"
    )
    conversation: Annotated[Id, BeforeValidator(_read_conversation_id)] | None = Field(
        default=None,
        description="a conversation, as an id or an object with one; its items come before the input, and input and output are added to it "
        "once the response has completed",
        json_schema_extra=_describe_conversation,
    )


class ConversationFields(InputFields):
    """Fields that say what the model reads."""

    reasoning: ReasoningOptions | None = Field(
        default=None, description="`effort` `none` sets `enable_thinking` to false; other values are ignored"
    )
    text: TextOptions | None = Field(
        default=None,
        description="`format`: `text`, `json_object`, or a `json_schema` that the answer is forced to match; not together with forced tools",
    )
    tools: list[Tool] | None = Field(
        default=None,
        max_length=256,
        description="functions that the model may call, and `file_search`; tools of other types are skipped",
    )
    tool_choice: Annotated[ResponseToolChoice, BeforeValidator(_read_tool_choice)] | None = Field(
        default=None,
        description="`auto`, `none`, `required`, a function that must be called, `file_search`, or `allowed_tools`",
        json_schema_extra=_describe_tool_choice,
    )
    parallel_tool_calls: bool | None = Field(default=None, description="false allows at most one call in an answer")
    truncation: Literal["auto", "disabled"] | None = Field(
        default=None, description="`auto` leaves out the oldest messages of a conversation that exceeds the model's context"
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, max_length=32, description="variables of the model's chat template, such as `enable_thinking`"
    )


class ResponseRequest(ConversationFields, SamplingOptions):
    """The body of ``POST /v1/responses``."""

    store: bool | None = Field(
        default=None, description="false keeps nothing once the response has ended; otherwise it can be retrieved and continued"
    )
    background: bool | None = Field(
        default=None, description="run on without the client, and return at once, or stream from the start"
    )
    background_options: BackgroundOptions | None = Field(
        default=None,
        description="`completion_window`: `2h` and `8h` run after other jobs (priority 7 and 8) and fail after this time; `soonest` is the default",
    )
    max_output_tokens: Integer | None = Field(
        default=None,
        le=1_000_000,
        description="maximum length of the answer, reasoning included; the response is then `incomplete`",
    )
    include: list[Annotated[str, StringConstraints(max_length=100)]] | None = Field(
        default=None,
        max_length=32,
        description="`message.output_text.logprobs` adds the log-probability of each token of the answer, `file_search_call.results` what a `file_search` has found; others are ignored",
    )
    top_logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = Field(
        default=None, description="number of most likely tokens to add at each position of the log-probabilities"
    )
    service_tier: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None,
        description="`flex` runs after other jobs (priority 8), `priority` before them (2); others run by default. The response says which",
    )
    metadata: Metadata | None = Field(default=None, description="kept with the response and its job")
    safety_identifier: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="used as `user` if that is omitted"
    )
    prompt_cache_key: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="returned with the response; prefixes of prompts are found without it"
    )
    max_tool_calls: Integer | None = Field(
        default=None, le=1_000_000, description="returned with the response; it limits tools of OpenAI, which are skipped"
    )

    harmless: ClassVar[Mapping[str, str]] = {
        "access_programs": "models here have no such programs",
        "image": "models here read text",
        "prompt_cache_options": "prefixes of prompts are found without it",
        "prompt_cache_retention": "prefixes of prompts are kept as long as there is memory",
        "stream_options": "streams are not padded",
    }
    neutral: ClassVar[Mapping[str, FieldRule]] = {
        "context_management": FieldRule(
            "conversations are not compacted by themselves; use /v1/responses/compact, or truncation", ([],)
        ),
        "moderation": FieldRule("no moderation is built in; leave it out"),
        "prompt": FieldRule("there are no stored prompts; send instructions and input"),
    }

    @property
    def is_stored(self) -> bool:
        return self.store is not False


class InputTokensRequest(ConversationFields):
    """The body of ``POST /v1/responses/input_tokens``."""

    model: ModelName | None = Field(default=None, description="name of a model of `GET /v1/models`; the default model if omitted")

    harmless: ClassVar[Mapping[str, str]] = {"personality": "models here have no such setting"}


class CompactRequest(InputFields):
    """The body of ``POST /v1/responses/compact``."""

    model: ModelName | None = Field(default=None, description="name of a model of `GET /v1/models`; the default model if omitted")
    service_tier: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="`flex` runs after other jobs (priority 8), `priority` before them (2); others run by default"
    )

    harmless: ClassVar[Mapping[str, str]] = {
        "image": "models here read text",
        "prompt_cache_key": "prefixes of prompts are found without it",
        "prompt_cache_options": "prefixes of prompts are found without it",
        "prompt_cache_retention": "prefixes of prompts are kept as long as there is memory",
    }
