"""The composed scripts, compiled by Redis: they read no global by mistake and keep a margin to the limits of Lua's functions."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pytest
import redis

from shared.lua_scripts import SHARED_LIBRARY, load_scripts

PACKAGES = ("jobs", "documents", "sessions", "webhooks", "owners", "openai")
SCRIPTS = {
    f"{package}/{name}": script
    for package in PACKAGES
    for name, script in load_scripts(files(f"shared.{package}.lua"), files(SHARED_LIBRARY) / "lib").items()
}
FUNCTIONS = {"error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "unpack"}
GLOBALS = {"ARGV", "redis", "cjson", "cmsgpack", "bit", "string", "table", "math", *FUNCTIONS}
# Lua 5.1 compiles no function with more than 200 local variables or 60 variables of the functions around it.
MOST_LOCALS, MOST_UPVALUES = 150, 50
GET_GLOBAL, SET_GLOBAL = 5, 7


@dataclass(frozen=True)
class Function:
    """One function of a compiled chunk: its globals, how many of its locals live at once, and its upvalues."""

    globals: frozenset[str]
    locals: int
    upvalues: int


class ChunkReader:
    """Reads the functions of a chunk that ``string.dump`` of Lua 5.1 has written."""

    def __init__(self, chunk: bytes) -> None:
        assert chunk[:9] == b"\x1bLuaQ\0\x01\x04\x08", "not a chunk of Lua 5.1 of a little-endian machine with 64 bits"
        self._chunk, self._position = chunk, 12

    def functions(self) -> Iterator[Function]:
        self._text()
        self._unpack("ii")
        upvalues = self._unpack("4B")[0]
        code = [self._unpack("I")[0] for _ in range(self._count())]
        constants = [self._constant() for _ in range(self._count())]
        used = frozenset(str(constants[word >> 14]) for word in code if word & 63 in (GET_GLOBAL, SET_GLOBAL))
        for _ in range(self._count()):
            yield from self.functions()
        self._unpack(f"{self._count()}i")
        scopes = [self._scope() for _ in range(self._count())]
        for _ in range(self._count()):
            self._text()
        yield Function(used, max((sum(start <= at < end for start, end in scopes) for at, _ in scopes), default=0), upvalues)

    def _scope(self) -> tuple[int, int]:
        self._text()
        start, end = self._unpack("ii")
        return start, end

    def _unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._chunk, self._position)
        self._position += struct.calcsize(f"<{form}")
        return values

    def _count(self) -> int:
        return int(self._unpack("i")[0])

    def _text(self) -> str:
        [size] = self._unpack("Q")
        self._position += size
        return self._chunk[self._position - size : self._position - 1].decode(errors="replace")

    def _constant(self) -> object:
        match self._unpack("B")[0]:
            case 0:
                return None
            case 1:
                return self._unpack("B")[0]
            case 3:
                return self._unpack("d")[0]
            case _:
                return self._text()


def compile_functions(client: redis.Redis, text: str) -> list[Function]:
    chunk = client.eval("return string.dump(assert(loadstring(ARGV[1])))", 0, text.partition("\n")[2])
    return list(ChunkReader(chunk).functions())


@pytest.fixture
def raw_client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_reads_no_unknown_global_and_keeps_a_margin(raw_client: redis.Redis, name: str) -> None:
    functions = compile_functions(raw_client, SCRIPTS[name].text)
    assert not frozenset().union(*(function.globals for function in functions)) - GLOBALS
    assert max(function.locals for function in functions) <= MOST_LOCALS
    assert max(function.upvalues for function in functions) <= MOST_UPVALUES


def test_a_name_that_is_not_declared_and_too_many_locals_are_found(raw_client: redis.Redis) -> None:
    locals_of_block = "do " + " ".join(f"local v{i} = {i}" for i in range(160)) + " v0 = v1 end local last = missing_name"
    [function] = compile_functions(raw_client, f"#!lua\n{locals_of_block}")
    assert function == Function(frozenset({"missing_name"}), 160, 0)
