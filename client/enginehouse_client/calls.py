"""All operations of the API in one class."""

from datetime import date
from typing import Literal

from enginehouse_client.deliveries import DeliveryCalls
from enginehouse_client.effects import Emit, Operation, Stream
from enginehouse_client.keys import KeyCalls
from enginehouse_client.models import Attention, ChatEntry, Health, Model, OperationsOverview, Stats, UsageReport
from enginehouse_client.request_batches import RequestBatchCalls
from enginehouse_client.uploads import UploadCalls

UsageGroup = Literal["day", "owner", "end_user", "model", "kind"]


class Calls(UploadCalls, DeliveryCalls, RequestBatchCalls, KeyCalls):
    """Operations on jobs, documents, chats, request batches, webhooks, API keys, models, health and usage."""

    def models(self) -> Operation[list[Model]]:
        """List the models of the server with the state of their workers."""
        response = yield from self._call("GET", "/models")
        return [Model.from_json(item) for item in response.json()]

    def chats(self, text: str | None = None) -> Stream[ChatEntry]:
        """Iterate over your chats, the one with the latest turn first, fetching pages as needed; with ``text``, over those whose title,
        messages or answers have it. ``Client.chat`` continues one."""
        query, cursor = {"limit": "100", **({"q": text} if text else {})}, None
        while True:
            response = yield from self._call("GET", "/chat/sessions", {**query, **({"cursor": cursor} if cursor else {})})
            page = response.json()
            for item in page["data"]:
                yield Emit(ChatEntry.from_json(item))
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def health(self) -> Operation[Health]:
        """Return whether the server can run every kind of job. A server that is not ready is not an error."""
        response = yield from self._call("GET", "/health/ready", accept=(503,))
        return Health.from_json(response.json())

    def attention(self) -> Operation[list[Attention]]:
        """Return what needs your attention; for administrators also what needs the operator's. Empty if all is well."""
        response = yield from self._call("GET", "/attention")
        return [Attention.from_json(item) for item in response.json()["data"]]

    def overview(self) -> Operation[OperationsOverview]:
        """Return the queues, workers, gpu workers and dead letters of the server, for administrators."""
        response = yield from self._call("GET", "/admin/overview")
        return OperationsOverview.from_json(response.json())

    def stats(self, minutes: int = 60) -> Operation[Stats]:
        """Return what queues, GPUs and workers did in the last minutes, 60 at most. Only administrators see all of it."""
        response = yield from self._call("GET", "/stats", query={"minutes": str(minutes)})
        return Stats.from_json(response.json())

    def usage(
        self,
        *group_by: UsageGroup,
        since: date | str | None = None,
        until: date | str | None = None,
        owner: str | None = None,
    ) -> Operation[UsageReport]:
        """Return usage, summed by ``group_by`` (by default by day), from one day to another, inclusive (UTC; by default the last 30
        days). Only administrators see other owners."""
        wanted = {"group_by": ",".join(group_by) or None, "since": since, "until": until, "owner": owner}
        query = {name: str(value) for name, value in wanted.items() if value is not None}
        response = yield from self._call("GET", "/usage", query=query)
        return UsageReport.from_json(response.json())
