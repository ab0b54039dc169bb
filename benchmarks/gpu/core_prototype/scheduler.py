"""The loop of the prototype: each step takes a token of every running answer and fills the rest of its budget with prompts."""

import time
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.gpu.core_prototype.model import PAGE
from benchmarks.gpu.core_prototype.runner import StepRunner
from benchmarks.gpu.workload import WorkloadRequest, arrivals


class _Request:
    def __init__(self, ask: WorkloadRequest, arrived: float) -> None:
        self.prompt = np.array(ask.prompt, np.int32)
        self.answer = ask.output_tokens
        self.arrived = arrived
        self.row = -1
        self.pages: list[int] = []
        self.read = self.drawn = 0
        self.first_token = self.ended = 0.0


class ServingLoop:
    """Serves a workload and measures it. Requests keep all their pages from admission on, so nothing is ever evicted."""

    def __init__(self, runner: StepRunner) -> None:
        self._runner = runner
        self._rows = list(range(runner.requests))[::-1]
        self._pages = list(range(runner.model.pages))[::-1]
        self._slots = np.zeros((runner.requests, runner.pages_per_row * PAGE), np.int32)
        self._tables = torch.zeros(runner.requests, runner.pages_per_row, dtype=torch.int32).pin_memory()
        self._under_way: deque[tuple[torch.cuda.Event, list[tuple[_Request, bool]]]] = deque()
        self._prefilling: list[_Request] = []
        self._decoding: list[_Request] = []
        self._ended = 0
        self._start = 0.0

    def serve(self, asks: Sequence[WorkloadRequest], rate: float | None = None) -> list[_Request]:
        """Serve all requests, at once or as they arrive (``rate`` per second). Returns them with their times."""
        times = arrivals(rate) if rate else iter(lambda: 0.0, None)
        coming = deque(_Request(ask, next(times)) for ask in asks)
        requests, waiting = list(coming), deque[_Request]()
        self._start = time.perf_counter()
        while self._ended < len(requests):
            while coming and coming[0].arrived <= self._now():
                waiting.append(coming.popleft())
            while waiting and self._admit(waiting[0]):
                waiting.popleft()
            if self._prefilling or self._decoding:
                self._step()
            elif not self._under_way:
                time.sleep(0.0005)
            # The host prepares one step while another runs, so tokens are taken up one step late.
            while len(self._under_way) > (1 if self._prefilling or self._decoding else 0):
                self._take_up()
        return requests

    def _now(self) -> float:
        return time.perf_counter() - self._start

    def _admit(self, request: _Request) -> bool:
        needed = -(-(len(request.prompt) + request.answer) // PAGE)
        if not self._rows or needed > len(self._pages):
            return False
        request.row = self._rows.pop()
        request.pages = [self._pages.pop() for _ in range(needed)]
        pages = np.array(request.pages, np.int32)
        self._slots[request.row, : needed * PAGE] = (pages[:, None] * PAGE + np.arange(PAGE, dtype=np.int32)).ravel()
        self._tables[request.row, :needed] = torch.from_numpy(pages)
        self._runner.page_table[request.row].copy_(self._tables[request.row], non_blocking=True)
        self._prefilling.append(request)
        return True

    def _step(self) -> None:
        decoding, drawing = self._decoding, []
        rows = np.fromiter((request.row for request in decoding), np.int32, len(decoding))
        at = np.fromiter((len(request.prompt) + request.drawn - 1 for request in decoding), np.int32, len(decoding))
        ids, positions, slots, contexts, all_rows = [-1 - rows], [at], [self._slots[rows, at]], [at + 1], [rows]
        lengths = [1] * len(decoding)
        drawing += decoding
        room = self._runner.budget - len(decoding)
        unread = []
        for request in self._prefilling:
            taken = min(len(request.prompt) - request.read, max(0, room))
            if not taken or len(lengths) == self._runner.requests:
                unread.append(request)
                continue
            room -= taken
            chunk = np.arange(request.read, request.read + taken, dtype=np.int32)
            ids.append(request.prompt[chunk])
            positions.append(chunk)
            slots.append(self._slots[request.row, chunk])
            request.read += taken
            contexts.append(np.array([request.read], np.int32))
            all_rows.append(np.array([request.row], np.int32))
            lengths.append(taken)
            (drawing if request.read == len(request.prompt) else unread).append(request)
        for request in drawing:
            request.drawn += 1
        event, _ = self._runner.run_step(
            *(np.concatenate(parts) for parts in (ids, positions, slots)),
            np.array(lengths, np.int32),
            *(np.concatenate(parts) for parts in (contexts, all_rows)),
        )
        self._under_way.append((event, [(request, request.drawn == request.answer) for request in drawing]))
        self._prefilling = unread
        self._decoding = [request for request in drawing if request.drawn < request.answer]

    def _take_up(self) -> None:
        event, drawn = self._under_way.popleft()
        event.synchronize()
        now = self._now()
        for request, last in drawn:
            request.first_token = request.first_token or now
            if last:
                request.ended = now
                self._ended += 1
                self._rows.append(request.row)
                self._pages.extend(request.pages)
