"""Clients of a stack: jobs submitted over HTTP, polled or followed, each timed by the client's own clock."""

import asyncio
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import httpx2

from benchmarks.gpu.workload import Ask

SUBMITTING = 8


@dataclass
class Seen:
    """Times in seconds from the start of the benchmark; ``tokens`` as the job says it."""

    submitted: float
    first: float = 0.0
    ended: float = 0.0
    tokens: int = 0
    status: str = ""


def client(url: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=2000, max_keepalive_connections=2000)
    return httpx2.AsyncClient(base_url=url, timeout=120, limits=limits)


async def submit(http: httpx2.AsyncClient, ask: Ask) -> str:
    body = {"prompt": ask.text, "max_tokens": ask.answer, "temperature": 0}
    while True:
        answer = await http.post("/generate", json=body)
        if answer.status_code in (429, 503):
            await asyncio.sleep(0.2)
            continue
        answer.raise_for_status()
        return str(answer.json()["id"])


async def poll(http: httpx2.AsyncClient, job: str, seen: Seen, start: float, wait: int = 50) -> None:
    """Ask until the job has ended."""
    while True:
        answer = await http.get(f"/jobs/{job}", params={"wait": wait})
        if answer.status_code in (429, 503):
            await asyncio.sleep(0.2)
            continue
        answer.raise_for_status()
        view = answer.json()
        if view["ended_at"] is not None:
            _end(view, seen, start)
            return


async def follow(http: httpx2.AsyncClient, job: str, seen: Seen, start: float) -> None:
    """Follow the stream of the job to its end, then read the job."""
    async with http.stream("GET", f"/jobs/{job}/events") as answer:
        answer.raise_for_status()
        async for text in answer.aiter_lines():
            if text == "event: delta" and not seen.first:
                seen.first = time.perf_counter() - start
            elif text == "event: ended":
                break
    ended = time.perf_counter() - start
    view = json.loads((await http.get(f"/jobs/{job}")).text)
    _end(view, seen, start)
    seen.ended = ended


def _end(view: dict[str, object], seen: Seen, start: float) -> None:
    seen.ended = time.perf_counter() - start
    seen.status = str(view["status"])
    result = view.get("result")
    if isinstance(result, dict):
        seen.tokens = int(result["usage"]["completion_tokens"])


def all_at_once(url: str, asks: list[Ask], processes: int = 4) -> list[Seen]:
    """Submit all, some at a time, and poll each until its end. One process of clients would be slower than the server."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_begin, range(processes)))
        start = time.perf_counter() + 0.1  # the same clock in all processes
        shares = [pool.submit(_ask_share, url, asks[number::processes], start) for number in range(processes)]
        return [seen for share in shares for seen in share.result()]


def _begin(number: int) -> None:
    """Wait until every process is there."""
    time.sleep(0.5)


def _ask_share(url: str, asks: list[Ask], start: float) -> list[Seen]:
    return asyncio.run(_at_once(url, asks, start))


async def _at_once(url: str, asks: list[Ask], start: float) -> list[Seen]:
    gate = asyncio.Semaphore(SUBMITTING)

    async def one(http: httpx2.AsyncClient, ask: Ask) -> Seen:
        async with gate:
            seen = Seen(time.perf_counter() - start)
            job = await submit(http, ask)
        await poll(http, job, seen, start)
        return seen

    async with client(url) as http:
        await asyncio.sleep(max(0.0, start - time.perf_counter()))
        return await asyncio.gather(*(one(http, ask) for ask in asks))


async def as_they_come(url: str, asks: list[Ask], times: list[float]) -> list[Seen]:
    """Submit each at its time and follow it."""
    start = time.perf_counter()

    async def one(http: httpx2.AsyncClient, ask: Ask, at: float) -> Seen:
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        seen = Seen(time.perf_counter() - start)
        await follow(http, await submit(http, ask), seen, start)
        return seen

    async with client(url) as http:
        return await asyncio.gather(*(one(http, ask, at) for ask, at in zip(asks, times, strict=True)))
