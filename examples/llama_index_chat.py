"""LlamaIndex on Enginehouse's OpenAI API: a streamed answer, and a function that the model calls.

    pip install llama-index-llms-openai-like
    python examples/llama_index_chat.py "Is it warm in Rome?"

ENGINEHOUSE_URL is the address of the server, ENGINEHOUSE_API_KEY the API key if the server needs one, ENGINEHOUSE_MODEL the model,
which must have a chat template with a place for tools.
"""

import os
import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def weather(city: str) -> str:
    """The weather of a city."""
    return f"It is 24 degrees in {city}."


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    model = OpenAILike(
        model=os.environ.get("ENGINEHOUSE_MODEL", "gemma-3-270m"),
        api_base=f"{os.environ.get('ENGINEHOUSE_URL', 'http://127.0.0.1:5000')}/v1",
        api_key=os.environ.get("ENGINEHOUSE_API_KEY", "none"),
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=2048,
    )
    for piece in model.stream_chat([ChatMessage(sys.argv[1], role="user")]):
        print(piece.delta or "", end="", flush=True)
    print()
    print(model.predict_and_call([FunctionTool.from_defaults(weather)], user_msg=sys.argv[1]).response)
    return 0


if __name__ == "__main__":
    sys.exit(main())
