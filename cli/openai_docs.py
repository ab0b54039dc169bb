"""Write the tables of fields into ``docs/openai-api.md``: ``python -m cli.openai_docs``. A test compares them with the request models.

The page says the rest by hand. Its tables stand between two comments each, and are replaced.
"""

import json
from pathlib import Path

from shared.openai.requests import (
    AttributeChanges,
    BatchRequest,
    ChatCompletionRequest,
    CompactRequest,
    CompletionRequest,
    ConversationChanges,
    ConversationItemsRequest,
    ConversationRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    FileBatchRequest,
    InputTokensRequest,
    OpenAIRequest,
    RerankRequest,
    ResponseRequest,
    TokenizeRequest,
    VectorStoreChanges,
    VectorStoreFileRequest,
    VectorStoreRequest,
    VectorStoreSearch,
)

PAGE = Path(__file__).parent.parent / "docs" / "openai-api.md"
TABLES: dict[str, type[OpenAIRequest]] = {
    "chat/completions": ChatCompletionRequest,
    "completions": CompletionRequest,
    "responses": ResponseRequest,
    "responses/input_tokens": InputTokensRequest,
    "responses/compact": CompactRequest,
    "conversations": ConversationRequest,
    "conversations/<conversation>": ConversationChanges,
    "conversations/<conversation>/items": ConversationItemsRequest,
    "embeddings": EmbeddingRequest,
    "rerank": RerankRequest,
    "batches": BatchRequest,
    "vector_stores": VectorStoreRequest,
    "vector_stores/<store>": VectorStoreChanges,
    "vector_stores/<store>/search": VectorStoreSearch,
    "vector_stores/<store>/files": VectorStoreFileRequest,
    "vector_stores/<store>/files/<file>": AttributeChanges,
    "vector_stores/<store>/file_batches": FileBatchRequest,
    "tokenize": TokenizeRequest,
    "detokenize": DetokenizeRequest,
}
_HEAD = "| field | rule | |\n|---|---|---|\n"


def with_tables(page: str) -> str:
    """The page with current tables. Raises ValueError if it lacks the comments of one."""
    for name, model in TABLES.items():
        begin, end = f"<!-- fields of {name} -->\n", f"<!-- end of {name} -->"
        if begin not in page or end not in page:
            raise ValueError(f"the page lacks {begin.strip()} or {end}")
        before, _, rest = page.partition(begin)
        page = before + begin + field_table(model) + end + rest.partition(end)[2]
    return page


def field_table(model: type[OpenAIRequest]) -> str:
    """A row for each field of a call that has a rule: those that are used, then harmless ones, then those that are rejected."""
    rows = [f"| `{name}` | used | {_text(field.description or '')} |\n" for name, field in model.model_fields.items()]
    rows += [f"| `{name}` | harmless | {_text(why)} |\n" for name, why in model.harmless.items()]
    for name, rule in model.neutral.items():
        values = ", ".join(f"`{json.dumps(value)}`" for value in (None, *rule.values))
        rows.append(f"| `{name}` | rejected unless {values} | {_text(rule.reason)} |\n")
    return _HEAD + "".join(rows)


def _text(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
