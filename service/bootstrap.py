"""The composition root: one place that builds everything, in one order, and closes it in reverse.

zones → policy → Fleet → database → engine → outlets (probed) → keyring → Ledger → use-cases. The web application, the
worker, every verb of the command line and the tests start here; it alone imports `residency.outlets`.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import residency
from residency import logkey
from residency.database import Database
from residency.egress import Tripwire
from residency.engine import Engine, utcnow
from residency.errors import DomicileError, KeyringError, SiteError
from residency.fleet import Fleet, Holding, Site
from residency.notes import Verifier
from residency.policy import PolicySet
from residency.ports import Embedder, Generator, KeyProvider, Shard, Vault
from residency.zones import Zones
from service.accounts import Accounts
from service.errors import HomeError
from service.house import House
from service.probing import Probing
from service.settings import Settings

if TYPE_CHECKING:
    from residency.inspection import Fault
    from residency.outlets.ledger_line import LedgerLine
    from residency.outlets.lines import Line
    from residency.outlets.shards.remote import RemoteShard

if TYPE_CHECKING:  # both load onnxruntime or torch's neighbours; only the house needs them
    from residency.ledger import Ledger
    from residency.outlets.embedders.body import RunnerEmbedder
    from residency.outlets.ledger_line import LedgerLine
    from residency.outlets.models import VerifiedModel

DIMENSION = 384
"""Width of the bundled model's vectors, until a fleet names another model."""
SEQUENCE_EVERY = 1.0
"""Seconds between two signed checkpoints while leaves are waiting."""
RULES_EVERY = 2.0
"""Seconds between two looks at which rules are active; another process may have put others in force."""


# --- the home -------------------------------------------------------------------------------------------------------


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


def bundled_digest() -> str:
    """Check the bundled model's files and give their digest. Raises `ModelError`."""
    from residency.outlets import models

    return models.bundled().digest


def policies_of(settings: Settings) -> Path:
    """Give the folder of rules in force: the activated one, else the settings', the home's own, or the shipped one."""
    from service.rulemaking import pointed_at

    own = settings.path / "policies"
    if (activated := pointed_at(own)) is not None:
        return activated
    if settings.rules.policies:
        return Path(settings.rules.policies)
    return own if (own / "schema.cedarschema").is_file() else shipped_policies()


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


# --- the house ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def domicile(
    settings: Settings,
    *,
    index: bool = True,
    work: bool = True,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    embedders: Mapping[str, Embedder] | None = None,
) -> AsyncIterator[House]:
    """Build the house. `index` opens shards and embedders (and takes the home's lock); `work` runs workers beside.

    Raises `HomeError`, `PolicyError`, `ZoneError`, `SiteError` when it cannot stand.
    """
    from ingestion.documents import Documents
    from ingestion.drift import Drift
    from ingestion.erasure import Erasure
    from ingestion.intake import Intake
    from ingestion.leases import Leases
    from ingestion.pipeline import Pipeline
    from ingestion.promises import Promises
    from ingestion.stores import Stores
    from ingestion.worker import Worker
    from residency.keyring import Keyring
    from residency.ledger import Ledger
    from residency.violations import Violations
    from service import byhand
    from service.answering import Answering
    from service.catalogue import Catalogue
    from service.custody import Custody
    from service.filing import Filing
    from service.limits import Limits
    from service.reconciling import Reconciling
    from service.repeats import Repeats
    from service.reporting import Reporting
    from service.rulemaking import Rulemaking, settle
    from service.searching import Searching
    from service.tending import Tending

    if settings.egress.refuse:
        _own_loop(asyncio.get_running_loop())
    async with AsyncExitStack() as stack:
        # (1) rules and Fleet; the database names the rules that were activated
        database = database_of(settings)
        stack.callback(database.close)
        rules_health = settle(database, settings.path / "policies")
        zones, policy, fleet = rules(settings)
        secret = service_key(settings.path)
        # (2) the home is ours alone while it has embedded shards
        alone = index and any(_scheme(site, "shard") == "edge" for site in fleet.sites.values())
        if alone:
            from service.homelock import locked

            stack.enter_context(locked(settings.path))
        # (3) tenants, engine
        accounts = Accounts(database, secret=secret)
        engine = Engine(zones, policy, fleet, clock=clock)
        for tenant in accounts.tenants():
            engine.admit(tenant.id, tenant.ceiling)
        # (4) outlets
        watching: list[Probing] = []  # made once the Ledger is there, and outlets report a loss to it

        def lost(site: str, cause: str) -> None:
            for each in watching:
                each.lost(site, cause)

        outlets = await _outlets(settings, fleet, stack, index=index, given=embedders, lost=lost)
        # (5) keyring, Ledger
        horizon = timedelta(days=settings.keys.horizon_days)
        keyring = Keyring(database, outlets.keys, mac_key=secret, horizon=horizon.total_seconds())
        ledger = Ledger(
            database,
            logkey.LogKey.load_or_create(settings.path / "keys" / "ledger.key"),
            origin=origin_of(settings),
            digests=engine.judged,
            software=_software(),
            mirror=settings.path / "keys" / "ledger.checkpoint",
            witnesses=partial(witnesses, settings.path),
        )
        ledger.check()
        violations = Violations(database, ledger, clock=clock)
        _tell_time(engine, ledger)
        probing = _probing(settings, database, engine, outlets, clock, ledger if index else None)
        watching.append(probing)
        await probing.once()
        # (6) use-cases
        documents = Documents(database)
        leases = Leases(database, engine, name=f"worker:{os.getpid()}:{secrets.token_hex(4)}")
        woken: list[Worker] = []  # the worker is made last, and intake and erasure wake it

        def arrived() -> None:
            for each in woken:
                each.wake()

        erasure = Erasure(
            database=database,
            leases=leases,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            shards=outlets.shards,
            vaults=outlets.vaults,
            horizon=horizon,
            arrived=arrived,
        )
        custody = Custody(
            engine=engine, keyring=keyring, ledger=ledger, database=database, steward=settings.rules.admin_tenant
        )
        tending = Tending(
            database=database,
            keyring=keyring,
            custody=custody,
            promises=Promises(database, ledger),
            horizon=horizon.total_seconds(),
        )
        pipeline = Pipeline(
            database=database,
            leases=leases,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            shards=outlets.shards,
            vaults=outlets.vaults,
            embedders=outlets.embedders,
            passage_tokens=settings.ingestion.passage_tokens,
        )
        intake = Intake(
            database=database,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            vaults=outlets.vaults,
            max_bytes=settings.ingestion.max_bytes,
            arrived=arrived,
        )
        drift = Drift(
            database=database,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            shards=outlets.shards,
            violations=violations,
        )

        async def hourly() -> None:
            await intake.sweep()
            await database.run(repeats.sweep)
            await tending.once()
            await drift.check()

        repeats = Repeats(database, secret=secret, rules=engine.digests, hours=settings.limits.replies_h)

        worker = Worker(
            leases=leases,
            pipeline=pipeline,
            erasure=erasure,
            sites=tuple(outlets.shards),
            concurrency=max(1, settings.ingestion.workers),
            tidy=hourly,
        )
        woken.append(worker)
        if alone:
            await intake.sweep(0.0)  # bodies that an earlier process did not finish; nobody will
        searching = Searching(
            engine=engine,
            documents=documents,
            keyring=keyring,
            ledger=ledger,
            shards=outlets.shards,
            embedders=outlets.embedders,
            deadline=settings.answers.deadline_s,
            longest=settings.limits.question_chars,
        )
        answering = Answering(
            searching=searching,
            engine=engine,
            ledger=ledger,
            generators=outlets.generators,
            threshold=settings.answers.threshold,
            sentences=settings.answers.sentences,
            passages=settings.answers.passages,
        )
        catalogue = Catalogue(engine=engine, documents=documents, keyring=keyring, ledger=ledger, vaults=outlets.vaults)
        house = House(
            settings=settings,
            database=database,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            accounts=accounts,
            documents=documents,
            catalogue=catalogue,
            filing=Filing(
                engine=engine,
                documents=documents,
                stores=Stores(database),
                catalogue=catalogue,
                keyring=keyring,
                ledger=ledger,
                vaults=outlets.vaults,
            ),
            repeats=repeats,
            limits=Limits(settings.limits.per_minute),
            intake=intake,
            worker=worker,
            erasure=erasure,
            searching=searching,
            answering=answering,
            reporting=Reporting(
                ledger,
                documents,
                engine,
                violations=violations,
                erasures=erasure.certificate,
                by_hand=lambda: byhand.load(settings.path / "register.toml"),
                horizon=erasure.horizon,
            ),
            violations=violations,
            reconciling=Reconciling(ledger, violations, tenants=lambda: [each.id for each in accounts.tenants()]),
            custody=custody,
            tending=tending,
            probing=probing,
            moving=pipeline.moving,
            drift=drift,
            rulemaking=Rulemaking(
                database=database,
                engine=engine,
                ledger=ledger,
                accounts=accounts,
                inventory=documents,
                folder=settings.path / "policies",
                steward=settings.rules.admin_tenant,
                health=rules_health,
                clock=clock,
            ),
            embedders=dict(outlets.embedders),
            stopping=asyncio.Event(),
        )
        # (7) what runs beside: checkpoints, probes, workers
        tasks = [
            asyncio.create_task(_sequence(house)),
            asyncio.create_task(probing.run(settings.rules.probe_every_s, house.stopping)),
            asyncio.create_task(_follow_rules(house)),
        ]
        if index and work and settings.ingestion.workers:
            tasks.append(asyncio.create_task(worker.run(house.stopping)))
        if index:
            import sqlalchemy.orm  # noqa: F401 - llama_index loads it; half loaded it breaks queries in other threads

            tasks.append(asyncio.create_task(asyncio.to_thread(_warm, work=work)))
        stack.push_async_callback(_stop, house, tasks)
        yield house


def _own_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse a loop on which the tripwire sees no connection. Raises `HomeError`."""
    kind = type(loop).__module__.partition(".")[0]
    if kind != "asyncio":
        raise HomeError(
            f"the tripwire sees no connection on the event loop of {kind}",
            hint="run on asyncio's own loop, or set egress.refuse to false and confine the process from outside",
        )


class Outlets:
    """Bodies of the five ports by Site id."""

    def __init__(self) -> None:
        self.shards: dict[str, Shard] = {}
        self.embedders: dict[str, Embedder] = {}
        self.generators: dict[str, Generator] = {}
        self.keys: dict[str, KeyProvider] = {}
        self.vaults: dict[str, Vault] = {}
        self.lines: dict[tuple[str, str], Line] = {}
        """Their https addresses, by Site and kind."""


async def _outlets(
    settings: Settings,
    fleet: Fleet,
    stack: AsyncExitStack,
    *,
    index: bool,
    given: Mapping[str, Embedder] | None,
    lost: Callable[[str, str], None],
) -> Outlets:
    from residency.outlets.vaults.folder import FolderVault

    outlets = Outlets()
    for provider in _providers(settings, fleet):
        outlets.keys[provider.site] = provider
        stack.push_async_callback(provider.aclose)
    for site in fleet.sites.values():
        folder = settings.path / "sites" / site.id
        if _scheme(site, "vault") == "folder":
            outlets.vaults[site.id] = FolderVault(folder / "vault", site=site.id)
    if not index:
        return outlets
    from residency.outlets.lines import lines

    base = fleet_file(settings).parent
    outlets.lines |= lines(fleet, base)
    outlets.embedders |= given if given is not None else await asyncio.to_thread(_embedders, settings, fleet)
    for embedder in outlets.embedders.values():
        stack.push_async_callback(embedder.aclose)
    dimension = next((each.dimension for each in outlets.embedders.values()), DIMENSION)
    for site in fleet.sites.values():
        line = outlets.lines.get((site.id, "shard"))
        if (shard := await _shard(settings, site, dimension, line, lost)) is not None:
            outlets.shards[site.id] = shard
            stack.push_async_callback(shard.aclose)
        holding = site.holding("generator")
        if holding is not None and holding.scheme in {"http", "https"}:
            from residency.outlets.generators.openai_like import OpenAILikeGenerator

            line = outlets.lines.get((site.id, "generator"))
            generator = OpenAILikeGenerator(
                site.id,
                holding.url,
                str(holding.settings.get("model", "default")),
                _secret(base, holding.settings),
                line.context if line else None,
            )
            outlets.generators[site.id] = generator
            stack.push_async_callback(generator.aclose)
    return outlets


def _providers(settings: Settings, fleet: Fleet) -> Iterator[KeyProvider]:
    """Make the key provider of each Site; one that does not open stops its own Site alone."""
    from residency.outlets.keys.late import LateKeys
    from residency.outlets.lines import lines

    remote = any(_scheme(site, "keys") == "https" for site in fleet.sites.values())
    known = lines(fleet, fleet_file(settings).parent) if remote else {}
    for site in fleet.holding("keys"):
        line = known.get((site.id, "keys"))
        yield LateKeys(site.id, partial(_provider, settings, site, line))


def _provider(settings: Settings, site: Site, line: "Line | None") -> KeyProvider:
    holding = site.holding("keys")
    options = holding.settings if holding else {}
    base = fleet_file(settings).parent

    def named(option: str) -> Path | None:
        return base / str(options[option]) if option in options else None

    def demanded(option: str) -> Path:
        if (path := named(option)) is None:
            raise KeyringError(f"the keys of {site.id} have no {option}", hint="name it in the fleet file")
        return path

    try:
        match _scheme(site, "keys"):
            case "pkcs11":
                from residency.outlets.keys.pkcs11 import Pkcs11Keys

                token = str(options.get("token", ""))
                return Pkcs11Keys(site=site.id, module=demanded("module"), token=token, pin=demanded("pin_file"))
            case "https" | "http":
                from residency.outlets.keys.bao import BaoKeys

                return BaoKeys(
                    site=site.id,
                    url=holding.url if holding else "",
                    token=demanded("token_file"),
                    operator=named("operator_token_file"),
                    mount=str(options.get("mount", "transit")),
                    namespace=str(options.get("namespace", "")),
                    context=line.context if line else None,
                )
    except ImportError as error:
        raise KeyringError(
            f"the library for the keys of {site.id} is not installed", hint="pip install 'domicile[pkcs11,bao]'"
        ) from error
    from residency.outlets.keys.file import FileKeys

    folder = settings.path / "keys" / site.id
    return FileKeys(folder, site=site.id, root=named("root_file"), passphrase=named("passphrase_file"))


async def _shard(
    settings: Settings, site: Site, dimension: int, line: "Line | None", lost: Callable[[str, str], None]
) -> Shard | None:
    holding = site.holding("shard")
    if holding is None:
        return None
    if holding.scheme == "edge":
        from residency.outlets.shards.edge import EdgeShard

        folder = settings.path / "sites" / site.id / "shard"
        shard = EdgeShard(site.id, folder, dimension=dimension, on_closed=lost)
        await shard.start()
        return shard
    # its first probe makes what is missing there; one that hangs holds nobody up, and closes
    return _remote(settings, site, holding, line, dimension=dimension)


def _remote(
    settings: Settings,
    site: Site,
    holding: Holding,
    line: "Line | None",
    *,
    dimension: int = DIMENSION,
    only_looks: bool = False,
) -> "RemoteShard":
    from residency.outlets.shards.remote import RemoteShard

    options = holding.settings
    return RemoteShard(
        site.id,
        holding.url,
        api_key=_secret(fleet_file(settings).parent, options),
        ssl_context=line.context if line else None,
        collection=str(options.get("collection", "domicile")),
        dimension=dimension,
        shard_key=str(options["shard_key"]) if "shard_key" in options else None,
        peers=[str(uri) for uri in options.get("peers", ())],
        snapshots=str(options.get("snapshots", "")),
        only_looks=only_looks,
    )


@asynccontextmanager
async def lookout(settings: Settings, clock: Callable[[], datetime] = utcnow) -> AsyncIterator[Probing]:
    """Make what probes Sites from beside a running service: https addresses, Qdrant servers and keys, nothing else.

    Embedded shards belong to the process that serves, so they are left out; nothing is recorded.
    """
    from residency.outlets.lines import lines

    async with AsyncExitStack() as stack:
        zones, policy, fleet = rules(settings)
        database = database_of(settings)
        stack.callback(database.close)
        outlets = Outlets()
        outlets.lines |= lines(fleet, fleet_file(settings).parent)
        for provider in _providers(settings, fleet):
            outlets.keys[provider.site] = provider
            stack.push_async_callback(provider.aclose)
        for site in fleet.sites.values():
            holding = site.holding("shard")
            if holding is not None and holding.scheme != "edge":
                remote = _remote(settings, site, holding, outlets.lines.get((site.id, "shard")), only_looks=True)
                outlets.shards[site.id] = remote
                stack.push_async_callback(remote.aclose)
        engine = Engine(zones, policy, fleet, clock=clock)
        yield _probing(settings, database, engine, outlets, clock, None)


def _probing(
    settings: Settings,
    database: Database,
    engine: Engine,
    outlets: Outlets,
    clock: Callable[[], datetime],
    ledger: "Ledger | None",
) -> Probing:
    """Make what probes the Sites; without a Ledger nothing of it is kept."""
    return Probing(
        database=database,
        engine=engine,
        ledger=ledger,
        shards=outlets.shards,
        keys=outlets.keys,
        lines=outlets.lines,
        here=settings.here.zone,
        steward=settings.rules.admin_tenant,
        ttl=settings.rules.probe_ttl_s,
        clock=clock,
    )


def _embedders(settings: Settings, fleet: Fleet) -> dict[str, Embedder]:
    """Open each model once; Sites of this machine that hold the same model share it, each under its own Routes."""
    from residency.outlets import models
    from residency.outlets.embedders.body import RunnerEmbedder

    opened: dict[str, Embedder] = {}
    by_model: dict[str, RunnerEmbedder] = {}
    for site in fleet.holding("embedder"):
        holding = site.holding("embedder")
        if holding is None:
            continue
        if holding.scheme == "bundled":
            model = models.bundled()
        elif holding.scheme == "path":
            model = models.verify(Path(holding.url.removeprefix("path:")), str(holding.settings.get("digest", "")))
        else:
            raise SiteError(
                f"embedder url {holding.url!r} is of no known kind", site=site.id, hint="use bundled: or path:/folder"
            )
        if model.digest not in by_model:
            by_model[model.digest] = _open_model(settings, model, site.id)
        opened[site.id] = by_model[model.digest].at(site.id)
    return opened


def _open_model(settings: Settings, model: "VerifiedModel", site: str) -> "RunnerEmbedder":
    device = settings.models.device
    if device in {"cuda", "torch-cpu"} or (device == "auto" and Path("/dev/nvidia0").exists()):
        from residency.outlets.embedders.torch_embedder import TorchEmbedder

        return TorchEmbedder(model, site=site, device={"torch-cpu": "cpu", "cuda": "cuda"}.get(device, "auto"))
    from residency.outlets.embedders.onnx_embedder import OnnxEmbedder
    from residency.outlets.embedders.onnx_export import export

    folder = settings.path / "models" / model.digest.removeprefix("sha256:")[:16]
    return OnnxEmbedder(model, export(model, folder), site=site, threads=settings.models.threads)


def _scheme(site: Site, kind: str) -> str:
    holding = site.holding(kind)
    return holding.scheme if holding else ""


def _secret(base: Path, options: Mapping[str, object]) -> str:
    """Read the `key_file` of a holding; its path counts from the fleet file's folder."""
    name = str(options.get("key_file", ""))
    return (base / name).read_text(encoding="utf-8").strip() if name else ""


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


@asynccontextmanager
async def ledger_line(url: str, *, key: str, trust_root: Path | None) -> AsyncIterator["LedgerLine"]:
    """Open a witness's line to a log, and refuse this process every other destination."""
    from residency.outlets.connect import destination, trust
    from residency.outlets.ledger_line import LedgerLine

    guard = Tripwire(strict=True)
    guard.allow(*destination(url))
    guard.install()
    line = LedgerLine(url, key=key, ssl_context=trust(trust_root) if url.startswith("https") else None)
    try:
        yield line
    finally:
        await line.aclose()
        guard.uninstall()


def _software() -> str:
    from importlib.metadata import version

    return f"domicile {version('domicile')}"


def destinations(settings: Settings, fleet: Fleet) -> list[tuple[str, int]]:
    """List host and port of everything that is reached over a network: the Fleet's addresses and the database."""
    from residency.outlets.connect import destination

    found = [
        destination(holding.url)
        for site in fleet.sites.values()
        for holding in site.holds
        if holding.scheme in {"http", "https"}
    ]
    if settings.database.url:
        from sqlalchemy.engine import make_url

        database = make_url(settings.database.url)
        if database.host:  # psycopg looks its name up through Python; what libpq connects to is not seen
            found.append((database.host, database.port or 5432))
    return found


def tripwire(settings: Settings, fleet: Fleet) -> Tripwire:
    """Make the tripwire that knows the addresses of Fleet and database alone; who owns the process installs it."""
    from service.metering import UNEXPECTED

    made = Tripwire(strict=settings.egress.refuse, told=UNEXPECTED.inc)
    for host, port in destinations(settings, fleet):
        made.allow(host, port)
    return made


# --- what runs beside -----------------------------------------------------------------------------------------------


def _warm(*, work: bool) -> None:
    """Load what the first question and the first document would otherwise wait for: about a second together."""
    from ingestion import sandbox
    from ingestion.detectors import language
    from ingestion.splitter import split

    language("Where does the first question come from?")
    if work:
        sandbox.warm()
        text = "One sentence."
        page = sandbox.PageSpan(number=1, start=0, end=len(text))
        split(sandbox.Reading(text, [page], [], "text/plain"), count_tokens=len)


async def _sequence(house: House) -> None:
    size = -1
    while not house.stopping.is_set():
        await asyncio.sleep(SEQUENCE_EVERY)
        try:
            before, size = size, await house.database.run(house.ledger.sequence)
            if size != before:
                await house.database.run(_tell_time, house.engine, house.ledger)
        except DomicileError:
            continue  # appending fails loudly for whoever asks; the next second tries again


def _tell_time(engine: Engine, ledger: "Ledger") -> None:
    """Tell the engine when the last checkpoint was signed: no ruling is made by a clock far behind it."""
    ever = datetime.max.replace(tzinfo=UTC)
    _, newest = ledger.span(ever, ever)
    if newest is not None:
        engine.not_before(datetime.fromisoformat(newest["time"]))


async def _follow_rules(house: House) -> None:
    """Take over rules that were activated here or in another process; a broken set leaves the last good one."""
    while not house.stopping.is_set():
        await asyncio.sleep(RULES_EVERY)
        with suppress(DomicileError):
            if await house.database.run(house.rulemaking.pending):
                await asyncio.to_thread(house.rulemaking.follow)


async def _stop(house: House, tasks: list[asyncio.Task[None]]) -> None:
    house.stopping.set()
    house.worker.wake()
    done, late = await asyncio.wait(tasks, timeout=0.01)
    for task in late:
        task.cancel()
    await asyncio.gather(*done, *late, return_exceptions=True)
    with suppress(DomicileError):  # what waits for its place in the tree gets it at the next start
        await house.database.run(house.ledger.sequence)
