"""OpenAI's own client on Enginehouse: a chat whose answer streams, and what became of it as a job.

    pip install openai
    python examples/openai_chat.py "What is the capital of France?"

ENGINEHOUSE_URL is the address of the server, ENGINEHOUSE_API_KEY the API key if the server needs one.
"""

import os
import sys

from openai import OpenAI


def main() -> int:
    question = sys.argv[1] if len(sys.argv) > 1 else "What is the capital of France?"
    url = os.environ.get("ENGINEHOUSE_URL", "http://127.0.0.1:5000")
    client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("ENGINEHOUSE_API_KEY", "none"))
    model = next(model.id for model in client.models.list() if getattr(model, "task", "") == "generate")
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage is not None:
            print()
            print(f"{chunk.usage.prompt_tokens} + {chunk.usage.completion_tokens} tokens", file=sys.stderr)
    print("job", stream.response.headers["x-job-id"], file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
