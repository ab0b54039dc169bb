"""A receiver of webhooks on loopback that verifies and prints what arrives."""

import json
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cli.errors import CommandError
from cli.remote.output import Output
from enginehouse_client import InvalidSignature, webhooks

MOST_READ = 16 * 1024 * 1024


class WebhookReceiver:
    """Has its port from the first; ``run`` answers. A context manager. Raises Refusal when the port cannot be had."""

    def __init__(self, port: int, out: Output) -> None:
        self._out = out
        self._secret = ""
        # Deliveries that arrive at once must not mix their lines.
        self._lock = threading.Lock()
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise CommandError(f"Port {port} of 127.0.0.1 cannot be listened on ({error.strerror}): choose another.") from None
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def run(self, secret: str) -> None:
        """Print what arrives until Ctrl-C."""
        self._secret = secret
        self._out.print_note(f"Waiting for webhooks at {self.url}")
        self._server.serve_forever()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                body = self.rfile.read(min(int(length), MOST_READ)) if length.isdigit() else b""
                self.send_response(listener.take(dict(self.headers.items()), body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Printed by ``take``, in one line."""

        return Handler

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Verify and print one POST; the status to answer it with."""
        name = next((value for key, value in headers.items() if key.lower() == "webhook-id"), "without an id")
        try:
            content = webhooks.verify(self._secret, headers, body)
        except InvalidSignature as error:
            self._print({"webhook_id": name, "verified": False, "refused": str(error)}, f"{name} refused: {error}", "bold red")
            return 401
        except ValueError:
            self._print({"webhook_id": name, "verified": True, "refused": "no JSON"}, f"{name} refused: no JSON", "bold red")
            return 400
        about = content.get("data", {}) if isinstance(content, dict) else {}
        shown = json.dumps(about.get("error") or about.get("result"), ensure_ascii=False)
        print_note = f"{name} verified {content.get('type') if isinstance(content, dict) else ''} {about.get('id')} {shown[:200]}"
        self._print({"webhook_id": name, "verified": True, "content": content}, print_note, "green")
        return 204

    def _print(self, told: dict[str, Any], text: str, style: str) -> None:
        with self._lock:
            if self._out.as_json:
                self._out.print_json(told)
            else:
                self._out.print_line(f"{datetime.now().astimezone():%H:%M:%S} {text}", style)
