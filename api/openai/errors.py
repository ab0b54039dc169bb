"""Errors of calls of ``/v1`` that the connection causes."""

from shared.errors import EnginehouseError, InvalidRequest


class ClientDisconnected(InvalidRequest):
    """The client closed its connection before the answer. Only metrics show this error."""

    status = 499
    code = "client_disconnected"


class OutputLost(EnginehouseError):
    """The worker of a streamed answer died, and no other could continue it."""

    code = "output_lost"
