"""Calls of LlamaIndex to the server at the given address, and a query to a collection of it; prints what it got. Runs in the
environment of the clients."""

import asyncio
import json
import sys
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.schema import MetadataMode
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from enginehouse_client import AsyncClient, Client
from enginehouse_client.llama_index import EnginehouseRetriever


def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


def main(address: str, collection: str, query: str) -> None:
    options: dict[str, Any] = {"model": "echo", "api_base": f"{address}/v1", "api_key": "anything", "max_tokens": 1000}
    options |= {"context_window": 2048, "max_retries": 0, "timeout": 60.0}
    text = OpenAILike(is_chat_model=False, **options)
    chat = OpenAILike(is_chat_model=True, is_function_calling_model=True, **options)
    turns = [ChatMessage("be brief", role="system"), ChatMessage("hello", role="user")]
    tool = FunctionTool.from_defaults(weather)
    asked = 'call: weather {"city": "Rome"}\ncall: weather {"city": "Oslo"}'

    found: dict[str, Any] = {
        "complete": text.complete("one two").text,
        "complete in a stream": "".join(piece.delta or "" for piece in text.stream_complete("one two")),
        "chat": chat.chat(turns).message.content,
        "chat in a stream": "".join(piece.delta or "" for piece in chat.stream_chat(turns)),
        "usage": chat.chat(turns).additional_kwargs,
        "tools": calls_of(chat, chat.chat_with_tools([tool], user_msg=asked, allow_parallel_tool_calls=True)),
        "tools in a stream": calls_of(
            chat, list(chat.stream_chat_with_tools([tool], user_msg=asked, allow_parallel_tool_calls=True))[-1]
        ),
        "tools with their results": chat.predict_and_call([tool], user_msg='call: weather {"city": "Rome"}').response,
    }
    with Client(address) as client:
        retriever = EnginehouseRetriever(collection, client=client, top_k=1, mode="keyword")
        found["retrieved"] = show(retriever.retrieve(query))
        found["retrieved in a thread"] = show(asyncio.run(retriever.aretrieve(query)))
    found["retrieved by an async client"] = show(asyncio.run(retrieve(address, collection, query)))
    json.dump(found, sys.stdout)


async def retrieve(address: str, collection: str, query: str) -> list[Any]:
    async with AsyncClient(address) as client:
        return list(await EnginehouseRetriever(collection, async_client=client, top_k=1, mode="keyword").aretrieve(query))


def show(nodes: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "text": found.node.text,
            "citation": found.node.metadata["citation"],
            "shown to a model": found.node.get_content(metadata_mode=MetadataMode.LLM),
            "score": found.score,
        }
        for found in nodes
    ]


def calls_of(model: OpenAILike, response: Any) -> list[Any]:
    calls = model.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    return [[call.tool_name, call.tool_kwargs] for call in calls]


if __name__ == "__main__":
    main(*sys.argv[1:])
