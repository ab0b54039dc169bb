"""Declarations of the Lua scripts for sessions. The header of each script documents its arguments and result."""

from typing import Any

from shared.lua_scripts import LuaScripts, declaration


class SessionScripts(LuaScripts, package="shared.sessions.lua"):
    """The scripts in ``shared/sessions/lua``."""

    @declaration
    def change_session(self, *, id: str, owner: str, ttl_seconds: int, title: str, turn: str) -> Any: ...

    @declaration
    def list_sessions(self, *, owner: str, limit: int, updated_at: str, digest: str) -> Any: ...

    @declaration
    def open_session(self, *, id: str, owner: str, ttl_seconds: int, limit: int) -> Any: ...

    @declaration
    def read_messages(self, *, id: str, owner: str, ttl_seconds: int, turn: str) -> Any: ...

    @declaration
    def read_turns(self, *, id: str, owner: str, ttl_seconds: int, turn: str) -> Any: ...

    @declaration
    def remove_session(self, *, id: str, owner: str, kept_seconds: int) -> Any: ...

    @declaration
    def restore_session(self, *, id: str, owner: str, ttl_seconds: int) -> Any: ...
