"""The documentation matches the code: calls, error codes, settings, statuses, commands, files and links."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import get_args

import pytest

from api.app import create_app  # also imports every error class of the API
from cli import openai_docs, settings_docs
from cli.main import app as command
from shared import errors
from shared.documents import models
from shared.errors import EnginehouseError
from shared.jobs.models import Outcome, Status
from shared.jobs.transitions import Event
from shared.settings import Settings
from testing.repository import REPOSITORY
from tests.structure.sources import DOCS, PACKAGES, lua_files, pages, python_files, relative

CODE_SPAN = re.compile(r"`([^`\n]+)`")


@cache
def spans(page: str) -> set[str]:
    """Code spans of a page."""
    return set(CODE_SPAN.findall((DOCS / page).read_text(encoding="utf-8")))


def calls() -> set[str]:
    rules = create_app(Settings()).url_map.iter_rules()
    return {
        f"{method} {re.sub(r'<path:', '<', rule.rule)}"
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_call_has_a_heading() -> None:
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("http-api.md", "openai-api.md"))
    headings = re.findall(r"^#+ `((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)`", text, re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == calls()


def error_classes(base: type[EnginehouseError] = EnginehouseError) -> Iterator[type[EnginehouseError]]:
    yield base
    for subclass in base.__subclasses__():
        yield from error_classes(subclass)


def test_every_error_of_the_api_is_listed_with_its_status() -> None:
    names = {
        node.id
        for path in python_files("api", "shared/openai")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name)
    }
    text = (DOCS / "http-api.md").read_text(encoding="utf-8")
    for error in error_classes():
        if error.__name__ in names and error is not EnginehouseError and not issubclass(error, errors.JobFailure):
            assert f"| {error.status} | `{error.code}` |" in text, error.__name__


def codes() -> set[str]:
    """Every error code of a class, a call or a Lua script."""
    found = {error.code for error in error_classes(errors.EnginehouseError)}
    for path in python_files(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                found.add(str(node.value.value))
    for lua in lua_files():
        found |= set(re.findall(r"\bcode = '(\w+)'", lua.read_text(encoding="utf-8")))
    return found


def test_every_error_code_is_listed() -> None:
    assert codes() <= spans("http-api.md"), sorted(codes() - spans("http-api.md"))


def test_the_settings_page_is_up_to_date() -> None:
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == settings_docs.settings_page(), (
        "python -m cli.settings_docs > docs/settings.md"
    )


def test_the_tables_of_openai_fields_are_up_to_date() -> None:
    page = openai_docs.PAGE.read_text(encoding="utf-8")
    assert openai_docs.with_tables(page) == page, "python -m cli.openai_docs"


def event_types() -> set[str]:
    emitted = {kind for lua in lua_files() for kind in re.findall(r"emit\(\w+, '(\w+)'", lua.read_text(encoding="utf-8"))}
    return emitted | set(get_args(Event.__dataclass_fields__["type"].type))


@pytest.mark.parametrize(
    "names",
    [set(Status), set(Outcome), set(get_args(models.Status)), event_types()],
    ids=["status", "outcome", "document", "event"],
)
def test_every_status_is_in_the_glossary(names: set[str]) -> None:
    assert len(names) > 4
    assert names <= spans("glossary.md"), sorted(names - spans("glossary.md"))


def test_every_file_that_a_page_names_exists() -> None:
    wrong = [
        f"{relative(page)}: {file}"
        for page in pages()
        for file in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|lua|md|toml|json|yml))[` ]", page.read_text(encoding="utf-8"))
        if not (REPOSITORY / file).exists()
    ]
    assert not wrong


@pytest.mark.parametrize(("page", "folders"), [("security.md", [""]), ("fault-catalogue.md", ["faults", ""])])
def test_every_test_that_a_page_names_exists(page: str, folders: list[str]) -> None:
    named = re.findall(r"`(?:tests/)?([\w/]+\.py)::(test_\w+)", (DOCS / page).read_text(encoding="utf-8"))
    assert len(named) > 40
    wrong = []
    for file, test in named:
        sources = [path for folder in folders if (path := REPOSITORY / "tests" / folder / file).exists()]
        if not any(re.search(rf"^\s*def {test}\(", path.read_text(encoding="utf-8"), re.MULTILINE) for path in sources):
            wrong.append(f"{file}::{test}")
    assert not wrong


def test_every_promise_of_security_has_a_test() -> None:
    text = (DOCS / "security.md").read_text(encoding="utf-8")
    promises = text.partition("## What is not promised")[0].partition("## Another owner")[2]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.startswith("| promise |")]
    assert len(rows) > 40
    assert [row for row in rows if ".py::test_" not in row] == []


def test_every_link_has_a_target() -> None:
    wrong = [
        f"{relative(page)}: {target}"
        for page in pages()
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if not target.startswith(("http://", "https://")) and not (page.parent / target).exists()
    ]
    assert not wrong


def test_every_command_in_a_page_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    subcommands = {item.name or item.callback.__name__ for item in command.registered_commands if item.callback}
    groups = {str(group.name): group.typer_instance for group in command.registered_groups}
    for name, group in groups.items():
        assert group is not None
        subcommands |= {f"{name} {item.name or item.callback.__name__}" for item in group.registered_commands if item.callback}
    wrong = []
    for page in pages():
        for line in code_lines(page.read_text(encoding="utf-8")):
            for target in re.findall(r"(?:^|\s)make ([a-z]+)", line):
                wrong += [f"{relative(page)}: make {target}"] * (target not in targets)
            pattern = rf"(?:^|/|\s)enginehouse ((?:(?:{'|'.join(groups)}) )?[a-z][a-z-]*)"
            for subcommand in re.findall(pattern, line):
                # A group may be named as a whole: `enginehouse keys`.
                wrong += [f"{relative(page)}: enginehouse {subcommand}"] * (subcommand not in subcommands | set(groups))
            for module in re.findall(r"python -m ((?:api|benchmarks|cli|shared|testing|workers)[\w.]*)", line):
                file = REPOSITORY / module.replace(".", "/")
                wrong += [f"{relative(page)}: python -m {module}"] * (not file.with_suffix(".py").exists() and not file.is_dir())
    assert not wrong


def code_lines(text: str) -> Iterator[str]:
    """The lines of code blocks, and code spans."""
    for number, block in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        yield from block.splitlines() if number % 2 else CODE_SPAN.findall(block)
