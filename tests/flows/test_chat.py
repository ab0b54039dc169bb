"""The chat calls: sessions keep their history, and turns are answered in order."""

from concurrent.futures import ThreadPoolExecutor

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
