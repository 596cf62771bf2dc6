"""`domicile documents`: what lies here and where it stands; retry, pause, resume, cancel, and the progress."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import rich_click as click
from rich.table import Table

from ingestion.progress import progress as told
from service.cli.common import home_option, in_house, json_option, operator, people, show, table_of, tenant_option
from service.errors import InvalidRequestError
from service.house import House
from service.settings import Settings


@click.group(invoke_without_command=True)
@home_option
@tenant_option
@json_option
@click.option("--collection", default="", help="Only this collection.")
@click.pass_context
def documents(context: click.Context, settings: Settings, tenant: str, as_json: bool, collection: str) -> None:
    """List documents with state, place and next step; or retry, pause, resume, cancel them, or see the progress."""
    context.obj = (settings, tenant, as_json)
    if context.invoked_subcommand is not None:
        if collection:
            raise InvalidRequestError(
                "--collection stands after the verb", hint="domicile documents pause --collection"
            )
        return

    async def story(house: House) -> list[dict[str, Any]]:
        await house.welcome(tenant)
        rows: list[dict[str, Any]] = []
        cursor = ""
        while True:
            entries, cursor = await house.catalogue.listing(
                operator(settings, tenant), collection=collection, cursor=cursor, limit=100
            )
            rows += [entry.facts() for entry in entries]
            if not cursor:
                return rows

    rows = in_house(settings, story, index=False)
    if as_json:
        show({"documents": rows})
    else:
        table_of(rows)


Doing = Callable[[House, str, str], Awaitable[object]]


def _each(function: Callable[..., Doing]) -> Callable[..., Any]:
    """Make a verb over named documents; it works beside a running `serve`."""

    @click.argument("document_ids", nargs=-1, required=True)
    @click.pass_obj
    @wraps(function)
    def verb(common: tuple[Settings, str, bool], document_ids: tuple[str, ...]) -> None:
        settings, tenant, as_json = common

        async def story(house: House) -> list[dict[str, Any]]:
            await house.welcome(tenant)
            doing, rows = function(), []
            for identifier in document_ids:
                await doing(house, tenant, identifier)
                rows.append((await house.catalogue.get(operator(settings, tenant), identifier)).facts())
            return rows

        rows = in_house(settings, story, index=False)
        if as_json:
            show({"documents": rows})
        else:
            table_of(rows)

    return verb


@documents.command()
@_each
def retry() -> Doing:
    """Try failed documents again from their sealed originals."""

    async def do(house: House, tenant: str, identifier: str) -> None:
        await house.database.run(house.documents.retry, tenant, identifier)

    return do


@documents.command()
@_each
def cancel() -> Doing:
    """Give up documents that never went live: they are erased, with a certificate."""

    async def do(house: House, tenant: str, identifier: str) -> None:
        await house.pausing.cancel(operator(house.settings, tenant), identifier)

    return do


def _braked(paused: bool) -> Callable[..., Any]:
    @click.argument("document_ids", nargs=-1)
    @click.option("--collection", default="", help="Instead: every document of this collection.")
    @click.option("--all", "everything", is_flag=True, help="Instead: everything of the tenant.")
    @click.pass_obj
    def verb(
        common: tuple[Settings, str, bool], document_ids: tuple[str, ...], collection: str, everything: bool
    ) -> None:
        settings, tenant, as_json = common
        if sum((bool(document_ids), bool(collection), everything)) != 1:
            raise InvalidRequestError("name documents, or --collection, or --all", hint="domicile documents")

        async def story(house: House) -> None:
            await house.welcome(tenant)
            run, pausing = house.database.run, house.pausing
            for each in document_ids:
                await run(partial(pausing.document, tenant, each, paused=paused))
            if not document_ids:
                await run(partial(pausing.all, tenant, paused=paused, collection=collection))

        in_house(settings, story, index=False)
        if as_json:
            show({"documents": list(document_ids), "collection": collection, "paused": paused})
        else:
            people.print("paused" if paused else "goes on")

    return verb


documents.command("pause", help="Stop work on documents, a collection or everything; erasures go on.")(_braked(True))
documents.command("resume", help="Go on from where it was paused.")(_braked(False))


@documents.command()
@click.option("--collection", default="", help="Only this collection.")
@click.pass_obj
def progress(common: tuple[Settings, str, bool], collection: str) -> None:
    """Say how far the work is, and how long it may still take."""
    settings, tenant, as_json = common

    async def story(house: House) -> dict[str, Any]:
        await house.welcome(tenant)
        found = await house.database.run(house.documents.find_collection, tenant, collection) if collection else None
        if collection and found is None:
            raise InvalidRequestError("there is no such collection", param="collection", hint="domicile documents")
        of = found.id if found else ""
        return await house.database.run(lambda: told(house.database, tenant, groups=None, collection_id=of).facts())

    facts = in_house(settings, story, index=False)
    if as_json:
        show(facts)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for state, count in sorted(facts["states"].items()):
        table.add_row(state, str(count))
    left = "unknown" if facts["eta_s"] is None else f"{facts['eta_s']:.0f} s"
    table.add_row("done", f"{facts['progress']:.1%}")
    table.add_row("left", "paused" if facts["paused"] else left)
    people.print(table)
