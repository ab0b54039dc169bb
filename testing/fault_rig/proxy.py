"""TCP proxy in front of Redis that fails as networks do: it resets, freezes, goes half-open, delays, drops a request or a reply.

It runs in its own thread, and finds the request to drop by its bytes.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from testing.waiting import LONG_SECONDS

T = TypeVar("T")

RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST
LONGEST_PATTERN = 256


@dataclass
class Loss:
    """An order to drop requests that contain ``pattern``, or with ``after`` the replies to them that contain ``reply``.

    It applies ``left`` more times, and resets the connection each time. ``seen`` and ``lost`` count.
    """

    pattern: bytes
    left: int
    after: bool
    reply: bytes
    seen: int = 0
    lost: int = 0


@dataclass(eq=False)
class _Link:
    """A client's connection and its counterpart to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    tail: bytes = b""
    loss: Loss | None = None
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        for writer in (self.client, self.server):
            connection = writer.get_extra_info("socket")
            if connection is not None and connection.fileno() >= 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class Proxy:
    """Listens on a free port of loopback and forwards everything to the port ``target``, until a fault is switched on."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._links: set[_Link] = set()
        self._losses: list[Loss] = []
        self._holes: list[_Link] = []
        self._delay = 0.0
        self._frozen = False
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20))
        self.port = int(self._server.sockets[0].getsockname()[1])

    # Faults. Each method returns once the fault is in force.

    def reset(self) -> int:
        """Reset all connections. Returns how many there were."""
        return self._do(self._reset_all)

    def freeze(self) -> None:
        """Hold back everything, on old and new connections. Nothing is lost."""
        self._do(self._set_frozen, True)

    def thaw(self) -> None:
        """End a freeze, and forward what was held back."""
        self._do(self._set_frozen, False)

    def half_open(self) -> int:
        """Keep the present connections open without forwarding anything on them again; new ones work. Returns how many there are."""
        return self._do(self._black_hole)

    def delay(self, seconds: float) -> None:
        """Delay everything by this long, each way."""
        self._do(setattr, self, "_delay", seconds)

    def refuse(self, refusing: bool = True) -> None:
        """Reset all connections, and each new one at once, as if no server listened."""
        self._do(self._set_refusing, refusing)

    def lose_request(self, pattern: bytes, times: int = 1) -> Loss:
        """Drop the next requests that contain ``pattern``, and reset their connections."""
        return self._do(self._arm, Loss(pattern, times, after=False, reply=b""))

    def lose_reply(self, pattern: bytes, times: int = 1, *, reply: bytes = b"") -> Loss:
        """Forward the next requests that contain ``pattern``, but drop their replies and reset their connections."""
        return self._do(self._arm, Loss(pattern, times, after=True, reply=reply))

    def redirect(self, target: int) -> int:
        """Forward to another port from now on, and reset all connections. Returns how many there were."""
        return self._do(self._set_target, target)

    def heal(self) -> None:
        """Switch every fault off. Half-open connections are reset."""
        self._do(self._heal)

    def close(self) -> None:
        """Stop the proxy, and reset its connections."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONG_SECONDS)
        self._loop.close()

    # Everything below runs in the proxy's thread.

    async def _close(self) -> None:
        self._server.close()
        self._heal()
        self._reset_all()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _reset_all(self) -> int:
        links, self._links = self._links, set()
        for link in links:
            link.reset()
        return len(links)

    def _set_target(self, target: int) -> int:
        self._target = target
        return self._reset_all()

    def _set_frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        for link in self._links:
            (link.open.clear if frozen else link.open.set)()

    def _black_hole(self) -> int:
        links, self._links = self._links, set()
        for link in links:
            link.open.clear()
        self._holes += links
        return len(links)

    def _set_refusing(self, refusing: bool) -> None:
        self._refusing = refusing
        if refusing:
            self._reset_all()

    def _arm(self, loss: Loss) -> Loss:
        self._losses.append(loss)
        return loss

    def _heal(self) -> None:
        self._losses.clear()
        self._delay, self._refusing = 0.0, False
        self._set_frozen(False)
        for link in self._holes:
            link.reset()
        self._holes = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refusing:
                raise ConnectionRefusedError
            answers, server = await asyncio.open_connection("127.0.0.1", self._target, limit=1 << 20)
        except OSError:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
            return
        link = _Link(writer, server)
        if not self._frozen:
            link.open.set()
        self._links.add(link)
        transfers = [
            asyncio.ensure_future(self._forward(reader, server, lambda data: self._request(link, data), link)),
            asyncio.ensure_future(self._forward(answers, writer, lambda data: self._reply(link, data), link)),
        ]
        # Only closing the proxy cancels this task; asyncio's stream protocol logs an error if the task ends cancelled.
        with suppress(asyncio.CancelledError):
            await asyncio.wait(transfers, return_when=asyncio.FIRST_COMPLETED)
        for transfer in transfers:
            transfer.cancel()
        self._links.discard(link)
        for end in (writer, server):
            end.close()

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Callable[[bytes], bool], link: _Link
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await link.open.wait()
                if not passes(data):
                    link.reset()
                    return
                sink.write(data)
                await sink.drain()
            # The end of a stream is a packet too, so a frozen or half-open connection holds it back.
            await link.open.wait()
        except OSError:
            await link.open.wait()

    def _request(self, link: _Link, data: bytes) -> bool:
        window = link.tail + data
        link.tail = window[-LONGEST_PATTERN:]
        for loss in self._losses:
            if loss.left and loss.pattern in window:
                link.tail = b""
                loss.seen += 1
                if not loss.after:
                    loss.left -= 1
                    loss.lost += 1
                    return False
                link.loss = loss
        return True

    def _reply(self, link: _Link, data: bytes) -> bool:
        loss = link.loss
        if loss is None:
            return True
        # A script that is not loaded yet has changed nothing, and its request is repeated.
        if data.startswith(b"-NOSCRIPT"):
            link.loss = None
            return True
        if not loss.left or loss.reply not in data:
            link.loss = None if data.startswith((b"*-1", b"$-1")) else loss
            return True
        loss.left -= 1
        loss.lost += 1
        return False

    def _do(self, call: Callable[..., T], *arguments: Any) -> T:
        async def run() -> T:
            return call(*arguments)

        return self._run(run())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LONG_SECONDS)
