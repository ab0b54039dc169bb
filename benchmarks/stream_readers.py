"""Many readers of event streams in one process, on one selector: ``python -m benchmarks.stream_readers < plan > report``.

The plan is JSON with ``host``, ``port`` and ``jobs``, one job per reader. The process prints ``connected`` once every reader
has an answer. At the end it prints a line of JSON: the latency of each token that was generated at least a second after that,
and which events each reader received.
"""

import json
import re
import selectors
import socket
import sys
import time
from collections import Counter

STAMP = re.compile(rb"\d{10}\.\d{4} ")
EVENT = re.compile(rb"^id: (\d+)\r?\nevent: (\w+)", re.MULTILINE)
TEXT = re.compile(rb'"text": "([^"]*)"')
IDLE_SECONDS = 60
# The first events of a stream are as old as its job, so their latency says nothing.
SETTLE_SECONDS = 1.0


class Reader:
    """One connection and what it received."""

    def __init__(self, address: tuple[str, int], job: str) -> None:
        self.job = job
        self.socket = socket.create_connection(address, timeout=30)
        self.socket.sendall(f"GET /jobs/{job}/events HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n".encode())
        self.socket.setblocking(False)
        self.status = b""
        self.received = bytearray()

    def read(self, delays: list[tuple[float, float]]) -> bool:
        """Receive what is available, and add each token's timestamp and latency to ``delays``. False at the end of the stream."""
        try:
            piece = self.socket.recv(262144)
        except BlockingIOError:
            return True
        now = time.time()
        delays += [(float(stamp), now - float(stamp)) for stamp in STAMP.findall(piece)]
        if piece and not self.received:
            self.status = piece.split(b" ", 2)[1]
        self.received += piece
        return bool(piece) and b"event: ended" not in self.received[-600:]

    def report(self) -> dict[str, object]:
        """Status, whether the event ids have no gap, and the text."""
        ids = [int(number) for number, _ in EVENT.findall(self.received)]
        return {
            "job": self.job,
            "status": self.status.decode(),
            "complete": bool(ids) and ids == list(range(1, len(ids) + 1)) and b"event: ended" in self.received,
            "events": len(ids),
            "text": b"".join(TEXT.findall(self.received)).decode(),
        }


def main() -> None:
    plan = json.load(sys.stdin)
    address = (plan["host"], plan["port"])
    selector = selectors.DefaultSelector()
    readers = [Reader(address, job) for job in plan["jobs"]]
    for reader in readers:
        selector.register(reader.socket, selectors.EVENT_READ, reader)
    delays: list[tuple[float, float]] = []
    settled, unfinished = 0.0, set(readers)
    while unfinished:
        ready = selector.select(IDLE_SECONDS)
        if not ready:
            break
        for key, _ in ready:
            if not key.data.read(delays):
                selector.unregister(key.fileobj)
                unfinished.discard(key.data)
        if not settled and all(reader.status for reader in readers):
            settled = time.time() + SETTLE_SECONDS
            print("connected", flush=True)
    if not settled:
        print("connected", flush=True)
    reports = [reader.report() for reader in readers]
    statuses = Counter(str(report["status"]) for report in reports)
    print(
        json.dumps(
            {"delays": [delay for created, delay in delays if created >= settled], "readers": reports, "statuses": statuses}
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
