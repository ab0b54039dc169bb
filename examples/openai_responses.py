"""OpenAI's own client on Enginehouse: a response in the background whose stream is interrupted and continued, then a second turn.

    pip install openai
    python examples/openai_responses.py "What is the capital of France?"

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

    response, last = "", -1
    with client.responses.create(model=model, input=question, background=True, stream=True) as stream:
        for event in stream:
            last = event.sequence_number
            if event.type == "response.created":
                response = event.response.id
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
                break  # the connection is closed, and the response runs on

    with client.responses.retrieve(response, stream=True, starting_after=last) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
    print()

    second = client.responses.create(model=model, input="Say it again.", previous_response_id=response)
    items = list(client.responses.input_items.list(second.id, order="asc"))
    print(f"{second.id} {second.status}, after {len(items)} items", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
