"""The calls on webhooks that are kept, on their secrets, and on what was delivered to them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from enginehouse_client.effects import Emit, Operation, Stream
from enginehouse_client.jobs import JobCalls
from enginehouse_client.models import Delivery, Job, Webhook


class DeliveryCalls(JobCalls):
    """A webhook that is kept hears of all the caller's jobs; a delivery is one thing told to one address."""

    def webhooks(self) -> Operation[list[Webhook]]:
        """All that are kept, oldest first."""
        answer = yield from self._call("GET", "/webhooks")
        return [Webhook.read(told) for told in answer.json()["data"]]

    def webhook(self, webhook: str) -> Operation[Webhook]:
        """One of them. Raises NotFound."""
        answer = yield from self._call("GET", f"/webhooks/{_id(webhook)}")
        return Webhook.read(answer.json())

    def create_webhook(
        self,
        url: str,
        *,
        events: Sequence[str] | None = None,
        job_kinds: Sequence[str] | None = None,
        description: str | None = None,
        secret: str | None = None,
    ) -> Operation[Webhook]:
        """Keep an address; the answer alone, and that of ``rotate_webhook``, has its secret. By default it hears of the ends of
        all kinds of jobs. Raises InvalidRequest when the address must not be called."""
        wanted = {"url": url, "events": events, "job_kinds": job_kinds, "description": description, "secret": secret}
        return (yield from self._change("POST", "/webhooks", wanted))

    def change_webhook(
        self,
        webhook: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        job_kinds: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> Operation[Webhook]:
        """Change what is given; ``enabled`` also brings back one that answered 410. Raises NotFound."""
        wanted = {"url": url, "events": events, "job_kinds": job_kinds, "description": description, "enabled": enabled}
        return (yield from self._change("PATCH", f"/webhooks/{_id(webhook)}", wanted))

    def delete_webhook(self, webhook: str) -> Operation[None]:
        """Forget it; what was still to be delivered to it is not. Raises NotFound."""
        yield from self.remove(f"/webhooks/{_id(webhook)}")

    def rotate_webhook(self, webhook: str) -> Operation[Webhook]:
        """A new secret, in the answer; the old one signs too for 24 hours. Raises NotFound."""
        return (yield from self._change("POST", f"/webhooks/{_id(webhook)}/rotate", None))

    def webhook_secret(self, *, rotate: bool = False) -> Operation[str]:
        """What the webhooks of jobs are signed with that bring no secret; ``rotate`` makes a new one first."""
        path = "/webhooks/secret/rotate" if rotate else "/webhooks/secret"
        answer = yield from self._call("POST" if rotate else "GET", path, repeatable=not rotate)
        return str(answer.json()["secret"])

    def deliveries(
        self,
        *,
        job: str | Job | None = None,
        status: Literal["pending", "delivered", "failed"] | None = None,
        webhook: str | None = None,
    ) -> Stream[Delivery]:
        """Deliveries, newest first, page after page as they are asked for; those of one job oldest first."""
        if job is not None:
            answer = yield from self._call("GET", f"/jobs/{_id(job if isinstance(job, str) else job.id)}/deliveries")
            for told in answer.json()["data"]:
                if (status or told["status"]) == told["status"] and (webhook or told["webhook"]) == told["webhook"]:
                    yield Emit(Delivery.read(told))
            return
        wanted = {"status": status, "webhook": webhook}
        query = {name: value for name, value in wanted.items() if value is not None}
        more: str | None = ""
        while more is not None:
            page, more = yield from self._page("/deliveries", query, more)
            for told in page:
                yield Emit(Delivery.read(told))

    def delivery(self, delivery: str) -> Operation[Delivery]:
        """One delivery with all its tries. Raises NotFound."""
        answer = yield from self._call("GET", f"/deliveries/{_id(delivery)}")
        return Delivery.read(answer.json())

    def redeliver(self, delivery: str) -> Operation[Delivery]:
        """Send it again now, under its id, and begin its schedule anew. Raises NotFound."""
        answer = yield from self._call("POST", f"/deliveries/{_id(delivery)}/redeliver", repeatable=False)
        return Delivery.read(answer.json())

    def _change(self, method: str, path: str, wanted: Mapping[str, Any] | None) -> Operation[Webhook]:
        # Sent twice, a POST would keep two addresses or make two secrets.
        body = None if wanted is None else {name: value for name, value in wanted.items() if value is not None}
        answer = yield from self._call(method, path, json=body, repeatable=method != "POST")
        return Webhook.read(answer.json())


def _id(name: str) -> str:
    return quote(name, safe="")
