"""Declarations of the Lua scripts for jobs. The header of each script documents its arguments, result and guarantees."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.lua_scripts import LuaScripts, Rows, Value, declaration


class JobScripts(LuaScripts, package="shared.jobs.lua"):
    """The scripts in ``shared/jobs/lua``. They return ``Any``, because redis-py does not type Lua tables."""

    @declaration
    def append(self, *, events: Rows) -> Any: ...

    @declaration
    def cancel(self, *, id: str, owner: str) -> Any: ...

    @declaration
    def claim(
        self,
        *,
        queue: str,
        worker: str,
        token: str,
        retried: int,
        slots: int,
        reserved: int,
        lease_ms: int,
        running_limit: int,
        user_running_limit: int,
    ) -> Any: ...

    @declaration
    def delete(self, *, id: str, owner: str) -> Any: ...

    @declaration
    def finish(
        self,
        *,
        id: str,
        attempt: int,
        status: str,
        result: str,
        error: str,
        code: str,
        service: int | None,
        token_us: int | None,
        usage: str,
        index: int,
        delta: str,
        messages: Sequence[str],
    ) -> Any: ...

    @declaration
    def follow(self, *, id: str) -> Any: ...

    @declaration
    def hand_over(
        self,
        *,
        id: str,
        attempt: int,
        outcome: str,
        delay_ms: int,
        error: str,
        code: str,
        queue: str,
        context: str,
        found: str,
        usage: str,
    ) -> Any: ...

    @declaration
    def heartbeat(self, *, worker: str, description: str, model: str) -> Any: ...

    @declaration
    def histograms(self) -> Any: ...

    @declaration
    def hold_worker_name(self, *, name: str, process: str, replaces: str, ttl_ms: int) -> Any: ...

    @declaration
    def index_jobs(self, *, ids: Sequence[str]) -> Any: ...

    @declaration
    def join_batch(self, *, id: str, owner: str, idempotency: str, fingerprint: str) -> Any: ...

    @declaration
    def list_queues(self, *, owner_limit: int) -> Any: ...

    @declaration
    def mark_worker_dead(self, *, worker: str) -> Any: ...

    @declaration
    def missing_wakeups(self, *, interval_ms: int) -> Any: ...

    @declaration
    def open_batch(
        self,
        *,
        id: str,
        owner: str,
        idempotency: str,
        fingerprint: str,
        seal_ms: int,
        limit: int,
        record: Mapping[str, Value],
    ) -> Any: ...

    @declaration
    def publish_requests(self, *, id: str, changes: Mapping[str, Value]) -> Any: ...

    @declaration
    def purge(self, *, limit: int, kept_jobs: int, kept_bytes: int) -> Any: ...

    @declaration
    def read_response(self, *, id: str, owner: str) -> Any: ...

    @declaration
    def reap(self, *, limit: int, leases: int, gap_ms: int | None, grace_ms: int) -> Any: ...

    @declaration
    def record_sample(self, *, ring: str, sample: str, interval_ms: int, kept: int) -> Any: ...

    @declaration
    def register_assignment(self, *, name: str, startup_model: str, description: str) -> Any: ...

    @declaration
    def remove_dead_letter(self, *, id: str) -> Any: ...

    @declaration
    def renew(self, *, lease_ms: int, leases: Rows) -> Any: ...

    @declaration
    def retry(self, *, id: str, attempt: int, delay_ms: int, error: str, code: str, usage: str) -> Any: ...

    @declaration
    def schedule_models(self, *, alive_ms: int, patience_ms: int, on_demand: int, unschedulable_ms: int, limit: int) -> Any: ...

    @declaration
    def seal_batch(self, *, id: str) -> Any: ...

    @declaration
    def set_desired_model(self, *, name: str, model: str, requested_by: str, expected: str) -> Any: ...

    @declaration
    def stats(self) -> Any: ...

    @declaration
    def submit(
        self,
        *,
        owner: str,
        key: str,
        defaults: str,
        queue_limit: int,
        owner_limit: int,
        bytes_limit: int,
        turns_limit: int,
        turn_bytes_limit: int,
        jobs: Rows,
    ) -> Any: ...

    @declaration
    def write_log(self, *, lines: Rows) -> Any: ...

    @declaration
    def write_requests(self, *, id: str, attempt: int, lines: str, jobs: str, changes: Mapping[str, Value]) -> Any: ...
