"""Operations on registered webhooks, their secrets and their deliveries."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from enginehouse_client.effects import Emit, Operation, Stream
from enginehouse_client.jobs import JobCalls
from enginehouse_client.models import Delivery, Job, Webhook


class DeliveryCalls(JobCalls):
    """A registered webhook receives events of all jobs of its owner; a delivery is one event for one address."""

    def webhooks(self) -> Operation[list[Webhook]]:
        """List the registered webhooks, oldest first."""
        response = yield from self._call("GET", "/webhooks")
        return [Webhook.from_json(item) for item in response.json()["data"]]

    def webhook(self, webhook: str) -> Operation[Webhook]:
        """Return one webhook. Raises NotFound."""
        response = yield from self._call("GET", f"/webhooks/{_id(webhook)}")
        return Webhook.from_json(response.json())

    def create_webhook(
        self,
        url: str,
        *,
        events: Sequence[str] | None = None,
        job_kinds: Sequence[str] | None = None,
        description: str | None = None,
        secret: str | None = None,
    ) -> Operation[Webhook]:
        """Register an address. Only the result of this call and of ``rotate_webhook`` has the secret. By default the webhook
        receives the final state of jobs of every kind. Raises InvalidRequest if the server may not call the address."""
        fields = {"url": url, "events": events, "job_kinds": job_kinds, "description": description, "secret": secret}
        return (yield from self._change("POST", "/webhooks", fields))

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
        """Change the given fields. ``enabled`` also enables a webhook that was disabled by a response of 410. Raises NotFound."""
        fields = {"url": url, "events": events, "job_kinds": job_kinds, "description": description, "enabled": enabled}
        return (yield from self._change("PATCH", f"/webhooks/{_id(webhook)}", fields))

    def delete_webhook(self, webhook: str) -> Operation[None]:
        """Delete a webhook and its pending deliveries. Raises NotFound."""
        yield from self.remove(f"/webhooks/{_id(webhook)}")

    def rotate_webhook(self, webhook: str) -> Operation[Webhook]:
        """Create a new secret, which the result contains. The old secret also signs for another 24 hours. Raises NotFound."""
        return (yield from self._change("POST", f"/webhooks/{_id(webhook)}/rotate", None))

    def webhook_secret(self, *, rotate: bool = False) -> Operation[str]:
        """Return the secret that signs webhooks of single jobs without their own secret; ``rotate`` creates a new one first."""
        path = "/webhooks/secret/rotate" if rotate else "/webhooks/secret"
        response = yield from self._call("POST" if rotate else "GET", path, repeatable=not rotate)
        return str(response.json()["secret"])

    def deliveries(
        self,
        *,
        job: str | Job | None = None,
        status: Literal["pending", "delivered", "failed"] | None = None,
        webhook: str | None = None,
    ) -> Stream[Delivery]:
        """Iterate over deliveries, newest first, fetching pages as needed; the deliveries of one job come oldest first."""
        if job is not None:
            response = yield from self._call("GET", f"/jobs/{_id(job if isinstance(job, str) else job.id)}/deliveries")
            for item in response.json()["data"]:
                if (status or item["status"]) == item["status"] and (webhook or item["webhook"]) == item["webhook"]:
                    yield Emit(Delivery.from_json(item))
            return
        filters = {"status": status, "webhook": webhook}
        query = {name: value for name, value in filters.items() if value is not None}
        more: str | None = ""
        while more is not None:
            page, more = yield from self._page("/deliveries", query, more)
            for item in page:
                yield Emit(Delivery.from_json(item))

    def delivery(self, delivery: str) -> Operation[Delivery]:
        """Return one delivery with all its attempts. Raises NotFound."""
        response = yield from self._call("GET", f"/deliveries/{_id(delivery)}")
        return Delivery.from_json(response.json())

    def redeliver(self, delivery: str) -> Operation[Delivery]:
        """Send a delivery again now, with the same id and a fresh retry schedule. Raises NotFound."""
        response = yield from self._call("POST", f"/deliveries/{_id(delivery)}/redeliver", repeatable=False)
        return Delivery.from_json(response.json())

    def _change(self, method: str, path: str, fields: Mapping[str, Any] | None) -> Operation[Webhook]:
        # A repeated POST would register two addresses or create two secrets.
        body = None if fields is None else {name: value for name, value in fields.items() if value is not None}
        response = yield from self._call(method, path, json=body, repeatable=method != "POST")
        return Webhook.from_json(response.json())


def _id(name: str) -> str:
    return quote(name, safe="")
