"""The curl commands of the chat_gp_me tutorial, unchanged but for the port."""

import json
import subprocess

from testing.stack import Stack


def curl(stack: Stack, *arguments: str) -> object:
    command = [
        "curl",
        "--silent",
        "--show-error",
        *(item.replace("localhost:5000", f"localhost:{stack.port}") for item in arguments),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=240).stdout)


def test_list_models(stack: Stack) -> None:
    listed = curl(stack, "http://localhost:5000/models")
    assert isinstance(listed, list)
    assert {"name", "url"} <= set(listed[0])


def test_start_a_chat_session(stack: Stack) -> None:
    answer = curl(
        stack,
        *("-X", "POST", "http://localhost:5000/chat/start"),
        *("-H", "Content-Type: application/json"),
        *("-d", '{"message": "Hello, how are you?"}'),
    )
    assert isinstance(answer, dict)
    assert set(answer) >= {"sessionId", "messages"}
    assert [message["role"] for message in answer["messages"]] == ["user", "assistant"]
    assert answer["messages"][0]["content"] == "Hello, how are you?"
