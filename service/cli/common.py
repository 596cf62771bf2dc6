"""What every verb shares: the home option, JSON output, running a story in the house, the operator as a principal."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

import msgspec
import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.table import Table

from residency.decision import Principal, Refusal
from service.accounts import ACTIVITIES, SCOPES
from service.settings import Settings, load

T = TypeVar("T")
REFUSED = 3
"""Exit code of a Refusal."""
people = Console(stderr=True, highlight=False)
"""Where text for people goes."""


def home_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--home`, read the settings, hand them over as `settings`."""

    @click.option("--home", envvar="DOMICILE_HOME", default=".domicile", show_default=True, help="Domicile's folder.")
    @wraps(function)
    def with_settings(*args: Any, home: str, **kwargs: Any) -> Any:
        return function(*args, settings=load(home), **kwargs)

    return with_settings


def tenant_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--tenant`."""
    return click.option("--tenant", default="default", show_default=True, help="Whose documents.")(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(function)


def operator(settings: Settings, tenant: str) -> Principal:
    """Give whoever sits at this machine as a principal of the tenant: all scopes, ruled on like everybody."""
    return Principal(
        id="operator",
        tenant=tenant,
        activities=ACTIVITIES,
        scopes=frozenset(SCOPES),
        zone=settings.here.zone,
    )


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run one story to its end."""
    return asyncio.run(story)


def in_house(
    settings: Settings,
    story: Callable[..., Awaitable[T]],
    *,
    index: bool = True,
    work: bool = False,
    within: str = "",
) -> T:
    """Build the house, run the story in it, close the house."""

    async def whole() -> T:
        from service.bootstrap import domicile
        from service.home import rules
        from service.outfitting import tripwire

        tripwire(settings, rules(settings)[2]).install()
        async with domicile(settings, index=index, work=work, within=within) as house:
            return await story(house)

    return run(whole())


def show(data: Any) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n")
    sys.stdout.flush()


def show_refusal(refusal: Refusal, receipt: str, *, as_json: bool) -> None:
    """Print a Refusal with its clauses and remedy, and end with exit code 3."""
    if as_json:
        show({"refused": refusal.facts(), "receipt": receipt})
    else:
        people.print(f"[bold red]Refused[/]: {refusal.ask.action} at {refusal.ask.site or 'any site'}")
        for clause in refusal.clauses:
            people.print(f"  clause  [bold]{clause.id}[/]: {clause.explain}  [dim]({clause.law})[/]")
        for policy, condition in refusal.why_not.items():
            people.print(f"  why not [bold]{policy}[/]: needs {condition}", markup=True)
        if refusal.remedy:
            people.print(f"  remedy  {refusal.remedy}")
        people.print(f"  receipt {receipt}")
    raise Exit(REFUSED)


def table_of(rows: list[dict[str, Any]]) -> None:
    """Print documents for people: state, place and what to do next."""
    table = Table(box=None, pad_edge=False)
    for title in ("document", "state", "site", "zone", "passages", "id", "note"):
        table.add_column(title, overflow="fold")
    for row in rows:
        note = (row.get("error") or {}).get("hint", "")
        if row["state"] == "refused":
            facts = row["refusal"]
            clauses = ", ".join(reason["policy"] for reason in facts["reasons"]) or ", ".join(facts["why_not"])
            note = f"{clauses}: {facts['remedy']}"
        table.add_row(
            row["name"] or "(name withheld)",
            row["state"],
            row.get("site", ""),
            row.get("zone", ""),
            str(row.get("passages", "")),
            row.get("id", ""),
            note,
        )
    people.print(table)
