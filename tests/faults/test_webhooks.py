"""Webhook deliveries when the io worker or Redis dies between the POST and its record, or the whole stack dies before a retry.

Receivers that misbehave are in tests/redis/test_webhook_dispatcher.py, address checks in tests/unit/test_ssrf.py.
"""

from http.server import BaseHTTPRequestHandler
from typing import Any

from testing.fault_rig.fault_stack import FaultStack
from testing.fault_rig.processes import kill
from testing.receiver import Answer, Receiver, fail_first, status
from testing.waiting import wait_until

WEBHOOK_SECONDS = 2
STACK_OPTIONS = {"environment": {"ENGINEHOUSE_WEBHOOK_SECONDS": str(WEBHOOK_SECONDS)}}


def delivery(stack: FaultStack, job: str) -> dict[str, Any]:
    [found] = stack.client.get(f"/jobs/{job}/deliveries").json()["data"]
    return dict(found)


def wait_for_delivery(stack: FaultStack, job: str) -> dict[str, Any]:
    """Wait until the only delivery of a job is delivered. Returns it."""
    wait_until(lambda: delivery(stack, job)["status"] == "delivered", "it is delivered")
    return delivery(stack, job)


def after(fault: Any) -> Answer:
    """Inject a fault, then send an answer, which the sender does not receive."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        fault()
        status(204)(handler)

    return answer


def test_a_worker_killed_between_post_and_record_delivers_again_under_the_same_id(stack: FaultStack) -> None:
    with Receiver() as receiver:
        receiver.answers = [after(lambda: kill(stack.pid_of("io"))), status(204)]
        job = stack.submit_job("tell me", webhook={"url": receiver.url})
        stack.wait_for_end(job)
        record = wait_for_delivery(stack, job)
        assert [request.id for request in receiver.received] == [record["id"]] * 2
        assert receiver.received[0].body == receiver.received[1].body
    assert [one["outcome"] for one in record["attempts"]] == ["lost", "delivered"]


def test_the_record_of_a_delivery_is_written_after_an_outage(stack: FaultStack) -> None:
    with Receiver() as receiver:
        receiver.answers = [after(stack.kill_redis), status(204)]
        job = stack.submit_job("tell me", webhook={"url": receiver.url})
        wait_until(lambda: stack.redis.process.poll() is not None, "the webhook is posted and Redis is killed")
        stack.start_redis()
        wait_until(stack.is_ready, "the stack is ready again")
        stack.wait_for_end(job)
        record = wait_for_delivery(stack, job)
        assert {request.id for request in receiver.received} == {record["id"]}
        assert record["attempts"][-1]["outcome"] == "delivered"


def test_a_pending_delivery_survives_the_whole_stack(stack: FaultStack) -> None:
    with Receiver(fail_first(500)) as receiver:
        job = stack.submit_job("tell me", webhook={"url": receiver.url})
        stack.wait_for_end(job)
        # On a busy machine the next attempt may come before the stack is killed.
        wait_until(lambda: [one["status"] for one in delivery(stack, job)["attempts"]][:1] == [500], "the first attempt failed")
        stack.kill_stack()
        stack.start()
        record = wait_for_delivery(stack, job)
        assert [request.id for request in receiver.received] == [record["id"]] * 2
    assert [one["status"] for one in record["attempts"]] == [500, 204]
