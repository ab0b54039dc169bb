"""HTTP clients of a stack: submit jobs, poll or follow them, and time them by the client's clock."""

import asyncio
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import httpx2

from benchmarks.gpu.workload import WorkloadRequest

CONCURRENT_SUBMITS = 8


@dataclass
class JobTiming:
    """Times in seconds from the start of the benchmark; ``tokens`` as the job reports it."""

    submitted: float
    first: float = 0.0
    ended: float = 0.0
    tokens: int = 0
    status: str = ""


def make_client(url: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=2000, max_keepalive_connections=2000)
    return httpx2.AsyncClient(base_url=url, timeout=120, limits=limits)


async def submit(http: httpx2.AsyncClient, request: WorkloadRequest) -> str:
    body = {"prompt": request.text, "max_tokens": request.output_tokens, "temperature": 0}
    while True:
        answer = await http.post("/generate", json=body)
        if answer.status_code in (429, 503):
            await asyncio.sleep(0.2)
            continue
        answer.raise_for_status()
        return str(answer.json()["id"])


async def poll(http: httpx2.AsyncClient, job: str, timing: JobTiming, start: float, wait: int = 50) -> None:
    """Poll until the job has ended."""
    while True:
        answer = await http.get(f"/jobs/{job}", params={"wait": wait})
        if answer.status_code in (429, 503):
            await asyncio.sleep(0.2)
            continue
        answer.raise_for_status()
        view = answer.json()
        if view["ended_at"] is not None:
            _record_end(view, timing, start)
            return


async def follow(http: httpx2.AsyncClient, job: str, timing: JobTiming, start: float) -> None:
    """Follow the event stream of a job to its end, then read the job."""
    async with http.stream("GET", f"/jobs/{job}/events") as answer:
        answer.raise_for_status()
        async for text in answer.aiter_lines():
            if text == "event: delta" and not timing.first:
                timing.first = time.perf_counter() - start
            elif text == "event: ended":
                break
    ended = time.perf_counter() - start
    view = json.loads((await http.get(f"/jobs/{job}")).text)
    _record_end(view, timing, start)
    timing.ended = ended


def _record_end(view: dict[str, object], timing: JobTiming, start: float) -> None:
    timing.ended = time.perf_counter() - start
    timing.status = str(view["status"])
    result = view.get("result")
    if isinstance(result, dict):
        timing.tokens = int(result["usage"]["completion_tokens"])


def run_all_at_once(url: str, requests: list[WorkloadRequest], processes: int = 4) -> list[JobTiming]:
    """Submit all jobs, some at a time, and poll each to its end. Several processes, because one is slower than the server."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_wait_for_start, range(processes)))
        start = time.perf_counter() + 0.1  # the same clock in all processes
        shares = [pool.submit(_run_share, url, requests[number::processes], start) for number in range(processes)]
        return [timing for share in shares for timing in share.result()]


def _wait_for_start(number: int) -> None:
    """Wait until every process has started."""
    time.sleep(0.5)


def _run_share(url: str, requests: list[WorkloadRequest], start: float) -> list[JobTiming]:
    return asyncio.run(_run_at_once(url, requests, start))


async def _run_at_once(url: str, requests: list[WorkloadRequest], start: float) -> list[JobTiming]:
    gate = asyncio.Semaphore(CONCURRENT_SUBMITS)

    async def run_job(http: httpx2.AsyncClient, request: WorkloadRequest) -> JobTiming:
        async with gate:
            timing = JobTiming(time.perf_counter() - start)
            job = await submit(http, request)
        await poll(http, job, timing, start)
        return timing

    async with make_client(url) as http:
        await asyncio.sleep(max(0.0, start - time.perf_counter()))
        return await asyncio.gather(*(run_job(http, request) for request in requests))


async def run_arrivals(url: str, requests: list[WorkloadRequest], times: list[float]) -> list[JobTiming]:
    """Submit each job at its time and follow it."""
    start = time.perf_counter()

    async def run_job(http: httpx2.AsyncClient, request: WorkloadRequest, at: float) -> JobTiming:
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        timing = JobTiming(time.perf_counter() - start)
        await follow(http, await submit(http, request), timing, start)
        return timing

    async with make_client(url) as http:
        return await asyncio.gather(*(run_job(http, request, at) for request, at in zip(requests, times, strict=True)))
