"""Key provider in OpenBao or Vault: KEKs as keys of its Transit engine, over HTTPS believed by the Zone's own root.

Rules kept here: what a key is bound to goes with every wrap and unwrap as associated data, and a server that drops it
is found out before it wraps anything; never Transit's own rewrap, which cannot carry it; every item of a batch is read;
an answer that is not what was asked for is named, not guessed at. The everyday token may make, encrypt and decrypt;
rotating, raising minimum versions and trimming need the operator's.
One Transit key holds all versions of a KEK. The calls themselves are in `bao_line.py`.
"""

import asyncio
import base64
import binascii
import hashlib
import os
import re
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from residency.errors import KeyRefusedError, KeyringError, RouteError
from residency.outlets.connect import checked
from residency.outlets.keys.bao_line import BaoLine, MissingError, body_of
from residency.outlets.passing import passing
from residency.ports import KekRef
from residency.route import Action, Route
from residency.seal import KEY, OVERHEAD, bind, tenant_bytes

T = TypeVar("T")
THREADS: Final = 4
"""Calls under way at once: the library blocks."""
_MOUNT: Final = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")


class BaoKeys:
    """KEKs of one Site in the Transit engine at `url`/`mount`. `token` and `operator` are files.

    `context` is the TLS of the Zone's own root; plain HTTP is for loopback alone. `within` is in seconds.
    Raises `KeyringError`, and `SiteError` for an address that may not be spoken to.
    """

    def __init__(
        self,
        *,
        site: str,
        url: str,
        token: Path,
        operator: Path | None = None,
        mount: str = "transit",
        namespace: str = "",
        context: ssl.SSLContext | None = None,
        within: float = 30.0,
    ) -> None:
        if not _MOUNT.fullmatch(mount):
            raise KeyringError(f"the Transit mount of {site} is no path", hint='write mount = "transit"')
        self.site = site
        self._mount = mount
        self._within = within
        self._line = BaoLine(
            site, checked(url, site=site), token, operator, namespace=namespace, context=context, within=within
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bao")

    async def create(self, route: Route, kek: KekRef) -> None:
        """Make this KEK version: the Transit key, or its next version; refused when it was destroyed."""
        async with passing(route, site=self.site, action=Action.STORE, kind="keys", within=self._within, count=1):
            self._check(route, kek)
            await self._run(self._create, kek)

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Wrap (32 bytes, aad) pairs; gives Transit's text `vault:vN:…` for each."""
        count = len(items)
        async with passing(route, site=self.site, action=Action.STORE, kind="keys", within=self._within, count=count):
            self._check(route, kek)
            if any(len(dek) != KEY for dek, _ in items):
                raise KeyringError("a DEK has 32 bytes")
            return await self._run(self._wrap, kek, items)

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Unwrap (wrapped, aad) pairs, all or nothing; a pair that does not open is `KeyRefusedError`."""
        count = len(items)
        async with passing(route, site=self.site, action=Action.OPEN, kind="keys", within=self._within, count=count):
            self._check(route, kek)
            return await self._run(self._unwrap, kek, items)

    async def destroy(self, route: Route, kek: KekRef) -> None:
        """Trim this version away for ever; `KeyringError` while an older version lives, since trimming takes it too."""
        async with passing(route, site=self.site, action=Action.ERASE, kind="keys", within=self._within, count=1):
            self._check(route, kek)
            await self._run(self._destroy, kek)

    async def roll(self, keks: Sequence[KekRef]) -> dict[str, Any]:
        """Do nothing: the root is the server's own (`bao operator rotate`)."""
        return {}

    async def status(self) -> dict[str, Any]:
        """Say whether the server is unsealed and takes the token; raises `KeyringError`."""
        return await self._run(self._status)

    async def aclose(self) -> None:
        """Close every connection."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, route: Route, kek: KekRef) -> None:
        if kek.site != self.site or route.tenant != kek.tenant:
            raise RouteError("a Route was shown for a KEK of another Site or tenant")

    # --- what runs in threads -----------------------------------------------------------------------------------------

    def _create(self, kek: KekRef) -> None:
        info = self._read(kek)
        if info is None and kek.version == 1:
            made = {"key_type": "aes256-gcm96", "exportable": False, "allow_plaintext_backup": False}
            self._line.transit(lambda transit: transit.create_key(_name(kek), mount_point=self._mount, **made))
            info = self._read(kek)
        if info is None:
            raise self._missing(kek)
        if info["type"] != "aes256-gcm96" or info["exportable"] or info["derived"] or info["allow_plaintext_backup"]:
            raise KeyringError(
                f"the Transit key of a KEK at {self.site} is of another kind", hint="it is not fit for this"
            )
        if kek.version < info["first"]:
            raise KeyRefusedError(f"KEK {kek.id.hex()} version {kek.version} was destroyed")
        if kek.version > info["latest"] + 1:
            raise self._missing(kek)
        if kek.version == info["latest"] + 1:
            self._line.transit(lambda transit: transit.rotate_key(_name(kek), mount_point=self._mount), operator=True)
        self._prove_binding(kek)

    def _prove_binding(self, kek: KekRef) -> None:
        """Find out whether associated data is bound: a server that ignores it would open any key for anybody."""
        [wrapped] = self._wrap(kek, [(os.urandom(KEY), b"one place")])
        try:
            self._unwrap(kek, [(wrapped, b"another place")])
        except KeyRefusedError:
            return
        raise KeyringError(
            f"the key server of {self.site} does not bind associated data", hint="OpenBao 2.0 or Vault 1.9 and later do"
        )

    def _wrap(self, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        if not items:
            return []
        batch = [
            {"plaintext": _text(dek), "associated_data": _text(aad), "key_version": kek.version} for dek, aad in items
        ]
        reply = self._ask(
            lambda transit: transit.encrypt_data(_name(kek), plaintext="", batch_input=batch, mount_point=self._mount),
            kek,
        )
        made = [
            str(each.get("ciphertext", "")).encode("ascii", "replace") for each in self._line.results(reply, len(items))
        ]
        if any(_raw(wrapped, kek) is None for wrapped in made) or len(set(made)) != len(made):
            raise self._line.garbage()
        return made

    def _unwrap(self, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        if any(_raw(wrapped, kek) is None for wrapped, _ in items):
            raise KeyRefusedError("a wrapped key does not open in this context")
        if not items:
            return []
        batch = [{"ciphertext": wrapped.decode(), "associated_data": _text(aad)} for wrapped, aad in items]
        reply = self._ask(
            lambda transit: transit.decrypt_data(_name(kek), ciphertext="", batch_input=batch, mount_point=self._mount),
            kek,
        )
        try:
            opened = [
                base64.b64decode(str(each["plaintext"]), validate=True)
                for each in self._line.results(reply, len(items))
            ]
        except (KeyError, binascii.Error, ValueError) as error:
            raise self._line.garbage() from error
        if any(len(key) != KEY for key in opened):
            raise self._line.garbage()
        return opened

    def _destroy(self, kek: KekRef) -> None:
        info = self._read(kek, operator=True)
        if info is None or kek.version > info["latest"]:
            raise self._missing(kek)
        if kek.version < info["first"]:
            return
        if kek.version > info["first"]:
            raise KeyringError(
                f"version {info['first']} of KEK {kek.id.hex()} is still there",
                hint="Transit trims in order: destroy it first",
            )
        name, mount, after = _name(kek), self._mount, kek.version + 1
        if (
            kek.version == info["latest"]
        ):  # Transit keeps at least one version; the new one stays unused until asked for
            self._line.transit(lambda transit: transit.rotate_key(name, mount_point=mount), operator=True)
        # In two calls: the library refuses both at the same version in one, although the server wants just that.
        for limit in ("min_encryption_version", "min_decryption_version"):
            self._raise_limit(name, limit, after)
        self._line.transit(lambda transit: transit.trim_key(name, after, mount_point=mount), operator=True)
        info = self._read(kek, operator=True)
        if info is None or info["first"] < after:
            raise KeyringError(f"the key server of {self.site} did not trim a KEK", hint="try again, then ask its log")

    def _raise_limit(self, name: str, limit: str, version: int) -> None:
        change = {limit: version}
        self._line.transit(
            lambda transit: transit.update_key_configuration(name, mount_point=self._mount, **change), operator=True
        )

    def _status(self) -> dict[str, Any]:
        health = self._line.call(lambda client: client.sys.read_health_status(method="GET"))
        body = health if isinstance(health, dict) else body_of(health)
        if body.get("initialized") is not True or body.get("sealed") is not False:
            raise KeyringError(f"the key server of {self.site} is sealed", hint="unseal it")
        mine = self._line.call(lambda client: client.auth.token.lookup_self())
        try:
            ttl = int(mine["data"]["ttl"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._line.garbage() from error
        return {
            "provider": "transit",
            "site": self.site,
            "version": str(body.get("version", ""))[:40],
            "token_ttl_s": ttl,
            "may_rotate": self._line.has_operator,
        }

    def _read(self, kek: KekRef, *, operator: bool = False) -> dict[str, Any] | None:
        """Give what the server says of this KEK's Transit key, with `first` and `latest` version; None when absent."""
        try:
            reply = self._line.transit(
                lambda transit: transit.read_key(_name(kek), mount_point=self._mount), operator=operator
            )
        except MissingError:
            return None
        try:
            told = reply["data"]
            flags = {name: told[name] is not False for name in ("exportable", "derived", "allow_plaintext_backup")}
            first = max(1, int(told["min_available_version"]))
            return {"type": told["type"], "first": first, "latest": int(told["latest_version"]), **flags}
        except (KeyError, TypeError, ValueError) as error:
            raise self._line.garbage() from error

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _ask(self, call: Callable[[Any], Any], kek: KekRef) -> Any:
        """Encrypt or decrypt; what the server refuses item by item is one refusal."""
        try:
            return self._line.call(lambda client: call(client.secrets.transit))
        except MissingError as error:
            raise self._missing(kek) from error

    def _missing(self, kek: KekRef) -> KeyringError:
        return KeyringError(
            f"KEK {kek.id.hex()} version {kek.version} is missing at {self.site}",
            hint="restore the key server from its own backup",
        )


def _name(kek: KekRef) -> str:
    """Name the Transit key: by the KEK's id, and by whom it is for, so that one made for somebody else is not found."""
    whom = hashlib.sha256(bind("domicile/v1/kek", kek.id, tenant_bytes(kek.tenant), kek.jurisdiction)).hexdigest()[:8]
    return f"domicile-{kek.id.hex()}-{whom}"


def _raw(wrapped: bytes, kek: KekRef) -> bytes | None:
    """Give nonce, ciphertext and tag of Transit's text, or None when it is not of this version or not 60 bytes."""
    prefix = f"vault:v{kek.version}:".encode()
    try:
        raw = base64.b64decode(wrapped.removeprefix(prefix), validate=True) if wrapped.startswith(prefix) else b""
    except binascii.Error:
        return None
    return raw if len(raw) == OVERHEAD + KEY else None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
