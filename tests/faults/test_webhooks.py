"""Faults 35 and 37: what becomes of a delivery when the io worker or Redis dies between its POST and its record.

What receivers may do (35) and where names may lead (36) is in tests/redis/test_pump.py and tests/unit/test_addresses.py.
"""

from http.server import BaseHTTPRequestHandler
from typing import Any

from testing.fault_rig.fault_stack import FaultStack
from testing.fault_rig.processes import kill
from testing.receiver import Answer, Receiver, status
from testing.waiting import wait_until

WEBHOOK_SECONDS = 2
# The time of a try and five seconds.
LEASE_SECONDS = WEBHOOK_SECONDS + 5

HOUSE = {"environment": {"ENGINEHOUSE_WEBHOOK_SECONDS": str(WEBHOOK_SECONDS)}}


def delivery(house: FaultStack, job: str) -> dict[str, Any]:
    [one] = house.client.get(f"/jobs/{job}/deliveries").json()["data"]
    return dict(one)


def delivered(house: FaultStack, job: str) -> dict[str, Any]:
    """The only delivery of a job, once its receiver has it."""
    wait_until(lambda: delivery(house, job)["status"] == "delivered", "it is delivered", seconds=LEASE_SECONDS + 40)
    return delivery(house, job)


def after(fault: Any) -> Answer:
    """What the sender never hears, as the fault comes first."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        fault()
        status(204)(handler)

    return answer


def test_37_a_worker_killed_between_post_and_record_delivers_again_under_the_same_id(house: FaultStack) -> None:
    with Receiver() as receiver:
        receiver.answers = [after(lambda: kill(house.pid("io"))), status(204)]
        job = house.submit("tell me", webhook={"url": receiver.url})
        house.ended(job)
        record = delivered(house, job)
        assert [one.id for one in receiver.received] == [record["id"]] * 2
        assert receiver.received[0].body == receiver.received[1].body
    assert [one["outcome"] for one in record["attempts"]] == ["lost", "delivered"]


def test_37_a_record_that_redis_does_not_take_is_offered_again(house: FaultStack) -> None:
    with Receiver() as receiver:
        receiver.answers = [after(house.kill_redis), status(204)]
        job = house.submit("tell me", webhook={"url": receiver.url})
        wait_until(lambda: house.redis.process.poll() is not None, "it is posted, and Redis is killed")
        house.start_redis()
        wait_until(house.ready, "the house is ready again", seconds=40)
        house.ended(job)
        record = delivered(house, job)
        assert {one.id for one in receiver.received} == {record["id"]}
        assert record["attempts"][-1]["outcome"] == "delivered"


def test_35_what_was_to_be_told_outlives_the_whole_stack(house: FaultStack) -> None:
    with Receiver(status(500), status(204)) as receiver:
        job = house.submit("tell me", webhook={"url": receiver.url})
        house.ended(job)
        wait_until(lambda: [one["status"] for one in delivery(house, job)["attempts"]] == [500], "it waits for its next try")
        house.kill_stack()
        house.start()
        record = delivered(house, job)
        assert [one.id for one in receiver.received] == [record["id"]] * 2
    assert [one["status"] for one in record["attempts"]] == [500, 204]
