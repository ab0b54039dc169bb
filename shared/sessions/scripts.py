"""Declarations of the Lua scripts for sessions. The header of each script documents its arguments and result."""

from typing import Any

from shared.lua_scripts import LuaScripts, declaration


class SessionScripts(LuaScripts, package="shared.sessions.lua"):
    """The scripts in ``shared/sessions/lua``."""

    @declaration
    def open_session(self, *, id: str, owner: str, ttl_seconds: int, limit: int) -> Any: ...

    @declaration
    def read_session(self, *, id: str, owner: str, ttl_seconds: int) -> Any: ...

    @declaration
    def remove_session(self, *, id: str, owner: str) -> Any: ...
