"""All calls of one server."""

from enginehouse_client.deliveries import DeliveryCalls
from enginehouse_client.effects import Operation
from enginehouse_client.models import Health, Model
from enginehouse_client.uploads import UploadCalls


class Calls(UploadCalls, DeliveryCalls):
    """Jobs, documents, webhooks, models and health."""

    def models(self) -> Operation[list[Model]]:
        """The models of the server's list, and what their workers say of themselves."""
        answer = yield from self._call("GET", "/models")
        return [Model.read(told) for told in answer.json()]

    def health(self) -> Operation[Health]:
        """Whether every kind of job can be done; not to be ready is no error."""
        answer = yield from self._call("GET", "/health/ready", accept=(503,))
        return Health.read(answer.json())
