"""`domicile keys`: the sealing keys, never their bytes."""

from typing import Any

import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from service.cli.common import home_option, in_house, json_option, people, show
from service.errors import InvalidRequestError
from service.house import House
from service.settings import Settings


@click.group()
def keys() -> None:
    """List, rotate, rewrap and destroy sealing keys."""


@keys.command(name="list")
@home_option
@json_option
def listing(settings: Settings, as_json: bool) -> None:
    """List key-encryption keys: tenant, jurisdiction, home site, version, state, when each is destroyed."""

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

    rows = in_house(settings, story, index=False)
    if as_json:
        show({"keys": rows})
        return
    for row in rows:
        rest = ", ".join(f"{name} {value}" for name, value in row.items() if name not in {"site", "ok", "error"})
        people.print(f"{row['site']}: {'answers; ' + rest if row['ok'] else row['error']}", markup=False)


@keys.command()
@home_option
@click.option("--tenant", help="Whose key.")
@click.option("--jurisdiction", help="Such as DE, or DE+FR.")
@click.option("--search", help="Instead: bring the index of this site under new search keys.", metavar="SITE")
@click.option("--root", help="Instead: give the key folder of this site a new root key.", metavar="SITE")
def rotate(
    settings: Settings, tenant: str | None, jurisdiction: str | None, search: str | None, root: str | None
) -> None:
    """Make a new version of a key; then `keys rewrap` moves every document key under it."""
    if bool(root) == bool(tenant and jurisdiction) or (root and (tenant or jurisdiction)):
        raise InvalidRequestError("give --tenant and --jurisdiction, or --root alone", hint="domicile keys list")

    if search:
        _rekey(settings, tenant or "", jurisdiction or "", search)
        return

    async def story(house: House) -> list[dict[str, Any]]:
        if root:
            return [{"root": await house.custody.roll(root)}]
        await house.welcome(tenant or "")
        return await house.custody.rotate(tenant or "", jurisdiction or "")

    for row in in_house(settings, story, index=False):
        if root:
            kept = row["root"]
            people.print(f"{root}: {kept['keks']} keys under a new root" if kept else f"{root}: its root is not ours")
        else:
            people.print(f"{tenant} {jurisdiction} at {row['site']}: version {row['version']} is active")


def _rekey(settings: Settings, tenant: str, jurisdiction: str, site: str) -> None:
    if not (tenant and jurisdiction):
        raise InvalidRequestError("give --tenant and --jurisdiction beside --search", hint="domicile keys list")

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        columns = (TextColumn("rekeying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=people, transient=True) as bar:
            task = bar.add_task("rekeying", total=None)
            return await house.rekeying.roll(
                tenant, jurisdiction, site, progress=lambda done, of: bar.update(task, completed=done, total=of)
            )

    done = in_house(settings, story)
    people.print(
        f"{tenant} {jurisdiction} at {site}: epoch {done.epoch} is in use; {done.documents} documents and "
        f"{done.points} passages brought, {done.damaged} do not open, {done.removed} old points removed"
    )


@keys.command()
@home_option
@json_option
@click.option("--tenant", required=True)
@click.option("--jurisdiction", required=True, help="Such as DE, or DE+FR.")
def rewrap(settings: Settings, tenant: str, jurisdiction: str, as_json: bool) -> None:
    """Wrap every document key anew under the active version; may be stopped and goes on where it was."""

    async def story(house: House) -> dict[str, int]:
        await house.welcome(tenant)
        columns = (TextColumn("rewrapping"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=people, transient=True) as bar:
            task = bar.add_task("rewrapping", total=None)

            def progress(done: int, of: int) -> None:
                bar.update(task, completed=done, total=of)

            return await house.custody.rewrap(tenant, jurisdiction, progress=progress)

    done = in_house(settings, story, index=False)
    if as_json:
        show(done)
        return
    people.print(f"{done['moved']} keys rewrapped, {done['left']} left, {done['refused']} do not open")


@keys.command()
@home_option
@json_option
@click.option("--tenant", required=True)
@click.option("--jurisdiction", required=True, help="Such as DE, or DE+FR.")
@click.option("--version", type=int, help="This version alone; else all whose time has come.")
def destroy(settings: Settings, tenant: str, jurisdiction: str, version: int | None, as_json: bool) -> None:
    """Destroy retired versions whose time has come, for ever: old backups of the database no longer open."""

    async def story(house: House) -> list[dict[str, Any]]:
        await house.welcome(tenant)
        done = await house.custody.destroy(tenant, jurisdiction, version)
        await house.tending.complete()
        return done

    done = in_house(settings, story, index=False)
    if as_json:
        show({"destroyed": done})
        return
    for row in done:
        people.print(f"{tenant} {jurisdiction} at {row['site']}: version {row['version']} is destroyed")
    if not done:
        people.print("nothing is due: `domicile keys list` shows when each version is")


@keys.command(name="export-public")
@home_option
@json_option
def export_public(settings: Settings, as_json: bool) -> None:
    """Print the public keys that others check or seal with: the ledger's, and those of write-only intake."""
    from service.home import public_keys

    found = public_keys(settings)
    if as_json:
        show({"keys": found})
        return
    for row in found:
        click.echo(f"{row['use']}\t{row['key']}")


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        show({"keys": rows})
        return
    if not rows:
        people.print("no keys yet: the first document makes them")
        return
    table = Table(box=None, pad_edge=False)
    for title in rows[0]:
        table.add_column(title.replace("_", " "))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    people.print(table)
