"""`domicile keys`: the sealing keys, never their bytes."""

from typing import Any

import rich_click as click
from rich.table import Table

from service.cli.common import home_option, in_house, json_option, people, show
from service.house import House
from service.settings import Settings


@click.group()
def keys() -> None:
    """List, rotate and rewrap sealing keys."""


@keys.command(name="list")
@home_option
@json_option
def listing(settings: Settings, as_json: bool) -> None:
    """List key-encryption keys: tenant, jurisdiction, home site, version, state."""

    async def story(house: House) -> Any:
        return await house.custody.listing()

    _show(in_house(settings, story, index=False), as_json)


@keys.command()
@home_option
@json_option
def status(settings: Settings, as_json: bool) -> None:
    """Ask every key provider whether it answers."""

    async def story(house: House) -> Any:
        found = await house.keyring.status()
        return [{"site": site, **facts} for site, facts in found.items()]

    _show(in_house(settings, story, index=False), as_json)


@keys.command()
@home_option
@click.option("--tenant", required=True)
@click.option("--jurisdiction", required=True, help="Such as DE, or DE+FR.")
def rotate(settings: Settings, tenant: str, jurisdiction: str) -> None:
    """Make a new version of a key; then `keys rewrap` moves every document key under it."""

    async def story(house: House) -> list[dict[str, Any]]:
        await house.welcome(tenant)
        return await house.custody.rotate(tenant, jurisdiction)

    for row in in_house(settings, story, index=False):
        people.print(f"{tenant} {jurisdiction} at {row['site']}: version {row['version']} is active")


@keys.command()
@home_option
@click.option("--tenant", required=True)
@click.option("--jurisdiction", required=True, help="Such as DE, or DE+FR.")
def rewrap(settings: Settings, tenant: str, jurisdiction: str) -> None:
    """Wrap every document key anew under the active version; may be stopped and goes on where it was."""

    async def story(house: House) -> dict[str, int]:
        await house.welcome(tenant)
        return await house.custody.rewrap(tenant, jurisdiction)

    done = in_house(settings, story, index=False)
    people.print(f"{done['moved']} keys rewrapped, {done['left']} left, {done['refused']} do not open")


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        show({"keys": rows})
        return
    if not rows:
        people.print("no keys yet: the first document makes them")
        return
    table = Table(box=None, pad_edge=False)
    for title in rows[0]:
        table.add_column(title)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    people.print(table)
