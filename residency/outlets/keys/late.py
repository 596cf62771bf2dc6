"""A key provider that may not open yet: wrong passphrase, folder not mounted, module absent.

Rules kept here: one Site whose keys are out of reach stops that Site and no other, with the cause in words; it is tried
again when somebody asks, but not more often than every few seconds, since a passphrase is dear to try.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from residency.errors import KeyringError
from residency.ports import KekRef, KeyProvider
from residency.route import Route

PAUSE: Final = 5.0
"""Seconds between two tries to open it."""


class LateKeys:
    """The provider of one Site that `open_it` makes, as soon as it can be made."""

    def __init__(self, site: str, open_it: Callable[[], KeyProvider]) -> None:
        self.site = site
        self._open_it = open_it
        self._inner: KeyProvider | None = None
        self._cause: KeyringError | None = None
        self._again = 0.0
        with suppress(KeyringError):  # said to whoever asks, and by the probe
            self._ready()

    async def create(self, route: Route, kek: KekRef) -> None:
        """As the provider does."""
        await self._ready().create(route, kek)

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """As the provider does."""
        return await self._ready().wrap(route, kek, items)

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """As the provider does."""
        return await self._ready().unwrap(route, kek, items)

    async def destroy(self, route: Route, kek: KekRef) -> None:
        """As the provider does."""
        await self._ready().destroy(route, kek)

    async def roll(self, keks: Sequence[KekRef]) -> dict[str, Any]:
        """As the provider does."""
        return await self._ready().roll(keks)

    async def status(self) -> dict[str, Any]:
        """As the provider does; raises `KeyringError` with the cause while it does not open."""
        return await self._ready().status()

    async def aclose(self) -> None:
        """Release what is held."""
        if self._inner is not None:
            await self._inner.aclose()

    def _ready(self) -> KeyProvider:
        if self._inner is not None:
            return self._inner
        if self._cause is not None and time.monotonic() < self._again:
            raise KeyringError(str(self._cause), hint=self._cause.hint) from self._cause
        try:
            self._inner = self._open_it()
        except KeyringError as error:
            self._cause, self._again = error, time.monotonic() + PAUSE
            raise
        except OSError as error:
            self._again = time.monotonic() + PAUSE
            self._cause = KeyringError(
                f"the keys of {self.site} cannot be reached", hint="check the mount of its folder"
            )
            raise self._cause from error
        return self._inner
