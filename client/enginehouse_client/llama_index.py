"""A collection as a retriever of LlamaIndex: ``pip install enginehouse-client[llama-index]``."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from enginehouse_client.client import AsyncClient, Client
from enginehouse_client.models import Hit
from enginehouse_client.passages import Mode, citation, order_score, passage_id, search_options

SHOWN = ("source", "page")
"""Metadata that a model sees with the text."""


class EnginehouseRetriever(BaseRetriever):
    """Retrieves the passages of a collection. The metadata of each node cites its page.

    ``retrieve`` uses ``client``. ``aretrieve`` uses ``async_client``, or ``client`` in a thread if it is missing.
    """

    def __init__(
        self,
        collection: str,
        *,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
        top_k: int = 5,
        mode: Mode | None = None,
        filter: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        neighbours: int | None = None,
        rerank: bool | str | None = None,
        **options: Any,
    ) -> None:
        if client is None and async_client is None:
            raise ValueError("EnginehouseRetriever needs a client or an async_client")
        self._client = client
        self._async_client = async_client
        self._collection = collection
        self._options = search_options(
            top_k=top_k, mode=mode, filter=filter, threshold=threshold, neighbours=neighbours, rerank=rerank
        )
        super().__init__(**options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._client is None:
            raise ValueError("EnginehouseRetriever has only an async_client: call aretrieve, or pass a client")
        return self._nodes(self._client.search(self._collection, query_bundle.query_str, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._async_client is None:
            return await asyncio.to_thread(self._retrieve, query_bundle)
        return self._nodes(await self._async_client.search(self._collection, query_bundle.query_str, **self._options))

    def _nodes(self, hits: Sequence[Hit]) -> list[NodeWithScore]:
        return [NodeWithScore(node=self._node(hit), score=order_score(hit)) for hit in hits]

    def _node(self, hit: Hit) -> TextNode:
        metadata = citation(hit, self._collection)
        hidden = [name for name in metadata if name not in SHOWN]
        return TextNode(
            id_=passage_id(hit),
            text=hit.text,
            metadata=metadata,
            excluded_llm_metadata_keys=hidden,
            excluded_embed_metadata_keys=list(metadata),
        )
