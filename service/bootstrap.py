"""The composition root: one place that builds everything, in one order, and closes it in reverse.

zones → policy → Fleet → database → engine → outlets (probed) → keyring → Ledger → use-cases. The web application, the
worker, every verb of the command line and the tests start here. Bodies of outlets are opened by `outfitting.py`.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from residency import logkey
from residency.database import Database
from residency.engine import Engine, utcnow
from residency.ports import Embedder
from residency.rulebook import Rulebook
from service.accounts import Accounts
from service.beside import follow_rules, sequence, stop, tell_time, warm
from service.errors import HomeError
from service.home import (
    build,
    database_of,
    fleet_file,
    origin_of,
    policies_of,
    retention,
    rules,
    service_key,
    software,
    tag_rules,
    witnesses,
)
from service.house import House
from service.outfitting import Outlets, _providers, _remote, open_outlets, scheme
from service.probing import Probing
from service.settings import Settings

if TYPE_CHECKING:  # both load onnxruntime or torch's neighbours; only the house needs them
    from service.sightings import Sightings


@asynccontextmanager
async def domicile(
    settings: Settings,
    *,
    index: bool = True,
    work: bool = True,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    embedders: Mapping[str, Embedder] | None = None,
    within: str = "",
) -> AsyncIterator[House]:
    """Build the house. `index` opens shards and embedders (and takes the home's lock); `work` runs workers beside.

    Workers stand at the Sites that lie in the Zone `within`, and read and embed at no other; empty: at every Site.

    Raises `HomeError`, `PolicyError`, `ZoneError`, `SiteError` when it cannot stand.
    """
    from ingestion.backup import Backup
    from ingestion.damage import Damage
    from ingestion.documents import Documents
    from ingestion.drift import Drift
    from ingestion.erasure import Erasure
    from ingestion.forgetting import Forgetting
    from ingestion.holds import Holds
    from ingestion.intake import Intake
    from ingestion.leases import Leases
    from ingestion.pausing import Pausing
    from ingestion.pipeline import Pipeline
    from ingestion.promises import Promises
    from ingestion.rekeying import Rekeying
    from ingestion.restore import Restore
    from ingestion.reviewing import Reviewing
    from ingestion.stores import Stores
    from ingestion.uploads import Uploads
    from ingestion.worker import Worker
    from residency.keyring import Keyring
    from residency.ledger import Ledger
    from residency.trial import answerable
    from residency.violations import Violations
    from service import byhand
    from service.answering import Answering
    from service.calibration import Calibrations
    from service.catalogue import Catalogue
    from service.custody import Custody
    from service.filing import Filing
    from service.fusion import learned_weights
    from service.leaving import LeavingOut
    from service.limits import Limits
    from service.matrices import Matrices
    from service.neighbours import Neighbours
    from service.reconciling import Reconciling
    from service.repeats import Repeats
    from service.reporting import Reporting, organisation
    from service.rulemaking import Rulemaking
    from service.rulestore import Archive, remember, settle
    from service.searching import Searching
    from service.sightings import Sightings
    from service.tending import Tending

    if settings.egress.refuse:
        _own_loop(asyncio.get_running_loop())
    async with AsyncExitStack() as stack:
        # (1) rules and Fleet; the database names the rules that were activated
        database = database_of(settings)
        stack.callback(database.close)
        rules_health = settle(database, settings.path / "policies")
        zones, policy, fleet = rules(settings)
        tag_rules(settings)  # broken ones stop the start
        remember(database, Rulebook.read(policies_of(settings)))
        secret = service_key(settings.path)
        # (2) the home is ours alone while it has embedded shards
        alone = index and any(scheme(site, "shard") == "edge" for site in fleet.sites.values())
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

        outlets = await open_outlets(settings, fleet, stack, index=index, given=embedders, lost=lost)
        # (5) keyring, Ledger
        horizon = timedelta(days=settings.keys.horizon_days)
        keyring = Keyring(database, outlets.keys, mac_key=secret, horizon=horizon.total_seconds())

        def forget(*_: str) -> None:
            for embedder in outlets.embedders.values():
                embedder.forget()

        keyring.forgetting.append(forget)
        ledger = Ledger(
            database,
            logkey.LogKey.load_or_create(settings.path / "keys" / "ledger.key"),
            origin=origin_of(settings),
            digests=engine.judged,
            software=software(),
            mirror=settings.path / "keys" / "ledger.checkpoint",
            witnesses=partial(witnesses, settings.path),
        )
        ledger.check()
        violations = Violations(database, ledger, clock=clock)
        tell_time(engine, ledger)
        documents = Documents(database)
        documents.moved.append(forget)
        sightings = Sightings(
            database,
            ledger,
            steward=settings.rules.admin_tenant,
            ttl=settings.rules.probe_ttl_s,
            violations=violations,
            holders=documents.tenants_at,
            clock=clock,
        )
        probing = _probing(settings, database, engine, outlets, clock, sightings if index else None)
        watching.append(probing)
        await probing.once()
        answerable(engine, (tenant.id for tenant in accounts.tenants()))  # rules that nobody tried stop the start
        # (6) use-cases
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
        erasure.listeners.append(forget)
        forgetting = Forgetting(erasure, lambda: (retention(settings, engine.zones), engine.zones))
        holds = Holds(database, ledger)
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
        places = [
            each.id
            for each in fleet.sites.values()
            if not within or engine.zones.within(each.zone, zones.check(within))
        ]
        pipeline = Pipeline(
            database=database,
            leases=leases,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            shards=outlets.shards,
            vaults=outlets.vaults,
            embedders={site: body for site, body in outlets.embedders.items() if site in places},
            passage_words=settings.ingestion.passage_words,
            tag_rules=partial(tag_rules, settings),
        )
        intake = Intake(
            database=database,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            vaults=outlets.vaults,
            max_bytes=settings.ingestion.max_bytes,
            tag_rules=partial(tag_rules, settings),
            arrived=arrived,
        )
        uploads = Uploads(
            database=database,
            engine=engine,
            keyring=keyring,
            intake=intake,
            vaults=outlets.vaults,
            seconds=settings.ingestion.upload_hours * 3600.0,
        )
        damage = Damage(
            database=database,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            vaults=outlets.vaults,
            violations=violations,
        )
        drift = Drift(
            database=database,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            shards=outlets.shards,
            violations=violations,
            damage=damage,
        )

        rekeying = Rekeying(
            database=database,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            shards=outlets.shards,
        )

        async def hourly() -> None:
            await intake.sweep()
            await uploads.sweep()
            await database.run(repeats.sweep)
            await forgetting.once()
            await tending.once()
            await drift.mend()

        repeats = Repeats(database, secret=secret, rules=engine.digests, hours=settings.limits.replies_h)

        worker = Worker(
            leases=leases,
            pipeline=pipeline,
            erasure=erasure,
            sites=tuple(site for site in outlets.shards if site in places),
            concurrency=max(1, settings.ingestion.workers),
            tidy=hourly,
        )
        woken.append(worker)
        if alone:
            await uploads.sweep()
            await intake.sweep(0.0)  # bodies that an earlier process did not finish; nobody will
        calibrations = Calibrations(database)
        matrices = Matrices(documents, keyring, settings.answers.sealed_passages)
        erasure.listeners.append(matrices.forget)
        searching = Searching(
            engine=engine,
            documents=documents,
            keyring=keyring,
            ledger=ledger,
            shards=outlets.shards,
            embedders=outlets.embedders,
            deadline=settings.answers.deadline_s,
            longest=settings.limits.question_chars,
            calibrations=calibrations,
            weights=learned_weights(fleet),
            damage=damage,
            matrices=matrices,
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
        catalogue = Catalogue(
            engine=engine,
            documents=documents,
            keyring=keyring,
            ledger=ledger,
            vaults=outlets.vaults,
            holds=holds,
            damage=damage,
        )
        house = House(
            settings=settings,
            database=database,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            accounts=accounts,
            documents=documents,
            catalogue=catalogue,
            neighbours=Neighbours(
                database=database, engine=engine, catalogue=catalogue, ledger=ledger, shards=outlets.shards
            ),
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
            uploads=uploads,
            worker=worker,
            erasure=erasure,
            pausing=Pausing(database=database, erasure=erasure),
            forgetting=forgetting,
            holds=holds,
            backup=Backup(
                database=database, engine=engine, ledger=ledger, shards=outlets.shards, vaults=outlets.vaults
            ),
            restore=Restore(
                engine=engine, ledger=ledger, erasure=erasure, shards=outlets.shards, vaults=outlets.vaults
            ),
            searching=searching,
            answering=answering,
            leaving=LeavingOut(searching=searching, catalogue=catalogue, calibrations=calibrations, database=database),
            reporting=Reporting(
                ledger,
                documents,
                engine,
                archive := Archive(database),
                watch=sightings.watch,
                retention=lambda: retention(settings, engine.zones),
                about=lambda _tenant: organisation(byhand.load(settings.path / "register.toml")),
                violations=violations,
                erasures=erasure.certificate,
                by_hand=lambda: byhand.load(settings.path / "register.toml"),
                horizon=erasure.horizon,
                build=build(),
            ),
            violations=violations,
            reconciling=Reconciling(ledger, violations, tenants=lambda: [each.id for each in accounts.tenants()]),
            custody=custody,
            tending=tending,
            probing=probing,
            moving=pipeline.moving,
            reviewing=Reviewing(
                database=database,
                engine=engine,
                keyring=keyring,
                ledger=ledger,
                moving=pipeline.moving,
                erasure=erasure,
                arrived=arrived,
            ),
            drift=drift,
            rekeying=rekeying,
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
            archive=archive,
            embedders=dict(outlets.embedders),
            stopping=asyncio.Event(),
        )
        # (7) what runs beside: checkpoints, probes, workers
        tasks = [
            asyncio.create_task(sequence(house)),
            asyncio.create_task(probing.run(settings.rules.probe_every_s, house.stopping)),
            asyncio.create_task(follow_rules(house)),
        ]
        if index and work and settings.ingestion.workers:
            tasks.append(asyncio.create_task(worker.run(house.stopping)))
        if index:
            import sqlalchemy.orm  # noqa: F401 - llama_index loads it; half loaded it breaks queries in other threads

            tasks.append(asyncio.create_task(asyncio.to_thread(warm, work=work)))
        stack.push_async_callback(stop, house, tasks)
        yield house


def _own_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse a loop on which the tripwire sees no connection. Raises `HomeError`."""
    kind = type(loop).__module__.partition(".")[0]
    if kind != "asyncio":
        raise HomeError(
            f"the tripwire sees no connection on the event loop of {kind}",
            hint="run on asyncio's own loop, or set egress.refuse to false and confine the process from outside",
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
    sightings: "Sightings | None",
) -> Probing:
    """Make what probes the Sites; without `sightings` nothing of it is kept."""
    return Probing(
        database=database,
        engine=engine,
        sightings=sightings,
        shards=outlets.shards,
        keys=outlets.keys,
        lines=outlets.lines,
        here=settings.here.zone,
        ttl=settings.rules.probe_ttl_s,
        clock=clock,
    )
