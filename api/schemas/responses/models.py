"""Models, the GPUs that hold them, and whether all is ready."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.responses.base import Answer, Page


class Model(Answer):
    """An entry of the models file, and what its workers say of themselves."""

    name: str
    url: str
    object: Literal["model"]
    task: Literal["generate", "embed"]
    engine: str
    dtype: str
    max_context: int | None
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
    attention: str | None = Field(description="the kernel by which its engine attends, once it is ready")
    workers: int = Field(description="how many serve it")


class GpuHealth(Answer):
    """One GPU as NVML tells of it; null is what it does not tell. Memory in bytes."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    memory_alarm: Literal["warning", "critical"] | None = Field(description="from 80 and from 90 % on")
    utilisation: float | None = Field(description="part of the last moment in which it worked, 0 to 1")
    temperature: float | None = Field(description="degrees Celsius")
    power: float | None = Field(description="watts")
    ecc_errors: int | None = Field(description="uncorrected, since the driver was loaded")
    xid_errors: list[int] = Field(description="the latest ones that its worker has seen")


class GpuSeat(Answer):
    """A gpu worker: its GPUs, the model that it should hold, and the one that it holds."""

    gpu: str = Field(description="its worker's name", examples=["gpu0@vm"])
    number: int
    object: Literal["gpu"]
    devices: list[str] = Field(description="its GPUs, as `nvidia-smi` counts; none on the CPU")
    desired_model: str | None = Field(description="the model that it should hold")
    requested_by: Literal["start", "operator", "idle", "demand"] = Field(description="who requested it")
    requested_at: float
    model: str | None = Field(description="the model that it holds now")
    state: Literal["ready", "warming", "loading", "draining", "failed", "unloaded", "away"]
    reason: str | None
    progress: float | None
    running: int = Field(description="jobs that it runs")
    idle_seconds: float | None = Field(description="for how long it has run none")
    loadable_models: list[str] = Field(description="the models that it could hold")
    unloadable_models: dict[str, str] = Field(description="those that it could not, with the reason")
    engine: dict[str, Any] | None = Field(description="what its engine does, by its last beat")
    gpus: list[GpuHealth] = Field(description="their health; empty on the CPU")


class Alive(Answer):
    status: Literal["alive"]


class Readiness(Answer):
    status: Literal["ready", "not_ready"]
    waiting_for: list[str]
    workers: int = 0


class GpuList(Page[GpuSeat]):
    pass
