"""A Redis that is reached by a Unix socket or by TLS."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.local.redis_server import find_binary, free_port


@contextmanager
def redis_without_plain_tcp(folder: Path) -> Iterator[dict[str, str]]:
    """A Redis that answers on a Unix socket, and by TLS behind a proxy, as some builds have no TLS: its URL for each scheme."""
    port, secret = free_port(), "p@ss/word"
    command = [find_binary(), "--port", "0", "--unixsocket", f"{folder}/s", "--dir", str(folder), "--requirepass", secret]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    login = f"default:{quote(secret, safe='')}"
    make_certificate(folder)
    try:
        with tls_proxy(folder, port):
            yield {
                "unix": f"unix://{login}@{folder}/s?db=1",
                "rediss": f"rediss://{login}@127.0.0.1:{port}/1?ssl_ca_certs={folder}/certificate.pem",
            }
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def tls_proxy(folder: Path, port: int) -> Iterator[None]:
    """Pass what arrives by TLS on a port to the Unix socket in a folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(folder / "s")
        await asyncio.gather(copy(reader, to_redis), copy(from_redis, writer))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", port, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def make_certificate(folder: Path) -> None:
    """Write a certificate of 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
