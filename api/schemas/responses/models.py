"""Response models of language models, gpu workers and health."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.responses.envelopes import ListPage, ResponseModel


class Model(ResponseModel):
    """An entry of the models file and the state of its workers."""

    name: str
    url: str
    object: Literal["model"]
    task: Literal["generate", "embed", "rerank"]
    engine: str
    adapters: list[str] = Field(description="its LoRA adapters, as requests name them: `model:adapter`")
    dtype: str
    max_context: int | None = Field(
        description="maximum tokens of prompt and answer together; null until a worker has loaded the model, unless the models file says it"
    )
    max_in_flight: int
    max_tokens: int
    chat_template: str | None
    stop: list[str]
    gpus: int
    replicas: int | None
    devices: list[int] | None
    gpu_share: float
    load: bool
    pinned: bool
    keep_alive: float | None
    parameters: int | None
    default: bool
    state: Literal["ready", "warming", "loading", "draining", "failed", "unloaded", "not_served"]
    reason: str | None
    progress: float | None
    attention: str | None = Field(description="attention kernel of its engine, once it is ready")
    workers: int = Field(description="number of workers that serve it")


class GpuHealth(ResponseModel):
    """One GPU as NVML reports it; null where NVML reports nothing. Memory is in bytes."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    memory_alarm: Literal["warning", "critical"] | None = Field(
        description="warning below 20% free memory, critical below 10%; where an engine leaves less on purpose: below half and a quarter of what it left"
    )
    utilisation: float | None = Field(description="share of the last sample period in which it was busy, 0 to 1")
    temperature: float | None = Field(description="degrees Celsius")
    power: float | None = Field(description="watts")
    ecc_errors: int | None = Field(description="uncorrected errors since the driver was loaded")
    xid_errors: list[int] = Field(description="the latest ones that its worker saw")


class GpuWorker(ResponseModel):
    """A gpu worker: its GPUs, its desired model, and the model that is loaded."""

    gpu: str = Field(description="name of the worker", examples=["gpu0@vm"])
    number: int
    object: Literal["gpu"]
    devices: list[str] = Field(description="its GPUs by their `nvidia-smi` index; empty on the CPU")
    desired_model: str | None = Field(description="the model that it should load")
    requested_by: Literal["start", "operator", "idle", "demand"] = Field(description="who requested it")
    requested_at: float
    model: str | None = Field(description="the model that is loaded")
    state: Literal["ready", "warming", "loading", "draining", "failed", "unloaded", "away"]
    reason: str | None
    progress: float | None
    running: int = Field(description="number of running jobs")
    idle_seconds: float | None = Field(description="how long it has run no job")
    loadable_models: list[str] = Field(description="models that it can load")
    unloadable_models: dict[str, str] = Field(description="models that it cannot load, each with the reason")
    engine: dict[str, Any] | None = Field(description="engine statistics of its last heartbeat")
    gpus: list[GpuHealth] = Field(description="health of its GPUs; empty on the CPU")


class Liveness(ResponseModel):
    status: Literal["alive"]


class Readiness(ResponseModel):
    status: Literal["ready", "not_ready"]
    waiting_for: list[str]
    workers: int = 0
    warnings: list[str] = Field(default=[], description="what an operator has to do, although jobs run")


class GpuWorkerList(ListPage[GpuWorker]):
    pass
