"""The chat calls: sessions keep their history, and turns are answered in order."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from testing.stack import Stack


def test_a_chat_keeps_its_history(stack: Stack) -> None:
    started = stack.post("/chat/start", {"message": "one"}).json()
    session = started["sessionId"]
    assert [message["role"] for message in started["messages"]] == ["user", "assistant"]
    assert all(message["timestamp"] for message in started["messages"])
    answered = stack.post("/chat/message", {"sessionId": session, "message": "two", "max_tokens": 500}).json()
    assert [message["content"] for message in answered["messages"]][::2] == ["one", "two"]
    # The echo engine answers with its prompt, which shows that the history was in it.
    assert "user: one\nassistant: user: one\nuser: two" in answered["messages"][-1]["content"]
    assert stack.client.get(f"/chat/history/{session}").json()["messages"] == answered["messages"]


def test_a_session_may_have_a_chosen_id_and_start_without_a_message(stack: Stack) -> None:
    assert stack.post("/chat/start", {"sessionId": "mine"}).json() == {"sessionId": "mine", "messages": []}
    assert len(stack.post("/chat/message", {"sessionId": "mine", "message": "hi"}).json()["messages"]) == 2


def test_messages_sent_together_are_answered_in_order(stack: Stack) -> None:
    session = stack.post("/chat/start", {}).json()["sessionId"]

    def send(number: int) -> None:
        stack.post("/chat/message", {"sessionId": session, "message": f"message {number}"})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(6)))
    messages = stack.client.get(f"/chat/history/{session}").json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 6
    assert sorted(message["content"] for message in messages[::2]) == [f"message {number}" for number in range(6)]


def test_a_turn_may_be_asynchronous(stack: Stack) -> None:
    session = stack.post("/chat/start", {}).json()["sessionId"]
    answer = stack.post("/chat/message", {"sessionId": session, "message": "later"}, Prefer="respond-async")
    assert answer.status_code == 202
    assert stack.ended(answer.json()["id"])["session"] == session
    assert len(stack.client.get(f"/chat/history/{session}").json()["messages"]) == 2


def test_a_long_history_is_cut_to_the_context(stack: Stack) -> None:
    session = stack.post("/chat/start", {}).json()["sessionId"]
    for number in range(5):
        answer = stack.post("/chat/message", {"sessionId": session, "message": f"{number}" * 3000})
        assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] < 8192
    assert len(answer.json()["messages"]) == 10, "the history itself is complete"


def test_a_deleted_session_is_gone(stack: Stack) -> None:
    session = stack.post("/chat/start", {"message": "one"}).json()["sessionId"]
    assert stack.client.delete(f"/chat/session/{session}").json()["sessionId"] == session
    assert stack.client.get(f"/chat/history/{session}").status_code == 404
    assert stack.post("/chat/message", {"sessionId": session, "message": "two"}).status_code == 404
    assert stack.client.delete(f"/chat/session/{session}").status_code == 404


def turns(stack: Stack, session: str) -> list[dict[str, Any]]:
    answer = stack.client.get(f"/chat/sessions/{session}/turns")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_an_edited_message_and_another_answer_are_branches(stack: Stack) -> None:
    first = stack.post("/chat", {"message": "one", "max_tokens": 300}).json()
    session, turn = first["session"], first["turn"]
    assert (turn["status"], turn["answer"], turn["parent"], turn["siblings"]) == ("completed", "user: one", None, [turn["id"]])
    assert turn["usage"]["completion_tokens"] > 0
    assert turn["timings"]["total"] >= turn["timings"]["first_token"] >= turn["timings"]["queued"] >= 0
    second = stack.post("/chat", {"session": session, "message": "two", "max_tokens": 300}).json()["turn"]
    assert second["answer"] == "user: one\nassistant: user: one\nuser: two"
    edited = stack.post("/chat", {"session": session, "message": "2", "parent": turn["id"], "system": "Be brief."}).json()["turn"]
    assert edited["answer"] == "system: Be brief.\nuser: one\nassistant: user: one\nuser: 2"
    assert edited["siblings"] == [second["id"], edited["id"]]
    assert [entry["message"] for entry in turns(stack, session)] == ["one", "2"]

    again = stack.post(f"/chat/sessions/{session}/turns/{edited['id']}/regenerate", {"max_tokens": 5}).json()["turn"]
    assert (again["message"], again["system"], again["siblings"][-1]) == ("2", "Be brief.", again["id"])
    assert again["finish_reason"] == "length"
    changed = stack.client.patch(f"/chat/sessions/{session}", json={"title": " Numbers ", "current": second["id"]}).json()
    assert (changed["session"]["title"], changed["session"]["turns"], changed["current"]) == ("Numbers", 4, second["id"])
    anew = stack.post("/chat", {"session": session, "message": "1", "parent": None}).json()["turn"]
    assert (anew["answer"], anew["siblings"]) == ("user: 1", [turn["id"], anew["id"]])
    found = stack.client.get("/chat/sessions", params={"q": "assistant: USER: one"}).json()["data"]
    assert session in [entry["id"] for entry in found]


def test_turns_outlive_a_worker_and_those_that_were_stopped_are_kept(stack: Stack) -> None:
    with stack.paused("gpu.echo"):
        jobs = [
            stack.post("/chat", {"session": "killed", "message": message, "max_tokens": 300}, Prefer="respond-async").json()
            for message in ("stop me", "go on")
        ]
        assert [job["priority"] for job in jobs] == [2, 2]
        stack.client.post(f"/jobs/{jobs[0]['id']}/cancel")
        os.kill(stack.pid("gpu0"), signal.SIGKILL)
    assert stack.ended(jobs[1]["id"])["status"] == "completed"
    stopped, answered = turns(stack, "killed")
    assert (stopped["status"], stopped["answer"], stopped["error"]) == ("cancelled", "", None)
    # The model does not see the stopped one.
    assert (answered["answer"], answered["parent"]) == ("user: go on", stopped["id"])


def test_a_refused_turn_keeps_its_reason(stack: Stack) -> None:
    refused = stack.post("/chat", {"session": "refused", "message": "word " * 9000})
    assert refused.status_code == 422
    [turn] = turns(stack, "refused")
    assert (turn["status"], turn["error"]["code"], turn["answer"]) == ("failed", "prompt_too_long", "")


def test_a_deleted_chat_can_be_restored(stack: Stack) -> None:
    stack.post("/chat", {"session": "kept/in mind", "message": "remember me"})
    deleted = stack.client.delete("/chat/sessions/kept%2Fin%20mind").json()
    assert (deleted["id"], deleted["deleted"]) == ("kept/in mind", True)
    assert stack.client.get("/chat/sessions/kept%2Fin%20mind/turns").status_code == 404
    assert "kept/in mind" not in [entry["id"] for entry in stack.client.get("/chat/sessions").json()["data"]]
    restored = stack.client.post("/chat/sessions/kept%2Fin%20mind/restore").json()
    assert restored["data"][0]["answer"] == "user: remember me"
    assert stack.client.post("/chat/sessions/kept%2Fin%20mind/restore").status_code == 409
    assert stack.client.post("/chat/sessions/never/restore").json()["error"]["code"] == "session_not_found"


def test_bad_input_is_refused_by_name(stack: Stack) -> None:
    session = stack.post("/chat", {"message": "one"}).json()["session"]
    for call, body, status, param in (
        ("/chat", {"message": ""}, 422, "message"),
        ("/chat", {"session": session, "message": "x", "parent": "job_nothing"}, 404, "parent"),
        ("/chat", {"session": "gone", "message": "x", "parent": "job_nothing"}, 404, "sessionId"),
        ("/chat", {"message": "x", "system": ""}, 422, "system"),
        (f"/chat/sessions/{session}/turns/nothing/regenerate", {}, 404, "turn"),
    ):
        answer = stack.post(call, body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    for changes, status, param in (
        ({"title": "  "}, 422, "title"),
        ({"title": "x" * 201}, 422, "title"),
        ({"current": "no"}, 404, "current"),
    ):
        answer = stack.client.patch(f"/chat/sessions/{session}", json=changes)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    for query in ("limit=0", "limit=101", "cursor=x", "q="):
        answer = stack.client.get(f"/chat/sessions?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, query.partition("=")[0]), answer.text
