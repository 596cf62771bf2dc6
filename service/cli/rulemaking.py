"""`domicile policy diff|what-if|activate|approve|proposals`: what other rules would change; putting them in force."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.progress import Progress

from residency.decision import Principal
from residency.errors import ZoneError
from residency.hindsight import Law, without_adequacy
from residency.policy import PolicySet
from residency.rulebook import ZONES, Rulebook
from residency.zones import Zones
from service.cli.common import home_option, in_house, json_option, people, show
from service.errors import PolicyRejectedError
from service.house import House
from service.rulestore import Archive
from service.settings import Settings

WAITING = 4
"""Exit code of a proposal that waits for a second admin."""
SHOWN = 20
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
KEY_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@contextmanager
def ticking(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal while something long is counted."""
    with Progress(console=people, transient=True, disable=not people.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


@click.command()
@home_option
@json_option
@click.argument("old", type=FOLDER)
@click.argument("new", type=FOLDER)
def diff(settings: Settings, as_json: bool, old: Path, new: Path) -> None:
    """Count and list what NEW would newly permit and newly refuse, over this fleet and the documents held."""
    from residency.trial import consequence
    from service.home import database_of, office, rules

    zones, _, fleet = rules(settings)
    now = datetime.now(UTC)
    pairs = []
    for book in (Rulebook.read(old), Rulebook.read(new)):
        table = book.zones(now) if ZONES in book.files else zones
        pairs.append((PolicySet(book.rules(), table), table))
    with office(settings) as accounts:
        ceilings = {tenant.id: tenant.ceiling for tenant in accounts.tenants()}
    from ingestion.documents import Documents

    database = database_of(settings)
    try:
        rows = {tenant: Documents(database).placement(tenant) for tenant in ceilings}
    finally:
        database.close()
    with ticking("asks ruled on") as tick:
        found = consequence(*pairs[0], *pairs[1], fleet, rows=rows, ceilings=ceilings, now=now, progress=tick)
    held: list[dict[str, Any]] = [
        {
            "tenant": each.tenant,
            "tag": each.tag.facts(),
            "action": str(each.action),
            "site": each.site,
            "documents": each.documents,
            "change": "newly permitted" if each.permitted else "newly refused",
            "lies_there": each.lies_there,
            "policies": list(each.policies),
        }
        for each in found.held
    ]
    if as_json:
        examples = [str(each) for each in found.impact.examples]
        show({**found.facts(), "widens": found.widens, "examples": examples, "held": held})
        return
    _say(found.facts())
    for change in found.impact.examples:
        people.print(f"  {change}", soft_wrap=True)
    for row in held[:SHOWN]:
        there = " (they lie there)" if row["lies_there"] else ""
        law = "+".join(row["tag"]["jurisdictions"]) or "no law"
        people.print(
            f"  {row['change']}: {row['action']} at {row['site']} of {row['documents']} documents held by "
            f"{row['tenant']}, law {law}{there}",
            soft_wrap=True,
        )
    if len(held) > SHOWN:
        people.print(f"  and {len(held) - SHOWN} more; all with --json")


@click.command(name="what-if")
@home_option
@json_option
@click.option("--tenant", default="", help="Whose receipts; default: every tenant's.")
@click.option("--without", multiple=True, help="A zone whose every membership ends, such as US-DPF. Repeatable.")
@click.option(
    "--without-adequacy", multiple=True, help="A country whose adequacy decision falls, such as US. Repeatable."
)
@click.option("--on", "day", type=click.DateTime(["%Y-%m-%d"]), help="Judge as the law stands on that day.")
@click.option("--policies", type=FOLDER, help="Judge by another policies folder.")
@click.option(
    "--from", "since", type=click.DateTime(["%Y-%m-%d"]), help="First day of the record; default: 30 days ago."
)
@click.option("--to", "until", type=click.DateTime(["%Y-%m-%d"]), help="Last day of the record; default: today.")
def what_if(
    settings: Settings,
    as_json: bool,
    tenant: str,
    without: tuple[str, ...],
    without_adequacy: tuple[str, ...],
    day: datetime | None,
    policies: Path | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Judge what was recorded once more, under changed law: what would have been refused."""
    from residency.hindsight import rejudge

    if not (without or without_adequacy or day or policies):
        raise click.UsageError("say what changes: --without, --without-adequacy, --on or --policies")
    today = datetime.now(UTC).date()
    first = since.date() if since else today - timedelta(days=30)
    last = until.date() if until else today
    begin, end = (datetime.combine(each, time(), UTC) for each in (first, last + timedelta(days=1)))

    async def story(house: House) -> dict[str, Any]:
        engine, archive = house.engine, house.archive
        changed = _Changed(archive, engine.zones, without, without_adequacy, policies, day.date() if day else None)
        ceilings = {each.id: each.ceiling for each in await house.database.run(house.accounts.tenants)}
        found: dict[str, Any] = {}
        for name in [tenant] if tenant else sorted(ceilings):
            await house.welcome(name)
            seen = rejudge(house.ledger.entries(name, begin, end), engine.fleet, ceilings, archive, changed)
            found[name] = {
                "receipts": seen.receipts,
                "steps": seen.steps,
                "receipts_concerned": len(seen.touched),
                "would_be_refused": [
                    {"action": action, "site": site, "zone": zone, "reason": reason, "steps": steps,
                     "items": seen.items[action, site, zone, reason]}
                    for (action, site, zone, reason), steps in sorted(seen.refused.items())
                ],
                "refusals_that_would_be_permitted": seen.permitted_now,
                "not_judged": dict(seen.unknown),
                "examples": seen.examples,
            }  # fmt: skip
        return found

    found = in_house(settings, story, index=False)
    if as_json:
        show({"from": str(first), "to": str(last), "on": str(_day(day)), "tenants": found})
        return
    people.print(f"What was recorded from {first} to {last}, judged under the changed law:")
    for name, seen in found.items():
        people.print(
            f"{name}: {seen['steps']} steps in {seen['receipts']} receipts; "
            f"{sum(row['steps'] for row in seen['would_be_refused'])} would have been refused, "
            f"in {seen['receipts_concerned']} receipts"
        )
        for row in seen["would_be_refused"]:
            people.print(
                f"  {row['action']} at {row['site']} ({row['zone']}): {row['steps']} steps, {row['items']} items; "
                f"{row['reason']}",
                soft_wrap=True,
            )
        if seen["refusals_that_would_be_permitted"]:
            people.print(f"  {seen['refusals_that_would_be_permitted']} refusals would have been permits")
        for what, count in seen["not_judged"].items():
            people.print(f"  not judged: {count} steps ({what})")


class _Changed:
    """The law that each Receipt names, changed as it was asked for; `present` shows that what is named exists."""

    def __init__(
        self,
        archive: Archive,
        present: Zones,
        without: tuple[str, ...],
        annulled: tuple[str, ...],
        policies: Path | None,
        on: date | None,
    ) -> None:
        self._archive, self._without, self._annulled, self._on = archive, without, annulled, on
        self._book = Rulebook.read(policies) if policies else None
        self._made: dict[tuple[str, str], Law] = {}
        table = self._book.zones() if self._book and ZONES in self._book.files else present
        for code in without:
            table.check(code)
        for code in annulled:
            without_adequacy(table, code)

    def of(self, policy: str, zones: str) -> Law:
        """Give the changed law for a Receipt that names these digests."""
        key = (policy, zones)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, policy: str, zones: str) -> Law:
        law = self._archive.of(policy, zones)
        table, chosen = law.zones, law.policy
        if self._book:
            table = self._book.zones() if ZONES in self._book.files else table
            chosen = PolicySet(self._book.rules(), table)
        for code in self._without:
            table = table.without(code) if table.known(code) else table
        for code in self._annulled:
            with suppress(ZoneError):  # there was no such decision in the table of that time
                table = without_adequacy(table, code)
        return Law(chosen, table, self._on)


def _day(day: datetime | None) -> date | str:
    return day.date() if day else "each its own day"


@click.command()
@home_option
@json_option
@click.argument("folder", type=FOLDER)
@click.option("--key-file", required=True, type=KEY_FILE, help="File with an admin's API key.")
@click.option("--approve-key-file", type=KEY_FILE, help="File with a second admin's key, to approve at once.")
def activate(settings: Settings, as_json: bool, folder: Path, key_file: Path, approve_key_file: Path | None) -> None:
    """Put FOLDER in force after its whole trial; one that widens anything waits for a second admin (exit code 4)."""
    book = Rulebook.read(folder)

    async def story(house: House) -> dict[str, Any]:
        first = _signed(house, key_file)
        with ticking("asks ruled on") as tick:
            made = house.rulemaking.propose(book, first, tick)
            if made["state"] == "waiting" and approve_key_file is not None:
                made = house.rulemaking.approve(made["digest"], _signed(house, approve_key_file), tick)
        return made

    _told(_governed(settings, story), as_json)


@click.command()
@home_option
@json_option
@click.argument("digest")
@click.option("--key-file", required=True, type=KEY_FILE, help="File with an admin's API key, not the proposer's.")
def approve(settings: Settings, as_json: bool, digest: str, key_file: Path) -> None:
    """Put a waiting proposal in force with a second admin's key; it is tried once more before."""

    async def story(house: House) -> dict[str, Any]:
        with ticking("asks ruled on") as tick:
            return house.rulemaking.approve(digest, _signed(house, key_file), tick)

    _told(_governed(settings, story), as_json)


@click.command()
@home_option
@json_option
@click.argument("digest")
@click.option("--key-file", required=True, type=KEY_FILE, help="File with an admin's API key, the proposer's or not.")
def withdraw(settings: Settings, as_json: bool, digest: str, key_file: Path) -> None:
    """Take a waiting proposal back, so that nobody can approve it any more; the ledger keeps that it was made."""

    async def story(house: House) -> dict[str, Any]:
        return house.rulemaking.withdraw(digest, _signed(house, key_file))

    made: dict[str, Any] = in_house(settings, story, index=False)
    if as_json:
        show(made)
    else:
        people.print(f"[bold]Withdrawn[/]: {made['digest']}", soft_wrap=True)


@click.command()
@home_option
@json_option
def proposals(settings: Settings, as_json: bool) -> None:
    """List what was proposed, by whom, and what became of it."""

    async def story(house: House) -> list[dict[str, Any]]:
        return house.rulemaking.proposals()

    found = in_house(settings, story, index=False)
    if as_json:
        show({"proposals": found})
        return
    if not found:
        people.print("0 proposals were made")
    for each in found:
        people.print(
            f"{each['digest'][:23]}…  {each['state']}  proposed by {each['proposed_by']}"
            f"{'  approved by ' + each['approved_by'] if each['approved_by'] else ''}  "
            f"newly permitted {each['newly_permitted']}, newly refused {each['newly_refused']}",
            soft_wrap=True,
        )


def _signed(house: House, file: Path) -> Principal:
    return house.accounts.check(file.read_text(encoding="utf-8").strip())


def _governed(settings: Settings, story: Callable[[House], Any]) -> dict[str, Any]:
    try:
        made: dict[str, Any] = in_house(settings, story, index=False)
    except PolicyRejectedError as error:
        for line in error.problems:
            people.print(f"[red]wrong[/] {line}", soft_wrap=True)
        raise
    return made


def _told(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show(made)
    else:
        _say(made)
        for line in made["examples"]:
            people.print(f"  {line}", soft_wrap=True)
        if made["state"] == "activated":
            people.print(f"[bold green]In force[/]: {made['digest']}; running services take it over within seconds")
            people.print(f"Receipts name its rules {made['policy']}", soft_wrap=True)
        else:
            people.print("[bold yellow]Waiting[/]: it permits what was refused, so a second admin must approve it:")
            people.print(f"  domicile policy approve {made['digest'][7:19]} --key-file THEIR-KEY-FILE", soft_wrap=True)
    if made["state"] != "activated":
        raise Exit(WAITING)


def _say(facts: dict[str, Any]) -> None:
    people.print(
        f"of {facts['asked']} asks over this fleet: newly permitted {facts['newly_permitted']}, "
        f"newly refused {facts['newly_refused']}"
    )
    if facts["newly_permitted_beyond_fleet"]:
        people.print(f"newly permitted at invented sites abroad: {facts['newly_permitted_beyond_fleet']}")
    people.print(
        f"documents held that are concerned: {facts['documents_newly_permitted']} newly permitted somewhere, "
        f"{facts['documents_newly_refused']} newly refused somewhere"
    )
