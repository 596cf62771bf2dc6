"""`domicile collections`: sets of documents, and in what form their vectors and words lie at shards."""

from typing import Any

import rich_click as click
from rich.table import Table

from residency.protection import VectorMode, WordMode
from service.cli.common import home_option, in_house, json_option, people, show, tenant_option
from service.house import House
from service.settings import Settings


@click.group()
def collections() -> None:
    """List collections, and make one with the form of its vectors and words."""


@collections.command(name="list")
@home_option
@tenant_option
@json_option
def listing(settings: Settings, tenant: str, as_json: bool) -> None:
    """List a tenant's collections."""

    async def story(house: House) -> list[dict[str, Any]]:
        found = await house.database.run(house.documents.collections, tenant)
        return [{"name": each.name, "vectors": each.vectors, "words": each.words} for each in found]

    rows = in_house(settings, story, index=False)
    if as_json:
        show({"collections": rows})
        return
    table = Table("name", "vectors", "words", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    people.print(table)


@collections.command()
@home_option
@tenant_option
@click.argument("name")
@click.option("--vectors", type=click.Choice([str(each) for each in VectorMode]), help="Default: rotated.")
@click.option("--words", type=click.Choice([str(each) for each in WordMode]), help="Default: auto.")
def make(settings: Settings, tenant: str, name: str, vectors: str | None, words: str | None) -> None:
    """Make a collection; its form stays as it is made. See docs/sealing.md."""

    async def story(house: House) -> str:
        await house.welcome(tenant)
        modes = VectorMode(vectors) if vectors else None, WordMode(words) if words else None
        made = await house.database.run(house.documents.collection, tenant, name, vectors=modes[0], words=modes[1])
        return f"{made.name}: vectors {made.vectors}, words {made.words}"

    people.print(in_house(settings, story, index=False), markup=False)
