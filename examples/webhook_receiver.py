"""A receiver of webhooks: believes what is signed, acts on each message once, and answers before it works.

    pip install flask ./client
    export WEBHOOK_SECRET=$(enginehouse webhooks secret)
    flask --app examples/webhook_receiver.py run --port 8000
    enginehouse generate "hello" --webhook http://127.0.0.1:8000/hook

A server on this machine has to be started with ENGINEHOUSE_WEBHOOK_ALLOW=127.0.0.0/8 for that.
"""

import os
import queue
import threading
from typing import Any

from flask import Flask, request

from enginehouse_client import InvalidSignature, webhooks

app = Flask(__name__)
# A delivery that is tried again has the same id. A receiver that may be restarted keeps them where it keeps its results.
seen: set[str] = set()
seen_lock = threading.Lock()
work: queue.Queue[dict[str, Any]] = queue.Queue()


@app.post("/hook")
def hook() -> tuple[str, int]:
    """204 says that it is ours now; anything else, or nothing within 15 s, and it is sent again."""
    try:
        # The bytes as they came: a body that was parsed and written again has another signature.
        event = webhooks.verify(os.environ["WEBHOOK_SECRET"], request.headers, request.get_data())
    except InvalidSignature as error:
        return f"{error}\n", 401
    with seen_lock:
        new = request.headers["webhook-id"] not in seen
        seen.add(request.headers["webhook-id"])
    if new:
        work.put(event)
    return "", 204


def act(event: dict[str, Any]) -> None:
    """Whatever takes time."""
    job = event["data"]
    print(event["type"], job["id"], (job["result"] or {}).get("text") or job["error"], flush=True)


def keep_acting() -> None:
    while True:
        act(work.get())


threading.Thread(target=keep_acting, daemon=True).start()
