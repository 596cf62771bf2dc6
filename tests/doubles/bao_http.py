"""A double of OpenBao's HTTP face, true to the protocol as far as `outlets/keys/bao.py` uses it.

Transit is done for real: AES-256-GCM with associated data, versions, minimum versions, trimming, batches with an error
for each bad item and 400 for the whole. Tokens have the rights of two policies; paths are checked as policies do.
It listens on a loopback port in a thread, so tests using it carry `enable_socket`.
Source: openbao/openbao builtin/logical/transit (path_encrypt.go, path_decrypt.go, path_keys.go, path_trim.go).
Not imitated: storage, seals, leases, other engines.
"""

import base64
import binascii
import json
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SERVICE, OPERATOR = "s.service", "s.operator"


class FailError(Exception):
    """An answer in the server's form of an error."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(*errors)
        self.status, self.errors = status, list(errors)


@dataclass
class TransitKey:
    """One named key: its versions, and from which on they may be used or exist."""

    versions: dict[int, bytes]
    settings: dict[str, Any]
    min_decryption: int = 1
    min_encryption: int = 0
    min_available: int = 0

    @property
    def latest(self) -> int:
        return max(self.versions)


@dataclass
class BaoDouble:
    """The server's state, its log of calls, and the failures that a test asks of it.

    `lossy` ignores associated data as a server too old does; `sealed` answers 503; `garbage` replaces the body of
    encrypt and decrypt; `slow` waits for `go` before it answers them; `drop_last` leaves the last item of a batch out;
    `hide_errors` answers 200 although an item failed; `fail_on` fails calls whose path ends so with 500;
    `redirect` sends every call elsewhere.
    """

    keys: dict[str, TransitKey] = field(default_factory=dict)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and token of every call."""
    lossy: bool = False
    sealed: bool = False
    garbage: bytes | None = None
    slow: bool = False
    drop_last: bool = False
    hide_errors: bool = False
    fail_on: str = ""
    redirect: str = ""
    namespace: str = ""
    go: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "sys/health":
            state = {"initialized": True, "sealed": self.sealed, "standby": False, "version": "2.4.1"}
            return (503 if self.sealed else 200), state
        if self.sealed:
            raise FailError(503, "Vault is sealed")
        if self.fail_on and path.endswith(self.fail_on):
            raise FailError(500, "internal error")
        if token not in {SERVICE, OPERATOR}:
            raise FailError(403, "permission denied")
        if (method, path) == ("GET", "auth/token/lookup-self"):
            return 200, {"data": {"ttl": 3600, "policies": ["default"]}}
        mount, _, rest = path.partition("/")
        what, _, tail = rest.partition("/")
        name, _, verb = tail.partition("/")
        if mount != "transit":
            raise FailError(404)
        if verb in {"rotate", "config", "trim"} and token != OPERATOR:
            raise FailError(403, "1 error occurred:\n\t* permission denied\n\n")
        match method, what, verb:
            case "POST", "keys", "":
                if name not in self.keys:
                    self.keys[name] = TransitKey({1: os.urandom(32)}, body)
                return 200, {"data": self._told(name)}
            case "GET", "keys", "":
                return 200, {"data": self._told(name)}
            case "POST", "keys", "rotate":
                key = self._key(name)
                key.versions[key.latest + 1] = os.urandom(32)
                return 200, {"data": self._told(name)}
            case "POST", "keys", "config":
                return 200, {"data": self._config(name, body)}
            case "POST", "keys", "trim":
                return self._trim(name, body)
            case "POST", "encrypt", "":
                if name not in self.keys:  # making one on the way needs a right that the policy does not give
                    raise FailError(403, "permission denied")
                return self._batch(body, lambda item: self._encrypt(self.keys[name], item))
            case "POST", "decrypt", "":
                if name not in self.keys:
                    raise FailError(400, "encryption key not found")
                return self._batch(body, lambda item: self._decrypt(self.keys[name], item))
        raise FailError(405, "unsupported operation")

    def _key(self, name: str) -> TransitKey:
        if name not in self.keys:
            raise FailError(404)
        return self.keys[name]

    def _told(self, name: str) -> dict[str, Any]:
        key = self._key(name)
        return {
            "name": name,
            "type": key.settings.get("type", "aes256-gcm96"),
            "exportable": bool(key.settings.get("exportable")),
            "allow_plaintext_backup": bool(key.settings.get("allow_plaintext_backup")),
            "derived": bool(key.settings.get("derived")),
            "deletion_allowed": False,
            "keys": {str(version): 1_700_000_000 for version in key.versions if version >= key.min_decryption},
            "latest_version": key.latest,
            "min_available_version": key.min_available,
            "min_decryption_version": key.min_decryption,
            "min_encryption_version": key.min_encryption,
        }

    def _config(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        key = self._key(name)
        for setting in ("min_decryption_version", "min_encryption_version"):
            wanted = body.get(setting)
            if wanted is None:
                continue
            if wanted > key.latest:
                raise FailError(400, f"cannot set {setting} of {wanted}, latest key version is {key.latest}")
            if wanted < key.min_available:
                raise FailError(400, f"{setting} should not be less than min_available_version")
            setattr(key, setting.removesuffix("_version"), wanted)
        return self._told(name)

    def _trim(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        key, wanted = self._key(name), body.get("min_available_version", 0)
        if not key.min_encryption:
            raise FailError(400, "minimum available version cannot be set when minimum encryption version is not set")
        if wanted > min(key.min_decryption, key.min_encryption) or wanted < key.min_available:
            raise FailError(400, "minimum available version cannot be higher than minimum decryption version")
        key.min_available = wanted
        key.versions = {number: raw for number, raw in key.versions.items() if number >= wanted}
        return 200, {"data": self._told(name)}

    def _batch(self, body: dict[str, Any], work: Any) -> tuple[int, Any]:
        if self.slow:
            self.go.wait(30)
        items = body.get("batch_input")
        if not items:
            raise FailError(400, "missing batch input to process")
        results, failed = [], False
        for item in items:
            try:
                results.append(work(item))
            except FailError as error:
                failed = True
                results.append({"error": error.errors[0], "ciphertext": "", "plaintext": ""})
        if self.drop_last:
            results.pop()
        return (400 if failed and not self.hide_errors else 200), {"data": {"batch_results": results}}

    def _encrypt(self, key: TransitKey, item: dict[str, Any]) -> dict[str, Any]:
        version = item.get("key_version") or key.latest
        if version > key.latest or version not in key.versions:
            raise FailError(400, "invalid key version")
        if version < key.min_encryption:
            raise FailError(400, "requested version for encryption is less than the minimum encryption key version")
        nonce = os.urandom(12)
        sealed = AESGCM(key.versions[version]).encrypt(nonce, _raw(item["plaintext"]), self._aad(item))
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(nonce + sealed).decode()}", "key_version": version}

    def _decrypt(self, key: TransitKey, item: dict[str, Any]) -> dict[str, Any]:
        head, _, text = item.get("ciphertext", "").removeprefix("vault:v").partition(":")
        if not item.get("ciphertext", "").startswith("vault:v") or not head.isdigit():
            raise FailError(400, "invalid ciphertext: no prefix")
        version = int(head)
        if version < max(key.min_decryption, key.min_available):
            raise FailError(400, "ciphertext or signature version is disallowed by policy (too old)")
        if version not in key.versions:
            raise FailError(400, "invalid ciphertext: version is too new")
        raw = _raw(text)
        try:
            opened = AESGCM(key.versions[version]).decrypt(raw[:12], raw[12:], self._aad(item))
        except (InvalidTag, ValueError):
            raise FailError(400, "invalid ciphertext: unable to decrypt") from None
        return {"plaintext": base64.b64encode(opened).decode()}

    def _aad(self, item: dict[str, Any]) -> bytes:
        return b"" if self.lossy else _raw(item.get("associated_data", ""))


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FailError(400, "failed to base64-decode") from None


class _Handler(BaseHTTPRequestHandler):
    double: BaoDouble
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"{}")
        path = self.path.removeprefix("/v1/").partition("?")[0]
        token = self.headers.get("X-Vault-Token", "")
        self.double.seen.append((self.command, path, token))
        self.double.namespace = self.headers.get("X-Vault-Namespace", "")
        if self.double.redirect:
            self.send_response(307)
            self.send_header("Location", self.double.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        try:
            status, reply = self.double.answer(self.command, path, token, body)
        except FailError as error:
            status, reply = error.status, {"errors": error.errors}
        sent = json.dumps(reply).encode()
        if self.double.garbage is not None and path.split("/")[1] in {"encrypt", "decrypt"}:
            sent = self.double.garbage
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - http.server looks for these names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # five, the default, overflow when many connect at once on a busy machine

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # callers that hang up are part of the tests


@contextmanager
def bao(tls: ssl.SSLContext | None = None) -> Iterator[BaoDouble]:
    """Serve a double on loopback; its `url` is what a provider is given."""
    double = BaoDouble()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": double}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    double.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        double.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
