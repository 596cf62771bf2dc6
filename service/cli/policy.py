"""`domicile policy`: rules that people can read, try and compare before they take effect."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.table import Table

from residency.decision import Ask, Permit
from residency.route import Action
from residency.rulebook import Rulebook
from residency.tag import Tag
from service.cli.common import home_option, in_house, json_option, operator, people, show, show_refusal, tenant_option
from service.cli.rulemaking import activate, approve, diff, proposals, ticking, what_if, withdraw
from service.house import House
from service.settings import Settings


@click.group()
def policy() -> None:
    """Check, try, explain, compare and activate the rules."""


policy.add_command(diff)
policy.add_command(what_if)
policy.add_command(activate)
policy.add_command(approve)
policy.add_command(withdraw)
policy.add_command(proposals)


@policy.command()
@home_option
@json_option
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Default: those in force."
)
def check(settings: Settings, as_json: bool, folder: Path | None) -> None:
    """Load, validate and lint the rules, run the worked cases, and hold the invariants over Tag × Site × Action."""
    from residency.trial import examine
    from service.home import office, policies_of, rules

    fleet = rules(settings)[2]
    book = Rulebook.read(folder or policies_of(settings))
    tenants = None
    if settings.path.is_dir():  # without a home (in continuous integration) nobody can say which tenants there are
        with office(settings) as accounts:
            tenants = [tenant.id for tenant in accounts.tenants()]
    with ticking("asks ruled on") as tick:
        made = examine(book, fleet, tenants=tenants, now=datetime.now(UTC), progress=tick)
    checked = made.checked
    if as_json:
        show(
            {
                "digest": made.policy.digest,
                "set": book.digest,
                "sets": list(book.used),
                "clauses": sorted(made.policy.clauses),
                "findings": [str(each) for each in made.findings],
                "cases": made.cases,
                "failed": [f"{each.file}: {each.name}" for each in made.failed],
                "asked": checked.asked,
                "permitted": checked.permitted,
                "invariants_broken": [f"{each.invariant}: {each.question}" for each in checked.violations],
            }
        )
    else:
        people.print(made.policy.digest)
        sets = f", with the sets {', '.join(book.used)}" if book.used else ""
        people.print(f"{len(made.policy.clauses)} clauses validated and linted{sets}; {made.cases} worked cases")
        people.print(
            f"{checked.asked} asks over {len(fleet.sites)} sites and invented ones abroad, "
            f"{checked.permitted} permitted, {len(checked.violations)} against an invariant"
        )
        for line in made.problems:
            people.print(f"[red]wrong[/] {line}", markup=True, soft_wrap=True)
    if not made.good:
        raise Exit(1)


_OPTIONS = (
    click.option("--site", default="", help="At which site."),
    click.option("--jurisdiction", default="", help="Whose law binds the data, comma-separated."),
    click.option("--residency", default="EU", show_default=True, help="Where it may be processed."),
    click.option("--categories", default="", help="Such as health."),
    click.option("--classification", default=1, show_default=True),
    click.option("--activity", default="search", show_default=True, help="Entry of the Art. 30 register."),
    click.option("--public/--personal", "public", default=False),
)


def _asking(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@policy.command(name="try")
@home_option
@tenant_option
@json_option
@click.argument("action", type=click.Choice([str(each) for each in Action]))
@_asking
def try_(settings: Settings, tenant: str, as_json: bool, action: str, **told: Any) -> None:
    """Put one ask to the engine, with no data at all, and see the ruling."""
    _tried(settings, tenant, as_json, action, **told)


@policy.command()
@home_option
@tenant_option
@json_option
@click.argument("action", required=False, type=click.Choice([str(each) for each in Action]))
@_asking
def explain(settings: Settings, tenant: str, as_json: bool, action: str | None, **told: Any) -> None:
    """Say why an ask is permitted, or why not and what would help; without ACTION, what each clause means."""
    if action is not None:
        _tried(settings, tenant, as_json, action, **told)
        return
    from service.home import rules

    chosen = rules(settings)[1]
    rows = [
        {"id": each.id, "explain": each.explain, "law": each.law, "place": str(chosen.places[each.id])}
        for each in chosen.clauses.values()
    ]
    if as_json:
        show({"digest": chosen.digest, "clauses": rows})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("clause", "says", "law", "stands at"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    people.print(table)
    people.print(f"in force, as receipts name it: {chosen.digest}", soft_wrap=True)


def _tried(
    settings: Settings,
    tenant: str,
    as_json: bool,
    action: str,
    *,
    site: str,
    jurisdiction: str,
    residency: str,
    categories: str,
    classification: int,
    activity: str,
    public: bool,
) -> None:
    if not site or not jurisdiction:
        raise click.UsageError("an ask needs --site and --jurisdiction")

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        zones = house.engine.zones
        tag = Tag(
            jurisdictions=frozenset(zones.check(code) for code in _codes(jurisdiction)),
            residency=frozenset(zones.check(code) for code in _codes(residency)),
            personal=not public,
            categories=frozenset(_codes(categories)),
            classification=classification,
        )
        ask = Ask(operator(settings, tenant), Action(action), site, (tag,), activity)
        return house.engine.decide(ask), house.engine.policy.clauses

    decision, clauses = in_house(settings, story, index=False)
    if not isinstance(decision, Permit):
        show_refusal(decision, "none: nothing was asked for real", as_json=as_json)
        return
    if as_json:
        why = [{"policy": name, "text": clauses[name].explain, "law": clauses[name].law} for name in decision.policies]
        show({"permitted": True, "policies": list(decision.policies), "reasons": why})
        return
    people.print(f"[bold green]Permitted[/]: {action} at {site}")
    for name in decision.policies:
        people.print(f"  clause  [bold]{name}[/]: {clauses[name].explain}  [dim]({clauses[name].law})[/]")


@policy.command()
@home_option
@json_option
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export(settings: Settings, as_json: bool, folder: Path) -> None:
    """Write every table of zones and every set of rules that was ever in force into FOLDER, for `domicile verify`."""

    async def story(house: House) -> list[Path]:
        return await house.database.run(house.archive.export, folder)

    found = in_house(settings, story, index=False)
    if as_json:
        show({"folders": [str(path) for path in found]})
    else:
        for path in found:
            people.print(str(path), soft_wrap=True)


def _codes(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
