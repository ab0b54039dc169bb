"""Response models of ``/v1``, in the forms of OpenAI's API."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel

ModelState = Literal["ready", "warming", "loading", "draining", "failed", "unloaded", "not_served"]


class OpenAIModel(ResponseModel):
    """A model, with what other servers add to OpenAI's four fields."""

    id: str
    object: Literal["model"]
    created: int = Field(description="when the server read its models file")
    owned_by: str
    max_model_len: int | None = Field(description="maximum tokens of prompt and answer together; null while it is unknown")
    task: Literal["generate", "embed"]
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
