"""A webhook receiver that verifies signatures, processes each message once, and responds before it does the work.

    pip install flask ./client
    export WEBHOOK_SECRET=$(enginehouse webhooks secret)
    flask --app examples/webhook_receiver.py run --port 8000
    enginehouse generate "hello" --webhook http://127.0.0.1:8000/hook

A server on the same machine must be started with ENGINEHOUSE_WEBHOOK_ALLOW=127.0.0.0/8 to call this address.
"""

import os
import queue
import threading
from typing import Any

from flask import Flask, request

from enginehouse_client import InvalidSignature, webhooks

app = Flask(__name__)
# A repeated delivery has the same id. A receiver that may restart stores the ids together with its results.
seen: set[str] = set()
seen_lock = threading.Lock()
work: queue.Queue[dict[str, Any]] = queue.Queue()


@app.post("/hook")
def receive() -> tuple[str, int]:
    """Return 204 to accept the message. After an error status, or no response within 15 s, the server sends it again."""
    try:
        # The raw bytes: a body that was parsed and serialized again would have another signature.
        event = webhooks.verify(os.environ["WEBHOOK_SECRET"], request.headers, request.get_data())
    except InvalidSignature as error:
        return f"{error}\n", 401
    with seen_lock:
        new = request.headers["webhook-id"] not in seen
        seen.add(request.headers["webhook-id"])
    if new:
        work.put(event)
    return "", 204


def process(event: dict[str, Any]) -> None:
    """Do the work that takes time."""
    job = event["data"]
    print(event["type"], job["id"], (job["result"] or {}).get("text") or job["error"], flush=True)


def process_queue() -> None:
    while True:
        process(work.get())


threading.Thread(target=process_queue, daemon=True).start()
