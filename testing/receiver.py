"""A webhook receiver on loopback that records requests and answers as configured."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Received:
    """One received POST."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> dict[str, Any]:
        """The content. Raises WebhookVerificationError if it is not signed with this secret."""
        return dict(Webhook(secret).verify(self.body, self.headers))


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer with this status; the keyword ``Retry_After`` sets the header Retry-After."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def fail_first(code: int) -> Answer:
    """Answers the first attempt of each delivery with this status and every later one with 204."""
    seen: set[str] = set()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        delivery = handler.headers["webhook-id"]
        first = delivery not in seen
        seen.add(delivery)
        status(code if first else 204)(handler)

    return answer


class Receiver:
    """Gives ``answers`` in turn and repeats the last one; uses TLS with a ``certificate``. A context manager."""

    def __init__(self, *answers: Answer, certificate: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.answers = list(answers) or [status(204)]
        self.closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sent = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, sent, body))
                answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # many of these answers provoke a closed connection

        self._server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            self._server.socket = certificate.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
