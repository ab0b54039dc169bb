"""Output buffer: which output is sent at once, and which is collected first."""

from workers.gpu.engine.output_buffer import BUFFER_SECONDS, FINISH_SECONDS, OutputBuffer, Scores


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_first_token_is_sent_at_once() -> None:
    buffer = OutputBuffer(Clock())
    buffer.append_step(["a"], [1], [], first=["a"])
    output = buffer.wait_for_output(0.0)
    assert output is not None
    assert output.tokens == {"a": [1]}


def test_other_tokens_are_collected_for_a_while() -> None:
    clock = Clock()
    buffer = OutputBuffer(clock)
    buffer.append_step(["a", "b"], [1, 2], [])
    assert buffer.wait_for_output(0.0) is None
    clock.now += BUFFER_SECONDS / 2
    buffer.append_step(["a"], [3], [])
    assert buffer.wait_for_output(0.0) is None
    clock.now += BUFFER_SECONDS / 2
    output = buffer.wait_for_output(0.0)
    assert output is not None
    assert output.tokens == {"a": [1, 3], "b": [2]}
    assert buffer.wait_for_output(0.0) is None


def test_a_first_token_and_an_end_go_out_without_the_tokens_of_other_requests() -> None:
    clock = Clock()
    buffer = OutputBuffer(clock)
    scores: Scores = [("new", [(1, -0.1, [])]), ("other", [(2, -0.2, [])])]
    buffer.append_step(["ending", "new", "other"], [3, 1, 2], [("ending", "length", "")], first=["new"], logprobs=scores)
    output = buffer.wait_for_output(0.0)
    assert output is not None
    assert output.tokens == {"ending": [3], "new": [1]}
    assert output.logprobs == {"new": [(1, -0.1, [])]}
    assert output.finished == [("ending", "length", "")]
    clock.now += BUFFER_SECONDS / 2
    buffer.append_step(["new", "other"], [4, 5], [])
    assert buffer.wait_for_output(0.0) is None
    # The others are due when they would have been without it.
    clock.now += BUFFER_SECONDS / 2
    output = buffer.wait_for_output(0.0)
    assert output is not None
    assert output.tokens == {"new": [4], "other": [2, 5]}
    assert output.logprobs == {"other": [(2, -0.2, [])]}
    assert output.finished == []


def test_an_end_takes_along_all_tokens_of_its_request() -> None:
    clock = Clock()
    buffer = OutputBuffer(clock)
    buffer.append_step(["a", "b"], [1, 2], [])
    clock.now += FINISH_SECONDS / 2
    buffer.append_step(["a", "b"], [3, 4], [("a", "length", "")])
    assert buffer.wait_for_output(0.0) is None
    clock.now += FINISH_SECONDS
    output = buffer.wait_for_output(0.0)
    assert output is not None
    assert output.tokens == {"a": [1, 3]}
    assert output.finished == [("a", "length", "")]
    clock.now += BUFFER_SECONDS
    output = buffer.wait_for_output(0.0)
    assert output is not None
    assert output.tokens == {"b": [2, 4]}


def test_more_requests_are_collected_for_longer() -> None:
    clock = Clock()
    buffer = OutputBuffer(clock)
    buffer.append_step([str(number) for number in range(1000)], [1] * 1000, [])
    clock.now += BUFFER_SECONDS * 2
    assert buffer.wait_for_output(0.0) is None
    clock.now += 1.0
    assert buffer.wait_for_output(0.0) is not None


def test_an_end_is_sent_sooner_than_tokens() -> None:
    clock = Clock()
    buffer = OutputBuffer(clock)
    buffer.append_step(["a"], [1], [("a", "length", "")])
    assert buffer.wait_for_output(0.0) is None
    clock.now += FINISH_SECONDS
    output = buffer.wait_for_output(0.0)
    assert output is not None
    assert output.finished == [("a", "length", "")]


def test_rejected_requests_and_errors_are_sent_at_once() -> None:
    buffer = OutputBuffer(Clock())
    buffer.append_rejected(("a", "cancelled", ""))
    buffer.report_error("first")
    buffer.report_error("second")
    output = buffer.wait_for_output(0.0)
    assert output is not None
    assert output.rejected == [("a", "cancelled", "")]
    assert output.error == "first"
