"""Throughput from heartbeats, and heartbeats as messages."""

from workers.gpu.engine.messages import Heartbeat, decode_message, encode_message
from workers.gpu.engine_client.throughput_meter import ThroughputMeter


def heartbeat(steps: int, tokens: int) -> Heartbeat:
    return Heartbeat(steps, tokens, 0, 0, 0.0)


def test_rates_are_between_heartbeats_and_start_again_with_a_new_engine() -> None:
    meter = ThroughputMeter()
    assert meter.update_rates(heartbeat(10, 100), 100.0)["tokens_per_second"] == 0.0
    assert meter.update_rates(heartbeat(30, 500), 102.0) == {"tokens_per_second": 200.0, "steps_per_second": 10.0}
    assert meter.update_rates(heartbeat(31, 510), 102.5)["tokens_per_second"] == 200.0, "within a second: unchanged"
    assert meter.update_rates(heartbeat(4, 40), 104.0) == {"tokens_per_second": 20.0, "steps_per_second": 2.0}


def test_a_heartbeat_survives_encoding() -> None:
    message = Heartbeat(steps=3, tokens=5, running=2, waiting=1, cache_use=0.5, prompt_tokens=9, cached_tokens=4)
    assert decode_message(encode_message(message)) == message
