"""Response models of ``/v1``, in the forms of OpenAI's API."""

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from api.schemas.responses.envelopes import ResponseModel

ModelState = Literal["ready", "warming", "loading", "draining", "failed", "unloaded", "not_served"]


class OpenAIModel(ResponseModel):
    """A model, with what other servers add to OpenAI's four fields."""

    id: str
    object: Literal["model"]
    created: int = Field(description="when the server read its models file")
    owned_by: str
    max_model_len: int | None = Field(
        description="maximum tokens of prompt and answer together; null until a worker has loaded the model, unless the models file says it"
    )
    parent: str | None = Field(description="of a LoRA adapter: the model that it changes")
    task: Literal["generate", "embed", "rerank"]
    state: ModelState = Field(description="of its best worker; `unloaded` if a request would load it")


class OpenAIModelName(ResponseModel):
    """A model as Codex and llama.cpp's clients look for it."""

    name: str
    model: str
    slug: str
    display_name: str


class OpenAIModelList(ResponseModel):
    object: Literal["list"]
    data: list[OpenAIModel]
    models: list[OpenAIModelName]


class OpenAIUsage(ResponseModel):
    prompt_tokens: int = Field(description="a prompt that has several answers counts once")
    completion_tokens: int = 0
    total_tokens: int


class CalledFunction(ResponseModel):
    name: str
    arguments: str = Field(description="JSON")


class CalledTool(ResponseModel):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(ResponseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[CalledTool] = Field(default=[], description="only if the model calls functions")
    reasoning_content: str = Field(default="", description="only of a model that reasons first")
    reasoning: str = Field(default="", description="the same")


class TokenScore(ResponseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenScores(TokenScore):
    top_logprobs: list[TokenScore]


class ChatLogprobs(ResponseModel):
    content: list[TokenScores]
    refusal: None


class ChatChoice(ResponseModel):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(ResponseModel):
    """The answers to a chat completion that does not stream."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: OpenAIUsage
    service_tier: Literal["default", "flex", "priority"] = Field(description="the tier whose priority the job had")


class LegacyLogprobs(ResponseModel):
    tokens: list[str]
    token_logprobs: list[float | None] = Field(description="null for the first token of a prompt")
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(ResponseModel):
    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"]


class TextCompletion(ResponseModel):
    """The answers to a completion that does not stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: OpenAIUsage


class OpenAIEmbedding(ResponseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(
        description="numbers, or with `base64` a text that encodes float32 in little-endian order"
    )


class OpenAIEmbeddingList(ResponseModel):
    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class Tokens(ResponseModel):
    tokens: list[int]
    count: int
    max_model_len: int | None
    token_strs: list[str] | None = Field(description="the text of each token, if it was asked for")


class TokenText(ResponseModel):
    prompt: str


class TokenizerInfo(ResponseModel):
    """What a client needs to format prompts itself."""

    tokenizer_class: str
    chat_template: str | None
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    model: str
    max_model_len: int | None
    details: dict[str, Any] = Field(
        default={}, description="further facts, such as ids of special tokens and the size of the vocabulary"
    )


class ResponseText(ResponseModel):
    """A part of a message: ``input_text`` or ``output_text``."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] = Field(default=[], description="only of output")
    logprobs: list[TokenScores] = Field(default=[], description="if the request includes them")


class ReasoningText(ResponseModel):
    type: Literal["reasoning_text", "summary_text"]
    text: str


ItemStatus = Literal["in_progress", "completed", "incomplete"]


class ResponseMessage(ResponseModel):
    type: Literal["message"]
    id: str
    status: ItemStatus
    role: Literal["system", "developer", "user", "assistant"]
    content: list[ResponseText]


class ResponseReasoning(ResponseModel):
    type: Literal["reasoning"]
    id: str
    summary: list[Any]
    content: list[Any]
    status: ItemStatus = "completed"


class ResponseFunctionCall(ResponseModel):
    type: Literal["function_call"]
    id: str
    call_id: str
    name: str
    arguments: str = Field(description="JSON")
    status: ItemStatus


class ResponseCustomToolCall(ResponseModel):
    type: Literal["custom_tool_call"]
    id: str
    call_id: str
    name: str
    input: str
    status: ItemStatus


class ResponseCallOutput(ResponseModel):
    type: Literal["function_call_output", "custom_tool_call_output"]
    id: str
    call_id: str | None
    output: str
    status: ItemStatus


class FileSearchResult(ResponseModel):
    file_id: str
    filename: str
    score: float
    text: str
    attributes: dict[str, str | float | bool]
    page: int
    start_index: int = Field(description="character of the page's text at which the passage begins")
    end_index: int


class ResponseFileSearch(ResponseModel):
    type: Literal["file_search_call"]
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    queries: list[str]
    results: list[FileSearchResult] | None = Field(description="only if `include` has `file_search_call.results`")


class ResponseFileSearchInput(ResponseModel):
    """A search of an earlier turn, as the request has it."""

    type: Literal["file_search_call"]
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    queries: list[str]
    results: list[dict[str, Any]] | None


class ResponseCompaction(ResponseModel):
    """A summary of everything before it."""

    type: Literal["compaction"]
    id: str
    encrypted_content: str


OutputItem = Annotated[
    ResponseMessage | ResponseReasoning | ResponseFunctionCall | ResponseFileSearch, Field(discriminator="type")
]
ConversationItem = Annotated[
    ResponseMessage
    | ResponseReasoning
    | ResponseFunctionCall
    | ResponseCustomToolCall
    | ResponseCallOutput
    | ResponseFileSearchInput
    | ResponseCompaction,
    Field(discriminator="type"),
]


class OpenAIItem(RootModel[ConversationItem]):
    """An item of a conversation."""


class Conversation(ResponseModel):
    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class ConversationDeletion(ResponseModel):
    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class ConversationId(ResponseModel):
    id: str


class ResponseFailure(ResponseModel):
    code: Literal["server_error", "invalid_prompt", "context_length_exceeded"]
    message: str


class IncompleteDetails(ResponseModel):
    reason: Literal["max_output_tokens"]


class InputTokenDetails(ResponseModel):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokenDetails(ResponseModel):
    reasoning_tokens: int


class ResponseUsage(ResponseModel):
    input_tokens: int
    input_tokens_details: InputTokenDetails
    output_tokens: int
    output_tokens_details: OutputTokenDetails = Field(description="reasoning is not counted apart: its tokens are output tokens")
    total_tokens: int


class OpenAIResponse(ResponseModel):
    """A response. The fields that repeat the request have OpenAI's defaults where the request has none."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    background: bool
    background_options: dict[str, str] = Field(default={}, description="only if the request has a `completion_window`")
    conversation: ConversationId = Field(default=ConversationId(id=""), description="only if the request has one")
    frequency_penalty: float
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, str | None]
    safety_identifier: str | None
    service_tier: Literal["default", "flex", "priority"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    user: str | None


class Compaction(ResponseModel):
    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[Annotated[ResponseMessage | ResponseCompaction, Field(discriminator="type")]]
    usage: ResponseUsage


class OpenAIItemList(ResponseModel):
    object: Literal["list"]
    data: list[ConversationItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(ResponseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int


class RankedText(ResponseModel):
    text: str


class RankedDocument(ResponseModel):
    index: int = Field(description="of the document in the request")
    relevance_score: float = Field(description="from 0 to 1")
    document: RankedText | None = Field(default=None, description="only if the request has `return_documents`")


class Ranking(ResponseModel):
    """Documents, the best one first."""

    id: str
    model: str
    results: list[RankedDocument]
    usage: OpenAIUsage
