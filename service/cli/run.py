"""`domicile init|serve|work|migrate`: setting up and running."""

import asyncio
import logging
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from residency.errors import DomicileError
from service.cli.common import home_option, in_house, people, run
from service.errors import HomeError
from service.settings import Settings

if TYPE_CHECKING:
    from service.house import House


@click.command()
@click.option("--home", envvar="DOMICILE_HOME", default=".domicile", show_default=True, help="Domicile's folder.")
@click.option("--zone", default="DE", show_default=True, help="Zone this machine stands in.")
@click.option("--operator", default="", help="Zone the operator is established in; default: the same.")
@click.option("--fleet", "fleet_file", type=click.Path(exists=True, dir_okay=False), help="Fleet file to use.")
@click.option("--tenant", default="default", show_default=True, help="First tenant.")
def init(home: str, zone: str, operator: str, fleet_file: str | None, tenant: str) -> None:
    """Set up a home: keys, database, policies, model. Doing it again changes nothing that is there."""
    from service.home import office, prepare
    from service.settings import load

    folder = Path(home).expanduser()
    made = prepare(folder, zone=zone, operator=operator or zone)
    if fleet_file:
        shutil.copyfile(fleet_file, folder / "fleet.toml")
    settings = load(folder)
    with office(settings) as accounts:
        accounts.ensure_tenant(tenant, ceiling=settings.here.default_ceiling, zone=settings.here.zone)

    async def nothing(_house: object) -> None:
        """Building the house once proves that it stands."""

    in_house(settings, nothing, index=True)
    people.print(f"{'Set up' if made else 'Already there'}: {folder.absolute()}")
    people.print(f"  zone {settings.here.zone}, operator established in {settings.here.operator}, tenant {tenant}")
    people.print("  next: `domicile serve`, or `domicile ingest FILE --jurisdiction " + settings.here.zone + "`")


@click.command()
@home_option
@click.option("--host", default="", help="Address to listen on; default: settings, 127.0.0.1.")
@click.option("--port", default=0, help="Port; default: settings, 8000.")
@click.option("--tenant", default="default", show_default=True, help="Tenant of the sign-in link.")
def serve(settings: Settings, host: str, port: int, tenant: str) -> None:
    """Serve the API and the portal; prints the portal's address and a one-time sign-in link."""
    import msgspec
    import uvicorn

    from service.accounts import SCOPES, SIGN_IN_SECONDS
    from service.app import create_app
    from service.bootstrap import domicile
    from service.home import office, rules
    from service.outfitting import tripwire

    server = msgspec.structs.replace(
        settings.server,
        host=host or settings.server.host,
        port=port or settings.server.port,
        ledger_name=settings.ledger_name,  # a port of the day must not give the log another name: trust files hold it
    )
    chosen = msgspec.structs.replace(settings, server=server)
    tripwire(chosen, rules(chosen)[2]).install()
    with office(chosen) as accounts:
        accounts.ensure_tenant(tenant, ceiling=chosen.here.default_ceiling, zone=chosen.here.zone)
        token = accounts.issue(tenant, scopes=SCOPES, kind="signin", lifetime=SIGN_IN_SECONDS)
    faults: list[DomicileError] = []

    @asynccontextmanager
    async def built(wanted: Settings) -> AsyncIterator["House"]:
        """Build the House, and keep why it could not be built: uvicorn would print a trace and no cause."""
        async with AsyncExitStack() as stack:
            try:
                house = await stack.enter_async_context(domicile(wanted))
            except DomicileError as error:
                faults.append(error)
                raise
            yield house

    app = create_app(chosen, build=built)
    config = uvicorn.Config(
        app,
        host=chosen.server.host,
        port=chosen.server.port,
        loop="asyncio",  # the audit hook sees no connection on uvloop
        access_log=False,  # its line carries names and questions
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    running = uvicorn.Server(config)
    logging.getLogger("uvicorn.error").addFilter(lambda _record: not faults)

    async def serving() -> None:
        with suppress(SystemExit):  # so uvicorn ends when it cannot start; what to say of it is said below
            await running.serve()

    async def whole() -> None:
        task = asyncio.create_task(serving())
        while not running.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.05)
        if running.started:
            people.print(f"Portal   {chosen.public_url}/")
            people.print(
                f"Sign in  {chosen.public_url}/sign-in?token={token}   (once, within 15 minutes)", soft_wrap=True
            )
            people.print(
                f"API      {chosen.public_url}/v1   description: {chosen.public_url}/api/swagger", soft_wrap=True
            )
            people.print("Keys     domicile accounts key --tenant " + tenant + " --scope ask --scope upload")
        await task

    run(whole())
    if faults:
        raise faults[0]
    if not running.started:
        raise HomeError(
            f"nothing could be served at {chosen.server.host}:{chosen.server.port}",
            hint="free that port, or give --port another one",
        )


@click.command()
@home_option
@click.option("--once", is_flag=True, help="End when nothing is waiting.")
@click.option(
    "--zone", default="", help="Work only at Sites in this Zone, such as FR; default: every Site of the Fleet."
)
def work(settings: Settings, once: bool, zone: str) -> None:
    """Work on waiting documents without serving; any number of these on PostgreSQL with remote shards."""

    async def story(house: object) -> None:
        from service.house import House

        assert isinstance(house, House)  # noqa: S101 - tells the type checker
        if not house.worker.sites:
            raise HomeError(
                f"no Site of the Fleet {f'in {zone} ' if zone else ''}holds a shard",
                hint="`domicile sites list` shows the Zone of each",
            )
        if once:
            await house.worker.drain()
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, house.stopping.set)
        people.print(f"working at {', '.join(house.worker.sites)}; stop with Ctrl-C")
        await house.worker.run(house.stopping)

    in_house(settings, story, within=zone)


@click.command()
@home_option
def migrate(settings: Settings) -> None:
    """Bring the database up to this version; doing it again changes nothing."""
    from service.migrations import upgrade

    people.print(f"database is at {upgrade(settings.database_url)}")
