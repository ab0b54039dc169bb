"""Request model of ``POST /v1/rerank``, which has the fields of Cohere's and Jina's APIs and of vLLM's server."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

from shared.jobs.concurrency_fields import ConcurrencyFields
from shared.openai.requests.field_rules import FieldRule, OpenAIRequest
from shared.openai.requests.sampling import EndUser, Integer, ModelName

MAX_DOCUMENTS = 1000
Text = Annotated[str, StringConstraints(min_length=1)]


class RerankDocument(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    text: Text


def _document_form(value: Any) -> str:
    return "(text)" if isinstance(value, str) else "(object)"


class RerankRequest(ConcurrencyFields, OpenAIRequest):
    """The body of ``POST /v1/rerank``."""

    model: ModelName | None = Field(default=None, description="name of a model of task `rerank`; the default one if omitted")
    query: Text = Field(description="what the documents are compared with")
    documents: Annotated[
        list[
            Annotated[
                Annotated[str, Tag("(text)"), StringConstraints(min_length=1)] | Annotated[RerankDocument, Tag("(object)")],
                Discriminator(_document_form),
            ]
        ],
        Field(min_length=1, max_length=MAX_DOCUMENTS),
    ] = Field(description="up to 1,000 texts, or objects with `text`; what exceeds the model's context is cut")
    top_n: Annotated[Integer, Field(ge=1)] | None = Field(default=None, description="number of results; all if omitted")
    return_documents: bool | None = Field(default=None, description="add the text of each document to its result")
    user: EndUser = None

    harmless: ClassVar[Mapping[str, str]] = {"max_chunks_per_doc": "a document is one text"}
    neutral: ClassVar[Mapping[str, FieldRule]] = {
        "rank_fields": FieldRule("documents have one field, text; send texts", ([], ["text"])),
        "max_tokens_per_doc": FieldRule("documents are cut at the model's context; send shorter ones"),
        "truncate_prompt_tokens": FieldRule("documents are cut at the model's context; send shorter ones"),
    }

    @property
    def texts(self) -> list[str]:
        return [document if isinstance(document, str) else document.text for document in self.documents]
