"""Request model of ``POST /v1/completions``."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Discriminator, Field, Tag

from shared.openai.requests.field_rules import FieldRule
from shared.openai.requests.sampling import Integer, SamplingFields, TokenId

MAX_PROMPTS = 256
MAX_PROMPT_TOKENS = 2_000_000

Ids = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_PROMPT_TOKENS)]


def _prompt_form(value: Any) -> str:
    """Which of the four forms of a prompt this is, by its first element."""
    if not isinstance(value, list):
        return "(text)"
    first = value[0] if value else ""
    return "(texts)" if isinstance(first, str) else "(lists of tokens)" if isinstance(first, list) else "(tokens)"


Prompt = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[str], Tag("(texts)"), Field(min_length=1, max_length=MAX_PROMPTS)]
    | Annotated[Ids, Tag("(tokens)")]
    | Annotated[list[Ids], Tag("(lists of tokens)"), Field(min_length=1, max_length=MAX_PROMPTS)],
    Discriminator(_prompt_form),
]


class CompletionRequest(SamplingFields):
    """The body of ``POST /v1/completions``."""

    prompt: Prompt = Field(
        description="a text, up to 256 texts, or the same as ids of this model's tokens; sent to the model unchanged"
    )
    echo: bool | None = Field(default=None, description="put the prompt before the answer")
    logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = Field(
        default=None,
        description="add the log-probability of each token, and this number of most likely tokens; with `echo`, also for the tokens of the prompt",
    )

    harmless: ClassVar[Mapping[str, str]] = {}
    neutral: ClassVar[Mapping[str, FieldRule]] = {
        "suffix": FieldRule("models here cannot fill in text before a suffix; leave it out", ("",)),
        "best_of": FieldRule("answers are not compared; ask for n answers and choose one", (1,)),
    }
