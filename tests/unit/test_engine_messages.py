"""Messages between a worker and its engine process: several in one write."""

from workers.gpu.engine.messages import (
    CancelRequest,
    GenerationRequest,
    decode_message,
    encode_message,
    join_messages,
    split_messages,
)


def test_joined_messages_are_split_into_the_same_ones() -> None:
    messages = [
        GenerationRequest("a", [1, 2], 3, [], grammar="start: /x+/\n\r\u2028"),
        CancelRequest("a"),
        GenerationRequest("line\nbreak", [4], 5, [6]),
    ]
    joined = join_messages([encode_message(message) for message in messages])
    assert [decode_message(part) for part in split_messages(joined)] == messages
    [single] = split_messages(encode_message(messages[0]))
    assert decode_message(single) == messages[0]
