"""A collection with one ready document in real files, made without a worker: for tests of what happens to its files."""

import redis

from cli.admin.index_check import IndexCheck
from shared.documents.descriptions import IndexState
from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.documents.text_index import DocumentAttributes, TextIndex
from shared.errors import IndexUnavailable
from shared.ids import DOCUMENT, JOB, new_id
from shared.settings import Settings
from testing.chroma_server import ChromaServer
from workers.cpu.chunking import Chunk
from workers.index.search_index import SearchIndex
from workers.index.vector_store import VectorStore
from workers.io.search import SearchQuery, search_passages

VECTOR = [1.0] + [0.0] * 383


class FixedEmbedder:
    """Stands for the embedding model, which these tests do not need: every text has the same vector."""

    model = "all-minilm"
    revision = "r"

    def for_model(self, name: str) -> "FixedEmbedder":
        return self

    def embed_texts(self, texts: list[str], *, role: str = "raw", shares: int = 1) -> list[list[float]]:
        return [VECTOR for _ in texts]


class Shelf:
    """A collection with one ready document, in an index of real files."""

    def __init__(self, client: redis.Redis, settings: Settings, chroma: ChromaServer) -> None:
        self.settings = Settings(data_dir=settings.data_dir, redis_url=settings.redis_url, chroma_url=chroma.url)
        self.client, self.chroma = client, chroma
        self.documents = Documents(client, self.settings)
        self.vectors = VectorStore(chroma.url)
        self.index = SearchIndex(self.documents, TextIndex(self.settings.text_index_dir), self.vectors)
        made = self.documents.ensure_collection("ada", "shelf", "all-minilm")
        self.documents.adopt_index(made.id, IndexState(index=made.id, embedding_model="all-minilm", embedding_revision="r"))
        self.document = new_id(DOCUMENT)
        self.documents.register(
            made, document_id=self.document, name="a.txt", size=1, sha256="0" * 64, media_type="text/plain", job_id=new_id(JOB)
        )
        record = self.documents.get("ada", self.document)
        self.documents.finish(self.document, record.job_id, 1, "ready", pages=1, chunks=1)
        self.put()

    @property
    def collection(self) -> Collection:
        return self.documents.find_collection("ada", "shelf")

    @property
    def attributes(self) -> DocumentAttributes:
        return DocumentAttributes(id=self.document, name="a", media_type="text/plain", size=1, created_at=1.0, metadata={})

    def put(self) -> None:
        self.index.put_vectors(self.collection.index, self.document, [0], [VECTOR])
        self.index.put_document(self.collection.index, self.attributes, [Chunk(0, 1, 0, 7, "boilers")])

    def search(self, mode: str) -> int:
        query = SearchQuery(query="boilers", mode=mode)  # type: ignore[arg-type]
        return len(
            search_passages(
                query,
                self.collection,
                documents=self.documents,
                embedders=FixedEmbedder(),
                search_index=self.index,  # type: ignore[arg-type]
            ).passages
        )

    def answers(self) -> bool:
        try:
            self.vectors.list_indexes()
        except IndexUnavailable:
            return False
        return True

    def check(self) -> dict[str, str]:
        return {problem.object: problem.kind for problem in IndexCheck(self.client, self.settings).find_problems()}
