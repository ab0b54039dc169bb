"""The small model below ``/v1``: lm-eval gets the scores that transformers gives without a server, and answers match their schemas."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from testing.client_environment import run_client
from testing.stack import Stack
from tests.random_schemas import SCHEMAS, check_answer, make_schema

pytestmark = [pytest.mark.model, pytest.mark.timeout(700)]

# Short values in one line each, as the small model would otherwise write long ones in many lines, which its token limit cuts.
QUESTION = '{"name":"Bo","size":3,"tags":[]}\n[1,"a"]\n{"date":"no","kind":{"to":1}}\n["ab",null]\n"cd"\n{"id":7}'
# The sums of a float32 model differ in the last digits between batches.
TOLERANCE = 1e-2

SCRIPT = Path(__file__).with_name("lm_eval_scores.py")

CAPITALS = [
    {"country": "France", "choices": ["Paris", "Rome", "Berlin"], "answer": 0},
    {"country": "Italy", "choices": ["Madrid", "Rome", "Vienna"], "answer": 1},
    {"country": "Japan", "choices": ["Seoul", "Beijing", "Tokyo"], "answer": 2},
    {"country": "Norway", "choices": ["Stockholm", "Oslo", "Copenhagen"], "answer": 1},
]
# Each ending has several tokens, and their numbers differ.
ENDINGS = [
    {"start": "Water boils at", "endings": ["one hundred degrees Celsius", "the end of the week"], "label": "A"},
    {"start": "The opposite of hot is", "endings": ["a small wooden table", "cold"], "label": "B"},
    {"start": "Bees make", "endings": ["honey", "bricks and mortar for houses"], "label": "A"},
]
COUNTING = [
    {"text": f"{first}, {first + 1}, {first + 2}, {first + 3},", "next": f"{following}"}
    for first, following in ((1, 5), (11, 15), (5, 8))
]
TASKS: Mapping[str, tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]] = {
    "capitals": (
        CAPITALS,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "Question: What is the capital of {{country}}?\nAnswer:",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
    ),
    "endings": (
        ENDINGS,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{start}}",
            "doc_to_choice": "{{endings}}",
            "doc_to_target": "{{['A', 'B'].index(label)}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
    ),
    "counting": (
        COUNTING,
        {
            "output_type": "generate_until",
            "doc_to_text": "{{text}}",
            "doc_to_target": " {{next}}",
            "generation_kwargs": {"until": [","], "max_gen_toks": 6, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    ),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share a sum wait for each other, which multiplies its time on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class DirectModel:
    """The model in transformers, without a server."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def score(self, context: str, ending: str) -> tuple[float, bool]:
        """Log-probability of an ending, and whether a greedy answer would be this ending."""
        import torch

        begin = len(self.tokenizer(context).input_ids)
        ids = self.tokenizer(context + ending).input_ids
        with torch.inference_mode():
            scores = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        own = [float(scores[at - 1, ids[at]]) for at in range(begin, len(ids))]
        return sum(own), all(int(scores[at - 1].argmax()) == ids[at] for at in range(begin, len(ids)))

    def continue_text(self, text: str, tokens: int) -> str:
        ids = self.tokenizer(text, return_tensors="pt")
        output = self.model.generate(**ids, max_new_tokens=tokens, do_sample=False)
        return str(self.tokenizer.decode(output[0][ids.input_ids.shape[1] :], skip_special_tokens=True))


@pytest.mark.slow_fault
def test_lm_eval_scores_a_model_as_transformers_does(model_stack: Stack, model_folder: Path, tmp_path: Path) -> None:
    for name, (documents, task) in TASKS.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(document) + "\n" for document in documents))
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}, "test_split": "test"}
        # JSON is YAML.
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"task": name, **source, **task}))
    server = {"model": "gemma", "base_url": f"{model_stack.url}/v1/completions", "num_concurrent": "4"}
    tokenizer = {"tokenizer_backend": "huggingface", "tokenizer": str(model_folder), "add_bos_token": "True"}
    arguments = ",".join(f"{name}={value}" for name, value in {**server, **tokenizer}.items())
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(DirectModel, model_folder)
        output = run_client("python", [str(SCRIPT), str(tmp_path), arguments, *TASKS], tmp_path)
        direct = loading.result()
    found = json.loads(output)
    results, samples = found["results"], found["samples"]
    for name in ("capitals", "endings"):
        expected = []
        for sample in samples[name]:
            asked = sample["arguments"]
            scores = [direct.score(context, ending) for context, ending in asked]
            for [[score, is_greedy]], (own, own_is_greedy) in zip(sample["resps"], scores, strict=True):
                assert float(score) == pytest.approx(own, abs=TOLERANCE)
                assert str(is_greedy) == str(own_is_greedy)
            sums = [score for score, _ in scores]
            lengths = [len(ending.removeprefix(" ")) for _, ending in asked]
            right = int(sample["target"])
            means = [score / length for score, length in zip(sums, lengths, strict=True)]
            expected.append((sums.index(max(sums)) == right, means.index(max(means)) == right))
        assert results[name]["acc,none"] == pytest.approx(sum(right for right, _ in expected) / len(expected))
        assert results[name]["acc_norm,none"] == pytest.approx(sum(right for _, right in expected) / len(expected))
    answers = [direct.continue_text(document["text"], 6).split(",")[0] for document in COUNTING]
    assert [sample["resps"][0][0] for sample in samples["counting"]] == answers
    right = [answer == f" {document['next']}" for answer, document in zip(answers, COUNTING, strict=True)]
    assert results["counting"]["exact_match,none"] == pytest.approx(sum(right) / len(right))


@pytest.mark.slow_fault
def test_answers_of_a_model_match_their_schemas(model_stack: Stack) -> None:
    # As many as the model has slots for: a step of 16 requests takes half a second on a busy core.
    check_answers(model_stack, range(0, SCHEMAS, 19), max_tokens=40)


@pytest.mark.slow_fault
@pytest.mark.timeout(1800)
def test_answers_of_a_model_match_all_schemas(model_stack: Stack) -> None:
    check_answers(model_stack, range(SCHEMAS), max_tokens=160)


def check_answers(stack: Stack, numbers: Sequence[int], max_tokens: int) -> None:
    def answer(number: int) -> dict[str, Any]:
        form = {"type": "json_schema", "json_schema": {"name": "made", "strict": True, "schema": make_schema(number)}}
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": QUESTION}],
            "response_format": form,
            "max_tokens": max_tokens,
        }
        body |= {"seed": number, "temperature": 0.7}
        response = httpx2.post(f"{stack.url}/v1/chat/completions", json=body, timeout=600)
        assert response.status_code == 200, (number, response.text)
        choice: dict[str, Any] = response.json()["choices"][0]
        return choice

    with ThreadPoolExecutor(16) as pool:
        choices = list(pool.map(answer, numbers))
    complete = 0
    for number, choice in zip(numbers, choices, strict=True):
        if choice["finish_reason"] == "stop":
            complete += 1
            check_answer(make_schema(number), choice["message"]["content"])
        else:
            assert choice["finish_reason"] == "length", number
    assert complete >= len(numbers) // 4
