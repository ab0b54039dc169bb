"""Echo engine: tokens, log-probabilities and grammars, without a process around it."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher

from workers.gpu.engine.echo import EchoEngine
from workers.gpu.engine.messages import GenerationRequest, StepOutput

NESTED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "kind": {"enum": ["red", "green"]},
        "score": {"type": "number"},
        "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/item"}},
        "at": {"type": "string", "format": "date"},
        "any": {},
        "choice": {"anyOf": [{"type": "integer", "minimum": 10}, {"type": "null"}]},
    },
    "required": ["name", "kind", "score", "items", "at", "any", "choice"],
    "$defs": {"item": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/item"}, {"type": "null"}]}}}},
}


def run(*requests: GenerationRequest) -> dict[str, StepOutput]:
    """All output of each request."""
    engine = EchoEngine(max_context=2000, max_running=8)
    for request in requests:
        engine.add_request(request)
    outputs = {request.id: StepOutput([], []) for request in requests}
    while not all(output.finished for output in outputs.values()):
        step = engine.next_step(1.0)
        assert step is not None
        for name, values in vars(step).items():
            for value in values:
                getattr(outputs[value[0]], name).append(value)
    return outputs


def echo(text: str, limit: int = 500, **fields: Any) -> tuple[str, str, str]:
    """Text, reason and detail of one request."""
    output = run(GenerationRequest("r", list(text.encode()), limit, fields.pop("stops", []), **fields))["r"]
    [(_, reason, detail)] = output.finished
    return bytes(token for _, tokens in output.tokens for token in tokens).decode(), reason, detail


def json_grammar(schema: Any) -> str:
    return LLMatcher.grammar_from_json_schema(json.dumps(schema))


def test_the_prompt_is_echoed_up_to_a_limit_or_a_stop_token() -> None:
    assert echo("hello") == ("hello", "stop", "")
    assert echo("hello", 3) == ("hel", "length", "")
    assert echo("") == echo("", ignore_stop_tokens=True) == ("", "stop", "")
    assert echo("hello", stops=[ord("o")]) == ("hell", "stop", "")
    assert echo("hello", 12, stops=[ord("o")], ignore_stop_tokens=True) == ("hellohellohe", "length", "")
    assert echo("hello", temperature=2.0, frequency_penalty=2.0, logit_bias=[(1, 100.0)], min_p=0.5) == ("hello", "stop", "")


def test_log_probabilities_are_those_of_certain_tokens() -> None:
    output = run(GenerationRequest("r", list(b"abc"), 2, [], logprobs=3, prompt_logprobs=0))["r"]
    assert output.logprobs == [("r", [(97, 0.0, [(97, 0.0)])]), ("r", [(98, 0.0, [(98, 0.0)])])]
    assert output.prompt_logprobs == [("r", [(98, 0.0, []), (99, 0.0, [])])]
    only_scores = run(GenerationRequest("r", list(b"abc"), 0, [], prompt_logprobs=1, scored_tokens=1))["r"]
    assert only_scores == StepOutput([], [("r", "length", "")], [], [("r", [(99, 0.0, [(99, 0.0)])])])


@pytest.mark.parametrize("text", ["hello", '{"name": "x"}', "", "{" * 20, '"""', "[1, 2, {}]", "\\\\\\\\ \n\n"])
@pytest.mark.parametrize(
    "schema", [NESTED, {"type": "object"}, {"type": "array", "items": {"type": "boolean"}}, {"const": 12}, {}]
)
def test_the_echo_of_any_prompt_matches_a_schema(schema: Any, text: str) -> None:
    answer, reason, detail = echo(text + " ", grammar=json_grammar(schema))
    assert (reason, detail) == ("stop", "")
    value = json.loads(answer)
    if "required" in schema:
        assert list(value)[: len(schema["required"])] == schema["required"]
        assert value["choice"] is None or value["choice"] >= 10


def test_a_grammar_that_allows_the_prompt_leaves_it_as_it_is() -> None:
    assert echo('{"a": [1, 2]}', grammar=json_grammar({"type": "object"})) == ('{"a": [1, 2]}', "stop", "")
    assert echo("abc1", grammar=LLMatcher.grammar_from_regex("[a-z]+")) == ("abc", "stop", "")
    assert echo("abcd", 3, grammar=LLMatcher.grammar_from_regex("[a-z]+")) == ("abc", "length", "")
    digits = {"grammar": LLMatcher.grammar_from_regex("[a-z]+[0-9]*"), "stops": [ord("c"), ord("1")]}
    assert echo("ab123", **digits) == ("ab", "stop", "")
    assert echo("a1b", 6, ignore_stop_tokens=True, **digits) == ("a10000", "length", "")


def test_an_echo_goes_on_after_output_of_an_earlier_process() -> None:
    for text, fields in (("hello world", {}), ('x{"a": 1}', {"grammar": json_grammar({"type": "object"})})):
        whole, reason, _ = echo(text, **fields)
        for delivered in range(1, len(whole)):
            rest = echo(text + whole[:delivered], generated_tokens=delivered, **fields)
            assert rest == (whole[delivered:], reason, "")
    assert echo("ab", generated_tokens=1, grammar=LLMatcher.grammar_from_regex("b")) == ("", "stop", "")


def test_what_cannot_be_served_is_refused_by_name() -> None:
    assert "the grammar is invalid" in echo("hello", grammar="nonsense")[2]
    assert "logprobs must be" in echo("hello", logprobs=21)[2]
    assert "max_new_tokens" in echo("hello", 0)[2]
    outputs = run(GenerationRequest("bad", [300], 5, []), GenerationRequest("good", [3], 5, []))
    assert outputs["bad"].finished[0][1] == "failed"
    assert outputs["good"].finished[0][1] == "stop"
