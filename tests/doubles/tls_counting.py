"""A TLS server that counts what reaches it after the handshake, whatever protocol is spoken inside."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread


@dataclass
class Counting:
    """What was seen: handshakes begun and finished, payload bytes, and how each failed handshake ended."""

    port: int
    begun: int = 0
    finished: int = 0
    payload: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def server(certificate: Path, key: Path | None = None, *, clients: Path | None = None) -> ssl.SSLContext:
    """Give a server's context; with `clients`, a root whose certificates callers have to show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=clients)
    return context


@contextmanager
def counting(context: ssl.SSLContext) -> Iterator[Counting]:
    """Listen on loopback until the end of the block; nothing is ever answered."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen = Counting(listener.getsockname()[1])

    def one(raw: socket.socket) -> None:
        raw.settimeout(5)
        seen.begun += 1
        try:
            with context.wrap_socket(raw, server_side=True) as line:
                seen.finished += 1
                while data := line.recv(65536):
                    seen.payload += len(data)
                    if b"\r\n\r\n" in data:
                        return
        except OSError as error:
            seen.failures.append(getattr(error, "reason", None) or type(error).__name__)

    def accept() -> None:
        with suppress(OSError):
            while True:
                Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    thread = Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
