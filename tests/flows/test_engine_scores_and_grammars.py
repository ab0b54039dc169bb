"""Log-probabilities, penalties and grammars with a byte-level model of random weights, in float32."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.flows.in_process_engine import FinishedRequest, InProcessEngine
from tests.flows.tiny_model import END, make_tiny_model
from workers.gpu.engine.messages import GenerationRequest, TokenLogprobs

torch = pytest.importorskip("torch")
LLMatcher = pytest.importorskip("llguidance").LLMatcher

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "size": {"enum": ["small", "large"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "size", "count", "tags"],
    "additionalProperties": False,
}
GRAMMAR = LLMatcher.grammar_from_json_schema(json.dumps(SCHEMA), overrides={"whitespace_flexible": False})
DIGITS = LLMatcher.grammar_from_regex("[0-9]+")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessEngine]:
    folder = make_tiny_model(tmp_path_factory.mktemp("scores") / "tiny", byte_level=True)
    with InProcessEngine(folder, max_in_flight=8) as engine:
        yield engine


def prompt_of(number: int, length: int) -> list[int]:
    return [(number * 31 + position * position * 7) % 256 for position in range(length)]


def direct_logprobs(engine: InProcessEngine, tokens: list[int]) -> Any:
    """Log-probabilities after each of these tokens by a plain forward pass of transformers."""
    model = engine.model
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float().log_softmax(-1)
    finally:
        model.set_attn_implementation(implementation)


def assert_scores(entries: list[TokenLogprobs], tokens: list[int], expected: Any, top: int) -> None:
    assert [entry[0] for entry in entries] == tokens
    for (token, logprob, likely), row in zip(entries, expected, strict=True):
        assert logprob == pytest.approx(float(row[token]), abs=1e-4)
        assert [value for _, value in likely] == pytest.approx(row.topk(top).values.tolist(), abs=1e-4)
        for other, value in likely:
            assert value == pytest.approx(float(row[other]), abs=1e-4)


def test_log_probabilities_are_those_of_transformers(engine: InProcessEngine) -> None:
    """Of prompts longer than a step may score, beside each other, and whatever changes the choice of tokens."""
    changes: list[dict[str, Any]] = [
        {},
        {"temperature": 1.5, "top_k": 3, "seed": 4},
        {"frequency_penalty": 3.0, "repetition_penalty": 1.5, "logit_bias": [(65, 30.0)]},
        {"grammar": DIGITS, "temperature": 1.0, "seed": 5},
    ]
    requests = [
        GenerationRequest(
            f"{n}", prompt_of(n, (1, 2, 40, 300, 700, 257)[n]), 9, [], logprobs=n * 4, prompt_logprobs=n, **changes[n % 4]
        )
        for n in range(6)
    ]
    free = GenerationRequest("free", prompt_of(9, 30), 30, [])
    outputs = engine.run([*requests, free])
    assert not outputs["free"].logprobs
    assert not outputs["free"].prompt_logprobs
    for n, request in enumerate(requests):
        output = outputs[request.id]
        assert len(output.tokens) == 9
        expected = direct_logprobs(engine, request.prompt + output.tokens)
        assert_scores(output.prompt_logprobs, request.prompt[1:], expected[: len(request.prompt) - 1], n)
        assert_scores(output.logprobs, output.tokens, expected[len(request.prompt) - 1 : -1], n * 4)


def test_a_prompt_is_scored_without_output_whether_or_not_it_is_in_the_cache(engine: InProcessEngine) -> None:
    prompt = prompt_of(70, 1023)
    full = [*prompt, 5]
    expected = direct_logprobs(engine, full)
    for _ in range(2):
        output = engine.generate(prompt, 1, prompt_logprobs=1)
        assert (output.reason, len(output.tokens)) == ("length", 1)
        assert_scores(output.prompt_logprobs, prompt[1:], expected[:1022], 1)
    scored = engine.generate(full, 0, prompt_logprobs=2)
    assert (scored.tokens, scored.reason, scored.detail) == ([], "length", "")
    assert_scores(scored.prompt_logprobs, full[1:], expected[:-1], 2)
    cached = engine.engine.report_load().cached_tokens
    assert engine.generate(prompt, 1).reason == "length"
    assert engine.engine.report_load().cached_tokens == cached + 768, "it has left its pages"
    assert engine.generate(prompt[:5], 0).reason == "failed"
    assert engine.generate(prompt[:1], 0, prompt_logprobs=0).prompt_logprobs == []


@pytest.mark.parametrize("temperature", [0.0, 0.8, 3.0])
def test_an_output_that_stops_matches_its_grammar(engine: InProcessEngine, temperature: float) -> None:
    requests = [
        GenerationRequest(f"{n}", prompt_of(n, 20), 120, [END], temperature=temperature, seed=n, grammar=GRAMMAR)
        for n in range(8)
    ]
    for output in engine.run(requests).values():
        assert (output.reason, output.detail) == ("stop", "")
        value = json.loads(bytes(output.tokens))
        assert list(value) == ["name", "size", "count", "tags"]
        assert value["size"] in ("small", "large")
        assert 0 <= value["count"] <= 99
    cut = engine.generate(prompt_of(1, 20), 5, grammar=GRAMMAR)
    assert (cut.reason, len(cut.tokens)) == ("length", 5)


def test_stop_tokens_end_a_grammar_only_where_it_may_end(engine: InProcessEngine) -> None:
    """The bias makes the stop token the most likely one everywhere."""
    options: dict[str, Any] = {"grammar": LLMatcher.grammar_from_regex("ab[0-9]*"), "logit_bias": [(END, 500.0), (53, 400.0)]}
    assert engine.generate([1, 2], 20, stops=[END], **options).tokens == list(b"ab")
    ignoring = engine.generate([1, 2], 20, stops=[END], ignore_stop_tokens=True, **options)
    assert (ignoring.tokens, ignoring.reason) == (list(b"ab") + [53] * 18, "length")


def mixed_requests() -> list[GenerationRequest]:
    changes: list[dict[str, Any]] = [
        {},
        {"grammar": GRAMMAR},
        {"temperature": 0.9, "top_p": 0.9, "seed": 3},
        {"grammar": GRAMMAR, "temperature": 1.2, "seed": 4, "frequency_penalty": 0.4, "logprobs": 2},
        {"temperature": 1.0, "min_p": 0.05, "seed": 5},
        {"repetition_penalty": 1.4, "presence_penalty": 0.5},
        {"logit_bias": [(66, 4.0), (67, -50.0)], "temperature": 1.0, "seed": 6, "logprobs": 0},
        {"prompt_logprobs": 1},
    ]
    return [
        GenerationRequest(f"{n}", prompt_of(n, (3, 40, 260)[n % 3]), (7, 60, 25)[n // 3 % 3], [END], **changes[n % 8])
        for n in range(16)
    ]


def test_requests_of_all_kinds_generate_side_by_side_what_they_generate_alone(engine: InProcessEngine) -> None:
    requests = mixed_requests()
    together = engine.run(requests)
    for request in requests:
        alone = engine.run([request])[request.id]
        assert (alone.tokens, alone.reason) == (together[request.id].tokens, together[request.id].reason), request.id
        for entries, others in (
            (alone.logprobs, together[request.id].logprobs),
            (alone.prompt_logprobs, together[request.id].prompt_logprobs),
        ):
            assert [entry[1] for entry in entries] == pytest.approx([entry[1] for entry in others], abs=1e-4)


def test_a_request_goes_on_where_an_earlier_process_has_stopped(engine: InProcessEngine) -> None:
    for request in mixed_requests()[:8]:
        whole = engine.run([request])[request.id]
        delivered = 1 + int(request.id) % 5
        continued = replace(
            request,
            prompt=request.prompt + whole.tokens[:delivered],
            max_new_tokens=request.max_new_tokens - delivered,
            generated_tokens=delivered,
            scored_tokens=1,
        )
        rest = engine.run([continued])[request.id]
        assert (rest.tokens, rest.reason) == (whole.tokens[delivered:], whole.reason)
        assert [entry[0] for entry in rest.prompt_logprobs] == [entry[0] for entry in whole.prompt_logprobs[1:]]
        assert [entry[1] for entry in rest.logprobs] == pytest.approx(
            [entry[1] for entry in whole.logprobs[delivered:]], abs=1e-4
        )


def test_a_refused_grammar_ends_only_its_own_request(engine: InProcessEngine) -> None:
    outputs = engine.run(
        [
            GenerationRequest("bad", [1, 2], 9, [], grammar="no grammar"),
            GenerationRequest("free", [1, 2], 9, []),
            GenerationRequest("other", [1, 2], 9, [], grammar=GRAMMAR),
            GenerationRequest("late", [1, 2, 65], 9, [], grammar=DIGITS, generated_tokens=1),
            GenerationRequest("done", [1, 2, 65], 9, [], grammar=LLMatcher.grammar_from_regex("A"), generated_tokens=1),
        ]
    )
    assert outputs["bad"].reason == outputs["late"].reason == "failed"
    assert "the grammar is invalid" in outputs["bad"].detail
    assert "does not match the grammar" in outputs["late"].detail
    assert outputs["done"] == FinishedRequest(reason="stop")
    assert outputs["free"].reason == outputs["other"].reason == "length"


def test_a_request_can_be_cancelled_while_its_grammar_is_compiled(engine: InProcessEngine) -> None:
    for n in range(20):
        engine.engine.add_request(GenerationRequest(f"cancelled {n}", [1, 2], 900, [], grammar=DIGITS))
        engine.engine.abort_request(f"cancelled {n}")
    ends: list[tuple[str, str, str]] = []
    while len(ends) < 20:
        step = engine.engine.next_step(10.0)
        assert step is not None
        ends += step.finished
    assert {reason for _, reason, _ in ends} == {"cancelled"}
    engine.run([GenerationRequest("after", [1, 2], 9, [], grammar=DIGITS)])
    assert engine.engine.parts.scheduler.cache.used_fraction == 0
    assert engine.engine.report_load().running == 0
