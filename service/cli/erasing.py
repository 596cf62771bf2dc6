"""`domicile erase`, `hold`, `retention`: what is forgotten, what must not be, and what the rules no longer keep."""

import asyncio
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.cli.common import home_option, in_house, json_option, operator, people, show, tenant_option
from service.errors import InvalidRequestError
from service.house import House
from service.settings import Settings

UNFINISHED = 4
"""Exit code when something waits for a Site."""


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("document_id", required=False)
@click.option("--collection", default="", help="Instead: every document of this collection.")
@click.option("--everything", is_flag=True, help="Instead: every document of the tenant, and its search keys.")
def erase(
    settings: Settings, tenant: str, as_json: bool, document_id: str | None, collection: str, everything: bool
) -> None:
    """Forget: destroy keys, drop passages, and print the certificate; one by one, or many by one order."""
    if sum((bool(document_id), bool(collection), everything)) != 1:
        raise InvalidRequestError("name a document, or --collection, or --everything", hint="domicile documents")

    async def story(house: House) -> dict[str, Any]:
        await house.welcome(tenant)
        principal = operator(settings, tenant)
        if document_id:
            await house.erasure.erase(principal, document_id)
            await house.worker.drain()
            return await house.erasure.certificate(tenant, document_id)
        order = await (
            house.forgetting.collection(principal, collection) if collection else house.forgetting.everything(principal)
        )
        await _watched(house, tenant, order.id, quiet=as_json)
        await house.forgetting.finish()
        return await house.forgetting.certificate(tenant, order.id)

    certificate = in_house(settings, story)
    show(certificate)
    if certificate["state"] != "complete":
        people.print("not complete: what is left goes on by itself while `domicile serve` or `work` runs")
        raise Exit(UNFINISHED)


async def _watched(house: House, tenant: str, order_id: str, *, quiet: bool) -> None:
    columns = (TextColumn("erasing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=people, transient=True, disable=quiet or not people.is_terminal) as bar:
        task = bar.add_task("erasing", total=None)
        work = asyncio.create_task(house.worker.drain())
        while not work.done():
            await asyncio.wait([work], timeout=0.5)
            order = await house.forgetting.order(tenant, order_id)
            bar.update(task, completed=order.erased, total=order.documents)
        await work


@click.group()
def hold() -> None:
    """Keep documents from being erased, by anybody and by any rule, until the hold is lifted."""


_ON = (
    click.argument("document_id", required=False),
    click.option("--collection", default="", help="Instead: every document of this collection, later ones too."),
)


def _on(function: Any) -> Any:
    for option in reversed(_ON):
        function = option(function)
    return function


@hold.command()
@home_option
@tenant_option
@json_option
@_on
@click.option("--reason", required=True, help="Such as the court's file reference; it is shown to whoever is refused.")
def add(settings: Settings, tenant: str, as_json: bool, document_id: str | None, collection: str, reason: str) -> None:
    """Place a hold on a document or a collection."""

    async def story(house: House) -> dict[str, Any]:
        await house.welcome(tenant)
        who = operator(settings, tenant)
        made = await house.database.run(
            lambda: house.holds.add(who, document_id=document_id or "", collection=collection, reason=reason)
        )
        return made.facts()

    _told([in_house(settings, story, index=False)], as_json)


@hold.command(name="list")
@home_option
@tenant_option
@json_option
@click.option("--all", "also_lifted", is_flag=True, help="Those that were lifted, too.")
def listing(settings: Settings, tenant: str, as_json: bool, also_lifted: bool) -> None:
    """List holds with their reasons."""

    async def story(house: House) -> list[dict[str, Any]]:
        await house.welcome(tenant)
        found = await house.database.run(lambda: house.holds.listing(tenant, lifted=also_lifted))
        return [each.facts() for each in found]

    _told(in_house(settings, story, index=False), as_json)


@hold.command()
@home_option
@tenant_option
@json_option
@_on
def lift(settings: Settings, tenant: str, as_json: bool, document_id: str | None, collection: str) -> None:
    """End every hold on a document or a collection; erasing and the rules of retention reach it again."""

    async def story(house: House) -> list[dict[str, Any]]:
        await house.welcome(tenant)
        who = operator(settings, tenant)
        standing = await house.database.run(house.holds.listing, tenant)
        mine = [
            each for each in standing if (document_id and each.document == document_id)
            or (collection and each.collection == collection)
        ]  # fmt: skip
        if not mine:
            raise InvalidRequestError("no hold stands on that", hint="domicile hold list")
        return [(await house.database.run(house.holds.lift, who, each.id)).facts() for each in mine]

    _told(in_house(settings, story, index=False), as_json)


def _told(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        show({"holds": rows})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("hold", "on", "reason", "state"):
        table.add_column(title, overflow="fold")
    for row in rows:
        on = row["document"] or f"collection {row['collection']}"
        table.add_row(row["id"], on, row["reason"], "lifted" if row["lifted"] else "stands")
    people.print(table)


@click.group()
def retention() -> None:
    """See what the rules of `retention.toml` no longer keep."""


@retention.command()
@home_option
@json_option
@click.option("--tenant", default="", help="Only this tenant.")
def check(settings: Settings, tenant: str, as_json: bool) -> None:
    """Say what the next hourly run would erase and by which rule, and what a hold keeps; nothing is changed."""

    async def story(house: House) -> list[dict[str, Any]]:
        return [each.facts() for each in await house.forgetting.due(tenant or None)]

    rows = in_house(settings, story, index=False)
    if as_json:
        show({"due": rows})
        return
    for row in rows:
        people.print(
            f"{row['tenant']}: {row['rule']} ({row['law']}, {row['keep_days']} days): "
            f"{len(row['documents'])} documents are due, {len(row['held'])} are held",
            markup=False,
        )
        for each in row["held"]:
            people.print(f"  {each['document']} is held: {each['reason']}", markup=False)
    if not rows:
        people.print("nothing is due")
