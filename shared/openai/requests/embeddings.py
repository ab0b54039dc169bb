"""Request model of ``POST /v1/embeddings``."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag
from pydantic_core import PydanticCustomError

from shared.jobs.concurrency_fields import ConcurrencyFields
from shared.openai.requests.field_rules import OpenAIRequest
from shared.openai.requests.sampling import EndUser, Integer, ModelName

MAX_INPUTS = 2048
Text = Annotated[str, StringConstraints(min_length=1)]


def _refuse_token_ids(value: Any) -> Any:
    """Token ids would come from another model's tokenizer, and their vectors would mean nothing."""
    if isinstance(value, list) and any(isinstance(item, int | float | list) for item in value):
        raise PydanticCustomError(
            "token_ids",
            "send text and not token ids, which depend on the tokenizer; LangChain's OpenAIEmbeddings sends text with "
            "check_embedding_ctx_length=False",
        )
    return value


def _input_form(value: Any) -> str:
    return "(texts)" if isinstance(value, list) else "(text)"


class EmbeddingRequest(ConcurrencyFields, OpenAIRequest):
    """The body of ``POST /v1/embeddings``."""

    input: Annotated[
        Annotated[Text, Tag("(text)")] | Annotated[list[Text], Tag("(texts)"), Field(min_length=1, max_length=MAX_INPUTS)],
        Discriminator(_input_form),
        BeforeValidator(_refuse_token_ids),
    ] = Field(description="a text, or up to 2,048 of them; token ids are rejected")
    model: ModelName | None = Field(default=None, description="name of an embedding model; the default one if omitted")
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="`base64` is float32 in little-endian order; `float` if omitted"
    )
    dimensions: Annotated[Integer, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="rejected unless it is the dimension of the model: vectors are not truncated"
    )
    input_type: Literal["query", "passage", "document"] | None = Field(
        default=None,
        description="adds the model's prefix for queries, or for passages (`document` is the same); no prefix if omitted",
    )
    user: EndUser = None
