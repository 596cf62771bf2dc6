"""`domicile review|retag`: Documents whose Tag is in dispute, and narrower Tags for live ones."""

from collections.abc import Callable
from typing import Any

import rich_click as click
from rich.table import Table

from ingestion.decisions import GROUNDS, Ruled, Verdict
from service.cli.common import home_option, in_house, json_option, operator, people, show, show_refusal, tenant_option
from service.house import House
from service.settings import Settings

_TAG = (
    click.option("--jurisdiction", default=None, help="Whose law binds it, all of them, comma-separated."),
    click.option("--residency", default=None, help="Where it may be processed, comma-separated."),
    click.option("--categories", default=None, help="All of them, such as health,finance."),
    click.option("--classification", type=int, default=None, help="0 public to 4 top secret."),
    click.option("--personal", is_flag=True, default=None, help="It holds personal data."),
    click.option("--ground", type=click.Choice(GROUNDS), required=True, help="Why; the Ledger prints it."),
    click.option("--note", default="", help="Own words; sealed with the evidence."),
)


def _ruled(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_TAG):
        function = option(function)
    return function


@click.group()
def review() -> None:
    """List, show and decide Tags in dispute."""


@review.command(name="list")
@home_option
@tenant_option
@json_option
def list_(settings: Settings, tenant: str, as_json: bool) -> None:
    """List documents that wait for a reviewer."""
    from ingestion.documents import State
    from ingestion.states import RETAGGING

    async def story(house: House) -> list[dict[str, Any]]:
        await house.welcome(tenant)
        rows: list[dict[str, Any]] = []
        cursor = ""
        while True:
            entries, cursor = await house.catalogue.listing(
                operator(settings, tenant), states=[State.QUARANTINED], cursor=cursor, limit=100
            )
            rows += [entry.facts() for entry in entries if entry.document.cause != RETAGGING]
            if not cursor:
                return rows

    rows = in_house(settings, story, index=False)
    if as_json:
        show({"reviews": rows})
        return
    table = Table("Document", "Name", "Declared", "Site", "Why", box=None)
    for row in rows:
        law = "+".join(row["tag"]["jurisdictions"])
        table.add_row(row["id"], row["name"] or "(withheld)", law, row["site"], (row["error"] or {}).get("code", ""))
    people.print(table if rows else "0 documents wait for a reviewer")


@review.command(name="show")
@home_option
@tenant_option
@json_option
@click.argument("document_id")
def show_(settings: Settings, tenant: str, as_json: bool, document_id: str) -> None:
    """Show what was declared, what was found and where, and the Tag that follows. Ends with 3 when refused."""
    from ingestion.intake import Refused
    from service.api.reviews import review_out

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        principal = operator(settings, tenant)
        entry = await house.catalogue.get(principal, document_id)
        found = await house.reviewing.look(principal, document_id)
        return found if isinstance(found, Refused) else review_out(entry, found)

    found = in_house(settings, story, index=False)
    if isinstance(found, Refused):
        show_refusal(found.refusal, found.receipt, as_json=as_json)
    if as_json:
        show(found)
        return
    people.print(f"{found['name'] or '(name withheld)'}: {found['state']} at {found['site']}")
    people.print(f"  declared   {_words(found['tag'])}")
    people.print(f"  suggested  {_words(found['suggested'])}")
    table = Table("Kind", "Zone", "Page", "Place", "What", "Rule", box=None)
    for item in found["evidence"]:
        place = f"{item['start']}-{item['end']}" if item["end"] else ""
        page = str(item.get("page") or "")
        table.add_row(item["kind"], item["zone"], page, place, item["what"], item.get("rule", ""))
    people.print(table)
    if found["decision"]:
        people.print(f"  decided    {found['decision']['action']} by {found['decision']['by']}")


@review.command()
@home_option
@tenant_option
@json_option
@click.argument("document_id")
@click.argument("action", type=click.Choice([str(each) for each in Verdict]))
@_ruled
def decide(settings: Settings, tenant: str, as_json: bool, document_id: str, action: str, **wanted: Any) -> None:
    """Accept the declared Tag, narrow it, or reject (erase) the document. Ends with 3 when the policy refuses."""
    _decide(settings, tenant, as_json, document_id, Verdict(action), wanted)


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("document_id")
@_ruled
def retag(settings: Settings, tenant: str, as_json: bool, document_id: str, **wanted: Any) -> None:
    """Give a live document a narrower Tag; it moves where its Site is no longer permitted."""
    _decide(settings, tenant, as_json, document_id, Verdict.NARROW, wanted)


def _decide(settings: Settings, tenant: str, as_json: bool, document_id: str, verdict: Verdict, wanted: Any) -> None:
    from ingestion.reviewing import Ruling

    ruling = Ruling(
        verdict,
        wanted["ground"],
        wanted["note"],
        jurisdictions=_codes(wanted["jurisdiction"]),
        residency=_codes(wanted["residency"]),
        personal=wanted["personal"] or None,
        categories=_codes(wanted["categories"]),
        classification=wanted["classification"],
    )

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        principal = operator(settings, tenant)
        await house.catalogue.get(principal, document_id)
        made = await house.reviewing.decide(principal, document_id, ruling)
        await house.worker.drain()
        return made, await house.database.run(house.documents.get, tenant, document_id)

    made, now = in_house(settings, story)
    if not isinstance(made, Ruled):
        show_refusal(made.refusal, made.receipt, as_json=as_json)
        return
    if as_json:
        show(made.facts() | {"state": str(now.state), "site": now.site})
    else:
        people.print(f"{made.verdict}: {made.document} is {now.state} at {now.site}  (receipt {made.receipt})")


def _words(tag: dict[str, Any]) -> str:
    parts = ["law of " + "+".join(tag["jurisdictions"]), "in " + ",".join(tag["residency"])]
    parts += ["personal"] if tag["personal"] else []
    return "; ".join([*parts, *tag["categories"], f"class {tag['classification']}"])


def _codes(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    return frozenset(part.strip() for part in text.split(",") if part.strip())
