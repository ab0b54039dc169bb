"""Watchdog of an engine process: silence, and requests without a completed step."""

from workers.gpu.engine.messages import Heartbeat, PhaseUpdate, StepOutput
from workers.gpu.engine_client.watchdog import Watchdog


def heartbeat(steps: int) -> Heartbeat:
    return Heartbeat(steps=steps, tokens=0, running=1, waiting=0, cache_use=0.0)


def ready_watchdog() -> Watchdog:
    watchdog = Watchdog(0.0)
    watchdog.observe(PhaseUpdate("ready"), holds_requests=False, now=0.0)
    return watchdog


def test_silence_counts_from_the_last_message_of_any_kind() -> None:
    watchdog = ready_watchdog()
    watchdog.observe(heartbeat(1), holds_requests=False, now=5.0)
    watchdog.observe(None, holds_requests=False, now=9.0)
    assert watchdog.stalled_for(9.0) == (4.0, "sent no heartbeat")


def test_heartbeats_without_a_step_count_as_a_stall_only_while_requests_are_held() -> None:
    watchdog = ready_watchdog()
    for second in range(1, 11):
        watchdog.observe(heartbeat(7), holds_requests=second > 4, now=float(second))
    assert watchdog.stalled_for(10.0) == (6.0, "held requests without completing a step")
    watchdog.observe(StepOutput([], []), holds_requests=True, now=11.0)
    assert watchdog.stalled_for(11.0)[0] == 0.0


def test_steps_without_tokens_count_as_progress() -> None:
    watchdog = ready_watchdog()
    for second in range(1, 11):
        watchdog.observe(heartbeat(second), holds_requests=True, now=float(second))
    assert watchdog.stalled_for(10.0)[0] == 0.0


def test_loading_may_take_as_long_as_heartbeats_arrive() -> None:
    watchdog = Watchdog(0.0)
    for second in range(1, 100):
        watchdog.observe(heartbeat(0), holds_requests=False, now=float(second))
    assert watchdog.stalled_for(99.0)[0] == 0.0
