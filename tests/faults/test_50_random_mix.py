"""Fault 50: everything at random, at load, for a while. The seed is printed; ``--fault-seed`` repeats it, ``--fault-seconds``
sets how long."""

import random
import signal
import sys
import time
from collections.abc import Callable

import httpx2
import pytest

from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.pausing import pause
from testing.fault_rig.processes import engine_of, family, kill, stopped
from testing.waiting import wait_until

SECONDS = 120.0
HOUSE = {
    "slots": 16,
    "environment": {"ENGINEHOUSE_CANARY_SECONDS": "2", "ENGINEHOUSE_MAX_ATTEMPTS": "100", "ENGINEHOUSE_MAX_RETRIES": "100"},
}


class Mix:
    """The faults, each as a method; ``chance`` decides everything that is left to chance."""

    def __init__(self, house: FaultStack, chance: random.Random) -> None:
        self._house = house
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
            self.lose_tickets,
            self.lose_replies,
            self.double_tickets,
            self.drain_a_worker,
            self.kill_the_index,
        ]

    def _any_worker(self) -> str:
        return self._chance.choice(("gpu0", "gpu0", "cpu", "io"))

    def kill_a_worker(self) -> None:
        kill(self._house.pid(self._any_worker()))

    def drain_a_worker(self) -> None:
        kill(self._house.pid(self._any_worker()), signal.SIGTERM)

    def freeze_a_worker(self) -> None:
        with stopped(process.pid for process in family(self._house.pid(self._any_worker()))):
            pause(self._chance.uniform(1, 9))

    def kill_the_engine(self) -> None:
        engine = engine_of(self._house.pid("gpu0"))
        if engine is not None:
            kill(engine.pid)

    def kill_a_server(self) -> None:
        kill(self._chance.choice(family(self._house.pid("api"))).pid)

    def kill_the_index(self) -> None:
        kill(self._house.pid("chroma"))

    def kill_redis(self) -> None:
        # What Redis had not written to its log a moment before is not promised; everysec's gap is another case.
        self._house.direct.execute_command("WAITAOF", 1, 0, 5000)
        self._house.kill_redis()
        pause(self._chance.uniform(0, 3))
        self._house.start_redis()

    def stop_redis(self) -> None:
        self._house.redis.stop()
        pause(self._chance.uniform(0, 5))
        self._house.start_redis()

    def stall_redis(self) -> None:
        with stopped([self._house.redis.process.pid]):
            pause(self._chance.uniform(0.5, 6))

    def reset(self) -> None:
        self._house.proxy.reset()

    def half_open(self) -> None:
        self._house.proxy.half_open()

    def freeze_the_network(self) -> None:
        self._house.proxy.freeze()
        pause(self._chance.uniform(0.5, 8))
        self._house.proxy.thaw()

    def slow_network(self) -> None:
        self._house.proxy.delay(0.05)
        pause(self._chance.uniform(1, 5))
        self._house.proxy.delay(0)

    def lose_tickets(self) -> None:
        self._house.proxy.lose_request(b"LPUSH", self._chance.randint(1, 5))
        self._house.proxy.lose_reply(b"BRPOP", self._chance.randint(1, 5), reply=b"enginehouse.run_next_job")

    def lose_replies(self) -> None:
        self._house.proxy.lose_reply(b"EVALSHA", self._chance.randint(1, 20))

    def double_tickets(self) -> None:
        self._house.direct.eval(  # type: ignore[no-untyped-call]
            "for _, t in ipairs(redis.call('LRANGE', KEYS[1], 0, 20)) do redis.call('LPUSH', KEYS[1], t) end", 1, "gpu.echo"
        )


@pytest.mark.slow_fault
@pytest.mark.timeout(0)
def test_50_a_random_mix_of_faults_at_load(house: FaultStack, request: pytest.FixtureRequest) -> None:
    seconds = request.config.getoption("--fault-seconds", default=None) or SECONDS
    seed = request.config.getoption("--fault-seed", default=None) or random.SystemRandom().randrange(1, 1_000_000)
    again = f"pytest tests/faults/test_50_random_mix.py --fault-seed {seed} --fault-seconds {seconds:g}"
    _say(f"seed {seed}, {seconds:g} s; again: {again}")
    chance = random.Random(seed)
    mix = Mix(house, chance)
    told: list[str] = []
    submitted = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(chance.randint(0, 12)):
            submitted += _tried(house, f"{submitted} {TEXT}", chance)
        fault = chance.choice(mix.faults())
        told.append(fault.__name__)
        _say(f"{time.monotonic() - end + seconds:6.1f} s, {submitted} jobs: {fault.__name__}")
        fault()
        pause(chance.uniform(0.2, 4))
    house.proxy.heal()
    wait_until(house.ready, f"the stack is ready after {told}", seconds=90, every=0.2)
    house.ledger.check(house.direct, seconds=120)
    assert submitted, "some were accepted"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tried(house: FaultStack, prompt: str, chance: random.Random) -> int:
    try:
        answer = house.try_submit(prompt * chance.randint(1, 4))
    except httpx2.HTTPError:
        return 0
    assert answer.status_code in (202, 429, 503), answer.text
    return int(answer.status_code == 202)
