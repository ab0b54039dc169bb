"""Answer grammars: forced calls and JSON are accepted in the markup of the family, and nothing else is."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from shared.errors import InvalidValue
from shared.models.catalogue import ECHO, ModelEntry
from workers.gpu.answer_grammar import build_grammar, template_of_answer
from workers.gpu.answer_parser import AnswerParser
from workers.gpu.prompt_encoding import EncodedPrompt
from workers.gpu.response_templates import GEMMA_4, GRANITE, HERMES, LLAMA, MISTRAL, ResponseTemplate
from workers.gpu.tokenization import TextCodec

BYTES = LLTokenizer("byte")
CITY = {"type": "object", "properties": {"city": {"$ref": "#/$defs/text"}}, "required": ["city"], "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {**CITY, "$defs": {"text": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "get_time"}},
]
ROME = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
TIME = '{"name": "get_time", "arguments": {}}'
HERMES_ROME, HERMES_TIME = (f"<tool_call>\n{call}\n</tool_call>" for call in (ROME, TIME))
NAMED = {"tool_choice": {"name": "get_weather"}}
REQUIRED = {"tool_choice": "required"}
OBJECT = {"tools": None, "constraint": {"type": "json_object"}}
SCHEMA = {"tools": None, "constraint": {"type": "json_schema", "schema": CITY | {"$defs": {"text": {"enum": ["Rome"]}}}}}


def grammar_for(template: ResponseTemplate | None, spec: dict[str, Any], opening: str = "", *, is_chat: bool = True) -> str:
    codec = TextCodec(ModelEntry(name="echo", url="echo:", engine=ECHO))
    codec._tokenizer.response_template = template
    return build_grammar({"tools": TOOLS, **spec}, EncodedPrompt([1], is_chat=is_chat, opening=opening), codec)


def accepts(grammar: str, answer: str) -> bool:
    matcher = LLMatcher(BYTES, grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(answer.encode())
    return bool(matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting())


# Template, spec, opening, answers that are accepted, answers that are not.
CASES: dict[str, tuple[ResponseTemplate | None, dict[str, Any], str, list[str], list[str]]] = {
    "named": (
        HERMES,
        NAMED,
        "",
        [HERMES_ROME, f"<think>\nShe asks.</think>\n\n{HERMES_ROME}"],
        ["Hello", HERMES_TIME, f"{HERMES_ROME}\n{HERMES_ROME}", HERMES_ROME.replace("city", "town")],
    ),
    "required": (HERMES, REQUIRED, "", [HERMES_ROME, HERMES_TIME, f"{HERMES_ROME}\n{HERMES_TIME}"], ["", "{}", ROME]),
    "single": (HERMES, REQUIRED | {"parallel_tool_calls": False}, "", [HERMES_TIME], [f"{HERMES_ROME}\n{HERMES_TIME}"]),
    "begun": (HERMES, NAMED, "<think>\n", [f"Hm.</think>\n\n{HERMES_ROME}"], [HERMES_ROME]),
    "skipped": (HERMES, NAMED, "<think>\n\n</think>\n\n", [HERMES_ROME], [f"<think>Hm.</think>{HERMES_ROME}"]),
    "granite": (GRANITE, REQUIRED, "", [f"<|tool_call|>[{ROME}]", f"<|tool_call|>[{ROME}, {TIME}]"], [ROME, "<|tool_call|>[]"]),
    "mistral": (
        MISTRAL,
        REQUIRED | {"parallel_tool_calls": False},
        "",
        [f"[TOOL_CALLS] [{ROME}]"],
        [f"[TOOL_CALLS] [{ROME}, {TIME}]"],
    ),
    "llama": (LLAMA, REQUIRED, "", [ROME.replace("arguments", "parameters")], [ROME]),
    "gemma 4": (GEMMA_4, NAMED, "", [ROME], [f"<|tool_call>{ROME}"]),
    "no markup": (None, NAMED, "", [ROME], [TIME]),
    "object": (HERMES, OBJECT, "", ['{"a": [1, {"b": null}]}', '<think>x</think>\n{"a": 1}'], ["[1]", "text", '{"a": 1} x']),
    "schema": (
        None,
        SCHEMA,
        "",
        ['{"city": "Rome"}', '{ "city":"Rome" }'],
        ['{"city": "Oslo"}', "{}", '{"city":' + 40 * " " + '"Rome"}'],
    ),
    "format or call": (HERMES, SCHEMA | {"tools": TOOLS}, "", ['{"city": "Rome"}', HERMES_TIME], ["Hello"]),
}


@pytest.mark.parametrize("name", CASES)
def test_only_the_forced_form_is_accepted(name: str) -> None:
    template, spec, opening, accepted, refused = CASES[name]
    grammar = grammar_for(template, spec, opening)
    assert [answer for answer in accepted if not accepts(grammar, answer)] == []
    assert [answer for answer in refused if accepts(grammar, answer)] == []


@pytest.mark.parametrize("name", ["named", "required", "granite", "mistral", "llama", "gemma 4", "no markup"])
def test_a_forced_call_is_parsed(name: str) -> None:
    template, spec, _, accepted, _ = CASES[name]
    parser = AnswerParser(template_of_answer({"tools": TOOLS, **spec}, template), tools=TOOLS)
    calls = [*parser.feed(accepted[-1]).get("tool_calls", ()), *parser.finish().get("tool_calls", ())]
    assert calls
    assert all(isinstance(json.loads(call["arguments"]), dict) for call in calls)


def test_a_free_answer_has_no_grammar() -> None:
    assert grammar_for(HERMES, {"tool_choice": "auto"}) == grammar_for(HERMES, {"tool_choice": "none"}) == ""


def test_a_raw_prompt_may_be_constrained_too() -> None:
    assert accepts(grammar_for(HERMES, OBJECT, is_chat=False), "{}")


# Schema, answers that match it, answers that llguidance alone would allow beside them.
EXACT: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"type": "string", "pattern": '^[^"]*$'}, ['"a\\\\b\\n"', '""'], [r'"a\"b"', r'"\""']),
    ({"type": "string", "pattern": r'^(x|[^"\\]+)[^/]?$'}, ['"ab"', '"x"'], [r'"a\\b"', r'"\"\""']),
    ({"type": "string", "pattern": r"^\[[^\]\"]\]$"}, ['"[a]"'], [r'"[\"]"']),
    (
        {"type": "object", "patternProperties": {'^[^"]$': {"type": "null"}}, "additionalProperties": False},
        ['{"a":null}'],
        [r'{"\"":null}'],
    ),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, ["0.5", "0.001"], ["0", "0.0"]),
    ({"type": "number", "exclusiveMinimum": 5, "exclusiveMaximum": 5.5}, ["5.4"], ["5"]),
    ({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}, ["-0.5", "-0.1"], ["-0", "-0.0"]),
    # A property may have the name of a keyword, and a constant may look like a pattern.
    (
        {"type": "object", "properties": {"pattern": {"const": "[^a]"}}, "required": ["pattern"], "additionalProperties": False},
        ['{"pattern":"[^a]"}'],
        [],
    ),
]


@pytest.mark.parametrize(("schema", "matching", "others"), EXACT)
def test_what_a_schema_excludes_is_not_accepted(schema: dict[str, Any], matching: list[str], others: list[str]) -> None:
    grammar = grammar_for(None, {"tools": None, "constraint": {"type": "json_schema", "schema": schema}})
    assert [answer for answer in matching if not accepts(grammar, answer)] == []
    assert [answer for answer in others if accepts(grammar, answer)] == []


@pytest.mark.parametrize("schema", [{"type": "string", "pattern": "(?<=a)b"}, {"$ref": "#/missing"}, {"type": "nothing"}])
def test_a_schema_that_cannot_be_enforced_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as caught:
        grammar_for(None, {"tools": None, "constraint": {"type": "json_schema", "schema": schema}})
    assert caught.value.param == "response_format"
    with pytest.raises(InvalidValue) as caught:
        grammar_for(
            HERMES, {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}], "tool_choice": "required"}
        )
    assert caught.value.param == "tools"
