"""A webhook receiver on loopback that verifies and prints each message."""

import json
import re
import signal
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cli.errors import CommandError
from cli.output import Output
from enginehouse_client import InvalidSignature, webhooks

MAX_BODY_BYTES = 16 * 1024 * 1024
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WebhookReceiver:
    """Listens from the start; ``serve`` answers requests. A context manager. Raises CommandError if the port is not available."""

    def __init__(self, port: int, out: Output) -> None:
        self._out = out
        self._secret = ""
        # Concurrent deliveries must not mix their lines.
        self._lock = threading.Lock()
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise CommandError(f"Cannot listen on port {port} of 127.0.0.1 ({error.strerror}): choose another.") from None
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def serve(self, secret: str) -> int:
        """Print messages until Ctrl-C, SIGTERM or SIGHUP; returns the signal. Call it from the main thread."""
        self._secret = secret
        # Not by KeyboardInterrupt: Python discards one that is raised inside a destructor, and the server creates and drops
        # threads all the time.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        try:
            threading.Thread(target=self._server.serve_forever, daemon=True, name="webhooks").start()
            self._out.print_note(f"Waiting for webhooks at {self.url}")
            received = signal.sigwait(END_SIGNALS)
            self._server.shutdown()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        return received

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                is_length = re.fullmatch("[0-9]{1,15}", length) is not None
                body = self.rfile.read(min(int(length), MAX_BODY_BYTES)) if is_length else b""
                self.send_response(receiver._receive(dict(self.headers.items()), body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """``_receive`` prints one line instead."""

        return Handler

    def _receive(self, headers: dict[str, str], body: bytes) -> int:
        """Verify and print one POST; returns the status of the answer."""
        name = next((value for key, value in headers.items() if key.lower() == "webhook-id"), "without an id")
        try:
            content = webhooks.verify(self._secret, headers, body)
        except InvalidSignature as error:
            self._print({"webhook_id": name, "verified": False, "rejected": str(error)}, f"{name} rejected: {error}", "bold red")
            return 401
        except ValueError:
            self._print({"webhook_id": name, "verified": True, "rejected": "not JSON"}, f"{name} rejected: not JSON", "bold red")
            return 400
        data = content.get("data", {}) if isinstance(content, dict) else {}
        shown = json.dumps(data.get("error") or data.get("result"), ensure_ascii=False)
        line = f"{name} verified {content.get('type') if isinstance(content, dict) else ''} {data.get('id')} {shown[:200]}"
        self._print({"webhook_id": name, "verified": True, "content": content}, line, "green")
        return 204

    def _print(self, message: dict[str, Any], text: str, style: str) -> None:
        with self._lock:
            if self._out.as_json:
                self._out.print_json(message)
            else:
                self._out.print_line(f"{datetime.now().astimezone():%H:%M:%S} {text}", style)
