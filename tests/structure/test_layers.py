"""What the API process has in it when it serves. The import contracts themselves are checked by `make lint`."""

import json
import subprocess
import sys

from testing.repository import REPOSITORY

ABSENT = ("torch", "transformers", "sentence_transformers", "chromadb", "numpy", "pypdfium2", "pypdf", "workers", "cli")
MOST_MEMORY_MIB = 120

SERVE_ONE_REQUEST = """
import json, sys
import psutil
from api.wsgi import app
status = app.test_client().get("/health/live").status_code
print(json.dumps({"status": status, "modules": list(sys.modules), "memory": psutil.Process().memory_info().rss}))
"""


def test_the_api_process_is_small_and_loads_no_model_index_or_parser() -> None:
    command = [sys.executable, "-c", SERVE_ONE_REQUEST]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["status"] == 200
    assert set(ABSENT).isdisjoint(report["modules"])
    assert report["memory"] < MOST_MEMORY_MIB * 2**20
