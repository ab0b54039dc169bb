"""Device time: the time of an engine is divided between the requests that it runs together."""

from contextlib import ExitStack

from shared.jobs.usage import Usage
from tests.unit.runtime_fakes import ManualClock
from workers.gpu.device_time import DeviceTime


def test_requests_that_run_together_share_the_time() -> None:
    clock = ManualClock()
    device_time, usages = DeviceTime(2, clock), [Usage(), Usage(), Usage()]
    clock.sleep(100)  # idle
    with ExitStack() as all_three:
        for usage in usages[:2]:
            all_three.enter_context(device_time.measure(usage))
        clock.sleep(6)
        with device_time.measure(usages[2]):
            clock.sleep(3)
        clock.sleep(4)
    clock.sleep(100)
    # 2 GPUs: half of 6 s, a third of 3 s, half of 4 s; 13 s in all.
    assert [usage.gpu_ms for usage in usages] == [12_000, 12_000, 2_000]
