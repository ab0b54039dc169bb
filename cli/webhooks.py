"""``enginehouse webhooks listen``: a receiver on loopback that verifies and prints what arrives."""

import json
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rich.console import Console
from rich.text import Text
from standardwebhooks import Webhook, WebhookVerificationError

from cli.refusal import Refusal
from shared.webhooks.addresses import AddressRefused, Guard, parse_networks
from shared.webhooks.endpoints import check_secret

MOST_READ = 16 * 1024 * 1024


def listen(port: int, secret: str, *, allow: str) -> None:
    """Print deliveries until Ctrl-C. ``allow`` are the ranges that the settings open. Raises Refusal, and
    InvalidValue when the secret is none."""
    console = Console()
    check_secret(secret, "--secret")
    try:
        server = _server(port, secret, console)
    except OSError as error:
        raise Refusal(f"Port {port} of 127.0.0.1 cannot be listened on ({error.strerror}): choose another with --port.") from None
    console.print(f"Waiting for webhooks at http://127.0.0.1:{server.server_address[1]}/", highlight=False)
    try:
        Guard(parse_networks(allow)).check("127.0.0.1")
    except AddressRefused:
        console.print(
            "Enginehouse calls no address of this machine unless it was started with ENGINEHOUSE_WEBHOOK_ALLOW=127.0.0.0/8"
        )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def _server(port: int, secret: str, console: Console) -> ThreadingHTTPServer:
    verifier = Webhook(secret)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            body = self.rfile.read(min(int(length), MOST_READ)) if length.isdigit() else b""
            said, code = _verified(verifier, body, dict(self.headers.items()))
            # One piece, so that deliveries that arrive at once do not mix their lines.
            console.print(Text.assemble(f"{datetime.now().astimezone():%H:%M:%S} ", *said), soft_wrap=True)
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Printed above, in one line."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _verified(verifier: Webhook, body: bytes, headers: dict[str, str]) -> tuple[list[tuple[str, str] | str], int]:
    """What to print of a POST, and the status to answer it with."""
    name = next((value for key, value in headers.items() if key.lower() == "webhook-id"), "without an id")
    try:
        content = verifier.verify(body, headers)
    except WebhookVerificationError as error:
        return [name, (f" refused: {error}", "bold red")], 401
    except ValueError:
        return [name, (" refused: neither its headers nor its body can be read", "bold red")], 400
    about = content.get("data", {}) if isinstance(content, dict) else {}
    shown = json.dumps(about.get("error") or about.get("result"), ensure_ascii=False)
    return [name, (" verified ", "green"), (str(content.get("type")), "bold"), f" {about.get('id')} {shown[:200]}"], 204
