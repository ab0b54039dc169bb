"""LangChain on Enginehouse's OpenAI API: a prompt, a model and a parser as one chain, streamed.

    pip install langchain-openai
    python examples/langchain_chat.py French "The archive is open on weekdays."

ENGINEHOUSE_URL is the address of the server, ENGINEHOUSE_API_KEY the API key if the server needs one, ENGINEHOUSE_MODEL the model.
"""

import os
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    url = os.environ.get("ENGINEHOUSE_URL", "http://127.0.0.1:5000")
    model = ChatOpenAI(
        model=os.environ.get("ENGINEHOUSE_MODEL", "gemma-3-270m"),
        base_url=f"{url}/v1",
        api_key=os.environ.get("ENGINEHOUSE_API_KEY", "none"),
        stream_usage=True,
    )
    prompt = ChatPromptTemplate.from_messages([("system", "Translate to {language}."), ("user", "{text}")])
    chain = prompt | model | StrOutputParser()
    for piece in chain.stream({"language": sys.argv[1], "text": sys.argv[2]}):
        print(piece, end="", flush=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
