"""The home: its folder, settings, secrets, rules and database, before any house is built on it.

Accounts, rules and the Ledger's keys can be reached from here while `domicile serve` runs: nothing of it opens a shard.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import residency
from residency import logkey, tagrules
from residency.database import Database
from residency.errors import PolicyError
from residency.fleet import Fleet
from residency.notes import Verifier
from residency.policy import PolicySet
from residency.retention import Retention
from residency.rulebook import RETENTION, SCHEMA, ZONES, digest
from residency.tagrules import TagRules
from residency.zones import Zones
from service.accounts import Accounts
from service.errors import HomeError
from service.settings import Settings

if TYPE_CHECKING:
    from residency.inspection import Fault


def prepare(folder: Path, *, zone: str, operator: str) -> bool:
    """Make a home: its settings and secret keys. Gives False when it was there already, and changes nothing then."""
    known = Zones.load(shipped_policies() / "zones.toml")
    zone, operator = known.check(zone), known.check(operator)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "keys").mkdir(exist_ok=True, mode=0o700)
    file = folder / "domicile.toml"
    made = not file.exists()
    if made:
        ceiling = ["EEA"] if known.within(zone, "EEA") else ["EEA", zone]
        listed = ", ".join(f'"{code}"' for code in ceiling)
        text = f'[here]\nzone = "{zone}"\noperator = "{operator}"\ndefault_ceiling = [{listed}]\n'
        file.write_text(text, encoding="utf-8")
    service_key(folder)
    return made


def service_key(folder: Path) -> bytes:
    """Give the 32 bytes that credentials and names are hashed with; made once, 0600."""
    path = folder / "keys" / "service.key"
    if not path.exists():
        if not path.parent.is_dir():
            raise HomeError(f"there is no Domicile home at {folder}", hint="run `domicile init` first")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    return path.read_bytes()


def shipped_policies() -> Path:
    """Give the folder of rules that came with this version: inside the wheel, or the repository's own."""
    inside = Path(residency.__file__).parent / "_policies"
    return inside if inside.is_dir() else Path(residency.__file__).parent.parent / "policies"


def policies_of(settings: Settings) -> Path:
    """Give the folder of rules in force: the activated one, else the settings', the home's own, or the shipped one.

    Raises `PolicyError` for a folder of the home's own in which there are none.
    """
    from service.rulestore import pointed_at

    own = settings.path / "policies"
    if (activated := pointed_at(own)) is not None:
        return activated
    if settings.rules.policies:
        return Path(settings.rules.policies)
    if (own / SCHEMA).is_file():
        return own
    if own.is_dir():  # whoever made it meant other rules than the shipped ones
        raise PolicyError(
            "the home's policies folder holds no rules",
            hint=f"put {SCHEMA}, {ZONES} and *.cedar files there, or remove the folder to go by the shipped rules",
        )
    return shipped_policies()


def rules(settings: Settings) -> tuple[Zones, PolicySet, Fleet]:
    """Load zones, policies and Fleet; any of them broken stops here with what and where."""
    folder = policies_of(settings)
    zones = Zones.load(folder / "zones.toml")
    policy = PolicySet.load(folder, zones)
    chosen = fleet_file(settings)
    if settings.rules.fleet or chosen.is_file():
        fleet = Fleet.load(chosen, zones)
    else:
        fleet = Fleet.single(settings.here.zone, settings.here.operator, zones)
    return zones, policy, fleet


def retention(settings: Settings, zones: Zones) -> Retention:
    """Give the rules of retention in force; none where the folder has no file of them.

    Raises `PolicyError` for rules with something wrong: then nothing is erased by rule.
    """
    file = policies_of(settings) / RETENTION
    found = Retention.parse(file.read_bytes() if file.is_file() else b"")
    if wrong := found.lint(zones):
        raise PolicyError(wrong[0], hint="domicile policy check says everything that is wrong")
    return found


def tag_rules(settings: Settings) -> TagRules:
    """Give the rules by which Tags follow from words and folders, as in force now; the shipped ones beside old rules.

    Raises `PolicyError` for a file that cannot stand: nothing is tagged by half a set of rules.
    """
    file = policies_of(settings) / tagrules.FILE
    raw = (file if file.is_file() else shipped_policies() / tagrules.FILE).read_bytes()
    return _parsed(raw, (file.parent / "zones.toml").read_bytes())


@lru_cache(maxsize=4)
def _parsed(raw: bytes, zones: bytes) -> TagRules:
    return TagRules.parse(raw, Zones.parse(zones))


def fleet_file(settings: Settings) -> Path:
    """Give the path of the fleet file, whether it exists or not; paths inside it count from its folder."""
    return Path(settings.rules.fleet) if settings.rules.fleet else settings.path / "fleet.toml"


def database_of(settings: Settings) -> Database:
    """Open the database at this version's tables; a SQLite file is brought up by itself."""
    from service.migrations import require

    if not settings.path.is_dir():
        raise HomeError(f"there is no Domicile home at {settings.path}", hint="run `domicile init` first")
    require(settings.database_url)
    return Database(settings.database_url)


@contextmanager
def office(settings: Settings) -> Iterator[Accounts]:
    """Open tenants and keys alone: needs no Site, and works while `domicile serve` runs."""
    secret = service_key(settings.path)
    database = database_of(settings)
    try:
        yield Accounts(database, secret=secret)
    finally:
        database.close()


def origin_of(settings: Settings) -> str:
    """Give the name that the Ledger signs under: host and epoch."""
    return f"{settings.ledger_name}/ledger/{logkey.epoch(settings.path / 'keys' / 'ledger.epoch')}"


def public_keys(settings: Settings) -> list[dict[str, str]]:
    """Give the public keys of this home, each with what it is for."""
    key = logkey.LogKey.load_or_create(settings.path / "keys" / "ledger.key")
    return [{"use": "ledger", "key": key.vkey(origin_of(settings))}]


def witnesses(folder: Path) -> list[Verifier]:
    """Give the keys of the witnesses that the operator named, one vkey a line of `witnesses.txt` in the home."""
    file = folder / "witnesses.txt"
    lines = file.read_text(encoding="utf-8").split() if file.is_file() else []
    return [Verifier.parse(line) for line in lines]


def begin_epoch(settings: Settings) -> str:
    """Let the Ledger go on under a new name, and forget the newest time of each tenant; gives the name."""
    from residency.leaves import heads

    database = database_of(settings)
    try:
        with database.transaction() as connection:
            connection.execute(heads.update().values(time=""))
    finally:
        database.close()
    logkey.begin(settings.path / "keys" / "ledger.epoch")
    return origin_of(settings)


def inspection(settings: Settings, progress: Callable[[int, int], None]) -> Iterator["Fault"]:
    """Read every row of the Ledger again; gives what does not hold."""
    from residency.inspection import Inspection

    database = database_of(settings)
    key = logkey.LogKey.load_or_create(settings.path / "keys" / "ledger.key")
    mirror = settings.path / "keys" / "ledger.checkpoint"
    try:
        yield from Inspection(
            database, lambda name: Verifier.parse(key.vkey(name)), mirror=mirror, progress=progress
        ).run()
    finally:
        database.close()


@lru_cache(maxsize=1)
def build() -> str:
    """Give `sha256:…` over the Python files of the rooms that run here: names the very build, whatever its version."""
    root = Path(residency.__file__).parent.parent
    files = [path for room in ("residency", "ingestion", "service") for path in (root / room).rglob("*.py")]
    return digest({path.relative_to(root).as_posix(): path.read_bytes() for path in files})


def software() -> str:
    """Name this version, as Receipts and reports do."""
    from importlib.metadata import version

    return f"domicile {version('domicile')}"
