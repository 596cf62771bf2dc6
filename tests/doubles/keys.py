"""Open keys and key providers for tests."""

import os
from collections.abc import Sequence
from typing import Any

from residency.ports import KekRef
from residency.route import Action, Route
from residency.seal import SEAL_LIMIT, KeyContext, OpenDek, Purpose, tenant_bytes


def dek_for(
    tenant: str = "northwind",
    jurisdiction: str = "DE",
    *,
    purpose: str = "document",
    subject: bytes | None = None,
    version: int = 1,
    suite: int = 1,
    key: bytes | None = None,
    dek_id: bytes | None = None,
) -> OpenDek:
    """Give an open key without a Keyring, with every message of it reserved."""
    context = KeyContext(
        Purpose(purpose),
        tenant_bytes(tenant),
        jurisdiction,
        os.urandom(16) if subject is None else subject,
        version,
        os.urandom(16) if dek_id is None else dek_id,
        suite,
    )
    return OpenDek(context, key or os.urandom(32), tenant=tenant, left=SEAL_LIMIT)


class LossyKeys:
    """A key provider that loses the AAD, as some do on rewrap; it must fail the contract suite."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.site: str = inner.site

    async def create(self, route: Route, kek: KekRef) -> None:
        await self._inner.create(route, kek)

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        return list(await self._inner.wrap(route, kek, [(dek, b"") for dek, _ in items]))

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        return list(await self._inner.unwrap(route, kek, [(wrapped, b"") for wrapped, _ in items]))

    async def destroy(self, route: Route, kek: KekRef) -> None:
        await self._inner.destroy(route, kek)

    async def roll(self, keks: Sequence[KekRef]) -> dict[str, Any]:
        return dict(await self._inner.roll(keks))

    async def status(self) -> dict[str, Any]:
        return dict(await self._inner.status())

    async def aclose(self) -> None:
        await self._inner.aclose()


class CuttingKeys(LossyKeys):
    """A key provider that keeps the AAD and cuts tags: it takes wrapped keys whose last byte is wrong."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._full: dict[bytes, bytes] = {}

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        made = list(await self._inner.wrap(route, kek, items))
        self._full |= {wrapped[:-1]: wrapped for wrapped in made}
        return made

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        whole = [(self._full.get(wrapped[:-1], wrapped), aad) for wrapped, aad in items]
        return list(await self._inner.unwrap(route, kek, whole))


class CountingKeys(LossyKeys):
    """A sound key provider that counts calls and can be switched off."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.calls: list[tuple[Action, int]] = []
        self.down = False

    def _called(self, action: Action, count: int) -> None:
        from residency.errors import SiteError

        if self.down:
            raise SiteError(f"keys at {self.site} did not answer", site=self.site)
        self.calls.append((action, count))

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        self._called(Action.STORE, len(items))
        return list(await self._inner.wrap(route, kek, items))

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        self._called(Action.OPEN, len(items))
        return list(await self._inner.unwrap(route, kek, items))
