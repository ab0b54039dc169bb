"""Every regular expression of the server and its commands takes linear time, whatever text it meets.

The patterns are found in the code, so a new one is tested without being listed here. Hostile texts are made from the pieces of
each pattern: the text that repeats one piece, after the text that satisfies the pieces before it, is what makes a backtracking
engine try every division of the repetition.
"""

import ast
import importlib
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeGuard

import pytest

from shared.documents import text_index
from tests.structure.sources import PACKAGES, python_files, relative
from workers.gpu.response_templates import FAMILIES

LENGTH = 30_000
CPU_SECONDS = 0.1
"""Time for one text. A quadratic pattern takes seconds, an exponential one forever."""

_COMMON = (" ", "\n", "\t", "a", "0", "#", '"', "'", "<", "<!--", "<!---->", "<?xml", "{", "[", "[](", "=", "a ", "a\n", "é")
_ENDINGS = ("", "!", "\n!")
_FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.ASCII | re.VERBOSE


@dataclass(frozen=True)
class FoundPattern:
    """A pattern in the code, and the methods by which it is used: ``match``, ``fullmatch`` or any other, as ``finditer``."""

    pattern: "re.Pattern[Any]"
    methods: frozenset[str]


def find_patterns() -> dict[str, FoundPattern]:
    """All patterns by file and line: constants passed to functions of ``re``, and compiled patterns of modules."""
    files = {path: [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))] for path in python_files(*PACKAGES)}
    uses = _uses(files.values())
    patterns: dict[str, FoundPattern] = {}
    for path, nodes in files.items():
        names = {node.value: node.targets[0].id for node in nodes if isinstance(node, ast.Assign) and _is_name(node.targets[0])}
        for node in nodes:
            if not _is_method_call(node) or not _is_name(node.func.value, "re") or node.func.attr == "escape":
                continue
            name, method, place = names.get(node, ""), node.func.attr, f"{relative(path)}:{node.lineno}"
            methods = uses.get(name, {"finditer"}) if method == "compile" else {_as_used(method)}
            if isinstance(node.args[0], ast.Constant):
                pattern = re.compile(node.args[0].value, _flags(node))
            else:
                module = importlib.import_module(".".join(path.relative_to(_root(path)).with_suffix("").parts))
                pattern = getattr(module, name)  # a computed pattern must have a name
            patterns[place] = FoundPattern(pattern, frozenset(methods))
    for marker, template in FAMILIES:
        for name, part in template.spec["fields"].items():
            for key in ("open_pattern", "close_pattern"):
                if key in part:
                    place = f"workers/gpu/response_templates.py: {marker} {name} {key}"
                    patterns[place] = FoundPattern(re.compile(part[key]), frozenset(["search"]))
    return patterns


def _uses(files: Iterable[Sequence[ast.AST]]) -> dict[str, set[str]]:
    """The methods that are called on each name, and on the last name of ``module.NAME``, by the nodes of each file."""
    uses: dict[str, set[str]] = {}
    for nodes in files:
        for node in nodes:
            if _is_method_call(node):
                target = node.func.value
                name = target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""
                uses.setdefault(name, set()).add(_as_used(node.func.attr))
    return uses


def _as_used(method: str) -> str:
    return method if method in ("match", "fullmatch") else "finditer"


def _is_method_call(node: ast.AST) -> TypeGuard[Any]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and bool(node.args)


def _is_name(node: ast.AST, name: str = "") -> TypeGuard[Any]:
    return isinstance(node, ast.Name) and name in ("", node.id)


def _root(path: Path) -> Path:
    return next(parent.parent for parent in path.parents if parent.name in PACKAGES)


def _flags(call: ast.Call) -> int:
    """The flags among the arguments of a call, which are written as ``re.NAME``."""
    given = [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg == "flags")]
    flags = 0
    for argument in given:
        for node in ast.walk(argument):
            value = getattr(re, node.attr, 0) if isinstance(node, ast.Attribute) and _is_name(node.value, "re") else 0
            flags |= int(value) & _FLAGS if isinstance(value, re.RegexFlag) else 0
    return flags


def hostile_texts(pattern: "re.Pattern[Any]") -> Iterator[Any]:
    """Texts that repeat each piece of the pattern, alone and after what comes before it, with ends that do not match."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    pieces, beginnings = _pieces(source, pattern.flags)
    texts = {piece * (LENGTH // len(piece)) for piece in {*_COMMON, *pieces, *beginnings} if piece}
    texts |= {start + piece * (LENGTH // len(piece)) for start in beginnings for piece in {*pieces, " "} if piece}
    for text in sorted(texts):
        for ending in _ENDINGS:
            yield text + ending if isinstance(pattern.pattern, str) else (text + ending).encode("utf-8")


def _pieces(source: str, flags: int) -> tuple[set[str], set[str]]:
    """An example of each part of a pattern, however deep, and of each beginning of it."""
    pieces: set[str] = set()
    items = list(re._parser.parse(source, flags & _FLAGS))  # type: ignore[attr-defined]
    examples = [_example(item, pieces) for item in items]
    return pieces, {"".join(examples[:count]) for count in range(1, len(examples) + 1)}


def _example(item: Any, pieces: set[str]) -> str:
    """A text that matches one node of a parsed pattern. Those of all nodes inside are added to ``pieces``."""
    kind, value = str(item[0]), item[1]
    if kind == "LITERAL":
        example = chr(value)
    elif kind == "NOT_LITERAL":
        example = "b" if value == ord("a") else "a"
    elif kind == "ANY":
        example = "a"
    elif kind == "IN":
        example = _member(value)
        pieces |= {_member([choice]) for choice in value if str(choice[0]) != "NEGATE"}
    elif kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        inner = "".join(_example(part, pieces) for part in value[2])
        example = inner * max(1, min(int(value[0]), 100))
        pieces.add(inner)
    elif kind == "SUBPATTERN":
        example = "".join(_example(part, pieces) for part in value[3])
    elif kind == "BRANCH":
        branches = ["".join(_example(part, pieces) for part in branch) for branch in value[1]]
        pieces |= set(branches)
        example = branches[0]
    elif kind == "ATOMIC_GROUP":
        example = "".join(_example(part, pieces) for part in value)
    else:  # assertions and positions have no text
        return ""
    pieces.add(example)
    return example


def _member(choices: Any) -> str:
    """A character that a class contains."""
    negated = str(choices[0][0]) == "NEGATE"
    for character in "a0 \n<>[](){}#=\"'!-_.:/\u4e00\u0e01" if negated or len(choices) != 1 else "":
        if any(_contains(choice, character) for choice in choices) != negated:
            return character
    kind, value = str(choices[0][0]), choices[0][1]
    if kind == "RANGE":
        return chr(value[0])
    if kind == "CATEGORY":
        return {"CATEGORY_SPACE": " ", "CATEGORY_DIGIT": "0", "CATEGORY_NOT_WORD": "-"}.get(str(value), "a")
    return chr(value) if kind == "LITERAL" else "a"


def _contains(choice: Any, character: str) -> bool:
    kind, value = str(choice[0]), choice[1]
    if kind == "LITERAL":
        return ord(character) == value
    if kind == "RANGE":
        return bool(value[0] <= ord(character) <= value[1])
    tests = {"SPACE": str.isspace, "DIGIT": str.isdigit, "WORD": lambda text: text.isalnum() or text == "_"}
    name = str(value).removeprefix("CATEGORY_")
    return kind == "CATEGORY" and bool(tests[name.removeprefix("NOT_")](character)) != name.startswith("NOT_")


class _TooSlow(Exception):
    """A text took longer than its budget."""


@contextmanager
def cpu_budget(seconds: float) -> Iterator[None]:
    """Raise _TooSlow after this much CPU time. The regular expression engine lets signals interrupt it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def slow_text(found: FoundPattern) -> Any:
    """The beginning of a text for which the pattern takes too long, or None."""
    for text in hostile_texts(found.pattern):
        for method in found.methods:
            try:
                with cpu_budget(CPU_SECONDS):
                    for _ in (
                        getattr(found.pattern, method)(text) if method == "finditer" else [getattr(found.pattern, method)(text)]
                    ):
                        pass
            except _TooSlow:
                return text[:60]
    return None


@pytest.fixture(scope="module")
def patterns() -> dict[str, FoundPattern]:
    return find_patterns()


@pytest.mark.parametrize("package", PACKAGES)
def test_patterns_take_linear_time(package: str, patterns: dict[str, FoundPattern]) -> None:
    of_package = {place: found for place, found in patterns.items() if place.startswith(f"{package}/")}
    assert of_package, "every package has patterns"
    slow = {f"{place}: {found.pattern.pattern!r}": text for place, found in of_package.items() if (text := slow_text(found))}
    assert slow == {}, "these patterns are slow for texts that begin so"


@pytest.mark.parametrize(
    ("source", "flags", "method"),
    [
        (r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL, "match"),
        (r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$", 0, "match"),
        (r"</?[a-z]+[^>]*>", 0, "finditer"),
        (r"[a-z]+_[0-9a-z]{20,}", 0, "finditer"),
        (r"^\s*([-*|]|\d+\.) ?", re.MULTILINE, "finditer"),
        (r"(a|a)*b", 0, "fullmatch"),
    ],
)
def test_the_hostile_texts_find_slow_patterns(source: str, flags: int, method: str) -> None:
    assert slow_text(FoundPattern(re.compile(source, flags), frozenset([method]))) is not None


def test_a_computed_pattern_is_found_in_its_module(patterns: dict[str, FoundPattern]) -> None:
    assert text_index._TERM in [found.pattern for found in patterns.values()]


def test_hostile_texts_are_long() -> None:
    assert sys.getsizeof(next(hostile_texts(re.compile("a")))) >= LENGTH
