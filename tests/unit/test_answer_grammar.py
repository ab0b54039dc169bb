"""Answer grammars: forced calls and JSON are accepted in the markup of the family, and nothing else is."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from shared.errors import InvalidValue
from shared.models.catalogue import ECHO, ModelEntry
from workers.control_texts import ControlTexts
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
STRICT = [{**TOOLS[0], "function": {**TOOLS[0]["function"], "strict": True}}, TOOLS[1]]
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
    "strict": (
        HERMES,
        {"tools": STRICT},
        "",
        [
            *("", "Hello", "a < b, <tool_ call> and <tool_call", "<think>\nShe asks.</think>\n\nWell."),
            *(HERMES_ROME, f"Let me see.\n{HERMES_ROME}\n{HERMES_TIME} and so on", f"<think>x</think>{HERMES_TIME}"),
            HERMES_TIME.replace("{}", '{"any": [1]}'),
        ],
        [
            "<tool_call>",
            "Use <tool_call> for it",
            HERMES_ROME.replace("city", "town"),
            HERMES_TIME.replace("time", "none"),
            HERMES_ROME[:-1],
        ],
    ),
    "strict and single": (
        HERMES,
        {"tools": STRICT, "parallel_tool_calls": False},
        "",
        ["Hello", f"So: {HERMES_ROME} there"],
        [f"{HERMES_ROME}\n{HERMES_ROME}"],
    ),
    "strict after reasoning": (
        HERMES,
        {"tools": STRICT},
        "<think>\n",
        ["I may use <tool_call> now.</think>\n\nHello", f"Hm.</think>{HERMES_ROME}"],
        ["Hello", f"Hm.</think>{HERMES_ROME.replace('city', 'town')}"],
    ),
    "strict granite": (
        GRANITE,
        {"tools": STRICT},
        "",
        ["Hello", f"<|tool_call|>[{ROME}]", f"<|tool_call|> [{ROME}, {TIME}]"],
        [f"<|tool_call|>[{ROME.replace('city', 'town')}]", f"<|tool_call|>{ROME}"],
    ),
    "strict mistral": (MISTRAL, {"tools": STRICT}, "", ["[TOOL]", f"[TOOL_CALLS] [{ROME}]"], ["[TOOL_CALLS] {}"]),
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
    assert grammar_for(HERMES, {"tools": STRICT, "tool_choice": "none"}) == ""
    # Without a marker, nothing tells a call from text.
    assert (
        grammar_for(LLAMA, {"tools": STRICT})
        == grammar_for(GEMMA_4, {"tools": STRICT})
        == grammar_for(None, {"tools": STRICT})
        == ""
    )


@pytest.mark.parametrize("template", [HERMES, GRANITE, MISTRAL], ids=["hermes", "granite", "mistral"])
def test_markers_that_are_control_tokens_begin_calls_and_texts_like_them_do_not(template: ResponseTemplate) -> None:
    """llguidance matches no control token by a regular expression, and takes all in angle brackets for control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({letter: id for id, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    assert template.call_format is not None
    markers = [template.call_format.opening, template.call_format.closing, *(template.reasoning_markers or ())]
    texts = [text.strip() for text in markers if text]
    tokenizer.add_special_tokens([*texts, "<end>"])
    ids = {text: tokenizer.token_to_id(text) for text in texts}
    control = ControlTexts(texts)
    codec = TextCodec(ModelEntry(name="echo", url="echo:", engine=ECHO))
    codec._tokenizer.response_template = template
    codec._tokenizer.split_control_tokens = lambda text: [  # type: ignore[method-assign]
        ids[part] if at % 2 else part for at, part in enumerate(control.split(text)) if at % 2 or part
    ]
    grammar = build_grammar({"tools": STRICT}, EncodedPrompt([1], is_chat=True), codec)
    backend = LLTokenizer(tokenizer.to_str(), eos_token=tokenizer.token_to_id("<end>"))

    def accepts(*parts: str) -> bool:
        tokens = [id for part in parts for id in ([ids[part]] if part in ids else tokenizer.encode(part).ids)]
        matcher = LLMatcher(backend, grammar)
        return bool(matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting())

    opening, closing = template.call_format.opening.strip(), template.call_format.closing.strip()
    rome, bad = (f"[{call}]" if template.call_format.is_list else call for call in (ROME, ROME.replace("city", "town")))
    end = ["\n", closing] if closing else []
    thoughts = [template.reasoning_markers[0], "Hm.", template.reasoning_markers[1]] if template.reasoning_markers else []
    assert accepts("Hello")
    assert accepts(*thoughts, "Hello ", opening, "\n", rome, *end)
    assert accepts(opening, rome, *end, " and ", opening, rome, *end, " more")
    assert not accepts(opening, "Hello")
    assert not accepts("Hello", opening, bad, *end)
    # In letters it is no marker.
    assert accepts(opening[:3], opening[3:], " is how a call begins")


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
