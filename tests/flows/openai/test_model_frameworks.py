"""LangChain and LlamaIndex with real models: chats, streams, tools, structured output and embeddings, also from a replaced server."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

from testing.client_environment import run_client
from testing.fault_rig.processes import kill, process_tree, suspended
from testing.stack import MINILM, Stack
from testing.waiting import wait_until

pytestmark = [pytest.mark.model, pytest.mark.slow_fault, pytest.mark.timeout(700)]

SCRIPT = Path(__file__).with_name("llama_index_model_calls.py")
QUESTION = "Question: What is the capital of France?\nAnswer:"
ORDER = "The order is a large tea for Ada, two cups."
TEXTS = ["The archive is open on weekdays.", "A cat sleeps on the sofa."]
QUERY = "When does the archive open?"


class Order(BaseModel):
    """An order of drinks."""

    drink: Literal["tea", "coffee"]
    cups: int = Field(ge=1, le=9)
    name: str = Field(max_length=10)


@pytest.fixture
def langchain(model_stack: Stack) -> ChatOpenAI:
    # A greedy answer of a float32 model is the same each time.
    options: dict[str, Any] = {"base_url": f"{model_stack.url}/v1", "api_key": "anything", "max_retries": 0, "timeout": 300}
    return ChatOpenAI(model="gemma", temperature=0, max_tokens=24, stream_usage=True, **options)


def test_langchain_gets_the_same_answer_in_a_stream(langchain: ChatOpenAI) -> None:
    whole = langchain.invoke(QUESTION)
    assert isinstance(whole, AIMessage)
    assert "Paris" in whole.text
    assert whole.usage_metadata is not None
    assert 0 < whole.usage_metadata["output_tokens"] <= 24
    pieces = list(langchain.stream(QUESTION))
    assert sum(bool(piece.text) for piece in pieces) > 1
    assert "".join(piece.text for piece in pieces) == whole.text
    [usage] = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert usage == whole.usage_metadata


def test_langchain_gets_a_tool_call_by_its_schema(langchain: ChatOpenAI) -> None:
    model = langchain.bind_tools([Order], tool_choice="any").bind(max_tokens=64)
    [called] = model.invoke(ORDER).tool_calls
    assert called["name"] == "Order"
    Order.model_validate(called["args"], strict=True)
    first, *others = model.stream(ORDER)
    streamed = sum(others, start=first)
    assert [(call["name"], call["args"]) for call in streamed.tool_calls] == [("Order", called["args"])]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_structured_output(langchain: ChatOpenAI, method: Literal["json_schema", "function_calling"]) -> None:
    model = langchain.model_copy(update={"max_tokens": 64})
    answer = model.with_structured_output(Order, method=method).invoke(ORDER)
    assert isinstance(answer, Order)


def test_an_ingest_goes_on_when_the_embedding_server_is_killed(model_stack: Stack) -> None:
    stack = model_stack
    stack.post("/collections", {"name": "rules", "embedding_model": MINILM["name"]}).raise_for_status()
    killed = stack.pid("embedder")
    with suspended([killed]):
        files = {"file": ("boilers.txt", b"The boilers are blue.")}
        [document] = stack.client.post("/collections/rules/documents", files=files).json()["data"]
        wait_until(lambda: phase_of(stack, document["job_id"]) == "loading_model", "the ingest waits for the embedding server")
        kill(killed)
    job = stack.ended(document["job_id"])
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["completed"]
    found = stack.post("/collections/rules/search", {"query": "Which colour do boilers have?"}, Prefer="wait=60").json()
    assert [hit["document_id"] for hit in found["data"]] == [document["id"]]
    assert stack.pid("embedder") != killed
    assert [name for name in ("embedder", "cpu", "io") if has_torch(stack.pid(name))] == ["embedder"]


def phase_of(stack: Stack, job: str) -> str:
    return str((stack.job(job)["progress"] or {}).get("phase"))


def has_torch(pid: int) -> bool:
    return any("libtorch" in Path(f"/proc/{process.pid}/maps").read_text() for process in process_tree(pid))


def test_langchain_embeds_by_meaning(model_stack: Stack) -> None:
    options: dict[str, Any] = {"base_url": f"{model_stack.url}/v1", "api_key": "anything", "check_embedding_ctx_length": False}
    embeddings = OpenAIEmbeddings(model=MINILM["name"], **options)
    vectors = [*embeddings.embed_documents(TEXTS), embeddings.embed_query(QUERY)]
    for vector in vectors:
        assert len(vector) == 384
        assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-3)
    near, far = (sum(a * b for a, b in zip(vector, vectors[2], strict=True)) for vector in vectors[:2])
    assert near > far + 0.3


def test_llama_index_gets_what_langchain_gets(model_stack: Stack, langchain: ChatOpenAI, tmp_path: Path) -> None:
    found = json.loads(run_client("python", [str(SCRIPT), model_stack.url, QUESTION, ORDER], tmp_path))
    assert found["chat"] == found["chat in a stream"] == langchain.invoke(QUESTION).text
    assert "Paris" in found["complete"]
    assert found["complete"] == found["complete in a stream"]
    for name in ("tool call", "tool call in a stream", "structured"):
        Order.model_validate(found[name], strict=True)
    assert found["tool call"] == found["tool call in a stream"]
