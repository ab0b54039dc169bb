"""Lua scripts with named arguments.

Each script names its arguments in its header, and its Python declaration has keyword parameters of the same names. The two are
compared when the declaring class is created, so a mismatch stops the process when it starts:

    -- claim: give the next job of a queue to a worker, under a lease.
    -- Uses: transition, session
    -- Arguments: queue, worker, lease_ms:number, leases[id, attempt]

    class JobScripts(LuaScripts, package="shared.jobs.lua"):
        @declaration
        def claim(self, *, queue: str, worker: str, lease_ms: int, leases: Rows) -> Any: ...

Inside the script ``queue`` is a Lua local. ``name:number`` becomes a number, or nil when it is empty. The last argument may be a
list (``messages...``), a list of records (``leases[id, attempt]``) or a table of fields (``fields{}``). ``Uses`` lists library
files from a ``lib`` folder; they are inserted before the script, after the files that they use themselves. Names that only their own
library file uses are not visible outside it. ``now``, in Unix milliseconds, is always defined. ``Flags: allow-oom`` lets a script run
when Redis is full; any other is then refused before it has written anything. That needs Redis 7.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, wraps
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal, TypeVar

import redis

SHARED_LIBRARY = "shared.jobs.lua"

Value = str | int | float | bytes
Row = Mapping[str, Value]
Rows = Sequence[Row]
Clock = Callable[[], int]

_Declared = TypeVar("_Declared", bound=Callable[..., Any])
_DEFINITION = re.compile(r"^local (?:function (\w+)|(\w+(?:, *\w+)*)( *=)?)", re.MULTILINE)
# At the top level of a file, on one line or up to an "end" at the start of a line.
_FUNCTION = re.compile(r"^local function (\w+)\((?:[^\n]* end$|[^\n]*\n(?:.*\n)*?end$)", re.MULTILINE)
_COMMENT_LINE = re.compile(r"^[ \t]*--.*$", re.MULTILINE)
_ARGUMENT = re.compile(r"(\w+)(?:(:number)|(\.\.\.)|(\{\})|\[([^\]]*)\])?\s*(?:,\s*|$)")


class ScriptError(Exception):
    """A script and its declaration do not match, or its header is invalid."""


@dataclass(frozen=True)
class Argument:
    """One argument from a script's header. ``columns`` are the field names of a record."""

    name: str
    form: Literal["text", "number", "list", "fields", "records"]
    columns: tuple[str, ...] = ()

    def flatten(self, value: Any) -> Iterable[Value]:
        """The values to send to Redis. None becomes an empty string."""
        match self.form:
            case "list":
                return list(value)
            case "fields":
                return [part for pair in value.items() for part in pair]
            case "records":
                return [row[column] for row in value for column in self.columns]
            case _:
                return ["" if value is None else value]

    def binding(self, position: int) -> str:
        """The Lua statement that assigns the argument to a local variable."""
        match self.form:
            case "text":
                return f"local {self.name} = ARGV[{position}]"
            case "number":
                return f"local {self.name} = tonumber(ARGV[{position}])"
            case "list":
                item, step = "ARGV[i]", 1
            case "fields":
                return f"local {self.name} = {{}} for i = {position}, #ARGV, 2 do {self.name}[ARGV[i]] = ARGV[i + 1] end"
            case "records":
                item = "{ " + ", ".join(f"{name} = ARGV[i + {offset}]" for offset, name in enumerate(self.columns)) + " }"
                step = len(self.columns)
        row = f"(i - {position}) / {step} + 1"
        return f"local {self.name} = {{}} for i = {position}, #ARGV, {step} do {self.name}[{row}] = {item} end"


@dataclass(frozen=True)
class Script:
    """A script with the library files that it uses. It is composed when it is first run, as most processes run few of them."""

    arguments: tuple[Argument, ...]
    source: str
    libraries: tuple[str, ...]

    @property
    def text(self) -> str:
        """The complete script: argument bindings, library files and the script's own text."""
        return self._composed[0]

    @property
    def sha(self) -> str:
        """The digest under which Redis knows the script."""
        return self._composed[1]

    @property
    def _composed(self) -> tuple[str, str]:
        # Without the lock of cached_property: a child that is forked while a thread of its parent composes would find it locked for ever.
        composed: tuple[str, str] | None = vars(self).get("composed")
        if composed is None:
            text = self._compose()
            composed = vars(self)["composed"] = text, hashlib.sha1(text.encode()).hexdigest()
        return composed

    def _compose(self) -> str:
        bindings = ["local now = tonumber(ARGV[1])"]
        bindings += [argument.binding(position) for position, argument in enumerate(self.arguments, 2)]
        # Without a first line of this form, Redis would refuse single commands of a script, in the middle of a transition.
        shebang = f"#!lua flags={header_line(self.source, 'Flags')}"
        # A function has at most 200 local names, so each library file shows only those that later text uses. The script has no
        # function of its own: that could use no more than 60 of them.
        later = _words(self.source)
        blocks: list[str] = []
        for part in reversed(_used_parts(self.libraries, later)):
            blocks.insert(0, _library_block(part, later))
            later = later | _words(part)
        return "\n".join((shebang, " ".join(bindings), *blocks, "do", self.source, "end"))


class LuaScripts:
    """The scripts of one package. A subclass declares each of them; an instance runs them on one Redis.

    ``clock`` returns Unix milliseconds and is for tests. In production the scripts use the clock of Redis, because a worker's
    clock may be wrong by an hour.
    """

    def __init__(self, client: redis.Redis, *, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock

    def __init_subclass__(cls, *, package: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        scripts = load_scripts(files(package), files(SHARED_LIBRARY) / "lib")
        declared = {name: member for name, member in vars(cls).items() if getattr(member, "declares_script", False)}
        if declared.keys() != scripts.keys():
            raise ScriptError(f"{package}: scripts and declarations differ: {sorted(declared.keys() ^ scripts.keys())}")
        for name, member in declared.items():
            check_signature(name, scripts[name], inspect.signature(member))
            setattr(cls, name, _caller(scripts[name], member))

    def _run(self, script: Script, values: Mapping[str, Any]) -> Any:
        arguments: list[Value] = [self._clock() if self._clock else ""]
        for argument in script.arguments:
            arguments += argument.flatten(values[argument.name])
        try:
            return self._client.evalsha(script.sha, 0, *arguments)
        except redis.exceptions.NoScriptError:
            return self._client.eval(script.text, 0, *arguments)


def declaration(member: _Declared) -> _Declared:
    """Mark a method as the declaration of the script of the same name."""
    member.declares_script = True  # type: ignore[attr-defined]
    return member


def check_signature(name: str, script: Script, signature: inspect.Signature) -> None:
    """Raise ScriptError unless the keyword parameters match the arguments in the script's header."""
    declared = {parameter.name for parameter in signature.parameters.values() if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    expected = {argument.name for argument in script.arguments}
    if declared != expected or len(signature.parameters) != len(expected) + 1:
        raise ScriptError(f"{name}.lua takes {sorted(expected)}, but is declared with {sorted(declared)}")


def load_scripts(folder: Traversable, shared_library: Traversable) -> dict[str, Script]:
    """Read the scripts in a folder. Its own ``lib`` folder takes precedence over the shared library."""
    library: dict[str, str] = {}
    for library_folder in (shared_library, folder / "lib"):
        if library_folder.is_dir():
            library |= dict(_lua_files(library_folder))
    return {name: compose(name, text, library) for name, text in _lua_files(folder)}


def compose(name: str, text: str, library: Mapping[str, str]) -> Script:
    """Find the library files that a script uses, each once, and check its header. Raises ScriptError."""
    arguments = parse_arguments(name, text)
    libraries = tuple(library[used] for used in _in_order(name, text, library))
    clashes = {argument.name for argument in arguments} & frozenset().union(*map(_defined_names, libraries))
    if clashes:
        raise ScriptError(f"{name}.lua: its library also defines {sorted(clashes)}")
    return Script(arguments, text, libraries)


@cache
def _defined_names(text: str) -> frozenset[str]:
    """Names of the local variables and functions that a library file defines at its top level."""
    return frozenset(name for match in _DEFINITION.finditer(text) for name in re.split(", *", match[1] or match[2]))


@cache
def _words(text: str) -> frozenset[str]:
    """Every word of a text outside comments, which contains all names that it uses."""
    return frozenset(re.findall(r"\w+", _COMMENT_LINE.sub("", text)))


def _used_parts(libraries: Sequence[str], words: Set[str]) -> list[str]:
    """The library files without the functions that a script with these words never calls, as Redis creates all functions on each run."""
    functions: dict[str, set[str]] = {}
    used = set(words)
    for part in libraries:
        for match in _FUNCTION.finditer(part):
            functions.setdefault(match[1], set()).update(_words(match[0]))
        used |= _words(_FUNCTION.sub("", part))
    reached: set[str] = set()
    while found := (used & functions.keys()) - reached:
        reached |= found
        used = set().union(*(functions[name] for name in found))
    return [_FUNCTION.sub(lambda match: match[0] if match[1] in reached else "", part) for part in libraries]


def _library_block(part: str, later: Set[str]) -> str:
    """A library file as a block whose names are local to it, apart from those among the words of the text after it."""
    visible: dict[str, None] = {}

    def declare_outside(definition: re.Match[str]) -> str:
        names = re.split(", *", definition[1] or definition[2])
        if later.isdisjoint(names):
            return definition[0]
        visible.update(dict.fromkeys(names))
        if definition[1]:
            return f"function {definition[1]}"
        return f"{definition[2]} =" if definition[3] else ""

    block = _DEFINITION.sub(declare_outside, part)
    declarations = f"local {', '.join(visible)} " if visible else ""
    return f"{declarations}do\n{block}\nend"


def parse_arguments(name: str, text: str) -> tuple[Argument, ...]:
    """Parse the arguments in a script's header. Raises ScriptError."""
    line = header_line(text, "Arguments")
    arguments, position = [], 0
    while position < len(line):
        match = _ARGUMENT.match(line, position)
        if match is None:
            raise ScriptError(f"{name}.lua: cannot read its arguments at {line[position:]!r}")
        argument, number, rest, fields, columns = match.groups()
        if columns is not None:
            arguments.append(Argument(argument, "records", tuple(column.strip() for column in columns.split(","))))
        else:
            arguments.append(Argument(argument, "number" if number else "list" if rest else "fields" if fields else "text"))
        position = match.end()
    if any(argument.form in ("list", "fields", "records") for argument in arguments[:-1]):
        raise ScriptError(f"{name}.lua: only the last argument may take more than one value")
    return tuple(arguments)


@cache
def header_line(text: str, title: str) -> str:
    """The header text after ``-- <title>:``, with the lines that follow a trailing comma. Empty if the header has no such line."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"-- {title}:"):
            value = line.removeprefix(f"-- {title}:").strip()
            while value.endswith(","):
                value += " " + next(lines, "").removeprefix("--").strip()
            return value
    return ""


def _lua_files(folder: Traversable) -> Iterator[tuple[str, str]]:
    for file in folder.iterdir():
        if file.name.endswith(".lua"):
            yield file.name.removesuffix(".lua"), file.read_text(encoding="utf-8")


def _in_order(name: str, text: str, library: Mapping[str, str], path: tuple[str, ...] = ()) -> list[str]:
    """Names of the library files that a text uses, dependencies first."""
    order: list[str] = []
    for used in filter(None, re.split(r", *", header_line(text, "Uses"))):
        if used not in library or used in path:
            raise ScriptError(f"{name}.lua uses {used}, which {'uses it in turn' if used in path else 'does not exist'}")
        order += [*_in_order(used, library[used], library, (*path, used)), used]
    return list(dict.fromkeys(order))


def _caller(script: Script, member: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(member)
    def call(self: LuaScripts, **values: Any) -> Any:
        return self._run(script, values)

    return call
