"""Calls of LlamaIndex to a real model of the server at the given address; prints what it got. Runs in the environment of the clients."""

import json
import sys
from typing import Any, Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field


class Order(BaseModel):
    """An order of drinks."""

    drink: Literal["tea", "coffee"]
    cups: int = Field(ge=1, le=9)
    name: str = Field(max_length=10)


def take_order(**fields: Any) -> str:
    """Take an order of drinks."""
    return f"{fields}"


def main(address: str, question: str, order: str) -> None:
    options: dict[str, Any] = {"api_base": f"{address}/v1", "api_key": "anything", "max_retries": 0, "timeout": 300.0}
    options |= {"model": "gemma", "temperature": 0.0, "context_window": 2048}
    text = OpenAILike(is_chat_model=False, max_tokens=24, **options)
    chat = OpenAILike(is_chat_model=True, is_function_calling_model=True, max_tokens=24, **options)
    tools = chat.model_copy(update={"max_tokens": 64})
    turns = [ChatMessage(question, role="user")]
    tool = FunctionTool.from_defaults(take_order, fn_schema=Order)
    asked: dict[str, Any] = {"user_msg": order, "tool_required": True}
    found: dict[str, Any] = {
        "complete": text.complete(question).text,
        "complete in a stream": "".join(piece.delta or "" for piece in text.stream_complete(question)),
        "chat": chat.chat(turns).message.content,
        "chat in a stream": "".join(piece.delta or "" for piece in chat.stream_chat(turns)),
        "tool call": arguments_of(tools, tools.chat_with_tools([tool], **asked)),
        "tool call in a stream": arguments_of(tools, list(tools.stream_chat_with_tools([tool], **asked))[-1]),
        "structured": tools.as_structured_llm(Order).complete(order).raw.model_dump(),
    }
    json.dump(found, sys.stdout)


def arguments_of(model: OpenAILike, response: Any) -> dict[str, Any]:
    [call] = model.get_tool_calls_from_response(response)
    return dict(call.tool_kwargs)


if __name__ == "__main__":
    main(*sys.argv[1:])
