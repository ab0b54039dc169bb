"""Many readers of event streams in one process, on one selector: ``python -m benchmarks.stream_readers < plan > report``.

The plan is JSON: ``host``, ``port``, and ``jobs``, one for each reader. When all have their answer it prints ``connected``; at the
end, a line of JSON: how long each token was on its way that was made when all had been there for a second, and what each
reader missed.
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
SILENCE_SECONDS = 60
# What a reader is given first is as old as its job.
SETTLE_SECONDS = 1.0


class Reader:
    """One connection, and what has come by it."""

    def __init__(self, address: tuple[str, int], job: str) -> None:
        self.job = job
        self.socket = socket.create_connection(address, timeout=30)
        self.socket.sendall(f"GET /jobs/{job}/events HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n".encode())
        self.socket.setblocking(False)
        self.status = b""
        self.received = bytearray()

    def read(self, delays: list[tuple[float, float]]) -> bool:
        """Take what is there, and note of each token when it was made and how long it took; false when nothing more will come."""
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
        """What a reader has to show for itself: its status, whether ids have no gap, and its text."""
        ids = [int(number) for number, _ in EVENT.findall(self.received)]
        return {
            "job": self.job,
            "status": self.status.decode(),
            "whole": bool(ids) and ids == list(range(1, len(ids) + 1)) and b"event: ended" in self.received,
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
    settled, waiting = 0.0, set(readers)
    while waiting:
        ready = selector.select(SILENCE_SECONDS)
        if not ready:
            break
        for key, _ in ready:
            if not key.data.read(delays):
                selector.unregister(key.fileobj)
                waiting.discard(key.data)
        if not settled and all(reader.status for reader in readers):
            settled = time.time() + SETTLE_SECONDS
            print("connected", flush=True)
    if not settled:
        print("connected", flush=True)
    reports = [reader.report() for reader in readers]
    statuses = Counter(str(report["status"]) for report in reports)
    print(
        json.dumps({"delays": [delay for made, delay in delays if made >= settled], "readers": reports, "statuses": statuses}),
        flush=True,
    )


if __name__ == "__main__":
    main()
