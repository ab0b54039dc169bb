"""Jobs around the text of a model on one stack: tokens, embeddings, tool calls and reasoning."""

import base64
import json
from array import array
from collections.abc import Mapping
from typing import Any

import pytest

from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queue_names import IO_QUEUE, generation_queue, text_queue
from shared.jobs.submission import JobSubmitter, Submission
from shared.owners.store import LOCAL
from shared.redis_connection import connect
from shared.settings import Settings
from testing.stack import Stack
from tests.flows.test_events import follow

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = 'think: She asks for the weather.\nanswer: One moment.\ncall: get_weather {"city": "Rome"}'


def submit(stack: Stack, kind: str, queue: str, spec: Mapping[str, Any]) -> str:
    client = connect(stack.redis_url())
    submitter = JobSubmitter(client, Settings(data_dir=stack.data, redis_url=stack.redis_url()), CeleryBroker(client).wake)
    return submitter.submit_job(Submission(kind=kind, queue=queue, spec=spec, owner=LOCAL, model="echo")).id


def run(stack: Stack, kind: str, queue: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return stack.ended(submit(stack, kind, queue, spec))


def generate(stack: Stack, **spec: Any) -> dict[str, Any]:
    return run(stack, "generate", generation_queue("echo"), spec)


def chat(stack: Stack, content: str, **spec: Any) -> dict[str, Any]:
    return generate(stack, messages=[{"role": "user", "content": content}], max_tokens=400, **spec)


def tokenize(stack: Stack, **spec: Any) -> dict[str, Any]:
    return run(stack, "tokenize", text_queue("echo"), spec)


def embed(stack: Stack, texts: list[str], model: str = "hash") -> dict[str, Any]:
    return run(stack, "embed", IO_QUEUE, {"model": model, "texts": texts, "id": "x"})


def test_text_becomes_tokens_and_text_again(stack: Stack) -> None:
    result = tokenize(stack, op="tokenize", prompt="hé")["result"]
    assert result == {"tokens": [104, 195, 169], "token_strs": ["h", "\ufffd", "\ufffd"], "max_model_len": 8192}
    assert tokenize(stack, op="detokenize", tokens=result["tokens"])["result"] == {"text": "hé"}
    messages = [{"role": "user", "content": "hi"}]
    assert bytes(tokenize(stack, op="tokenize", messages=messages)["result"]["tokens"]) == b"user: hi\n"
    info = tokenize(stack, op="info")["result"]
    assert (info["tokenizer_class"], info["vocab_size"], info["max_model_len"]) == ("ByteTokenizer", 256, 8192)


def test_a_bad_tokenization_names_its_field(stack: Stack) -> None:
    error = tokenize(stack, op="detokenize", tokens=[1, 256])["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "tokens")
    assert "255" in error["message"]


def test_tokens_do_not_wait_for_a_full_engine(slow_stack: Stack) -> None:
    jobs = [*slow_stack.run_long(8), *(slow_stack.submit_long() for _ in range(4))]
    assert tokenize(slow_stack, op="tokenize", prompt="hi")["result"]["tokens"] == [104, 105]
    assert any(slow_stack.job(job)["status"] == "queued" for job in jobs), "generations still wait"
    queues = {queue["queue"]: queue for queue in slow_stack.client.get("/admin/queues").json()["data"]}
    assert (queues["text.echo"]["model"], queues["text.echo"]["workers"]) == ("echo", 1)
    slow_stack.cancel(*jobs)


def test_tokens_of_a_model_that_no_worker_can_load_are_refused_or_wait_visibly(stack: Stack) -> None:
    job = submit(stack, "tokenize", text_queue("not-started"), {"op": "info"})
    assert stack.job(job)["waiting_for"] in ("worker", "gpu_busy", "model_not_loaded")
    stack.post(f"/jobs/{job}/cancel", {})


def test_texts_become_vectors(stack: Stack) -> None:
    result = embed(stack, ["an engine house", "a pump"])["result"]
    vectors = array("f", base64.b64decode(result["vectors"]))
    assert (result["dimension"], len(vectors), result["tokens"]) == (384, 2 * 384, 5)
    assert sum(value * value for value in vectors[:384]) == pytest.approx(1.0, abs=1e-5)


def test_a_text_that_is_too_long_to_embed_is_named(stack: Stack) -> None:
    error = embed(stack, ["short", "word " * 300])["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "input")
    assert "text 1 has 300 tokens" in error["message"]
    assert "254" in error["message"]
    assert embed(stack, ["x"], model="missing")["error"]["code"] == "model_unavailable"


def test_reasoning_and_tool_calls_are_parts_of_the_answer(stack: Stack) -> None:
    job = chat(stack, CALL, tools=TOOLS)
    result = job["result"]
    assert (result["text"], result["reasoning"]) == ("One moment.", "She asks for the weather.")
    assert result["finish_reason"] == "tool_calls"
    [call] = result["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    deltas = [event["data"] for event in follow(stack, job["id"]) if event["event"] == "delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "One moment."
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "She asks for the weather."
    assert [piece["id"] for delta in deltas for piece in delta.get("tool_calls", ())] == [call["id"]]


def test_the_choice_of_tools_decides_about_calls(stack: Stack) -> None:
    named = chat(stack, "Hello", tools=TOOLS, tool_choice={"name": "get_weather"})["result"]
    assert [call["function"]["name"] for call in named["tool_calls"]] == ["get_weather"]
    assert "<tool_call>" in chat(stack, CALL, tools=TOOLS, tool_choice="none")["result"]["text"]
    twice = chat(stack, f"{CALL}\ncall: get_weather {{}}", tools=TOOLS, parallel_tool_calls=False)["result"]
    assert len(twice["tool_calls"]) == 1
    for choice, tools in (({"name": "missing"}, TOOLS), ("required", [])):
        assert chat(stack, "Hello", tools=tools, tool_choice=choice)["error"]["param"] == "tool_choice"


def test_the_result_of_a_tool_goes_back_to_the_model(stack: Stack) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
    ]
    result = generate(stack, messages=messages, tools=TOOLS, max_tokens=400)["result"]
    assert "tool: sunny" in result["text"]


def test_a_prompt_may_be_tokens_and_may_be_echoed(stack: Stack) -> None:
    assert generate(stack, prompt_ids=[104, 105])["result"]["text"] == "hi"
    result = generate(stack, prompt_ids=[104, 105], echo=True)["result"]
    assert (result["text"], result["usage"]["completion_tokens"]) == ("hihi", 2)
    error = generate(stack, prompt_ids=[104, 256])["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "prompt")
