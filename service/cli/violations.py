"""`domicile violations|reconcile`: what was found where it may not be, and who answered for it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.table import Table

from service.cli.common import home_option, in_house, json_option, operator, people, show, tenant_option
from service.house import House
from service.settings import Settings

notifiable_option = click.option(
    "--notifiable", type=click.Choice(["yes", "no"]), default=None, help="Your finding under GDPR 33."
)


@click.group(invoke_without_command=True)
@click.pass_context
@home_option
@tenant_option
@json_option
@click.option("--state", type=click.Choice(["open", "acknowledged", "excepted", "resolved"]), default=None)
def violations(context: click.Context, settings: Settings, tenant: str, as_json: bool, state: str | None) -> None:
    """List violations; acknowledge, except and resolve them."""
    if context.invoked_subcommand is not None:
        return

    async def story(house: House) -> list[dict[str, Any]]:
        found = await house.database.run(house.violations.listing, tenant, state=state or "")
        return [each.facts() for each in found]

    rows = in_house(settings, story, index=False)
    if as_json:
        show({"violations": rows})
        return
    table = Table("Violation", "Begin", "Category", "State", "Subject", "Policy", box=None)
    for row in rows:
        table.add_row(row["id"], row["begin"], row["category"], row["state"], row["subject"], row["policy"])
    people.print(table if rows else "0 violations are recorded")


@violations.command()
@home_option
@tenant_option
@click.argument("violation_id")
@notifiable_option
def acknowledge(settings: Settings, tenant: str, violation_id: str, notifiable: str | None) -> None:
    """Say that you have seen it."""
    _change(settings, tenant, "acknowledge", violation_id, by=_by(settings, tenant), notifiable=notifiable or "")


@violations.command(name="except")
@home_option
@tenant_option
@click.argument("violation_id")
@click.option("--reason", required=True, help="Reports print it.")
@click.option("--until", required=True, help="Last day, such as 2026-12-31.")
def except_(settings: Settings, tenant: str, violation_id: str, reason: str, until: str) -> None:
    """Bear with it until a day, for a reason."""
    try:
        end = datetime.fromisoformat(until).replace(hour=23, minute=59, second=59, tzinfo=UTC)
    except ValueError as error:
        raise click.UsageError("write the day like 2026-12-31") from error
    _change(settings, tenant, "excepted", violation_id, by=_by(settings, tenant), reason=reason, expires=end)


@violations.command()
@home_option
@tenant_option
@click.argument("violation_id")
@click.option("--done", "remediation", required=True, help="What was done about it.")
def resolve(settings: Settings, tenant: str, violation_id: str, remediation: str) -> None:
    """Close it, saying what was done."""
    _change(settings, tenant, "resolve", violation_id, by=_by(settings, tenant), remediation=remediation)


def _by(settings: Settings, tenant: str) -> str:
    return operator(settings, tenant).id


def _change(settings: Settings, tenant: str, what: str, violation_id: str, **more: Any) -> None:
    async def story(house: House) -> Any:
        def change() -> Any:
            return getattr(house.violations, what)(tenant, violation_id, **more)

        return await house.database.run(change)

    made = in_house(settings, story, index=False)
    people.print(f"{made.id} is {made.state}  (receipt {made.receipt})")


@click.command()
@home_option
@json_option
@click.option("--site", required=True, help="The Site whose server wrote the log.")
@click.option("--edge", "minutes", default=10.0, show_default=True, help="Minutes at the log's ends not judged.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
def reconcile(settings: Settings, as_json: bool, site: str, minutes: float, files: tuple[str, ...]) -> None:
    """Compare a Qdrant server's audit log (JSON lines) with the receipts; every difference becomes a violation.

    Exit code 1 when the two books differ.
    """
    from datetime import timedelta

    logs = {name: Path(name).read_bytes() for name in files}

    async def story(house: House) -> dict[str, Any]:
        house.engine.fleet.site(site)
        edge = timedelta(minutes=minutes)
        return await house.database.run(lambda: house.reconciling.reconcile(site, logs, edge=edge))

    found = in_house(settings, story, index=False)
    if as_json:
        show(found)
    else:
        people.print(
            f"{site}: {found['lines']} lines, {found['matched']} named by receipts, {found['plain']} of probes"
        )
        for row in found["not_in_receipts"]:
            people.print(f"  [red]no receipt[/] {row['time']} {row['method']} {row['request'] or '(no id)'}")
        for row in found["not_in_log"]:
            people.print(f"  [red]not in the log[/] receipt {row['receipt']} request {row['request']}")
        people.print(
            f"{len(found['violations'])} violations recorded; {found['edge']} requests too near the log's ends"
        )
    raise Exit(1 if found["not_in_receipts"] or found["not_in_log"] else 0)
