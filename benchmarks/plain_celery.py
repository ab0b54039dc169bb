"""The peer of ``overhead.py``: what a Celery project does without Enginehouse. A task that does nothing, results in Redis."""

import os

from celery import Celery

app = Celery("plain", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@app.task
def nothing(text: str) -> dict[str, str]:
    return {"text": text}
