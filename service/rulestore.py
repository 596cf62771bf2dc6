"""The rulestore: rules as they are kept: filed in the database, laid into the home, found again by their digests.

Rules kept here: whatever comes into force is kept before it does, table of Zones and rules each under the digest that
Receipts name, and is never deleted; what is read back is digested again, and counts as missing when it is another.
"""

import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from residency.database import Database, metadata
from residency.decision import Clause
from residency.errors import DomicileError, PolicyError, ZoneError
from residency.hindsight import Law
from residency.policy import PolicySet
from residency.rulebook import ZONES, Rulebook
from residency.rulebook import digest as digest_of
from residency.zones import Zones

POINTER: Final = "active"
"""The file beside the stored sets that names the one in force; the database's row is the authority."""
GOOD: Final = "ok"
LAST_GOOD: Final = "serving the last good one"

policy_sets = sa.Table(
    "policy_set",
    metadata,
    sa.Column("digest", sa.String(71), primary_key=True),
    sa.Column("files", sa.Text, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("replaces", sa.String(71), nullable=False),
    sa.Column("proposed_by", sa.String(80), nullable=False),
    sa.Column("proposed_at", sa.Float, nullable=False),
    sa.Column("approved_by", sa.String(80), nullable=False),
    sa.Column("activated_at", sa.Float),
)
"""Rulebooks as they were filed; `state` is waiting, withdrawn or activated, `replaces` what was in force then."""
active_policy = sa.Table(
    "active_policy",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String(71), nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
"""One row: the Rulebook in force. No row: the folder of the settings, as it lies there, is in force."""
kept_rules = sa.Table(
    "kept_rules",
    metadata,
    sa.Column("digest", sa.String(71), primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("files", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
"""What was ever in force here: tables of Zones (`zones`) and rules (`policy`) under the digests that Receipts name."""


def settle(database: Database, folder: Path) -> str:
    """Before a start: lay the active Rulebook in `folder` and point at it; gives `ok` or why the last good one stays.

    A Rulebook that does not load is not pointed at; when none was ever good, the start fails by itself.
    """
    pointer = folder / POINTER
    with database.reading() as connection:
        found = active(connection)
    if found is None:
        pointer.unlink(missing_ok=True)
        return GOOD
    digest, packed = found
    try:
        book = Rulebook.unpacked(packed)
        if book.digest != digest:
            raise PolicyError("the stored policy set is not the one that was activated", hint="activate it anew")
        zones = book.zones()
        PolicySet(book.rules(), zones)
    except DomicileError as error:
        if not pointer.is_file():
            raise
        return f"{LAST_GOOD}: {error}"
    lay(book, folder)
    return GOOD


def pointed_at(folder: Path) -> Path | None:
    """Give the folder of the Rulebook in force, or None where none was activated; raises `PolicyError` if changed."""
    digest = pointed(folder / POINTER)
    if not digest:
        return None
    chosen = folder / digest.removeprefix("sha256:")
    if Rulebook.read(chosen).digest != digest:
        raise PolicyError(
            f"the files under policies/{chosen.name[:12]}… were changed after they were activated",
            hint="remove that folder and start again: it is laid anew from the database",
        )
    return chosen


def active(connection: sa.Connection) -> tuple[str, str] | None:
    """Give the digest and the packed files of the Rulebook in force, None where none was activated."""
    joined = sa.select(active_policy.c.digest, policy_sets.c.files).join(
        policy_sets, policy_sets.c.digest == active_policy.c.digest
    )
    row = connection.execute(joined).first()
    return (row.digest, row.files) if row else None


def lay(book: Rulebook, folder: Path) -> None:
    """Lay a Rulebook under its digest, unless it lies there, and point at it."""
    chosen = folder / book.digest.removeprefix("sha256:")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        there = chosen.is_dir() and Rulebook.read(chosen).digest == book.digest
    except DomicileError:
        there = False
    if not there:
        shutil.rmtree(chosen, ignore_errors=True)
        book.write(chosen)
    if pointed(folder / POINTER) != book.digest:
        half = folder / f".{POINTER}.half"
        half.write_text(book.digest + "\n", encoding="ascii")
        half.rename(folder / POINTER)


def pointed(pointer: Path) -> str:
    """Give the digest that the pointer names, "" where there is none."""
    return pointer.read_text(encoding="ascii").strip() if pointer.is_file() else ""


def keep(book: Rulebook, connection: sa.Connection) -> None:
    """Keep the Zones and the rules of a Rulebook for as long as Receipts name them; does nothing for those kept."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    for digest, kind, files in _parts(book):
        values = {"digest": digest, "kind": kind, "files": Rulebook(files).packed(), "since": time.time()}
        connection.execute(dialect.insert(kept_rules).values(values).on_conflict_do_nothing())


def remember(database: Database, present: Rulebook) -> None:
    """Keep what is in force at a start, and whatever an earlier version activated without keeping it by its parts."""
    with database.reading() as connection:
        known = set(connection.execute(sa.select(kept_rules.c.digest)).scalars())
        filed = connection.execute(sa.select(policy_sets.c.files).where(policy_sets.c.state == "activated")).scalars()
        books = [present]
        for packed in filed:
            with suppress(DomicileError):  # a damaged one cannot be kept, and reports say that it is missing
                books.append(Rulebook.unpacked(packed))
    for book in books:
        with suppress(DomicileError):
            if not {digest for digest, *_ in _parts(book)} <= known:
                with database.transaction() as connection:
                    keep(book, connection)


def _parts(book: Rulebook) -> tuple[tuple[str, str, dict[str, bytes]], ...]:
    files = book.rules()
    return (book.zones().digest, "zones", {ZONES: book.files[ZONES]}), (digest_of(files), "policy", files)


class Archive:
    """Finds what was in force by its digest; every answer is remembered. Synchronous: use `database.run`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._zones: dict[str, Zones] = {}
        self._policies: dict[str, PolicySet] = {}

    def zones(self, digest: str) -> Zones | None:
        """Give the table of Zones with this digest; None where it is not kept, or is not what it was."""
        if digest not in self._zones:
            try:
                book = self.book(digest)
                found = book.zones() if book else None
            except DomicileError:
                found = None
            if found is None or found.digest != digest:
                return None
            self._zones[digest] = found
        return self._zones[digest]

    def policy(self, digest: str, zones: Zones) -> PolicySet | None:
        """Give the rules with this digest, fit for that table of Zones; None where they are not kept or do not fit."""
        name = f"{digest} {zones.digest}"
        if name not in self._policies:
            try:
                book = self.book(digest)
                found = PolicySet(book.rules(), zones) if book else None
            except DomicileError:
                found = None
            if found is None or found.digest != digest:
                return None
            self._policies[name] = found
        return self._policies[name]

    def clauses(self, digests: Iterable[str], zones: Zones) -> tuple[Mapping[str, Clause], list[str]]:
        """Give every clause of these sets by its id, the newest text last written; and which sets are not kept."""
        found: dict[str, Clause] = {}
        lost: list[str] = []
        for digest in digests:
            chosen = self.policy(digest, zones)
            if chosen is None:
                lost.append(digest)
            else:
                found |= chosen.clauses
        return found, lost

    def of(self, policy: str, zones: str) -> Law:
        """Give the law that a Receipt names. Raises `ZoneError` or `PolicyError` where it is not kept."""
        table = self.zones(zones)
        if table is None:
            raise ZoneError(f"the Zones {zones[:19]}… are not kept here", hint="nobody can judge by them any more")
        chosen = self.policy(policy, table)
        if chosen is None:
            raise PolicyError(f"the rules {policy[:19]}… are not kept here", hint="nobody can judge by them any more")
        return Law(chosen, table)

    def book(self, digest: str) -> Rulebook | None:
        """Give the files kept under a digest, None where there are none. Raises `PolicyError` for damaged ones."""
        wanted = sa.select(kept_rules.c.files).where(kept_rules.c.digest == digest)
        with self._database.reading() as connection:
            packed = connection.execute(wanted).scalar()
        return None if packed is None else Rulebook.unpacked(packed)

    def listing(self) -> list[dict[str, str | float]]:
        """List what is kept, oldest first: digest, kind, since when."""
        columns = (kept_rules.c.digest, kept_rules.c.kind, kept_rules.c.since)
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(*columns).order_by(kept_rules.c.since, kept_rules.c.kind))
            return [{"digest": row.digest, "kind": row.kind, "since": row.since} for row in rows]

    def export(self, folder: Path) -> list[Path]:
        """Write everything kept into a folder, each under its kind and digest, for `verify`; gives the folders.

        Raises `PolicyError`, before anything is written, when what is kept is not what its digest names.
        """
        books: dict[Path, Rulebook] = {}
        for row in self.listing():
            digest, kind = str(row["digest"]), str(row["kind"])
            book = self.book(digest)
            if book is None or digest != (book.zones().digest if kind == "zones" else digest_of(book.files)):
                raise PolicyError(
                    f"what is kept as {digest[:19]}… is something else", hint="bring the database's backup back"
                )
            books[folder / f"{kind}-{digest.removeprefix('sha256:')}"] = book
        folder.mkdir(parents=True, exist_ok=True)
        for path, book in books.items():
            if not path.exists():
                book.write(path)
        return list(books)
