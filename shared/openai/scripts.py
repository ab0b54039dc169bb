"""Declarations of the Lua scripts for files and conversations. The header of each script documents its arguments and result."""

from collections.abc import Mapping
from typing import Any

from shared.lua_scripts import LuaScripts, Rows, Value, declaration


class OpenAIScripts(LuaScripts, package="shared.openai.lua"):
    """The scripts in ``shared/openai/lua``."""

    @declaration
    def add_conversation_items(self, *, id: str, owner: str, job: str, bytes_limit: int, items: Rows) -> Any: ...

    @declaration
    def add_file(self, *, id: str, byte_limit: int | None, record: Mapping[str, Value]) -> Any: ...

    @declaration
    def remove_file(self, *, id: str) -> Any: ...

    @declaration
    def change_conversation(self, *, id: str, owner: str, metadata: str) -> Any: ...

    @declaration
    def create_conversation(self, *, id: str, owner: str, key: str, ttl_seconds: int, limit: int, metadata: str) -> Any: ...

    @declaration
    def list_conversation_items(self, *, id: str, owner: str, after: str, limit: int, newest_first: int) -> Any: ...

    @declaration
    def read_conversation(self, *, id: str, owner: str) -> Any: ...

    @declaration
    def remove_conversation(self, *, id: str, owner: str) -> Any: ...

    @declaration
    def remove_conversation_item(self, *, id: str, owner: str, item: str) -> Any: ...
