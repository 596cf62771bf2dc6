"""`domicile policy`: rules that people can read, try and compare before they take effect."""

from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.table import Table

from residency import impact
from residency.cases import run_cases
from residency.decision import Ask, Permit
from residency.policy import PolicySet
from residency.route import Action
from residency.tag import Tag
from service.cli.common import home_option, in_house, json_option, operator, people, show, show_refusal, tenant_option
from service.house import House
from service.settings import Settings


@click.group()
def policy() -> None:
    """Check, try, explain and compare the rules."""


@policy.command()
@home_option
@json_option
def check(settings: Settings, as_json: bool) -> None:
    """Load, validate and lint the rules, run the worked cases, and hold the invariants over the fleet."""
    from service.bootstrap import policies_of, rules

    zones, chosen, fleet = rules(settings)
    results = run_cases(policies_of(settings))
    failed = [result for result in results if not result.passed]
    broken = impact.check(chosen, zones, fleet)
    lines = [f"{each.invariant}: {each.question} by {', '.join(each.policies)}" for each in broken.violations]
    if as_json:
        show(
            {
                "digest": chosen.digest,
                "clauses": sorted(chosen.clauses),
                "cases": len(results),
                "failed": [f"{result.file}: {result.name}" for result in failed],
                "invariants_broken": lines,
            }
        )
    else:
        people.print(f"{chosen.digest}")
        people.print(f"{len(chosen.clauses)} clauses validated and linted; {len(results)} worked cases")
        for result in failed:
            people.print(f"[red]fails[/] {result.file}: {result.name}: wanted {result.wanted}, got {result.got}")
        people.print(
            f"{broken.asked} asks over {len(fleet.sites)} sites, {broken.permitted} permitted, "
            f"{len(lines)} against an invariant"
        )
        for line in lines:
            people.print(f"[red]broken[/] {line}")
    if failed or lines:
        raise Exit(1)


@policy.command(name="try")
@home_option
@tenant_option
@json_option
@click.argument("action", type=click.Choice([str(each) for each in Action]))
@click.option("--site", required=True, help="At which site.")
@click.option("--jurisdiction", required=True, help="Whose law binds the data, comma-separated.")
@click.option("--residency", default="EU", show_default=True, help="Where it may be processed.")
@click.option("--categories", default="", help="Such as health.")
@click.option("--classification", default=1, show_default=True)
@click.option("--public/--personal", "public", default=False)
def try_(
    settings: Settings,
    tenant: str,
    as_json: bool,
    action: str,
    site: str,
    jurisdiction: str,
    residency: str,
    categories: str,
    classification: int,
    public: bool,
) -> None:
    """Put one ask to the engine, with no data at all, and see the ruling."""

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
        return house.engine.decide(Ask(operator(settings, tenant), Action(action), site, (tag,)))

    decision = in_house(settings, story, index=False)
    if not isinstance(decision, Permit):
        show_refusal(decision, "none: nothing was asked for real", as_json=as_json)
        return
    if as_json:
        show({"permitted": True, "policies": list(decision.policies)})
    else:
        people.print(f"[bold green]Permitted[/]: {action} at {site}, by {', '.join(decision.policies)}")


@policy.command()
@home_option
@json_option
def explain(settings: Settings, as_json: bool) -> None:
    """Say in plain words what each clause does, and the law it rests on."""
    from service.bootstrap import rules

    chosen = rules(settings)[1]
    rows = [{"id": each.id, "explain": each.explain, "law": each.law} for each in chosen.clauses.values()]
    if as_json:
        show({"digest": chosen.digest, "clauses": rows})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("clause", "says", "law"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    people.print(table)


@policy.command()
@home_option
@json_option
@click.argument("old", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("new", type=click.Path(exists=True, file_okay=False, path_type=Path))
def diff(settings: Settings, as_json: bool, old: Path, new: Path) -> None:
    """Count and list what another set of rules would newly permit and newly refuse, over this fleet."""
    from service.bootstrap import rules

    zones, _, fleet = rules(settings)
    change = impact.diff(PolicySet.load(old, zones), PolicySet.load(new, zones), zones, fleet)
    if as_json:
        show(
            {
                "permitted": change.newly_permitted,
                "refused": change.newly_refused,
                "asked": change.asked,
                "examples": [str(each) for each in change.examples],
            }
        )
        return
    people.print(
        f"of {change.asked} asks: newly permitted {change.newly_permitted}, newly refused {change.newly_refused}"
    )
    for line in change.examples:
        people.print(f"  {line}")


def _codes(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
