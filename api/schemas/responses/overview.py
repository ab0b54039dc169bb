"""Response model of the state of operations in one request."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.administration import Queue, Worker
from api.schemas.responses.envelopes import ResponseModel
from api.schemas.responses.jobs import DeadLetter
from api.schemas.responses.models import GpuWorker


class OperationsOverview(ResponseModel):
    object: Literal["overview"]
    queues: list[Queue]
    workers: list[Worker]
    gpus: list[GpuWorker]
    dead_letters: list[DeadLetter] = Field(description="the newest hundred")
