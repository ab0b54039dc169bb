"""Request models of the tokenizer calls, which have the fields of vLLM's server."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from shared.openai.requests.chat import ChatMessage, Tool
from shared.openai.requests.field_rules import FieldRule, OpenAIRequest
from shared.openai.requests.sampling import ModelName, TokenId

MAX_TOKENS = 1_000_000


class TokenizeRequest(OpenAIRequest):
    """The body of ``POST /tokenize``: a prompt, or messages."""

    model: ModelName | None = Field(default=None, description="name of a model; the default model if omitted")
    prompt: str | None = Field(default=None, description="a text")
    messages: list[ChatMessage] | None = Field(
        default=None, min_length=1, max_length=10_000, description="a conversation, formatted by the model's chat template"
    )
    tools: list[Tool] | None = Field(default=None, max_length=256, description="as in a chat completion")
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, max_length=32, description="as in a chat completion")
    add_special_tokens: bool | None = Field(
        default=None, description="put the model's start token before a text; true if omitted"
    )
    return_token_strs: bool | None = Field(default=None, description="add the text of each token")

    harmless: ClassVar[Mapping[str, str]] = {}
    neutral: ClassVar[Mapping[str, FieldRule]] = {
        "add_generation_prompt": FieldRule("messages always end with the beginning of the answer", (True,)),
        "continue_final_message": FieldRule("messages always end with the beginning of a new answer", (False,)),
        "chat_template": FieldRule("the chat template is the model's own; set it in the models file"),
    }

    @model_validator(mode="after")
    def _check_one_input(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt: give exactly one of prompt and messages")
        return self


class DetokenizeRequest(OpenAIRequest):
    """The body of ``POST /detokenize``."""

    model: ModelName | None = Field(default=None, description="name of a model; the default model if omitted")
    tokens: list[TokenId] = Field(max_length=MAX_TOKENS, description="ids of this model's tokens")
