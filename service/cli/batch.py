"""A batch: what `ingest` and `watch` send, one body after the other, with the manifest of its folders."""

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ingestion.claims import Claim
from ingestion.intake import Refused
from ingestion.manifest import BLOCK, Entry, Found, Manifest
from residency.decision import Principal
from residency.errors import DomicileError
from service.house import House
from service.settings import Settings

SAVE_EVERY = 1000
"""Files taken in until the manifest is written anew: what a killed batch offers once more at most."""


class Batch:
    """Sends what is chosen, and keeps the manifest of its folders."""

    def __init__(
        self, house: House, principal: Principal, claimed: dict[str, Any], collection: str, manifest: Manifest
    ) -> None:
        self.principal = principal
        self.counts: Counter[str] = Counter()
        self._house = house
        self._claimed = claimed
        self._collection = collection
        self._manifest = manifest
        said = [str(claimed[key]) for key in sorted(claimed) if key not in ("erase_missing", "wait", "name")]
        self._said = msgspec.json.encode(said)

    @classmethod
    async def opened(cls, house: House, principal: Principal, settings: Settings, claimed: dict[str, Any]) -> "Batch":
        """Open the manifest of this tenant and Collection."""
        tenant = principal.tenant
        await house.welcome(tenant)
        collection = await house.database.run(house.documents.collection, tenant, claimed["collection"])

        def mac(text: str) -> bytes:  # no Document's name begins with a separator
            return house.keyring.name_mac(tenant, collection.id, f"/manifest/{text}")

        manifest = await asyncio.to_thread(Manifest, settings.path / "manifests" / mac("").hex()[:32], mac)
        return cls(house, principal, claimed, collection.id, manifest)

    def names(self, found: Sequence[Found]) -> dict[str, str]:
        """Name each file of a folder: by its own name, and with its folders where two have the same."""
        often = Counter(each.path.name for each in found)
        return {
            each.shown: each.path.name if often[each.path.name] == 1 else each.shown.replace("/", " · ")
            for each in found
        }

    async def folder(
        self, root: Path, chosen: Sequence[Found], found: Sequence[Found], done: Callable[[], Any]
    ) -> list[dict[str, Any]]:
        """Send what changed among `chosen`; `found` is all that the folder holds. Gives a row for all but the rest."""
        rows: list[dict[str, Any]] = []
        tenant, manifest, own = self.principal.tenant, self._manifest, self._manifest.key(root)
        stores = self._house.filing.stores
        standing = await self._house.database.run(stores.standing, tenant, self._collection)
        names = self.names(found)
        changed = 0
        for each in chosen:
            done()
            if each.fault:
                rows.append(_invalid(each.shown, "unreadable_file", each.fault))
                continue
            key, name = manifest.key(each.path), names[each.shown]
            claim = hashlib.sha256(self._said + name.encode(errors="surrogateescape")).digest()
            known = manifest.entries.get(key)
            if known is not None and (known.claim != claim or known.document not in standing):
                known = None
            if known is not None and (known.size, known.modified) == (each.size, each.modified):
                self.counts["unchanged"] += 1
                continue
            mac = self._house.keyring.content_mac(tenant)
            try:
                if known is not None and await asyncio.to_thread(_hashed, each.path, mac) == known.content:
                    manifest.entries[key] = msgspec.structs.replace(known, size=each.size, modified=each.modified)
                    self.counts["unchanged"] += 1
                    changed += 1
                    continue
            except OSError as error:
                rows.append(_invalid(each.shown, "unreadable_file", error.strerror or "it cannot be read"))
                continue
            mac = self._house.keyring.content_mac(tenant)
            row = await self.file(each.path, name, mac)
            rows.append(row)
            if document := row.get("id"):
                manifest.entries[key] = Entry(own, each.size, each.modified, mac.digest(), claim, document)
                changed += 1
                if changed % SAVE_EVERY == 0:
                    await asyncio.to_thread(manifest.save)
        if self._claimed["erase_missing"]:
            erased = await self._erase(root, found)
            rows += erased
            changed += len(erased)
        if changed:
            await asyncio.to_thread(manifest.save)
        return rows

    async def _erase(self, root: Path, found: Sequence[Found]) -> list[dict[str, Any]]:
        """Erase the Documents whose file is gone; none where part of the folder could not be seen."""
        manifest = self._manifest
        gone = manifest.below(root) - {manifest.key(each.path) for each in found}
        if gone and (not found or any("folder cannot be read" in each.fault for each in found)):
            hint = "the folder is empty or not wholly readable, so nothing was erased; is it mounted?"
            return [_invalid(root.name, "unreadable_file", hint)]
        held = {entry.document for key, entry in manifest.entries.items() if key not in gone}
        rows: list[dict[str, Any]] = []
        for key in sorted(gone):
            document = manifest.entries[key].document
            try:
                if document not in held:
                    await self._house.erasure.erase(self.principal, document)
                    rows.append({"id": document, "name": "", "state": "erasing", "created": False})
                    self.counts["erased"] += 1
            except DomicileError as error:
                if error.code != "not_found":
                    rows.append(_invalid("", error.code, f"{error}; {error.hint}") | {"id": document})
                    continue
            del manifest.entries[key]
        return rows

    async def file(self, path: Path, name: str = "", mac: Any = None) -> dict[str, Any]:
        """Send one file."""
        try:
            with path.open("rb") as file:
                return await self.send(
                    file, name or path.name, path.parent.as_posix(), os.fstat(file.fileno()).st_size, mac
                )
        except OSError as error:
            return _invalid(name or path.name, "unreadable_file", error.strerror or "it cannot be read")

    async def send(self, file: BinaryIO, name: str, folder: str, size: int | None, mac: Any = None) -> dict[str, Any]:
        """Send one body; gives its row. Raises `OSError` when it cannot be read."""
        claimed = self._claimed
        claim = Claim(
            name=name,
            jurisdictions=_codes(claimed["jurisdiction"]),
            collection=claimed["collection"],
            residency=_codes(claimed["residency"]) or None,
            personal=not claimed["public"],
            categories=_codes(claimed["categories"]),
            classification=claimed["classification"],
            groups=_codes(claimed["groups"]),
            folder=folder,
        )
        try:
            outcome = await self._house.intake.receive(_blocks(file, mac), claim, self.principal, size)
        except DomicileError as error:
            return _invalid(name, error.code, f"{error}; {error.hint}")
        if isinstance(outcome, Refused):
            facts = outcome.refusal.facts()
            return {"name": name, "state": "refused", "refusal": facts, "receipt": outcome.receipt}
        entry = await self._house.catalogue.get(self.principal, outcome.document.id, outcome.document.version)
        return entry.facts() | {"name": name, "created": outcome.created}


async def _blocks(file: BinaryIO, mac: Any = None) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(file.read, BLOCK):
        if mac is not None:
            mac.update(block)
        yield block


def _hashed(path: Path, mac: Any) -> bytes:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            mac.update(block)
    digest: bytes = mac.digest()
    return digest


def _invalid(name: str, code: str, hint: str) -> dict[str, Any]:
    return {"name": name, "state": "invalid", "error": {"code": code, "hint": hint}}


def _codes(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())
