"""LangChain on Enginehouse's OpenAI API: a function that the model calls, an answer that matches a schema, and embeddings.

    pip install langchain-openai
    python examples/langchain_tools.py "Is it warm in Rome?"

ENGINEHOUSE_URL is the address of the server, ENGINEHOUSE_API_KEY the API key if the server needs one, ENGINEHOUSE_MODEL the model,
which must have a chat template with a place for tools, and ENGINEHOUSE_EMBEDDING_MODEL the embedding model.
"""

import os
import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"It is 24 degrees in {city}."


class Place(BaseModel):
    """The place that a question is about."""

    city: str


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    server = {
        "base_url": f"{os.environ.get('ENGINEHOUSE_URL', 'http://127.0.0.1:5000')}/v1",
        "api_key": os.environ.get("ENGINEHOUSE_API_KEY", "none"),
    }
    model = ChatOpenAI(model=os.environ.get("ENGINEHOUSE_MODEL", "gemma-3-270m"), **server)
    question = HumanMessage(sys.argv[1])

    called = model.bind_tools([weather], tool_choice="any").invoke([question])
    results = [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
    print("answer:", model.bind_tools([weather]).invoke([question, called, *results]).text)

    place = model.with_structured_output(Place, method="json_schema").invoke([question])
    print("city:", place.city)

    # The server reads texts, not the token ids that OpenAI's tokenizer would make of them.
    name = os.environ.get("ENGINEHOUSE_EMBEDDING_MODEL", "all-minilm-l6-v2")
    embeddings = OpenAIEmbeddings(model=name, check_embedding_ctx_length=False, **server)
    print("dimensions:", len(embeddings.embed_query(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
