"""Declarations of the Lua scripts for documents. The header of each script documents its arguments and result."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.lua_scripts import LuaScripts, Value, declaration


class DocumentScripts(LuaScripts, package="shared.documents.lua"):
    """The scripts in ``shared/documents/lua``."""

    @declaration
    def abandon_reindex(self, *, collection: str, next_index: str) -> Any: ...

    @declaration
    def advance(self, *, id: str, job: str, attempt: int, changes: Mapping[str, Value]) -> Any: ...

    @declaration
    def begin_reindex(self, *, collection: str, next_index: str, job: str) -> Any: ...

    @declaration
    def delete_collection_later(self, *, id: str, keep_ms: int) -> Any: ...

    @declaration
    def delete_later(self, *, id: str, collection: str, keep_ms: int) -> Any: ...

    @declaration
    def drop_collection(self, *, id: str, owner: str, name: str) -> Any: ...

    @declaration
    def due_collections(self, *, limit: int, again_ms: int) -> Any: ...

    @declaration
    def due_deletions(self, *, limit: int, again_ms: int) -> Any: ...

    @declaration
    def ensure_collection(
        self, *, id: str, owner: str, name: str, embedding_model: str, limit: int, options: Mapping[str, Value]
    ) -> Any: ...

    @declaration
    def index_statuses(self, *, collection: str, after: str, batch: int, statuses: Sequence[str]) -> Any: ...

    @declaration
    def make_ready(self, *, id: str, collection: str, job: str, attempt: int, changes: Mapping[str, Value]) -> Any: ...

    @declaration
    def move_document(self, *, id: str, source: str, target: str, job: str, attempt: int) -> Any: ...

    @declaration
    def record_revision(self, *, collection: str, revision: str) -> Any: ...

    @declaration
    def recover_collection(self, *, id: str, owner: str, name: str, created_at: int, fields: Mapping[str, Value]) -> Any: ...

    @declaration
    def recover_document(
        self, *, id: str, collection: str, sha256: str, name: str, file: str, version: int, record: Mapping[str, Value]
    ) -> Any: ...

    @declaration
    def register(
        self,
        *,
        id: str,
        collection: str,
        sha256: str,
        name: str,
        file: str,
        replace: int,
        document_limit: int,
        byte_limit: int,
        record: Mapping[str, Value],
    ) -> Any: ...

    @declaration
    def remove(self, *, id: str, collection: str) -> Any: ...

    @declaration
    def rename_document(self, *, id: str, name: str) -> Any: ...

    @declaration
    def restore(self, *, id: str, collection: str) -> Any: ...

    @declaration
    def restore_collection(self, *, id: str, limit: int) -> Any: ...

    @declaration
    def summarize_documents(self, *, collection: str, after: str, batch: int) -> Any: ...

    @declaration
    def switch_index(self, *, collection: str, next_index: str, changes: Mapping[str, Value]) -> Any: ...

    @declaration
    def update_if_exists(self, *, record: str, changes: Mapping[str, Value]) -> Any: ...
