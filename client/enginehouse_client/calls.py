"""All operations of the API in one class."""

from enginehouse_client.deliveries import DeliveryCalls
from enginehouse_client.effects import Operation
from enginehouse_client.models import Health, Model, Stats
from enginehouse_client.request_batches import RequestBatchCalls
from enginehouse_client.uploads import UploadCalls


class Calls(UploadCalls, DeliveryCalls, RequestBatchCalls):
    """Operations on jobs, documents, request batches, webhooks, models and health."""

    def models(self) -> Operation[list[Model]]:
        """List the models of the server with the state of their workers."""
        response = yield from self._call("GET", "/models")
        return [Model.from_json(item) for item in response.json()]

    def health(self) -> Operation[Health]:
        """Return whether the server can run every kind of job. A server that is not ready is not an error."""
        response = yield from self._call("GET", "/health/ready", accept=(503,))
        return Health.from_json(response.json())

    def stats(self, minutes: int = 60) -> Operation[Stats]:
        """Return what queues, GPUs and workers did in the last minutes, 60 at most. Only administrators see all of it."""
        response = yield from self._call("GET", "/stats", query={"minutes": str(minutes)})
        return Stats.from_json(response.json())
