"""An HTTP server whose answers a test writes, for what a real model server does only when it is overloaded, broken or killed."""

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[["Exchange"], None]


@dataclass(frozen=True)
class Request:
    path: str
    body: Any
    headers: Mapping[str, str]


class Exchange:
    """One request and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, request: Request, server: "ScriptedServer") -> None:
        self._handler, self.request, self.server = handler, request, server

    def send_json(self, value: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(value).encode()
        self._handler.send_response(status)
        for name, text in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self._handler.send_header(name.replace("_", "-"), text)
        self._handler.end_headers()
        self._handler.wfile.write(data)

    def begin_stream(self) -> None:
        self._handler.send_response(200)
        self._handler.send_header("content-type", "text/event-stream")
        self._handler.send_header("connection", "close")
        self._handler.end_headers()
        self._handler.close_connection = True

    def send_event(self, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self._handler.wfile.write(f"data: {text}\n\n".encode())
        self._handler.wfile.flush()

    def drop(self) -> None:
        """Close the connection without an answer."""
        self._handler.close_connection = True

    def wait_for_disconnect(self) -> None:
        """Write comments until the client has closed the connection."""
        with suppress(OSError):
            while not self.server.is_closing.wait(0.01):
                self._handler.wfile.write(b": still here\n\n")
                self._handler.wfile.flush()


class ScriptedServer:
    """Answers each POST with the next of ``scripts``, the last one again and again, and ``GET /v1/models`` with its ``models``."""

    def __init__(self, *scripts: Script, models: Sequence[str] = ("m",)) -> None:
        self.scripts = list(scripts)
        self.models = list(models)
        self.requests: list[Request] = []
        self.is_closing = threading.Event()
        self._connections: list[socket.socket] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler_class())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def bodies(self) -> list[Any]:
        return [request.body for request in self.requests]

    def __enter__(self) -> "ScriptedServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.is_closing.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                scripted._connections.append(self.connection)

            def do_GET(self) -> None:
                listing = {"object": "list", "data": [{"id": name, "object": "model"} for name in scripted.models]}
                Exchange(self, Request(self.path, None, dict(self.headers)), scripted).send_json(listing)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                request = Request(self.path, body, {name.lower(): text for name, text in self.headers.items()})
                scripted.requests.append(request)
                script = scripted.scripts[min(len(scripted.requests), len(scripted.scripts)) - 1]
                with suppress(OSError):
                    script(Exchange(self, request, scripted))

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler


def chat_chunk(delta: Mapping[str, Any], *, reason: str | None = None, **choice: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": reason, **choice}]}


def usage_chunk(prompt: int, completion: int) -> dict[str, Any]:
    return {"id": "x", "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def text_chunk(text: str, *, reason: str | None = None, **choice: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "text": text, "finish_reason": reason, **choice}]}


def stream(*events: Any) -> Script:
    """Send these events and ``[DONE]``."""

    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        for event in (*events, "[DONE]"):
            exchange.send_event(event)

    return script


def broken_stream(*events: Any) -> Script:
    """Send these events and close the connection."""

    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        for event in events:
            exchange.send_event(event)

    return script


def refuse(status: int, error: Any = "no", **headers: str) -> Script:
    """Refuse with this status."""
    return lambda exchange: exchange.send_json({"error": error}, status, **headers)
