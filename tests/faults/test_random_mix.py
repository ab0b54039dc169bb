"""A random mix of faults under load. The test prints its seed; ``--fault-seed`` repeats a run, ``--fault-seconds`` sets its length."""

import random
import signal
import sys
import time
from collections.abc import Callable

import httpx2
import pytest

from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.processes import find_engine, kill, process_tree, suspended
from testing.waiting import wait_until

SECONDS = 120.0
STACK_OPTIONS = {
    "slots": 16,
    "environment": {"ENGINEHOUSE_CANARY_SECONDS": "2", "ENGINEHOUSE_MAX_ATTEMPTS": "100", "ENGINEHOUSE_MAX_RETRIES": "100"},
}


class Mix:
    """The faults, one per method. ``chance`` is the source of all randomness."""

    def __init__(self, stack: FaultStack, chance: random.Random) -> None:
        self._stack = stack
        self._chance = chance

    def faults(self) -> list[Callable[[], None]]:
        return [
            self.kill_a_worker,
            self.kill_a_worker,
            self.freeze_a_worker,
            self.kill_the_engine,
            self.kill_a_server,
            self.kill_redis,
            self.stop_redis,
            self.stall_redis,
            self.reset,
            self.reset,
            self.half_open,
            self.freeze_the_network,
            self.slow_network,
            self.lose_wakeups,
            self.lose_replies,
            self.double_wakeups,
            self.drain_a_worker,
            self.kill_the_index,
        ]

    def _any_worker(self) -> str:
        return self._chance.choice(("gpu0", "gpu0", "cpu", "io"))

    def kill_a_worker(self) -> None:
        kill(self._stack.pid_of(self._any_worker()))

    def drain_a_worker(self) -> None:
        kill(self._stack.pid_of(self._any_worker()), signal.SIGTERM)

    def freeze_a_worker(self) -> None:
        with suspended(process.pid for process in process_tree(self._stack.pid_of(self._any_worker()))):
            hold_fault(self._chance.uniform(1, 9))

    def kill_the_engine(self) -> None:
        engine = find_engine(self._stack.pid_of("gpu0"))
        if engine is not None:
            kill(engine.pid)

    def kill_a_server(self) -> None:
        kill(self._chance.choice(process_tree(self._stack.pid_of("api"))).pid)

    def kill_the_index(self) -> None:
        kill(self._stack.pid_of("chroma"))

    def kill_redis(self) -> None:
        # Writes of the last second before a kill are not promised; test_redis_storage.py covers their loss.
        self._stack.direct.execute_command("WAITAOF", 1, 0, 5000)
        self._stack.kill_redis()
        hold_fault(self._chance.uniform(0, 3))
        self._stack.start_redis()

    def stop_redis(self) -> None:
        self._stack.redis.stop()
        hold_fault(self._chance.uniform(0, 5))
        self._stack.start_redis()

    def stall_redis(self) -> None:
        with suspended([self._stack.redis.process.pid]):
            hold_fault(self._chance.uniform(0.5, 6))

    def reset(self) -> None:
        self._stack.proxy.reset()

    def half_open(self) -> None:
        self._stack.proxy.half_open()

    def freeze_the_network(self) -> None:
        self._stack.proxy.freeze()
        hold_fault(self._chance.uniform(0.5, 8))
        self._stack.proxy.thaw()

    def slow_network(self) -> None:
        self._stack.proxy.delay(0.05)
        hold_fault(self._chance.uniform(1, 5))
        self._stack.proxy.delay(0)

    def lose_wakeups(self) -> None:
        self._stack.proxy.lose_request(b"LPUSH", self._chance.randint(1, 5))
        self._stack.proxy.lose_reply(b"BRPOP", self._chance.randint(1, 5), reply=b"enginehouse.run_next_job")

    def lose_replies(self) -> None:
        self._stack.proxy.lose_reply(b"EVALSHA", self._chance.randint(1, 20))

    def double_wakeups(self) -> None:
        self._stack.direct.eval(  # type: ignore[no-untyped-call]
            "for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, 20)) do redis.call('LPUSH', KEYS[1], message) end",
            1,
            "gpu.echo",
        )


@pytest.mark.slow_fault
@pytest.mark.timeout(0)
def test_a_random_mix_of_faults_under_load(stack: FaultStack, request: pytest.FixtureRequest) -> None:
    seconds = request.config.getoption("--fault-seconds", default=None) or SECONDS
    seed = request.config.getoption("--fault-seed", default=None) or random.SystemRandom().randrange(1, 1_000_000)
    again = f"pytest tests/faults/test_random_mix.py --fault-seed {seed} --fault-seconds {seconds:g}"
    _say(f"seed {seed}, {seconds:g} s; again: {again}")
    chance = random.Random(seed)
    mix = Mix(stack, chance)
    injected: list[str] = []
    submitted = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(chance.randint(0, 12)):
            submitted += _submit_one(stack, f"{submitted} {TEXT}", chance)
        fault = chance.choice(mix.faults())
        injected.append(fault.__name__)
        _say(f"{time.monotonic() - end + seconds:6.1f} s, {submitted} jobs: {fault.__name__}")
        fault()
        hold_fault(chance.uniform(0.2, 4))
    stack.proxy.heal()
    wait_until(stack.is_ready, f"the stack is ready after {injected}", every=0.2)
    stack.ledger.check_invariants(stack.direct, seconds=120)
    assert submitted, "at least one job was accepted"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _submit_one(stack: FaultStack, prompt: str, chance: random.Random) -> int:
    try:
        answer = stack.request_job(prompt * chance.randint(1, 4))
    except httpx2.HTTPError:
        return 0
    assert answer.status_code in (202, 429, 503), answer.text
    return int(answer.status_code == 202)
