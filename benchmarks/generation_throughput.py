"""Generation throughput: 64 jobs through the whole stack, compared with the bare continuous-batching manager.

Both sides run the same model, the same prompts and the same settings of the engine, one after the other; the bare
side is the manager of ``transformers`` given all prompts at once by this process, with nothing around it.
Run: ``.venv/bin/python -m benchmarks.generation_throughput`` (takes some minutes without a GPU).
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
from shared.settings import Settings
from shared.settings_sources import from_environment
from testing.stack import Stack

# Without a GPU, the last of the jobs ends after some minutes.
JOB_SECONDS = 3600
SENTENCES = (
    "The lighthouse keeper counted the ships that passed and wrote",
    "When the rain stopped, the market filled again and people began to",
    "A good engine room is quiet, because everyone there knows",
    "The old map showed a river where today there is only",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="new tokens per job")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side, in turns; the best counts")
    options = parser.parse_args()
    settings = from_environment(os.environ)
    entry = load_catalogue(settings.models_file).default()
    prompts = [f"{SENTENCES[n % 4]} ({n})" for n in range(options.jobs)]
    bare, full = [], []
    for _ in range(options.rounds):
        bare.append(run_bare_manager(entry, settings, prompts, options.tokens))
        full.append(run_full_stack(entry, settings, prompts, options.tokens))
    about = {"model": entry.name, "jobs": options.jobs, "tokens_each": options.tokens, "rounds": options.rounds}
    figure("throughput.bare_manager", max(bare), "tokens/s", **about)
    figure("throughput.full_stack", max(full), "tokens/s", **about)
    figure("throughput.ratio", max(full) / max(bare), "full stack / bare manager", **about)


def run_bare_manager(entry: ModelEntry, settings: Settings, prompts: list[str], tokens: int) -> float:
    """Output tokens per second of the bare manager, in a process of its own as the engine has."""
    folder = settings.prepared_models / entry.name
    request = json.dumps({"folder": str(folder), "models_file": str(settings.models_file), "prompts": prompts, "tokens": tokens})
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare_continuous_batching"],
        input=request,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(json.loads(answer.stdout.splitlines()[-1])["tokens_per_second"])


def run_full_stack(entry: ModelEntry, settings: Settings, prompts: list[str], tokens: int) -> float:
    """Output tokens per second of jobs that waiting clients submit over HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"ENGINEHOUSE_MODELS_DIR": str(settings.prepared_models), "ENGINEHOUSE_LOG_LEVEL": "WARNING"}
        stack = Stack(Path(folder), environment=environment)
        entries = json.loads(settings.models_file.read_text())
        for model in entries:
            # The bare manager does not handle stop texts, with which this side would generate less.
            model.pop("stop", None)
        stack.models.write_text(json.dumps(entries))
        stack.start()

        def generate(prompt: str, count: int) -> int:
            body = {"prompt": prompt, "max_tokens": count, "temperature": 0, "model": entry.name}
            job = stack.ended(stack.generate(**body)["id"], seconds=JOB_SECONDS)
            return int(job["result"]["usage"]["completion_tokens"])

        try:
            stack.warm_up()
            generate(prompts[0], 2)
            with ThreadPoolExecutor(len(prompts)) as pool:
                start = time.perf_counter()
                total = sum(pool.map(lambda prompt: generate(prompt, tokens), prompts))
                return total / (time.perf_counter() - start)
        finally:
            stack.stop()
            stack.kill()


if __name__ == "__main__":
    main()
