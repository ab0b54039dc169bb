"""A collection as a retriever of LangChain: ``pip install enginehouse-client[langchain]``."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from enginehouse_client.client import AsyncClient, Client
from enginehouse_client.models import Hit
from enginehouse_client.passages import Mode, citation, passage_id, search_options


class EnginehouseRetriever(BaseRetriever):
    """Retrieves the passages of a collection. The metadata of each document cites its page.

    ``invoke`` uses ``client``. ``ainvoke`` uses ``async_client``, or ``client`` in a thread if it is missing.
    """

    client: Client | None = None
    async_client: AsyncClient | None = None
    collection: str
    top_k: int = 5
    mode: Mode | None = None
    filter: Mapping[str, Any] | None = None
    threshold: float | None = None
    neighbours: int | None = None
    rerank: bool | str | None = None

    def model_post_init(self, context: Any, /) -> None:
        if self.client is None and self.async_client is None:
            raise ValueError("EnginehouseRetriever needs a client or an async_client")

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        if self.client is None:
            raise ValueError("EnginehouseRetriever has only an async_client: call ainvoke, or pass a client")
        return self._documents(self.client.search(self.collection, query, **self._options()))

    async def _aget_relevant_documents(self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun) -> list[Document]:
        if self.async_client is None:
            return await super()._aget_relevant_documents(query, run_manager=run_manager)
        return self._documents(await self.async_client.search(self.collection, query, **self._options()))

    def _options(self) -> dict[str, Any]:
        return search_options(
            top_k=self.top_k,
            mode=self.mode,
            filter=self.filter,
            threshold=self.threshold,
            neighbours=self.neighbours,
            rerank=self.rerank,
        )

    def _documents(self, hits: Sequence[Hit]) -> list[Document]:
        return [Document(hit.text, id=passage_id(hit), metadata=citation(hit, self.collection)) for hit in hits]
