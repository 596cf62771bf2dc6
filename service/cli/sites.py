"""`domicile sites` and `domicile move`: places, their certificates, what they hold, and taking a document elsewhere."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from service.cli.common import (
    home_option,
    in_house,
    json_option,
    operator,
    people,
    run,
    show,
    show_refusal,
    tenant_option,
)
from service.cli.firewall import firewall
from service.house import House
from service.settings import Settings

UNFINISHED = 4
"""Exit code when something is closed, found or not done yet."""
TURNS = 50
"""Looks at a move before the command leaves it to `domicile serve`."""


@click.group()
def sites() -> None:
    """List, probe and certify Sites; look for data that lies where it may not."""


sites.add_command(firewall)


@sites.command(name="list")
@home_option
@json_option
def listing(settings: Settings, as_json: bool) -> None:
    """List Sites with what the last probe of each found; works while `domicile serve` runs."""
    _show(_recorded(settings), as_json=as_json)


@sites.command()
@home_option
@json_option
@click.argument("names", nargs=-1)
def probe(settings: Settings, as_json: bool, names: tuple[str, ...]) -> None:
    """Probe Sites now, from beside a running service: certificates, Qdrant servers, keys.

    Embedded shards belong to the process that serves: of a Site that has one, what that process found is shown.
    Ends with 4 when a Site is closed.
    """
    from service.bootstrap import lookout
    from service.home import rules
    from service.outfitting import tripwire

    fleet = rules(settings)[2]
    chosen = [fleet.site(name) for name in names] or list(fleet.sites.values())
    outside = [site.id for site in chosen if (held := site.holding("shard")) is None or held.scheme != "edge"]

    async def story() -> dict[str, dict[str, Any]]:
        tripwire(settings, fleet).install()
        async with lookout(settings) as probing:
            looks = await probing.once(outside)
            rows = {row["id"]: row for row in await probing.listing()}
            return {look.site: rows[look.site] | {"remedy": look.remedy, "facts": look.facts} for look in looks}

    found = {row["id"]: row for row in _recorded(settings)} | (run(story()) if outside else {})
    rows = [found[site.id] for site in chosen]
    _show(rows, as_json=as_json)
    if any(row["state"] == "closed" for row in rows):
        raise Exit(UNFINISHED)


@sites.command()
@home_option
@json_option
@click.argument("names", nargs=-1)
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder for the files; default: certificates/ in the home."
)
@click.option("--host", "hosts", multiple=True, metavar="SITE=HOST", help="One more host of a Site; may be repeated.")
@click.option("--days", default=397, show_default=True, help="How long a server's certificate holds.")
@click.option("--root-days", default=5 * 365, show_default=True, help="How long a Zone's root holds.")
@click.option("--renew-days", default=30, show_default=True, help="Make anew what has fewer days left.")
@click.option("--new-keys", is_flag=True, help="New keys for servers, too; pinned keys have to follow.")
def certify(
    settings: Settings,
    as_json: bool,
    names: tuple[str, ...],
    out: str | None,
    hosts: tuple[str, ...],
    days: int,
    root_days: int,
    renew_days: int,
    new_keys: bool,
) -> None:
    """Make a certificate authority for each Zone, and certificates of it for its Sites and for this service.

    Run again it renews what is about to end and leaves the rest. Keep each root.key where this machine cannot read it.
    """
    from service.certifying import Wishes, certify
    from service.home import rules

    pairs = []
    for text in hosts:
        site, sign, host = text.partition("=")
        if not (site and sign and host):
            raise click.BadParameter("write it as SITE=HOST", param_hint="--host")
        pairs.append((site, host))
    wishes = Wishes(days=days, root_days=root_days, renew_days=renew_days, new_keys=new_keys)
    folder = Path(out).absolute() if out else settings.path / "certificates"
    done = certify(rules(settings)[2], folder, sites=names, hosts=pairs, wishes=wishes)
    if as_json:
        show({"zones": [each.facts() for each in done]})
        return
    for each in done:
        made = ", ".join(path.name for path in each.made) or "nothing new: all of it is good"
        people.print(f"[bold]{each.zone}[/]  {each.folder}: {made}")
        for name, until in each.until.items():
            people.print(f"  {name} until {until:%Y-%m-%d}")
        for site, lines in each.sites.items():
            people.print(f"  into \\[\\[site]] {site} of fleet.toml:")
            click.echo("\n".join(f"    {line}" for line in lines.splitlines()))


@sites.command()
@home_option
@json_option
@click.option("--again", is_flag=True, help="Put documents that lack points back to their sealed original.")
def drift(settings: Settings, as_json: bool, again: bool) -> None:
    """Look for points and documents that lie where they may not, belong to nobody, or are missing.

    `serve` does this every hour. Findings become violation records; ends with 4 when there are any.
    """

    async def story(house: House) -> tuple[dict[str, Any], int]:
        for tenant in await house.database.run(house.accounts.tenants):
            await house.welcome(tenant.id)
        done = await house.drift.check()
        redone = 0
        if again:
            for finding in done.found:
                if finding.kind == "missing":
                    redone += await house.database.run(house.drift.again, finding)
            await house.worker.drain()
        return done.facts(), redone

    facts, redone = in_house(settings, story)
    if as_json:
        show(facts | {"again": redone})
    else:
        for each in facts["found"]:
            people.print(f"[bold]{each['kind']}[/]  {each['records']} at {each['site']}, tenant {each['tenant']}")
            people.print(f"  {each['subject']}  {each['policy']}")
            people.print(f"  remedy  {each['remedy']}")
        for each in facts["unseen"]:
            people.print(f"[yellow]not looked at[/]  {each['site']}, tenant {each['tenant']}: {each['cause']}")
        people.print(
            f"{len(facts['found'])} findings, {facts['mended']} points deleted, {redone} documents begun again"
        )
    if facts["found"] or facts["unseen"]:
        raise Exit(UNFINISHED)


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("document_id")
@click.option("--to", "site", required=True, help="The Site it is to lie at.")
def move(settings: Settings, tenant: str, as_json: bool, document_id: str, site: str) -> None:
    """Move a document to another Site: copy, check, switch, clear the old one; run again it goes on where it was.

    Originals of its earlier versions at the old Site are erased with it. Ends with 3 when the policy refuses.
    """
    from ingestion.intake import Refused

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        principal = operator(settings, tenant)
        await house.catalogue.get(principal, document_id)
        outcome = await house.moving.move(principal, document_id, site)
        if isinstance(outcome, Refused):
            return outcome
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=people, disable=as_json or not people.is_terminal, transient=True) as progress:
            status, task = outcome, progress.add_task(outcome.state)
            for _ in range(TURNS):
                if status.state in ("done", "failed"):
                    break
                await house.worker.drain()
                status = await house.moving.status(tenant, document_id)
                progress.update(task, description=status.state)
                await asyncio.sleep(0.1)
            return status

    outcome = in_house(settings, story)
    if isinstance(outcome, Refused):
        show_refusal(outcome.refusal, outcome.receipt, as_json=as_json)
        return
    if as_json:
        show(outcome.facts())
    else:
        people.print(f"{outcome.state}: {outcome.document} from {outcome.source} to {outcome.target}")
        if outcome.cause:
            people.print(f"  it waits: {outcome.cause}; `domicile serve` or the same command goes on with it")
    if outcome.state != "done":
        raise Exit(UNFINISHED)


def _recorded(settings: Settings) -> list[dict[str, Any]]:
    """Give every Site as the last recorded probe left it."""
    from service.home import database_of, rules
    from service.sightings import known

    fleet = rules(settings)[2]
    database = database_of(settings)
    try:
        return known(database, fleet, datetime.now(UTC), settings.rules.probe_ttl_s)
    finally:
        database.close()


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show({"sites": rows})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("site", "zone", "operator in", "grade", "state", "since", "why, and what to do"):
        table.add_column(title, overflow="fold")
    for row in rows:
        why = "; ".join(part for part in (row["cause"], row["remedy"]) if part)
        if not why and "lapsing" in row["facts"]:
            why = f"its certificate ends on {row['facts']['lapsing'][:10]}"
        since = (row["since"] or "")[:16]
        owner, grade = row["operator"]["zone"], str(row["grade"])
        table.add_row(row["id"], row["zone"], owner, grade, row["state"], since.replace("T", " "), why)
    people.print(table)
