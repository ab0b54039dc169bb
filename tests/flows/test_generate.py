"""Generations, from the request to the result."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from testing.stack import Stack


def test_a_job_is_accepted_polled_and_completed(stack: Stack) -> None:
    answer = stack.post("/generate", {"prompt": "hello", "metadata": {"page": "7"}})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert answer.headers["Retry-After"] == "1"
    ended = stack.ended(job["id"])
    assert ended["status"] == "completed"
    assert ended["result"] == {
        "text": "hello",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
    }
    assert ended["metadata"] == {"page": "7"}
    assert 0 <= ended["timings"]["queued"] <= ended["timings"]["first_token"] <= ended["timings"]["total"]


def test_prefer_wait_returns_200_if_the_job_ended_in_time(stack: Stack) -> None:
    answer = stack.post("/generate", {"prompt": "hello"}, Prefer="wait=20")
    assert answer.status_code == 200
    assert answer.json()["result"]["text"] == "hello"


def test_messages_are_formatted_by_the_chat_template(stack: Stack) -> None:
    body = {"messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]}
    answer = stack.post("/generate", body, Prefer="wait=20").json()
    assert answer["result"]["text"] == "system: be kind\nuser: hi"


def test_max_tokens_ends_the_answer_with_length(stack: Stack) -> None:
    answer = stack.post("/generate", {"prompt": "abcdefgh", "max_tokens": 3}, Prefer="wait=20").json()
    assert (answer["result"]["text"], answer["result"]["finish_reason"]) == ("abc", "length")
    assert answer["result"]["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("stop", ["cd", ["x", "cd"]])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(stack: Stack, stop: object) -> None:
    answer = stack.post("/generate", {"prompt": "abcdefgh", "stop": stop}, Prefer="wait=20").json()
    assert (answer["result"]["text"], answer["result"]["finish_reason"]) == ("ab", "stop")


def test_a_multibyte_character_is_never_split(stack: Stack) -> None:
    answer = stack.post("/generate", {"prompt": "żółć 🦆 漢字"}, Prefer="wait=20").json()
    assert answer["result"]["text"] == "żółć 🦆 漢字"


def test_a_prompt_that_exceeds_the_context_fails_with_both_lengths(stack: Stack) -> None:
    answer = stack.post("/generate", {"prompt": "x" * 9000}, Prefer="wait=20").json()
    assert answer["status"] == "failed"
    assert answer["error"]["code"] == "prompt_too_long"
    assert (answer["error"]["prompt_tokens"], answer["error"]["max_context"]) == (9000, 8192)


def test_concurrent_clients_each_get_their_own_answer(stack: Stack) -> None:
    def ask(number: int) -> str:
        return str(stack.post("/generate", {"prompt": f"client {number}"}, Prefer="wait=50").json()["result"]["text"])

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(64))) == [f"client {number}" for number in range(64)]


def test_text_waits_and_answers_with_the_fields_of_the_tutorial(stack: Stack) -> None:
    answer = stack.post("/generate", {"text": "hi", "use_rag": False})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["response"], body["context_used"], body["status"]) == ("user: hi", False, "completed")
    later = stack.post("/generate", {"text": "hi"}, Prefer="respond-async")
    assert later.status_code == 202
