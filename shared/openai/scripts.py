"""Declarations of the Lua scripts for files. The header of each script documents its arguments and result."""

from collections.abc import Mapping
from typing import Any

from shared.lua_scripts import LuaScripts, Value, declaration


class FileScripts(LuaScripts, package="shared.openai.lua"):
    """The scripts in ``shared/openai/lua``."""

    @declaration
    def add_file(self, *, id: str, byte_limit: int | None, record: Mapping[str, Value]) -> Any: ...

    @declaration
    def remove_file(self, *, id: str) -> Any: ...
