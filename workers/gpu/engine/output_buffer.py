"""What the generation loop gives, kept until it is worth a message: the loop itself waits for nobody and sends nothing.

First tokens go out at once, ends almost so, and other tokens together: each message costs its sender and its reader time
that grows with the number of requests in it, so the more there are the longer it gathers.
"""

import threading
import time
from dataclasses import dataclass, field

from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

from workers.gpu.engine.messages import FinishReason

# Seconds from the first thing that waits to the message: at most, for each request in it, and if one of them has ended.
GATHER_SECONDS, SECONDS_PER_REQUEST = 0.02, 0.0001
END_SECONDS = 0.01

End = tuple[str, FinishReason, str]


@dataclass
class BufferedOutput:
    """Tokens and ends by the manager's number of the request; ``told`` by the id that its sender gave it."""

    tokens: dict[str, list[int]] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)
    told: list[End] = field(default_factory=list)
    fault: str | None = None
    """What a request that the manager itself gave up said of it."""


class OutputBuffer(OutputRouter):
    """Takes steps from the loop's thread, and gives them to the thread that calls ``take``."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._gathered = BufferedOutput()
        self._since = 0.0
        self._due = 0.0

    def put(self, ids: list[str], tokens: list[int], ends: list[End], *, first: bool) -> None:
        """A token for each of these requests, then the end of those. ``first``: one of the tokens begins an answer."""
        with self._changed:
            gathered = self._gathered.tokens
            for id, token in zip(ids, tokens, strict=True):
                if id in gathered:
                    gathered[id].append(token)
                else:
                    gathered[id] = [token]
            self._gathered.ends += ends
            self._is_due(first, bool(ends))

    def tell(self, end: End | None = None, fault: str | None = None) -> None:
        """An end that is not the loop's; or a fault, after which to look whether all is well."""
        with self._changed:
            if end is not None:
                self._gathered.told.append(end)
            self._gathered.fault = self._gathered.fault or fault
            self._is_due(True, False)

    def take(self, timeout: float) -> BufferedOutput | None:
        """What has gathered, once it is due; None if nothing is within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                now = time.monotonic()
                if self._due and now >= self._due:
                    gathered, self._gathered = self._gathered, BufferedOutput()
                    self._due = self._since = 0.0
                    return gathered
                if now >= deadline:
                    return None
                self._changed.wait(min(deadline, self._due or deadline) - now)

    def _is_due(self, at_once: bool, ended: bool) -> None:
        now = time.monotonic()
        self._since = self._since or now
        if at_once:
            wait = 0.0
        elif ended:
            wait = END_SECONDS
        else:
            wait = max(GATHER_SECONDS, SECONDS_PER_REQUEST * len(self._gathered.tokens))
        due = self._since + wait
        # The waiting thread is woken only for what it would sleep through.
        if not self._due or due < self._due:
            self._due = due
            self._changed.notify()

    # What the manager calls where its own steps are kept.

    def deliver(self, output: GenerationOutput) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        ids: list[str] = []
        tokens: list[int] = []
        ends: list[End] = []
        first = False
        for output in outputs:
            if output.status == RequestStatus.FAILED:
                ends.append((output.request_id, "failed", output.error or ""))
                self.tell(fault=output.error or "no reason given")
                continue
            # One more than the last time: it tells of each step, and each step gives one.
            ids.append(output.request_id)
            tokens.append(output.generated_tokens[-1])
            first = first or len(output.generated_tokens) == 1
            if output.is_finished():
                ends.append((output.request_id, "length", ""))
        self.put(ids, tokens, ends, first=first)
