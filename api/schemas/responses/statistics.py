"""Response models of the statistics of the last hour."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel
from api.schemas.responses.fields import Time

Series = Annotated[
    list[float | None], Field(description="a value for each interval, the newest last; null where nothing was recorded")
]


class TotalStats(ResponseModel):
    """Values of the whole server."""

    queued: Series
    running: Series
    oldest_seconds: Series
    tokens_per_second: Series
    submitted: Series
    ended: Series
    failed: Series


class QueueStats(ResponseModel):
    """One queue. Callers who are not administrators see only its length."""

    queue: str = Field(examples=["gpu.gemma-3-270m"])
    waiting: Series
    oldest_seconds: Series | None = Field(description="age of the oldest waiting job")
    submitted: Series | None = Field(description="jobs that came into the queue in the interval, also from another queue")
    ended: Series | None = Field(description="jobs that left it in the interval: they ended, or went on in another queue")
    failed: Series | None = Field(description="those of them that failed or expired")


class GpuStats(ResponseModel):
    """A gpu worker. Memory, in bytes, and power, in watts, are those of all its GPUs; the temperature is the highest, in degrees Celsius."""

    gpu: str = Field(examples=["gpu0@vm"])
    model: str | None = Field(description="the model that it had last")
    tokens_per_second: Series
    batch: Series = Field(description="requests in its engine")
    batch_limit: Series = Field(description="requests that its engine may hold")
    cache_use: Series = Field(description="used share of the KV cache, 0 to 1")
    memory_used: Series
    memory_total: Series
    utilisation: Series
    temperature: Series
    power: Series


class WorkerStats(ResponseModel):
    """Number of live workers of each pool."""

    gpu: Series
    cpu: Series
    io: Series


class StatsLinks(ResponseModel):
    flower: str | None = Field(description="address of Flower, if it is known")
    grafana: str | None = Field(description="ENGINEHOUSE_GRAFANA_URL")


class Stats(ResponseModel):
    """Statistics of the last minutes, in intervals of ten seconds."""

    object: Literal["stats"]
    start: Time = Field(description="when the first interval began")
    interval_seconds: int
    intervals: int = Field(description="length of each series")
    totals: TotalStats | None = Field(description="null for callers who are not administrators, like `workers` and `links`")
    queues: list[QueueStats] = Field(
        description="callers who are not administrators see only queues in which their own jobs wait"
    )
    gpus: list[GpuStats]
    workers: WorkerStats | None
    links: StatsLinks | None
