"""Engine client and supervisor, with scripted connections in place of processes and the clock in hand."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import EngineFault, ModelUnavailable
from shared.models.catalogue import ECHO, ModelEntry
from shared.settings import Settings
from workers.gpu.engine.messages import CancelRequest, GenerationRequest, Heartbeat, Message, PhaseUpdate, StepOutput
from workers.gpu.engine_client.engine_client import EngineClient, EngineState, load_error

READY = PhaseUpdate("ready", attention_backend="sdpa", max_context=512)
Script = list[Message | Callable[[], Message | None] | float]


class ScriptedConnection:
    """Receives the messages of a script, in which a function acts and a number lets seconds pass; then the process is gone."""

    def __init__(self, rig: "Rig", script: Script) -> None:
        self._rig = rig
        self._script = list(script)
        self.sent: list[Message] = []
        self.killed = False
        self.pid: int | None = 7

    def send_message(self, message: Message) -> None:
        self.sent.append(message)

    def receive_message(self, timeout: float) -> Message | None:
        if not self._script:
            raise EOFError
        item = self._script.pop(0)
        if isinstance(item, float):
            self._rig.now += item
            return None
        return item() if callable(item) else item

    def close(self) -> None:
        self._script.clear()

    def kill(self) -> None:
        self.killed = True

    def wait_for_exit(self) -> str:
        self.pid = None
        return "killed by signal 9"


class Rig:
    """A client whose processes follow one script each."""

    def __init__(self, *scripts: Script, max_in_flight: int = 4, quiet_seconds: float = 600.0) -> None:
        self.now = 1000.0
        self.connections: list[ScriptedConnection] = []
        self.limits: list[int] = []
        self.tokens: dict[str, list[int]] = {}
        self.ends: list[tuple[str, str]] = []
        self.states: list[EngineState] = []
        self._scripts = list(scripts)
        entry = ModelEntry(name="m", url="echo:", engine=ECHO, max_in_flight=max_in_flight)
        self.client = EngineClient(
            entry,
            Settings(engine_hang_seconds=60.0),
            on_step=self._on_step,
            on_state=self.states.append,
            quiet_seconds=quiet_seconds,
            connect=self._connect,
            clock=lambda: self.now,
        )

    def _connect(self, limit: int) -> ScriptedConnection:
        self.limits.append(limit)
        self.connections.append(ScriptedConnection(self, self._scripts.pop(0)))
        return self.connections[-1]

    def _on_step(self, output: StepOutput) -> None:
        for id, ids in output.tokens:
            self.tokens.setdefault(id, []).extend(ids)
        self.ends += [(id, reason) for id, reason, _ in output.finished]

    def run_process(self) -> float:
        """Run one process to its end; returns the delay before the next."""
        return self.client.supervisor.supervise_once()

    def submit(self, *ids: str) -> Callable[[], None]:
        """A step of a script that submits requests."""

        def act() -> None:
            for id in ids:
                self.client.submit_request(GenerationRequest(id, [1, 2], 10, []))

        return act

    def sent(self, number: int = -1) -> list[str]:
        """Ids of the requests that a process was given."""
        return [message.id for message in self.connections[number].sent if isinstance(message, GenerationRequest)]

    def phases(self) -> list[str]:
        return [state.phase for state in self.states]


def finished(*ends: tuple[str, Any]) -> StepOutput:
    return StepOutput([], [(id, reason, "") for id, reason in ends])


def rig_with(*scripts: Callable[[Rig], Script], **options: Any) -> Rig:
    """A rig whose scripts refer to itself."""
    rig = Rig(**options)
    rig._scripts = [script(rig) for script in scripts]
    return rig


def test_requests_are_sent_up_to_the_limit_and_the_next_when_one_finishes() -> None:
    rig = rig_with(
        lambda rig: [READY, rig.submit("a", "b", "c"), StepOutput([("a", [5])], [("a", "stop", "")]), finished(("b", "length"))],
        max_in_flight=2,
    )
    rig.run_process()
    assert rig.sent() == ["a", "b", "c"]
    assert rig.tokens == {"a": [5]}
    assert rig.ends == [("a", "stop"), ("b", "length"), ("c", "lost")]
    assert (rig.client.supervisor.attention_backend, rig.client.supervisor.max_context) == ("sdpa", 512)


def test_a_request_is_rejected_before_the_engine_is_ready() -> None:
    rig = Rig([])
    with pytest.raises(EngineFault, match=r"not ready: loading"):
        rig.submit("early")()


def test_a_second_request_with_the_same_id_is_rejected() -> None:
    def submit_twice(rig: Rig) -> None:
        rig.submit("a")()
        with pytest.raises(EngineFault, match="already running a request with id a"):
            rig.submit("a")()

    rig_with(lambda rig: [READY, lambda: submit_twice(rig)]).run_process()


def test_a_cancel_goes_to_the_process_or_ends_a_waiting_request_at_once() -> None:
    def cancel_both(rig: Rig) -> None:
        rig.client.cancel_request("a")
        rig.client.cancel_request("b")
        rig.client.cancel_request("unknown")

    rig = rig_with(
        lambda rig: [READY, rig.submit("a", "b"), lambda: cancel_both(rig), finished(("a", "cancelled"))], max_in_flight=1
    )
    rig.run_process()
    assert rig.connections[0].sent[1:] == [CancelRequest("a")]
    assert rig.ends == [("b", "cancelled"), ("a", "cancelled")]


def test_a_crash_loses_what_was_in_flight_and_the_next_process_gets_what_waited() -> None:
    rig = rig_with(lambda rig: [READY, rig.submit("a", "b")], lambda rig: [READY, finished(("b", "stop"))], max_in_flight=1)
    assert rig.run_process() == 0.5
    assert rig.ends == [("a", "lost")]
    assert rig.client.pid is None
    rig.run_process()
    assert rig.sent() == ["b"]
    assert rig.ends == [("a", "lost"), ("b", "stop")]


def test_out_of_memory_continues_with_fewer_requests_at_once() -> None:
    rig = rig_with(
        lambda rig: [
            READY,
            rig.submit("a", "b", "c", "d"),
            StepOutput([("a", [9])], []),
            PhaseUpdate("failed", "no memory", out_of_memory=True),
        ],
        lambda rig: [READY, finished(("a", "stop"))],
    )
    assert rig.run_process() == 0.5
    assert rig.ends == []
    assert rig.client.limit == 2
    assert "out of memory with 4 requests in flight (no memory); continuing with 2 at once" in rig.client.state.message
    rig.run_process()
    assert rig.limits == [4, 2]
    assert rig.connections[1].sent[0] == GenerationRequest("a", [1, 2, 9], 9, [], generated_tokens=1)
    assert rig.sent() == ["a", "b", "c"]


def test_an_engine_that_cannot_load_its_model_rejects_requests_with_the_reason() -> None:
    rig = Rig([PhaseUpdate("loading", "reading the weights"), PhaseUpdate("failed", "no such folder")])
    assert rig.run_process() == 30.0
    assert rig.client.state.phase == "failed"
    with pytest.raises(ModelUnavailable, match="no such folder"):
        rig.submit("a")()


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("Model m: the folder /m does not exist. Correct its url.", "the folder /m does not exist. Correct its url"),
        ("Model m failed its self-test.", "it failed its self-test"),
        ("ValueError: bad weights", "ValueError: bad weights"),
    ],
)
def test_the_error_of_a_model_that_cannot_be_loaded_names_it_once(reason: str, sentence: str) -> None:
    assert load_error("m", reason).message == (
        f"Model m could not be loaded: {sentence}. Submit the job again when that is corrected."
    )


def test_out_of_memory_while_warming_up_tries_a_smaller_batch() -> None:
    rig = Rig([PhaseUpdate("warming", "sizing the KV cache"), PhaseUpdate("failed", "no memory", out_of_memory=True)])
    rig.run_process()
    assert (rig.client.state.phase, rig.client.limit) == ("loading", 2)


def test_out_of_memory_while_reading_the_weights_gives_up() -> None:
    rig = Rig([PhaseUpdate("loading"), PhaseUpdate("failed", "no memory", out_of_memory=True)])
    rig.run_process()
    assert (rig.client.state.phase, rig.client.limit) == ("failed", 4)


def test_a_silent_process_is_reported_as_stalled_and_then_replaced() -> None:
    rig = rig_with(lambda rig: [READY, rig.submit("a"), 31.0, 30.0, 1.0])
    rig.run_process()
    assert rig.phases()[-2:] == ["stalled", "loading"]
    [stalled] = [state for state in rig.states if state.phase == "stalled"]
    assert stalled.message == (
        "it sent no heartbeat for 31 s, with 1 requests in flight; it will be killed and restarted at 60 s"
    )
    assert rig.ends == [("a", "lost")]


def test_a_process_that_recovers_is_ready_again_and_gets_the_next_request() -> None:
    rig = rig_with(lambda rig: [READY, 31.0, Heartbeat(1, 0, 0, 0, 0.0), rig.submit("a"), finished(("a", "stop"))])
    rig.run_process()
    assert rig.phases()[1:4] == ["ready", "stalled", "ready"]
    assert rig.ends == [("a", "stop")]


def test_an_idle_engine_with_a_reduced_limit_restarts_with_a_larger_one_after_the_quiet_time() -> None:
    rig = rig_with(
        lambda rig: [READY, rig.submit("a", "b"), PhaseUpdate("failed", "no memory", out_of_memory=True)],
        lambda rig: [READY, StepOutput([], [("a", "stop", "")]), finished(("b", "stop")), 5.0, 6.0, 1.0],
        lambda rig: [READY],
        quiet_seconds=10.0,
    )
    rig.run_process()
    assert rig.client.limit == 1
    assert rig.run_process() == 0.0
    assert rig.client.limit == 2
    assert "restarts to run 2 requests at once" in rig.client.state.message
    rig.run_process()
    assert rig.limits == [4, 1, 2]


def test_an_error_of_the_supervisor_counts_as_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    rig = rig_with(lambda rig: [READY, rig.submit("a"), fail])
    assert rig.run_process() == 0.5
    assert rig.ends == [("a", "lost")]
    assert "its supervisor failed: ZeroDivisionError: a defect" in rig.client.state.message


def test_stopping_ends_every_request_as_lost() -> None:
    rig = rig_with(lambda rig: [READY, rig.submit("a", "b"), lambda: rig.client.stop_engine(0.0)], max_in_flight=1)
    rig.client.start_engine()
    rig.client.supervisor._thread.join(60)
    assert rig.ends == [("a", "lost"), ("b", "lost")]
    assert rig.client.state.phase == "stopped"
    assert "failed" not in rig.phases()
    with pytest.raises(EngineFault, match="has been stopped"):
        rig.submit("late")()
