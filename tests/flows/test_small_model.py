"""The default model, for real: right answers, draws that can be repeated, stops and cancels, eight at once."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from shared.models.catalogue import ModelEntry, load_catalogue
from shared.settings import from_environment
from tests.flows.engine_outputs import PATIENCE, Answers
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.tokenization import TextCodec
from workers.gpu.weights import prepare

pytestmark = [pytest.mark.model, pytest.mark.timeout(400)]

PASSAGE = (
    "The Brannock device was patented in 1926 by Charles F. Brannock of Syracuse, New York. "
    "It measures the length, width and arch length of the human foot and is still sold today."
)


@dataclass
class Served:
    entry: ModelEntry
    text: TextCodec
    engine: EngineClient
    answers: Answers

    def tokens_of(self, id: str) -> list[int]:
        self.answers.end(id)
        return self.answers.tokens.get(id, [])

    def ask(self, id: str, question: str, context: str = "", **options: Any) -> None:
        system = [{"role": "system", "content": f"Use the following context to answer.\n\n{context}"}] if context else []
        prompt = self.text.encode_messages([*system, {"role": "user", "content": question}])
        asked = {"max_new_tokens": 24, "stop_token_ids": list(self.text.stop_token_ids), **options}
        self.engine.submit(GenerationRequest(id, prompt, **asked))

    def answer(self, id: str) -> str:
        decoder = self.text.decoder(in_conversation=True)
        return decoder.feed(self.tokens_of(id))[0] + decoder.flush()


@pytest.fixture(scope="module")
def model() -> Iterator[Served]:
    settings = from_environment(os.environ)
    entry = load_catalogue(settings.models_file).default()
    folder = prepare(entry, settings.prepared_models, lambda step, fraction: None)
    answers = Answers()
    engine = EngineClient(entry, settings, on_step=answers.on_step)
    engine.start()
    engine.wait_ready(PATIENCE * 3)
    yield Served(entry, TextCodec(entry, folder), engine, answers)
    engine.close()


def test_it_answers_questions_in_a_sentence_each_of_them_in_one_batch(model: Served) -> None:
    model.ask("fact", "What is the capital of France?")
    model.ask("quoted", "Who patented the Brannock device?", PASSAGE)
    model.ask("year", "When was the Brannock device patented?", PASSAGE)
    assert "Paris" in model.answer("fact")
    assert "Charles F. Brannock" in model.answer("quoted")
    assert "1926" in model.answer("year")
    for id in ("fact", "quoted", "year"):
        assert "Question:" not in model.answer(id)
        assert model.answer(id) == model.answer(id).strip()


def test_a_seed_draws_the_same_tokens_again_and_other_seeds_draw_others(model: Served) -> None:
    # One after the other: in 16-bit arithmetic the neighbours in a batch change the last digits of a request's scores. That
    # the draw itself does not depend on them is tests/unit/test_sampling.py's to show.
    sampling: dict[str, Any] = {"temperature": 1.2, "top_p": 0.95, "top_k": 100}
    for id, seed in (("first", 2), ("again", 2), ("other", 3)):
        model.ask(id, "Write about the sea.", seed=seed, **sampling)
        model.answers.end(id)
    assert model.tokens_of("again") == model.tokens_of("first")
    assert model.tokens_of("other") != model.tokens_of("first")


def test_a_cancelled_request_stops_and_the_others_go_on(model: Served) -> None:
    model.ask("goes on", "Write about the sea.", max_new_tokens=40, stop_token_ids=[])
    model.ask("cancelled", "Write about the sea.", max_new_tokens=4000, stop_token_ids=[])
    model.answers.until("first token", lambda: bool(model.answers.tokens.get("cancelled")))
    before = len(model.answers.tokens["cancelled"])
    model.engine.cancel("cancelled")
    assert model.answers.end("cancelled") == "cancelled"
    assert len(model.answers.tokens["cancelled"]) <= before + 2
    assert model.answers.end("goes on") == "length"
    assert len(model.answers.tokens["goes on"]) == 40


def test_what_does_not_fit_fails_and_what_follows_is_served(model: Served) -> None:
    model.engine.submit(GenerationRequest("too long", [5] * model.text.max_context, 5, []))
    model.engine.submit(GenerationRequest("empty", [], 5, []))
    model.engine.submit(GenerationRequest("next", [2, 5, 6], 3, []))
    assert model.answers.end("too long") == "failed"
    assert str(model.text.max_context) in model.answers.ends["too long"][0][1]
    assert model.answers.end("empty") == "failed"
    assert model.answers.end("next") == "length"


def test_a_stop_token_ends_an_answer_and_is_no_part_of_it(model: Served) -> None:
    model.ask("free", "What is the capital of France?", max_new_tokens=6, stop_token_ids=[])
    third = model.tokens_of("free")[2]
    model.ask("stopped", "What is the capital of France?", max_new_tokens=6, stop_token_ids=[third])
    assert model.answers.end("stopped") == "stop"
    assert model.tokens_of("stopped") == model.tokens_of("free")[: model.tokens_of("free").index(third)]


def test_its_text_survives_tokens_and_comes_whole_however_it_is_cut(model: Served) -> None:
    for text in ("Zoë's naïve café — 12 €", "日本語のテキスト 🦀👩‍👩‍👧", "  two spaces\n\ttab\n", "𒀀𒁀 ಠ_ಠ"):
        ids = model.text.encode_prompt(text)
        decoder = model.text.decoder()
        deltas = [decoder.feed([id])[0] for id in ids] + [decoder.flush()]
        assert "".join(deltas) == text
        assert not any("\N{REPLACEMENT CHARACTER}" in delta for delta in deltas)
