"""LangChain's model of OpenAI's API."""

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from testing.stack import Stack


def model(stack: Stack) -> ChatOpenAI:
    return ChatOpenAI(model="echo", base_url=f"{stack.url}/v1", api_key="anything", stream_usage=True, max_tokens=1000)  # type: ignore[arg-type]


def test_langchain_gets_an_answer_with_its_usage(v1_stack: Stack) -> None:
    answer = model(v1_stack).invoke([("system", "be brief"), ("user", "hello")])
    assert "hello" in str(answer.content)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


def test_langchain_streams(v1_stack: Stack) -> None:
    pieces = list(model(v1_stack).stream("hello"))
    assert "".join(str(piece.content) for piece in pieces) == "user: hello"
    assert any(piece.usage_metadata for piece in pieces)


def test_langchain_sends_the_turns_of_an_agent(v1_stack: Stack) -> None:
    call = {"id": "call_1", "name": "look_up", "args": {"word": "tea"}}
    turns = [HumanMessage("What is tea?"), AIMessage("", tool_calls=[call]), ToolMessage("A drink.", tool_call_id="call_1")]
    tool = {
        "name": "look_up",
        "description": "Explain a word.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    }
    answer = model(v1_stack).bind_tools([tool]).invoke(turns)
    assert "A drink." in str(answer.content)


def test_langchain_embeds_texts(v1_stack: Stack) -> None:
    embeddings = OpenAIEmbeddings(
        model="hash",
        base_url=f"{v1_stack.url}/v1",
        api_key="anything",  # type: ignore[arg-type]
        check_embedding_ctx_length=False,
    )
    documents = embeddings.embed_documents(["the archive", "the library"])
    assert [len(vector) for vector in documents] == [384, 384]
    assert embeddings.embed_query("the archive") == documents[0]


def test_langchain_uses_responses(v1_stack: Stack) -> None:
    options: dict[str, Any] = {"model": "echo", "base_url": f"{v1_stack.url}/v1", "api_key": "anything", "max_tokens": 1000}
    chat = ChatOpenAI(**options, use_responses_api=True)
    tool = {
        "type": "function",
        "function": {"name": "look_up", "description": "x", "parameters": {"type": "object", "properties": {}}},
    }
    question = HumanMessage('call: look_up {"word": "tea"}')
    called = chat.bind_tools([tool]).invoke([question])
    assert isinstance(called, AIMessage)
    assert called.tool_calls[0]["args"] == {"word": "tea"}
    answer = chat.invoke([question, called, ToolMessage("A drink.", tool_call_id=called.tool_calls[0]["id"])])
    assert "tool: A drink." in answer.text
    first = chat.invoke("one")
    second = chat.invoke("two", previous_response_id=first.response_metadata["id"])
    assert second.text == "user: one\nassistant: user: one\nuser: two"
    pieces = list(chat.stream("hello"))
    assert "".join(piece.text for piece in pieces) == "user: hello"
