"""Key provider in an HSM through PKCS#11: KEKs that never leave the token, AES-GCM with what a key is bound to.

Rules kept here: a KEK is made in the token, sensitive and not extractable, or not at all; every failure to open is one
refusal, since tokens name it differently; a PIN comes from a file and a refused one is not tried twice, because tokens
lock; one module, one thread, one open token each (python-pkcs11 does not ask a module for locking of its own, and an
open token carries one operation at a time); a token that went away is opened anew when it is back.
The module is loaded on first use, so after any fork. Destroyed versions leave a data object behind and stay refused.
"""

import asyncio
import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass

from residency.errors import KeyRefusedError, KeyringError, RouteError
from residency.outlets.keys.disk import secret
from residency.outlets.passing import passing
from residency.ports import KekRef
from residency.route import Action, Route
from residency.seal import KEY, NONCE, OVERHEAD, bind, tenant_bytes, u32

T = TypeVar("T")
_BAD_PIN: Final = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinExpired)


class Pkcs11Keys:
    """KEKs of one Site in the token labelled `token`. `module` is the vendor's library, `pin` the file of the user PIN.

    Nothing is opened before the first call. Raises `KeyringError`.
    """

    def __init__(self, *, site: str, module: Path, token: str, pin: Path, within: float = 30.0) -> None:
        self.site = site
        self._token = _Token(site, _module(module), token, pin)
        self._within = within

    async def create(self, route: Route, kek: KekRef) -> None:
        """Make this KEK version in the token; harmless when it exists, refused when it was destroyed."""
        async with passing(route, site=self.site, action=Action.STORE, kind="keys", within=self._within, count=1):
            self._check(route, kek)
            await self._token.ask(lambda session: _create(session, kek))

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Wrap (32 bytes, aad) pairs; gives nonce 12 ‖ ciphertext 32 ‖ tag 16 for each."""
        count = len(items)
        async with passing(route, site=self.site, action=Action.STORE, kind="keys", within=self._within, count=count):
            self._check(route, kek)
            if any(len(dek) != KEY for dek, _ in items):
                raise KeyringError("a DEK has 32 bytes")

            def wrap(keys: list[Any]) -> list[bytes]:
                made = []
                for dek, aad in items:
                    nonce = os.urandom(NONCE)
                    sealed = keys[0].encrypt(dek, mechanism=Mechanism.AES_GCM, mechanism_param=_gcm(nonce, aad))
                    made.append(nonce + bytes(sealed))
                if any(len(wrapped) != OVERHEAD + KEY for wrapped in made):
                    raise KeyringError(
                        f"the token of {self.site} cuts tags", hint="it is not fit for this; use another"
                    )
                return made

            try:
                return await self._token.ask(lambda session: _using(session, kek, wrap))
            except pkcs11.PKCS11Error as error:
                raise KeyringError(
                    f"the token of {self.site} does not wrap: {type(error).__name__}",
                    hint="it must do CKM_AES_GCM with nonces of ours; see docs/sealing.md",
                ) from error

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Unwrap (wrapped, aad) pairs, all or nothing; a pair that does not open is `KeyRefusedError`."""
        count = len(items)
        async with passing(route, site=self.site, action=Action.OPEN, kind="keys", within=self._within, count=count):
            self._check(route, kek)
            refused = "a wrapped key does not open in this context"
            if any(len(wrapped) != OVERHEAD + KEY for wrapped, _ in items):
                raise KeyRefusedError(refused)
            try:
                opened = await self._token.ask(
                    lambda session: _using(session, kek, lambda keys: [_opened(keys, *item) for item in items])
                )
            except pkcs11.PKCS11Error as error:
                raise KeyRefusedError(refused) from error
            if any(len(key) != KEY for key in opened):
                raise KeyringError(f"the token of {self.site} gives keys of another length", hint="check the module")
            return opened

    async def destroy(self, route: Route, kek: KekRef) -> None:
        """Mark this version destroyed, then destroy its object; harmless when that was done."""
        async with passing(route, site=self.site, action=Action.ERASE, kind="keys", within=self._within, count=1):
            self._check(route, kek)
            await self._token.ask(lambda session: _destroy(session, kek))

    async def roll(self, keks: Sequence[KekRef]) -> dict[str, Any]:
        """Do nothing: the root is the token's own."""
        return {}

    async def status(self) -> dict[str, Any]:
        """Count KEKs in the token; raises `KeyringError` when it does not answer."""

        def count(session: Any) -> int:
            return sum(1 for _ in session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))

        keks = await self._token.ask(count)
        return {"provider": "pkcs11", "site": self.site, "keks": keks, "token": self._token.label}

    async def aclose(self) -> None:
        """Close the token, when nobody else in this process uses it."""
        await self._token.leave()

    def _check(self, route: Route, kek: KekRef) -> None:
        if kek.site != self.site or route.tenant != kek.tenant:
            raise RouteError("a Route was shown for a KEK of another Site or tenant")


# --- one token, one module --------------------------------------------------------------------------------------------


class _Module:
    """A vendor's library in this process: its one thread, and the tokens that are open in it, by label."""

    def __init__(self, path: str) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pkcs11")
        self.open: dict[str, tuple[Any, bytes]] = {}
        """Open token and digest of the PIN that opened it."""
        self.refused: dict[str, bytes] = {}
        self._path = path
        self._library: Any = None

    def library(self) -> Any:
        if self._library is None:
            self._library = pkcs11.lib(self._path)
        return self._library

    def again(self) -> None:
        """Start the module anew: some find a token that came back only then. Every token opened before is closed."""
        library = self.library()
        self.open.clear()
        with suppress(pkcs11.PKCS11Error):
            library.finalize()
        library.initialize()


_MODULES: dict[str, _Module] = {}


def _module(path: Path) -> _Module:
    return _MODULES.setdefault(str(path), _Module(str(path)))


class _Token:
    def __init__(self, site: str, module: _Module, label: str, pin: Path) -> None:
        self.label = label
        self._site = site
        self._module = module
        self._pin = pin

    async def ask(self, work: Callable[[Any], T]) -> T:
        """Do `work` on the open token in the module's thread; when the token was lost, open it anew and try once more.

        Raises `KeyringError` when it does not open, and what `work` raises.
        """
        return await asyncio.get_running_loop().run_in_executor(self._module.thread, self._ask, work)

    async def leave(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._module.thread, self._drop)

    def _ask(self, work: Callable[[Any], T]) -> T:
        fresh = self.label not in self._module.open
        try:
            return work(self._opened())
        except _AbsentError:
            if fresh:
                raise
        except pkcs11.PKCS11Error:
            if fresh or not self._lost():
                raise
        # The object is not there, or the token is not: with a token opened anew it is one or the other for certain.
        self._drop()
        try:
            return work(self._opened())
        except pkcs11.PKCS11Error:
            if self._lost():
                raise self._silent() from None
            raise

    def _lost(self) -> bool:
        """Whether the open token has gone; a wrong AAD and a lost token may come as the same error."""
        try:
            session, _ = self._module.open[self.label]
            probe = session.create_object(
                {Attribute.CLASS: ObjectClass.DATA, Attribute.TOKEN: False, Attribute.VALUE: b"domicile"}
            )
            probe.destroy()
            return not any(self._module.library().get_tokens(token_label=self.label))
        except (KeyError, pkcs11.PKCS11Error):
            return True

    def _opened(self) -> Any:
        pin = secret(self._pin, f"the PIN of {self._site}")
        digest = hashlib.sha256(pin.encode()).digest()
        held = self._module.open.get(self.label)
        if held is not None and hmac.compare_digest(held[1], digest):
            return held[0]
        if held is not None or self._module.refused.get(self.label) == digest:
            raise self._wrong_pin()
        try:
            try:
                session = self._open(pin)
            except _BAD_PIN:
                raise
            except pkcs11.PKCS11Error:
                self._module.again()
                session = self._open(pin)
        except _BAD_PIN as error:
            self._module.refused[self.label] = digest  # tokens lock after a few: it is not tried again
            raise self._wrong_pin() from error
        except pkcs11.PinLocked as error:
            raise KeyringError(
                f"the token of {self._site} has locked its PIN", hint="unlock it as its officer"
            ) from error
        except (pkcs11.PKCS11Error, OSError) as error:
            raise self._silent() from error
        self._module.open[self.label] = (session, digest)
        return session

    def _open(self, pin: str) -> Any:
        return self._module.library().get_token(token_label=self.label).open(rw=True, user_pin=pin)

    def _drop(self) -> None:
        held = self._module.open.pop(self.label, None)
        if held is not None:
            with suppress(pkcs11.PKCS11Error):
                held[0].close()

    def _silent(self) -> KeyringError:
        return KeyringError(
            f"the token {self.label!r} of {self._site} does not answer",
            hint="see that it is plugged in and the module runs",
        )

    def _wrong_pin(self) -> KeyringError:
        return KeyringError(
            f"the token of {self._site} refuses the PIN", hint="mend pin_file; the same PIN is not tried again"
        )


# --- objects; all of this runs in the module's thread ----------------------------------------------------------------


class _AbsentError(KeyringError):
    """There is no object of this KEK version in the token as it is open now."""


def _label(kek: KekRef) -> str:
    return f"domicile {kek.id.hex()}/{kek.version}"


def _identity(kek: KekRef) -> bytes:
    # Tenant and jurisdiction stand in the object's id, so that one made for somebody else is not found.
    named = bind("domicile/v1/kek", kek.id, u32(kek.version), tenant_bytes(kek.tenant), kek.jurisdiction)
    return hashlib.sha256(named).digest()


def _keys(session: Any, kek: KekRef) -> list[Any]:
    """Find the objects of this version: one, or two when two processes made it at the same time."""
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: _label(kek), Attribute.ID: _identity(kek)}
    return list(session.get_objects(wanted))


def _destroyed(session: Any, kek: KekRef) -> bool:
    wanted = {Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: f"{_label(kek)} destroyed"}
    return any(True for _ in list(session.get_objects(wanted)))


def _using(session: Any, kek: KekRef, work: Callable[[list[Any]], T]) -> T:
    if _destroyed(session, kek):
        raise KeyRefusedError(f"KEK {kek.id.hex()} version {kek.version} was destroyed")
    keys = _keys(session, kek)
    if not keys:
        raise _AbsentError(
            f"KEK {kek.id.hex()} version {kek.version} is missing at {kek.site}",
            hint="restore the token from its own backup",
        )
    return work(keys)


def _create(session: Any, kek: KekRef) -> None:
    if _destroyed(session, kek):
        raise KeyRefusedError(f"KEK {kek.id.hex()} version {kek.version} was destroyed")
    if _keys(session, kek):
        return
    try:
        made = session.generate_key(
            KeyType.AES,
            KEY * 8,
            label=_label(kek),
            id=_identity(kek),
            store=True,
            capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
            template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True},
        )
        kept = made[Attribute.SENSITIVE] and not made[Attribute.EXTRACTABLE]
    except pkcs11.PKCS11Error as error:
        raise KeyringError(
            f"the token of {kek.site} does not make a KEK: {type(error).__name__}", hint="see the room and rights on it"
        ) from error
    if not kept:
        made.destroy()
        raise KeyringError(f"the token of {kek.site} makes keys that can be taken out", hint="it is not fit for this")


def _destroy(session: Any, kek: KekRef) -> None:
    try:
        if not _destroyed(session, kek):
            # The mark comes first: whatever happens next, this version is never made again and opens no more.
            session.create_object(
                {
                    Attribute.CLASS: ObjectClass.DATA,
                    Attribute.LABEL: f"{_label(kek)} destroyed",
                    Attribute.TOKEN: True,
                    Attribute.PRIVATE: True,
                    Attribute.VALUE: _identity(kek),
                }
            )
        for key in _keys(session, kek):
            key.destroy()
    except pkcs11.PKCS11Error as error:
        raise KeyringError(
            f"a KEK at {kek.site} could not be destroyed: {type(error).__name__}", hint="see the rights on the token"
        ) from error


def _gcm(nonce: bytes, aad: bytes) -> Any:
    return GCMParams(nonce, aad, 128)


def _opened(keys: list[Any], wrapped: bytes, aad: bytes) -> bytes:
    for key in keys[:-1]:
        with suppress(pkcs11.PKCS11Error):
            return bytes(_decrypt(key, wrapped, aad))
    return bytes(_decrypt(keys[-1], wrapped, aad))


def _decrypt(key: Any, wrapped: bytes, aad: bytes) -> bytes:
    parameters = _gcm(wrapped[:NONCE], aad)
    return bytes(key.decrypt(wrapped[NONCE:], mechanism=Mechanism.AES_GCM, mechanism_param=parameters))
