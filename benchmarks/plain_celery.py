"""Baseline of ``overhead.py``: a plain Celery project with an empty task and results in Redis."""

import os

from celery import Celery

app = Celery("plain", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@app.task
def empty_task(text: str) -> dict[str, str]:
    return {"text": text}
