"""Answer parser: text, reasoning and tool calls are the same however the answer is cut into pieces."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.jobs.deltas import Delta, merge_deltas
from workers.gpu.answer_parser import AnswerParser
from workers.gpu.response_templates import (
    GEMMA_4,
    GRANITE,
    HERMES,
    LLAMA,
    MISTRAL,
    QWEN_XML,
    REASONING,
    ResponseTemplate,
    find_response_template,
)

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "zip": {"type": "string"}},
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "get_time"}},
]
ROME = {"name": "get_weather", "arguments": {"city": "Rome"}}
TIME = {"name": "get_time", "arguments": {}}


def parse(template: ResponseTemplate | None, pieces: list[str], **options: Any) -> Delta:
    parser = AnswerParser(template, **{"tools": TOOLS, **options})
    whole: Delta = {}
    for piece in pieces:
        merge_deltas(whole, parser.feed(piece))
    merge_deltas(whole, parser.finish())
    return whole


def calls_of(delta: Delta) -> list[dict[str, Any]]:
    calls = delta.get("tool_calls", [])
    assert [call["index"] for call in calls] == list(range(len(calls)))
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(call["id"].startswith("call_") for call in calls)
    return [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in calls]


# Template, answer, text, reasoning, calls.
CASES: dict[str, tuple[ResponseTemplate | None, str, str, str, list[dict[str, Any]]]] = {
    "hermes": (
        HERMES,
        '<think>\nShe asks.\n</think>\n\nLet me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>',
        "Let me see.",
        "She asks.",
        [ROME],
    ),
    "hermes parallel": (
        HERMES,
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>\n<tool_call>{"name": "get_time"}</tool_call>\n',
        "",
        "",
        [ROME, TIME],
    ),
    "hermes text after": (HERMES, '<tool_call>{"name": "get_time"}</tool_call> Done. ', "Done.", "", [TIME]),
    "hermes no call": (HERMES, "1 < 2 <b> and <tool_ cal", "1 < 2 <b> and <tool_ cal", "", []),
    "hermes unclosed": (HERMES, '<tool_call>\n{"name": "get_time", "arguments": {}}', "", "", [TIME]),
    "hermes cut": (HERMES, 'So <tool_call>\n{"name": "get_ti', 'So <tool_call>\n{"name": "get_ti', "", []),
    "hermes bad": (HERMES, '<tool_call>{"name": }</tool_call>ok', '<tool_call>{"name": }</tool_call>ok', "", []),
    "hermes no name": (HERMES, "<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", "", []),
    "hermes thought": (HERMES, "<think>\nI am not done", "", "I am not done", []),
    "llama": (LLAMA, '{"name": "get_weather", "parameters": {"city": "Rome"}}', "", "", [ROME]),
    "llama tag": (LLAMA, '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}}', "", "", [ROME]),
    "llama two": (LLAMA, '{"name": "get_weather", "parameters": {"city": "Rome"}}; {"name": "get_time"}', "", "", [ROME, TIME]),
    "llama typed": (LLAMA, '{"type": "function", "function": "get_time", "parameters": null}', "", "", [TIME]),
    "llama json": (LLAMA, '{"name": "Rome", "people": 3}', '{"name": "Rome", "people": 3}', "", []),
    "llama text": (LLAMA, 'It is {"name": "get_time"}', 'It is {"name": "get_time"}', "", []),
    "granite": (
        GRANITE,
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Rome"}}, {"name": "get_time", "arguments": {}}]',
        "",
        "",
        [ROME, TIME],
    ),
    "granite thinks": (GRANITE, "<think>Hm.</think><response>Yes.</response>", "Yes.", "Hm.", []),
    "mistral": (MISTRAL, '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Rome"}, "id": "abc"}]', "", "", [ROME]),
    "mistral later": (MISTRAL, '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}[TOOL_CALLS]get_time{}', "", "", [ROME, TIME]),
    "qwen xml": (
        QWEN_XML,
        "<think>\nHm.\n</think>\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n<parameter=zip>\n00118\n</parameter>\n</function>\n</tool_call>",
        "",
        "Hm.",
        [{"name": "get_weather", "arguments": {"city": "Rome", "days": 3, "zip": "00118"}}],
    ),
    "gemma 4": (
        GEMMA_4,
        '<|channel>thought\nHm.<channel|><|tool_call>call:get_weather{city:<|"|>Rome<|"|>}<tool_call|>',
        "",
        "Hm.",
        [ROME],
    ),
    "reasoning": (REASONING, "<think>Hm.</think>\n\nYes <tool_call>", "Yes <tool_call>", "Hm.", []),
    "none": (None, "  <think>Hm.</think> Yes. ", "<think>Hm.</think> Yes.", "", []),
}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_an_answer_is_parsed_the_same_however_it_is_cut(name: str, data: st.DataObject) -> None:
    template, answer, text, reasoning, calls = CASES[name]
    cuts = data.draw(st.one_of(st.just(list(range(len(answer)))), st.lists(st.integers(0, len(answer)), max_size=6).map(sorted)))
    delta = parse(template, [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)])
    assert (delta.get("text", ""), delta.get("reasoning", ""), calls_of(delta)) == (text, reasoning, calls)


def test_the_template_may_have_begun_or_skipped_the_reasoning() -> None:
    assert parse(HERMES, ["Hm.", "</think>Yes."], opening="<think>\n") == {"reasoning": "Hm.", "text": "Yes."}
    assert parse(HERMES, ["Yes."], opening="<think>\n\n</think>\n\n") == {"text": "Yes."}


def test_without_tools_markup_of_calls_is_text() -> None:
    answer = '<tool_call>{"name": "get_time"}</tool_call>'
    assert parse(HERMES, [answer], tools=[]) == {"text": answer}


def test_a_single_call_is_kept_if_only_one_is_allowed() -> None:
    answer = '<|tool_call|>[{"name": "get_time"}, {"name": "get_weather", "arguments": {"city": "Rome"}}]'
    assert calls_of(parse(GRANITE, [answer], single_call=True)) == [TIME]


ODD = '{"city": "}{ \\"] \\\\", "list": [{"a": "[{"}, {}], "é": 1.50e3 , "city": null}'
STREAMED = {
    "hermes": (HERMES, f'Well. <tool_call>\n{{"name": "get_weather", "arguments": {ODD}}}\n</tool_call>', [ODD]),
    "hermes spaces": (HERMES, f'<tool_call>{{ "name" :"get_weather" , "arguments":{ODD} , "id": {{}} }}</tool_call>', [ODD]),
    "llama": (LLAMA, f'{{"name": "get_weather", "parameters": {ODD}}}; {{"name": "get_time", "parameters": {{}}}}', [ODD, "{}"]),
    "granite": (
        GRANITE,
        f'<|tool_call|>[{{"name": "get_weather", "arguments": {ODD}}}, {{"name": "get_time", "arguments": {{}}}}]',
        [ODD, "{}"],
    ),
    "granite, then a whole call": (
        GRANITE,
        f'<|tool_call|>[{{"name": "get_weather", "arguments": {ODD}}}, {{"name": "get_time"}}]',
        [ODD, "{}"],
    ),
    "mistral": (MISTRAL, f"[TOOL_CALLS]get_weather[ARGS]{ODD}[TOOL_CALLS]get_time{{}}", [ODD, "{}"]),
    "cut": (HERMES, f'<tool_call>\n{{"name": "get_weather", "arguments": {ODD[:30]}', [ODD[:30]]),
}


@pytest.mark.parametrize("name", STREAMED)
def test_arguments_are_sent_as_they_are_written(name: str) -> None:
    template, answer, expected = STREAMED[name]
    for size in (1, 2, 3, 7, len(answer)):
        parser = AnswerParser(template, tools=TOOLS, id_seed="x")
        whole: Delta = {}
        pieces: list[dict[str, Any]] = []
        for start in range(0, len(answer), size):
            delta = parser.feed(answer[start : start + size])
            pieces += delta.get("tool_calls", ())
            merge_deltas(whole, delta)
        merge_deltas(whole, parser.finish())
        assert [call["arguments"] for call in whole["tool_calls"]] == expected
        assert [call["name"] for call in whole["tool_calls"]] == ["get_weather", "get_time"][: len(expected)]
        assert len({call["id"] for call in whole["tool_calls"]}) == len(expected)
        if size == 1:
            assert len(pieces) > 25
            assert [piece["index"] for piece in pieces if "name" in piece][:1] == [0], (
                "the first piece has the name, and others none"
            )
            assert not pieces[0]["arguments"].strip("{"), "it does not wait for the arguments"
        assert whole.get("text", "") == ("Well." if name == "hermes" else "")


def test_a_call_of_an_unknown_tool_is_sent_whole() -> None:
    parser = AnswerParser(HERMES, tools=TOOLS)
    assert parser.feed('<tool_call>{"name": "other", "arguments": {"a": 1}}') == {}
    [call] = parser.feed("</tool_call>").get("tool_calls", ())
    assert (call["name"], call["arguments"]) == ("other", '{"a": 1}')


def test_text_is_sent_before_the_answer_ends() -> None:
    parser = AnswerParser(HERMES, tools=TOOLS)
    assert parser.feed("<thi") == {}
    assert parser.feed("nk>a") == {"reasoning": "a"}
    assert parser.feed("b </think>") == {"reasoning": "b"}
    assert parser.feed("c <") == {"text": "c"}
    assert parser.feed("d") == {"text": " <d"}


@pytest.mark.parametrize("flood", [" ", "\n", "<", "<tool_call>", '{"', "[TOOL_CALLS]"])
@pytest.mark.parametrize("template", [HERMES, LLAMA, QWEN_XML, MISTRAL])
def test_a_flood_of_one_text_takes_no_quadratic_time(template: ResponseTemplate, flood: str) -> None:
    parser = AnswerParser(template, tools=TOOLS)
    for _ in range(2000):
        parser.feed(flood)
    parser.finish()


@pytest.mark.parametrize(
    ("chat_template", "template"),
    [
        ("{{ '<tool_call>' }} … </tool_call>", HERMES),
        ("<tool_call>\n<function=example>", QWEN_XML),
        ("respond only with <|tool_call|> followed by", GRANITE),
        ("<|python_tag|>", LLAMA),
        ("[TOOL_CALLS]", MISTRAL),
        ("<|tool_call>call:", GEMMA_4),
        ("<think>\n", REASONING),
        ("{{ messages }}", None),
    ],
)
def test_the_family_is_found_by_the_chat_template(chat_template: str, template: ResponseTemplate | None) -> None:
    assert find_response_template(None, chat_template) is template


def test_the_template_that_a_tokenizer_ships_comes_first() -> None:
    shipped = {"start_anchor": "A:", "fields": {"thinking": {"open": "(", "close": ")"}, "content": {}}}
    template = find_response_template(shipped, "<think>")
    assert template is not None
    assert template.opening("Q: (x) A: (a) Q: A: (") == " ("
    assert parse(template, ["b) c"], opening=" (") == {"reasoning": "b", "text": "c"}
