"""Engine contract: what every engine must do, checked in a real engine process, with a JSON line for each check.

``python -m benchmarks.gpu.engine_contract vllm 1b --models FOLDER`` (use ``tiny --device cpu`` to try the program). Exits with
status 1 if a check fails.
"""

import argparse
import itertools
import json
import math
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gpu.model_shapes import SHAPES, adapter_folder, model_folder, models_file, save_byte_tokenizer
from shared.models.catalogue import TRANSFORMERS, VLLM, load_catalogue
from shared.settings_sources import from_environment
from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput, TokenLogprobs
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.hardware.devices import detect_gpus

READY_SECONDS, PATIENCE = 500.0, 120.0
CONTEXT, IN_FLIGHT = 1024, 64
ADAPTER_RANKS = {"small": 8, "large": 16}
END = "zz"
"""A word of the byte tokenizer that stands for the end of a text."""

_salts = itertools.count(1)


@dataclass
class Output:
    """What one request generated. ``times`` are when its tokens came."""

    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    cancelled_after: tuple[int, int] | None = None
    """How many tokens and messages had come when it was cancelled."""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    reason: FinishReason | None = None
    detail: str = ""
    ends: int = 0


class Checks:
    """Runs requests on one engine process."""

    def __init__(
        self,
        client_of: Callable[[Callable[[StepOutput], None]], EngineClient],
        vocabulary: int,
        folder: Path,
        *,
        adapters: Mapping[str, Path] | None = None,
        expects_equal_tokens: bool = False,
    ) -> None:
        """``expects_equal_tokens`` for float32 on the CPU, where the order of sums changes no choice."""
        self._changed = threading.Condition()
        self._outputs: dict[str, Output] = {}
        self._cancel_after: dict[str, int] = {}
        self._ids = itertools.count()
        self._random = random.Random(4)
        self.vocabulary = vocabulary
        self.folder = folder
        self.adapters = dict(adapters or {})
        self.expects_equal_tokens = expects_equal_tokens
        self.client = client_of(self._on_step)

    def _on_step(self, step: StepOutput) -> None:
        cancels = []
        with self._changed:
            for id, tokens in step.tokens:
                output = self._outputs[id]
                output.tokens += tokens
                output.times.append(time.perf_counter())
                if output.cancelled_after is None and len(output.tokens) >= self._cancel_after.get(id, sys.maxsize):
                    output.cancelled_after = len(output.tokens), len(output.times)
                    cancels.append(id)
            for id, entries in step.logprobs:
                self._outputs[id].logprobs += entries
            for id, entries in step.prompt_logprobs:
                self._outputs[id].prompt_logprobs += entries
            for id, reason, detail in step.finished:
                output = self._outputs[id]
                output.reason, output.detail, output.ends = reason, detail, output.ends + 1
            self._changed.notify_all()
        for id in cancels:
            self.client.cancel_request(id)

    def prompt(self, tokens: int = 24) -> list[int]:
        return [self._random.randrange(self.vocabulary) for _ in range(tokens)]

    def run(
        self,
        prompts: Sequence[list[int]],
        lengths: Sequence[int],
        *,
        cancel_after: int = 0,
        own_options: Sequence[Mapping[str, Any]] = (),
        **options: Any,
    ) -> list[Output]:
        """Run requests at once to their ends. ``own_options`` are those of each request alone."""
        ids = [f"r{next(self._ids)}" for _ in prompts]
        with self._changed:
            self._outputs |= {id: Output() for id in ids}
            if cancel_after:
                self._cancel_after |= dict.fromkeys(ids, cancel_after)
        salt = next(_salts)
        stops = options.pop("stops", [])
        for id, prompt, length, own in zip(ids, prompts, lengths, own_options or [{}] * len(ids), strict=True):
            self.client.submit_request(GenerationRequest(id, prompt, length, stops, cache_salt=salt, **options, **own))
        outputs = [self._outputs[id] for id in ids]
        with self._changed:
            done = self._changed.wait_for(lambda: all(output.reason for output in outputs), PATIENCE)
        assert done, f"{sum(output.reason is None for output in outputs)} requests did not end within {PATIENCE:.0f} s"
        return outputs

    def one(self, prompt: list[int], length: int, **options: Any) -> Output:
        return self.run([prompt], [length], **options)[0]

    # The checks

    def greedy_output_is_repeatable_and_has_its_length(self) -> dict[str, Any]:
        prompt = self.prompt()
        first, second = self.one(prompt, 48), self.one(prompt, 48)
        assert first.reason == second.reason == "length", (first.reason, first.detail)
        assert len(first.tokens) == 48, len(first.tokens)
        assert first.tokens == second.tokens, "two runs differ"
        return {"tokens": len(first.tokens)}

    def tokens_are_streamed(self) -> dict[str, Any]:
        output = self.one(self.prompt(), 64)
        took = output.times[-1] - output.times[0]
        # Tokens of a fast engine travel together for 20 to 50 ms.
        assert len(output.times) >= min(8, 2 + int(took / 0.05)), (
            f"64 tokens came in {len(output.times)} parts within {took:.2f} s"
        )
        return {"parts": len(output.times), "ms_a_token": round(1000 * took / 63, 2)}

    def requests_at_once_end_with_their_own_lengths(self) -> dict[str, Any]:
        lengths = [8 + number for number in range(IN_FLIGHT)]
        outputs = self.run([self.prompt(8 + number) for number in range(IN_FLIGHT)], lengths)
        assert [len(output.tokens) for output in outputs] == lengths
        assert all(output.reason == "length" and output.ends == 1 for output in outputs)
        return {"requests": IN_FLIGHT}

    def more_requests_than_run_at_once_wait_and_end(self) -> dict[str, Any]:
        count = 2 * IN_FLIGHT
        outputs = self.run([self.prompt() for _ in range(count)], [16] * count)
        assert all(len(output.tokens) == 16 and output.ends == 1 for output in outputs)
        return {"requests": count}

    def a_cancel_ends_a_request_within_one_message(self) -> dict[str, Any]:
        outputs = self.run([self.prompt() for _ in range(4)], [600] * 4, cancel_after=10)
        assert all(output.reason == "cancelled" and output.ends == 1 for output in outputs), [o.reason for o in outputs]
        late_tokens, late_messages = 0, 0
        for output in outputs:
            assert output.cancelled_after is not None
            late_tokens = max(late_tokens, len(output.tokens) - output.cancelled_after[0])
            late_messages = max(late_messages, len(output.times) - output.cancelled_after[1])
        # One more message may be on its way to the worker.
        assert late_messages <= 1, f"{late_messages} messages came after the cancel"
        deadline = time.monotonic() + 10
        while (load := self.client.last_heartbeat) is None or load.running:
            assert time.monotonic() < deadline, "the engine still counts cancelled requests"
            time.sleep(0.1)
        return {"tokens_after": late_tokens}

    def a_stop_token_ends_a_request_and_is_not_output(self) -> dict[str, Any]:
        prompt = self.prompt()
        whole = self.one(prompt, 40).tokens
        at = next((at for at in range(8, 40) if whole[at] not in whole[:at]), None)
        assert at is not None, "the model repeats itself"
        stopped = self.one(prompt, 40, stops=[whole[at]])
        assert (stopped.reason, stopped.tokens) == ("stop", whole[:at]), (stopped.reason, len(stopped.tokens), at)
        ignored = self.one(prompt, 40, stops=[whole[at]], ignore_stop_tokens=True)
        assert (ignored.reason, len(ignored.tokens)) == ("length", 40), ignored.reason
        return {"at": at}

    def a_seed_draws_the_same_tokens(self) -> dict[str, Any]:
        prompt = self.prompt()
        first, same, other = (self.one(prompt, 32, temperature=1.0, seed=seed) for seed in (7, 7, 8))
        assert first.tokens == same.tokens, "the same seed drew other tokens"
        assert first.tokens != other.tokens, "another seed drew the same tokens"
        large = self.one(prompt, 4, temperature=1.0, seed=2**63 - 1)
        assert large.reason == "length", large.detail
        return {}

    def a_deterministic_request_is_the_same_beside_others(self) -> dict[str, Any]:
        prompt, own = self.prompt(40), {"deterministic": True, "temperature": 1.0, "seed": 9}
        alone = self.one(prompt, 48, **own)
        if alone.reason == "failed":
            assert "deterministic" in alone.detail, alone.detail
            return {"deterministic": False}
        for others in (1, 7, IN_FLIGHT - 1):
            prompts = [prompt, *(self.prompt(8 + 3 * number) for number in range(others))]
            beside, *_ = self.run(prompts, [48] * len(prompts), own_options=[own, *[{}] * others])
            assert beside.tokens == alone.tokens, f"{others} other requests changed it"
        return {"deterministic": True}

    def limits_of_sampling_leave_the_most_likely_token(self) -> dict[str, Any]:
        for name, options in (("top_k", {"top_k": 1}), ("min_p", {"min_p": 1.0}), ("top_p", {"top_p": 0.0})):
            output = self.one(self.prompt(), 16, temperature=1.0, logprobs=1, **options)
            assert len(output.logprobs) == 16, (name, output.reason, output.detail)
            # In half precision several tokens may be the most likely one.
            short = max(likely[0][1] - logprob for _, logprob, likely in output.logprobs)
            assert short < 1e-3, (name, short)
        return {}

    def logprobs_are_those_of_the_tokens(self) -> dict[str, Any]:
        output = self.one(self.prompt(), 12, logprobs=3)
        assert [entry[0] for entry in output.logprobs] == output.tokens
        for token, logprob, likely in output.logprobs:
            scores = [score for _, score in likely]
            assert len(likely) == 3, likely
            assert scores == sorted(scores, reverse=True), likely
            # In half precision several tokens may be the most likely one, and any of them comes first.
            assert math.isclose(likely[0][1], logprob, abs_tol=1e-3), (token, logprob, likely)
            assert sum(map(math.exp, scores)) <= 1.001
        plain = self.one(self.prompt(), 4, logprobs=0, temperature=1.0)
        assert len(plain.logprobs) == 4
        assert all(logprob <= 0 and likely == [] for _, logprob, likely in plain.logprobs)
        return {}

    def prompts_have_logprobs(self) -> dict[str, Any]:
        prompt = self.prompt(40)
        output = self.one(prompt, 0, prompt_logprobs=2)
        assert (output.reason, output.tokens) == ("length", []), (output.reason, output.detail)
        assert [entry[0] for entry in output.prompt_logprobs] == prompt[1:]
        assert all(len(likely) == 2 and logprob <= 0 for _, logprob, likely in output.prompt_logprobs)
        rest = self.one(prompt, 2, prompt_logprobs=0, scored_tokens=30)
        assert [entry[0] for entry in rest.prompt_logprobs] == prompt[31:]
        assert len(rest.tokens) == 2
        return {"entries": len(output.prompt_logprobs)}

    def biases_and_penalties_change_the_output(self) -> dict[str, Any]:
        prompt = self.prompt()
        forced = self.one(prompt, 6, logit_bias=[(33, 1000.0)])
        assert forced.tokens == [33] * 6, forced.tokens or forced.detail
        plain = self.one(prompt, 48)
        penalized = self.one(prompt, 48, frequency_penalty=2.0, presence_penalty=2.0, repetition_penalty=1.5)
        assert len(penalized.tokens) == 48, penalized.detail
        assert len(set(penalized.tokens)) >= len(set(plain.tokens)), "penalties made it repeat more"
        return {"different": [len(set(plain.tokens)), len(set(penalized.tokens))]}

    def an_output_matches_its_grammar(self) -> dict[str, Any]:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        stops = [tokenizer.token_to_id(END)]
        schema = {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"type": "boolean"}},
            "required": ["n", "b"],
            "additionalProperties": False,
            "x-guidance": {"whitespace_flexible": False},
        }
        grammar = f"%llguidance {{}}\nstart: %json {json.dumps(schema)}\n"
        outputs = self.run([self.prompt() for _ in range(8)], [60] * 8, grammar=grammar, stops=stops, temperature=1.0)
        for output in outputs:
            assert output.reason == "stop", (output.reason, output.detail)
            value = json.loads(tokenizer.decode(output.tokens))
            assert value["n"] in range(100), value
            assert isinstance(value["b"], bool), value
        word = self.one(self.prompt(), 20, grammar='start: "yes" | "no"\n', stops=stops)
        assert tokenizer.decode(word.tokens) in ("yes", "no"), (word.reason, word.detail)
        invalid = self.one(self.prompt(), 20, grammar="start: nothing_here\n", stops=stops)
        assert (invalid.reason, bool(invalid.detail)) == ("failed", True), invalid
        return {"invalid": invalid.detail[:80]}

    def invalid_requests_fail_alone(self) -> dict[str, Any]:
        details = []
        for options in (
            {"prompt": [self.vocabulary]},
            {"prompt": self.prompt(CONTEXT)},
            {"prompt": []},
            {"prompt": [1], "logit_bias": [(self.vocabulary, 1.0)]},
            {"prompt": [1], "min_p": 2.0},
        ):
            output = self.one(options.pop("prompt"), 4, **options)  # type: ignore[arg-type]
            assert (output.reason, bool(output.detail)) == ("failed", True), output
            details.append(output.detail[:60])
        assert self.one([1], 4).reason == "length"
        return {"details": details}

    def an_adapter_changes_its_own_requests_alone(self) -> dict[str, Any]:
        unknown = self.one(self.prompt(), 4, adapter="missing")
        assert (unknown.reason, bool(unknown.detail)) == ("failed", True), unknown
        if not self.adapters:
            return {"adapters": 0}
        # The same prompt and salt for all, so that a page of one adapter would be found by another if it were shared.
        prompt, names = self.prompt(64), ["", *self.adapters]
        alone = [self.one(prompt, 16, adapter=name).tokens for name in names]
        assert len(set(map(tuple, alone))) == len(names), "two adapters gave the same output"
        if self.expects_equal_tokens:
            for name, tokens in zip(names, alone, strict=True):
                assert tokens == _merged_output(self.folder, self.adapters.get(name), prompt, 16), (
                    f"adapter {name!r} is not its merged weights"
                )
            # vLLM 0.32 on a CPU applies an adapter to requests without one that share its step, so those stay apart.
            names, alone = names[1:], alone[1:]
        together = self.run([prompt] * len(names), [16] * len(names), own_options=[{"adapter": name} for name in names])
        if self.expects_equal_tokens:
            assert [output.tokens for output in together] == alone, "an adapter's output depends on what runs beside it"
        return {"adapters": len(self.adapters), "compared_with_merged_weights": self.expects_equal_tokens}

    def the_whole_context_can_be_used(self) -> dict[str, Any]:
        prompt = self.prompt(CONTEXT - 8)
        output = self.one(prompt, 100)
        assert (output.reason, len(output.tokens)) == ("length", 8), (output.reason, len(output.tokens), output.detail)
        return {"context": self.client.supervisor.max_context}

    def killing_the_engine_ends_all_its_processes(self) -> dict[str, Any]:
        """The last check: it leaves no engine until the worker has started another."""
        pid = self.client.pid
        assert pid is not None
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        used = sum(gpu.memory_used for gpu in detect_gpus().read_gpus())
        start = time.monotonic()
        family[0].kill()
        left = psutil.wait_procs(family, timeout=15)[1]
        seconds = time.monotonic() - start
        self.client.stop_engine()
        left = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"processes are left: {left}"
        freed = used - sum(gpu.memory_used for gpu in detect_gpus().read_gpus())
        return {"processes": len(family), "seconds": round(seconds, 2), "freed_gib": round(freed / 2**30, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=(TRANSFORMERS, VLLM))
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--models", type=Path, required=True, help="folder in which models are kept")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--engine-args", type=json.loads, default={}, help="engine_args of the entry, as JSON")
    parser.add_argument("--only", nargs="+", help="names of checks; the others are left out")
    options = parser.parse_args()
    folder = _with_byte_tokenizer(model_folder(options.shape, options.models, options.device), options.shape)
    adapters = {}
    if options.engine == VLLM:
        adapters = {name: adapter_folder(options.shape, options.models, rank) for name, rank in ADAPTER_RANKS.items()}
    with tempfile.TemporaryDirectory() as data:
        file = models_file(
            options.shape,
            folder,
            Path(data) / "models.json",
            device=options.device,
            in_flight=IN_FLIGHT,
            context=CONTEXT,
            engine=options.engine,
            engine_args=options.engine_args,
            adapters=adapters,
        )
        settings = from_environment(os.environ, models_file=file, data_dir=Path(data), engine_hang_seconds=300.0)

        def client_of(on_step: Callable[[StepOutput], None]) -> EngineClient:
            return EngineClient(load_catalogue(file).get_model(options.shape), settings, on_step=on_step)

        checks = Checks(
            client_of,
            SHAPES[options.shape]["vocab_size"],
            folder,
            adapters=adapters,
            expects_equal_tokens=options.device == "cpu",
        )
        failed = run_checks(checks, options.engine, options.only)
    sys.exit(1 if failed else 0)


def run_checks(checks: Checks, engine: str, only: Sequence[str] | None = None) -> int:
    """Run all checks, or some; returns how many failed."""
    failed = 0
    start = time.monotonic()
    checks.client.start_engine()
    checks.client.wait_ready(READY_SECONDS)
    print(json.dumps({"engine": engine, "check": "start", "ok": True, "seconds": round(time.monotonic() - start, 1)}), flush=True)
    others = ("prompt", "run", "one")
    names = [name for name in vars(Checks) if not name.startswith("_") and name not in others]
    for name in names:
        if only and name not in only:
            continue
        start = time.monotonic()
        result: dict[str, Any]
        try:
            result = {"ok": True, **getattr(checks, name)()}
        except Exception as error:  # noqa: BLE001 - a failed check is a result
            failed += 1
            result = {"ok": False, "error": f"{type(error).__name__}: {error}"[:400], "at": traceback.format_exc()[-300:]}
        seconds = round(time.monotonic() - start, 2)
        print(json.dumps({"engine": engine, "check": name, "seconds": seconds, **result}), flush=True)
    checks.client.stop_engine()
    return failed


def _merged_output(folder: Path, adapter: Path | None, prompt: list[int], length: int) -> list[int]:
    """What transformers generates greedily with the adapter's matrices added to the model's weights."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        tensors = load_file(adapter / "adapter_model.safetensors")
        for name, down in tensors.items():
            if name.endswith(".lora_A.weight"):
                module = model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
                # lora_alpha is r, so the product is not scaled.
                module.weight.data += tensors[name.replace("lora_A", "lora_B")] @ down
    output = model.generate(torch.tensor([prompt]), max_new_tokens=length, do_sample=False, eos_token_id=None)
    return [int(token) for token in output[0, len(prompt) :]]


def _with_byte_tokenizer(folder: Path, shape: str) -> Path:
    """The same weights with a tokenizer that a grammar can use, which has an end of text."""
    from transformers import PreTrainedTokenizerFast

    target = folder.with_name(f"{folder.name}-bytes")
    target.mkdir(exist_ok=True)
    for file in [*folder.glob("*.safetensors*"), *folder.glob("*config.json")]:
        if not (target / file.name).exists() and not file.name.startswith("tokenizer"):
            os.link(file, target / file.name)
    save_byte_tokenizer(target, shape)
    PreTrainedTokenizerFast.from_pretrained(target, eos_token=END).save_pretrained(target)  # type: ignore[no-untyped-call]
    return target


if __name__ == "__main__":
    main()
