"""Does the road to the engine cost tokens? 64 jobs through the whole stack against the bare continuous-batching manager.

Both sides run the same model, the same prompts and the same settings of the engine, one after the other in this run; the
bare side is the manager of ``transformers`` given all prompts at once by this process, with nothing around it.
Run: ``.venv/bin/python -m benchmarks.generation_throughput`` (on a machine without a GPU it takes some minutes).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.figures import figure
from shared.models.catalogue import ModelEntry, load_catalogue
from shared.settings import Settings, from_environment
from testing.stack import Stack

SENTENCES = (
    "The lighthouse keeper counted the ships that passed and wrote",
    "When the rain stopped, the market filled again and people began to",
    "A good engine room is quiet, because everyone there knows",
    "The old map showed a river where today there is only",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of each job")
    parser.add_argument("--rounds", type=int, default=3, help="each side is measured so often, in turns; the best counts")
    options = parser.parse_args()
    settings = from_environment(os.environ)
    entry = load_catalogue(settings.models_file).default()
    prompts = [f"{SENTENCES[n % 4]} ({n})" for n in range(options.jobs)]
    bare, fed = [], []
    for _ in range(options.rounds):
        bare.append(manager_alone(entry, settings, prompts, options.tokens))
        fed.append(through_the_stack(entry, settings, prompts, options.tokens))
    about = {"model": entry.name, "jobs": options.jobs, "tokens_each": options.tokens, "rounds": options.rounds}
    figure("feed.manager_alone", max(bare), "tokens/s", **about)
    figure("feed.through_the_stack", max(fed), "tokens/s", **about)
    figure("feed.ratio", max(fed) / max(bare), "through the stack / manager alone", **about)


def manager_alone(entry: ModelEntry, settings: Settings, prompts: list[str], tokens: int) -> float:
    """Output tokens per second of the bare manager, in a process of its own as the engine has."""
    folder = settings.prepared_models / entry.name
    request = json.dumps({"folder": str(folder), "models_file": str(settings.models_file), "prompts": prompts, "tokens": tokens})
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare_batching_manager"], input=request, text=True, stdout=subprocess.PIPE, check=True
    )
    return float(json.loads(answer.stdout.splitlines()[-1])["tokens_per_second"])


def through_the_stack(entry: ModelEntry, settings: Settings, prompts: list[str], tokens: int) -> float:
    """Output tokens per second of jobs submitted over HTTP and seen to end by waiting clients."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"ENGINEHOUSE_MODELS_DIR": str(settings.prepared_models), "ENGINEHOUSE_LOG_LEVEL": "WARNING"}
        stack = Stack(Path(folder), environment=environment)
        listed = json.loads(settings.models_file.read_text())
        for model in listed:
            # The bare manager knows no stop texts; with them this side would write shorter answers.
            model.pop("stop", None)
        stack.models.write_text(json.dumps(listed))
        stack.start()

        def ask(prompt: str, count: int) -> int:
            body = {"prompt": prompt, "max_tokens": count, "temperature": 0, "model": entry.name}
            job = stack.ended(stack.generate(**body)["id"], 60)
            while job["ended_at"] is None:
                job = stack.job(job["id"], 60)
            return int(job["result"]["usage"]["completion_tokens"])

        try:
            stack.warm_up()
            ask(prompts[0], 2)
            with ThreadPoolExecutor(len(prompts)) as pool:
                start = time.perf_counter()
                total = sum(pool.map(lambda prompt: ask(prompt, tokens), prompts))
                return total / (time.perf_counter() - start)
        finally:
            stack.stop()
            stack.kill()


if __name__ == "__main__":
    main()
