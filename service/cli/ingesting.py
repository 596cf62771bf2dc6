"""`domicile ingest|watch`: files, folders, globs and stdin taken in by the operator, ruled on like everybody's.

Of a folder only what changed is sent (`ingestion/manifest.py`); one file that cannot be read never ends the batch.
"""

import asyncio
import glob
import hashlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import rich_click as click
from click.exceptions import Exit
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ingestion.claims import Claim
from ingestion.documents import State
from ingestion.intake import Refused
from ingestion.manifest import BLOCK, Entry, Found, Manifest, files_below
from residency.decision import Principal
from residency.errors import DomicileError
from service.cli.common import home_option, in_house, json_option, operator, people, show, table_of, tenant_option
from service.house import House
from service.settings import Settings

ENDS = {State.LIVE, State.QUARANTINED, State.FAILED, State.ERASED, State.ARCHIVED}
BAD = ("refused", "failed", "invalid")
PARTLY = 4
SAVE_EVERY = 1000
"""Files taken in until the manifest is written anew: what a killed batch offers once more at most."""


def claiming(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which a Document is declared."""
    for option in reversed(
        (
            click.option("--jurisdiction", required=True, help="Whose law binds them, such as DE; comma-separated."),
            click.option("--residency", default="", help="Where they may be processed, such as EU; default: its bloc."),
            click.option("--collection", default="default", show_default=True, help="Which set of documents."),
            click.option("--categories", default="", help="Such as health or finance, comma-separated."),
            click.option("--classification", default=1, show_default=True, help="0 public … 4 top secret."),
            click.option("--public/--personal", "public", default=False, help="Whether they hold no personal data."),
            click.option("--groups", default="", help="Access groups that may find them."),
            click.option("--erase-missing", is_flag=True, help="Erase documents whose file is gone from its folder."),
        )
    ):
        function = option(function)
    return function


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("paths", nargs=-1, required=True)
@claiming
@click.option("--name", default="", help="The document's name, for `-` (stdin).")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Stay until they can be asked about.")
def ingest(settings: Settings, tenant: str, as_json: bool, paths: tuple[str, ...], **claimed: Any) -> None:
    """Take files, folders, globs or stdin (`-`) in. Of a folder only what changed is sent."""
    if ("-" in paths) != bool(claimed["name"]):
        raise click.UsageError("`-` reads stdin and needs --name, and --name is for `-` alone")
    files, folders = _chosen(paths)
    found = {folder: list(files_below(folder)) for folder in folders}
    if "-" not in paths and not files and not any(found.values()) and not claimed["erase_missing"]:
        raise click.UsageError("there are no files in these folders")

    async def story(house: House) -> tuple[list[dict[str, Any]], Counter[str]]:
        batch = await Batch.opened(house, operator(settings, tenant), settings, claimed)
        rows: list[dict[str, Any]] = []
        with _progress(as_json) as progress:
            task = progress.add_task("taking in", total=len(files) + sum(map(len, found.values())))
            if "-" in paths:
                rows.append(await batch.send(sys.stdin.buffer, claimed["name"], "", None))
            for path in files:
                rows.append(await batch.file(path))
                progress.advance(task)
            for folder, held in found.items():
                rows += await batch.folder(folder, held, held, lambda: progress.advance(task))
        if claimed["wait"]:
            await _wait(house, batch.principal, rows, as_json)
        batch.counts.update("failed" if row["state"] in BAD else "taken" for row in rows if row["state"] != "erasing")
        return rows, batch.counts

    rows, counts = in_house(settings, story, work=claimed["wait"])
    summary = {kind: counts[kind] for kind in ("taken", "unchanged", "erased", "failed")}
    if as_json:
        show({"documents": rows, "summary": summary})
    else:
        table_of(rows)
        people.print(", ".join(f"{number} {kind}" for kind, number in summary.items()))
    if counts["failed"]:
        raise Exit(PARTLY if counts["taken"] or counts["unchanged"] or any(row.get("id") for row in rows) else 3)


@click.command()
@home_option
@tenant_option
@click.argument("folder")
@claiming
@click.option("--every", default=5.0, show_default=True, help="Seconds between two looks; by polling, for shares.")
def watch(settings: Settings, tenant: str, folder: str, every: float, **claimed: Any) -> None:
    """Take in what is new or changed in a folder, until SIGTERM. A file counts once two looks found it the same."""
    root = Path(folder)
    if not root.is_dir():
        raise click.UsageError(f"there is no folder {folder}")

    async def story(house: House) -> None:
        batch = await Batch.opened(house, operator(settings, tenant), settings, claimed)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        people.print(f"watching; a look every {every:g} s")
        before: dict[str, Found] = {}
        tried: dict[str, Found] = {}
        while not stop.is_set():
            found = await asyncio.to_thread(lambda: list(files_below(root)))
            settled = [each for each in found if before.get(each.shown) == each != tried.get(each.shown)]
            rows = await batch.folder(root, settled, found, lambda: None)
            if rows:
                table_of(rows)
            bad = {row["name"] for row in rows if row["state"] in BAD}
            names = batch.names(found)
            tried |= {each.shown: each for each in settled if names[each.shown] in bad or each.shown in bad}
            before = {each.shown: each for each in found}
            try:
                await asyncio.wait_for(stop.wait(), every)
            except TimeoutError:
                continue

    in_house(settings, story, work=True)


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


def _chosen(paths: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Give the files and the folders that are named, by themselves or by a pattern."""
    files: list[Path] = []
    folders: list[Path] = []
    for text in paths:
        if text == "-":
            continue
        named = [Path(text)] if Path(text).exists() else sorted(map(Path, glob.glob(text, recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not named:
            raise click.UsageError(f"there is no file or folder {text}")
        folders += [path for path in named if path.is_dir()]
        files += [path for path in named if not path.is_dir()]
    return files, folders


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


async def _wait(house: House, principal: Any, results: list[dict[str, Any]], quiet: bool) -> None:
    with _progress(quiet) as progress:
        task = progress.add_task("reading and indexing", total=float(len(results)))
        while True:
            done = 0.0
            open_ends = 0
            for row in results:
                if row.get("version") is None or row["state"] in ENDS:
                    done += 1
                    continue
                entry = await house.catalogue.get(principal, row["id"], row["version"])
                row.update(entry.facts() | {"name": row["name"]})
                done += entry.document.progress
                open_ends += entry.document.state not in ENDS
            progress.update(task, completed=done)
            if not open_ends:
                return
            await asyncio.sleep(0.2)


def _codes(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def _progress(quiet: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        console=people,
        disable=quiet or not people.is_terminal,
        transient=True,
    )
