"""OpenAI's chat completions: time to the first token and to the end, streamed and not, for 1, 8 and 32 clients.

``python -m benchmarks.v1`` measures what ``/v1`` adds to ``/generate`` with the echo engine, then the default model. With
``--serve-python PYTHON``, an environment with ``transformers[serving]``, ``transformers serve`` with continuous batching answers the same
requests with the same weights in the same run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import openai

from benchmarks.figures import figure, percentile
from cli.local.redis_server import free_port
from shared.models.catalogue import load_catalogue
from shared.settings_sources import from_environment
from testing.stack import Stack, models
from testing.waiting import wait_until
from workers.gpu.weights import prepare_model

CLIENTS = (1, 8, 32)
ECHO_PROMPT = "How long does a call take?"
MODEL_TOKENS = 24
# Both servers use this template, as the default model has none.
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.content }}\n{% endfor %}"

Call = Callable[[int], tuple[float, float]]
"""Makes the call with this number; returns the seconds to its first token and to its end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--echo-calls", type=int, default=400, help="calls per measurement with the echo engine")
    parser.add_argument("--model-calls", type=int, default=32, help="calls per measurement with the model")
    parser.add_argument("--serve-python", type=Path, help="a Python that has transformers[serving]")
    options = parser.parse_args()
    measure_echo(options.echo_calls)
    settings = from_environment(os.environ)
    entry = load_catalogue(settings.models_file).default()
    folder = prepare_model(entry, settings.prepared_models.resolve(), lambda message, fraction: None)
    own = measure_server("enginehouse", enginehouse_with_model(folder), options.model_calls)
    if options.serve_python:
        other = measure_server("transformers serve", transformers_serve(options.serve_python, folder), options.model_calls)
        for kind, seconds in own.items():
            clients, name = kind
            figure("v1.ratio", other[kind] / seconds, "transformers serve / enginehouse, seconds", clients=clients, measured=name)


def measure_echo(calls: int) -> None:
    """Both interfaces of one stack, in alternating rounds."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"})
        entries = models(0.0)
        entries[0]["max_in_flight"] = max(CLIENTS)
        stack.models.write_text(json.dumps(entries))
        stack.start()
        stack.warm_up()
        try:
            client = httpx2.Client(base_url=stack.url, timeout=120)
            chat = {"messages": [{"role": "user", "content": ECHO_PROMPT}], "max_tokens": 64}

            def native(number: int) -> tuple[float, float]:
                return timed(lambda: client.post("/generate", json=chat, headers={"Prefer": "wait=60"}))

            def openai_style(number: int) -> tuple[float, float]:
                return timed(lambda: client.post("/v1/chat/completions", json=chat))

            for count in CLIENTS:
                rounds: dict[str, list[float]] = {"/generate": [], "/v1": []}
                for _ in range(5):
                    for name, call in (("/generate", native), ("/v1", openai_style)):
                        rounds[name].append(median(total for _, total in run(call, count, calls // 5)))
                own, compared = (1000 * median(values) for values in (rounds["/v1"], rounds["/generate"]))
                figure("v1.call_ms", own, "ms, median", clients=count, generate=round(compared, 3))
                figure("v1.overhead_ms", own - compared, "ms over /generate", clients=count)
            streamed = streaming_call(stack.url, "echo", ECHO_PROMPT, 64)
            for count in CLIENTS:
                report("enginehouse, echo", count, run(streamed, count, calls))
        finally:
            stack.stop()
            stack.kill()


def timed(call: Callable[[], httpx2.Response]) -> tuple[float, float]:
    start = time.perf_counter()
    response = call()
    assert response.status_code == 200, response.text
    seconds = time.perf_counter() - start
    return seconds, seconds


def measure_server(name: str, server: Any, calls: int) -> dict[tuple[int, str], float]:
    """Medians of a server, by number of clients and what was measured."""
    found: dict[tuple[int, str], float] = {}
    with server as (url, model):
        call = streaming_call(url, model, "Question {}: what is the capital of France?\nAnswer:", MODEL_TOKENS)
        run(call, 2, 2)
        for count in CLIENTS:
            first, total = report(name, count, run(call, count, max(calls, count)))
            found[count, "first token"], found[count, "total"] = first, total
    return found


def streaming_call(url: str, model: str, prompt: str, tokens: int) -> Call:
    """A streamed call by OpenAI's client."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=600, max_retries=0)

    def call(number: int) -> tuple[float, float]:
        start, first = time.perf_counter(), 0.0
        message: Any = {"role": "user", "content": prompt.format(number)}
        for chunk in client.chat.completions.create(
            model=model, messages=[message], max_tokens=tokens, temperature=0, stream=True
        ):
            if not first and chunk.choices and chunk.choices[0].delta.content:
                first = time.perf_counter() - start
        return first, time.perf_counter() - start

    return call


def run(call: Call, clients: int, calls: int) -> list[tuple[float, float]]:
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(call, range(calls)))


def report(name: str, clients: int, seconds: list[tuple[float, float]]) -> tuple[float, float]:
    first, total = ([values[at] for values in seconds] for at in (0, 1))
    for what, values in (("first_token", first), ("stream", total)):
        p99 = round(1000 * percentile(values, 99), 2)
        figure(f"v1.{what}_ms", 1000 * median(values), "ms, median", server=name, clients=clients, p99=p99)
    return median(first), median(total)


@contextmanager
def enginehouse_with_model(folder: Path) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as place:
        stack = Stack(Path(place), environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"})
        entries = models(0.0)
        entries[0] = {
            "name": "small",
            "url": str(folder),
            "dtype": "float32",
            "default": True,
            "max_context": 2048,
            "max_in_flight": max(CLIENTS),
            "chat_template": TEMPLATE,
        }
        stack.models.write_text(json.dumps(entries))
        try:
            stack.start()
            yield stack.url, "small"
        finally:
            stack.stop()
            stack.kill()


@contextmanager
def transformers_serve(python: Path, folder: Path) -> Iterator[tuple[str, str]]:
    port = free_port()
    with tempfile.TemporaryDirectory() as place:
        # The same weights, with a chat template beside them.
        model = Path(place) / "small"
        model.mkdir()
        for file in folder.iterdir():
            (model / file.name).symlink_to(file.resolve())
        (model / "chat_template.jinja").unlink(missing_ok=True)
        (model / "chat_template.jinja").write_text(TEMPLATE)
        command = [str(python), "-m", "transformers.cli.transformers", "serve", str(model), "--continuous-batching"]
        command += ["--dtype", "float32", "--device", "cpu", "--port", str(port), "--host", "127.0.0.1"]
        process = subprocess.Popen(command, stdout=sys.stderr, stderr=sys.stderr)
        url = f"http://127.0.0.1:{port}"

        def is_ready() -> bool:
            assert process.poll() is None, "transformers serve has ended"
            try:
                return httpx2.get(f"{url}/health").status_code == 200
            except httpx2.HTTPError:
                return False

        try:
            wait_until(is_ready, "transformers serve answers", seconds=180, every=0.5)
            yield url, str(model)
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
