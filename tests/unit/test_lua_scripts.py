"""Lua scripts are composed from their library and bound to their declarations by name."""

from pathlib import Path

import pytest

from shared.documents.scripts import DocumentScripts
from shared.jobs.scripts import JobScripts
from shared.lua_scripts import _FUNCTION, ScriptError, check_signature, compose, parse_arguments
from shared.webhooks.scripts import DeliveryScripts
from testing.repository import REPOSITORY

HEADER = "-- move: move a job.\n-- Uses: queue\n-- Arguments: id, delay_ms:number,\n--   leases[id, attempt]\nreturn enqueue()\n"
LIBRARY = {
    "core": "local PREFIX = 'eh:'",
    "job": "-- Uses: core\nlocal function job_key() end",
    "queue": "-- Uses: core, job\nlocal function enqueue() return job_key() end",
    "ring": "-- Uses: ring",
}


def test_arguments_are_read_from_the_header() -> None:
    arguments = parse_arguments("move", HEADER)
    assert [(argument.name, argument.form) for argument in arguments] == [
        ("id", "text"),
        ("delay_ms", "number"),
        ("leases", "records"),
    ]
    assert arguments[2].columns == ("id", "attempt")


@pytest.mark.parametrize(
    ("form", "value", "flat"),
    [
        ("x", None, [""]),
        ("x:number", 5, [5]),
        ("x...", ["a", "b"], ["a", "b"]),
        ("x{}", {"a": 1, "b": 2}, ["a", 1, "b", 2]),
        ("x[id, attempt]", [{"attempt": 2, "id": "job"}], ["job", 2]),
    ],
)
def test_values_are_sent_in_the_order_of_the_header(form: str, value: object, flat: list[object]) -> None:
    [argument] = parse_arguments("move", f"-- Arguments: {form}\n")
    assert list(argument.flatten(value)) == flat


def test_library_files_come_before_the_script_each_once() -> None:
    text = compose("move", HEADER, LIBRARY).text
    assert text.count("PREFIX = ") == 1
    assert text.index("PREFIX") < text.index("job_key") < text.index("enqueue") < text.index("-- move:")


def test_names_that_no_later_text_uses_stay_in_their_library_file() -> None:
    library = {
        "core": "local LIMIT, STEP = 1, 2\nlocal cache\nlocal function half() return STEP end\nlocal function double() return half() end",
        "job": "-- Uses: core\n-- half: not used here.\nlocal function job_key() cache = double() end",
    }
    text = compose("move", "-- move: move a job.\n-- Uses: job\nreturn job_key()", library).text
    assert "\nlocal cache, double do\nlocal LIMIT, STEP = 1, 2\n\nlocal function half()" in text
    assert "\nfunction double() return half() end\nend\nlocal job_key do\n" in text


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("shared/**/lib/*.lua")), ids=lambda path: path.stem)
def test_each_function_of_a_library_file_is_found_by_itself(path: Path) -> None:
    text = path.read_text()
    found = [match[0] for match in _FUNCTION.finditer(text)]
    assert len(found) == text.count("\nlocal function ")
    assert not [function for function in found if "\nlocal " in function]


def test_functions_that_no_later_text_calls_are_left_out() -> None:
    library = {
        "core": "local LIMIT = found(1)\nlocal function half()\n  if LIMIT then\n    return 1\n  end\nend\nlocal function found(x) return x end",
        "job": "-- Uses: core\n-- half: not used here.\nlocal function job_key() return 2 end\nlocal function unused() return half() end",
    }
    text = compose("move", "-- move: move a job.\n-- Uses: job\nreturn job_key()", library).text
    assert "half()" not in text
    assert "unused" not in text
    assert "found(x) return x end" in text
    assert "function job_key() return 2 end" in text


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("-- Uses: no_such_file\n", "does not exist"),
        ("-- Uses: ring\n", "uses it in turn"),
        ("-- Uses: core\n-- Arguments: PREFIX\n", "defines"),
        ("-- Arguments: leases[id], name\n", "only the last argument"),
        ("-- Arguments: na-me\n", "cannot read"),
    ],
)
def test_a_header_that_cannot_work_is_rejected(header: str, problem: str) -> None:
    with pytest.raises(ScriptError, match=problem):
        compose("move", header, LIBRARY)


@pytest.mark.parametrize("wrong", ["positional", "missing", "surplus", "misspelt"])
def test_a_declaration_must_have_exactly_the_names_of_the_header(wrong: str) -> None:
    import inspect

    def positional(self: object, id: str, delay_ms: int, leases: object) -> None: ...
    def missing(self: object, *, id: str, delay_ms: int) -> None: ...
    def surplus(self: object, *, id: str, delay_ms: int, leases: object, now: int) -> None: ...
    def misspelt(self: object, *, id: str, delay: int, leases: object) -> None: ...
    def right(self: object, *, leases: object, id: str, delay_ms: int) -> None: ...

    script = compose("move", HEADER, LIBRARY)
    check_signature("move", script, inspect.signature(right))
    with pytest.raises(ScriptError, match="is declared with"):
        check_signature("move", script, inspect.signature(locals()[wrong]))


def test_a_declaration_without_a_script_stops_the_process() -> None:
    from shared.lua_scripts import LuaScripts, declaration

    with pytest.raises(ScriptError, match="differ"):

        class Incomplete(LuaScripts, package="shared.webhooks.lua"):
            @declaration
            def no_such_script(self, *, id: str) -> None: ...


def test_every_script_of_the_project_is_declared() -> None:
    for declared in (JobScripts, DocumentScripts, DeliveryScripts):
        assert any(not name.startswith("_") for name in vars(declared))
