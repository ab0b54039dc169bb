"""Request models of the chunk calls of the chat_gp_me tutorial."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from api.schemas.requests.fields import Query, RequestModel

ChunkId = Annotated[str, StringConstraints(max_length=100)]


class ChunkIds(RequestModel):
    ids: list[ChunkId] = Field(min_length=1, max_length=1000)


class RemoveRequest(RequestModel):
    ids: list[ChunkId] | None = Field(default=None, min_length=1, max_length=1000)
    query: Query | None = Field(
        default=None, description="deletes the best hits of this search, `ENGINEHOUSE_RETRIEVE_TOP_K` of them"
    )

    @model_validator(mode="after")
    def _check_one_selection(self) -> Self:
        if (self.ids is None) == (self.query is None):
            raise ValueError("give either ids or query")
        return self


class ClearRequest(RequestModel):
    confirm: Literal[True] = Field(description="must be true: the call deletes everything in the default collection")
