"""`domicile report|receipt|verify`: what a data-protection officer takes away and checks."""

from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit

from service.cli.common import home_option, in_house, operator, people, show, tenant_option
from service.house import House
from service.settings import Settings


@click.group()
def report() -> None:
    """Make a report from the ledger."""


@report.command()
@home_option
@tenant_option
@click.option("--from", "since", default=None, help="First day, such as 2026-01-01; default: everything.")
@click.option("--to", "until", default=None, help="Last day, included.")
@click.option("--format", "form", type=click.Choice(["json", "html", "pdf", "csv", "xlsx"]), default="html")
@click.option("--out", type=click.Path(dir_okay=False), default=None, help="File; default: the report's own name.")
def residency(
    settings: Settings, tenant: str, since: str | None, until: str | None, form: str, out: str | None
) -> None:
    """Where documents lie, what was asked of whom, what was refused, erased, transferred; and what is not known."""

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        who = operator(settings, tenant).id
        return await house.reporting.file(tenant, since, until, form, requested_by=who)

    made, receipt_id = in_house(settings, story, index=False)
    target = Path(out or made.name)
    target.write_bytes(made.data)
    people.print(f"{target}  ({len(made.data):,} bytes; receipt {receipt_id})")


@click.command()
@home_option
@tenant_option
@click.argument("receipt_id")
@click.option("--out", type=click.Path(dir_okay=False), default=None, help="File; default: standard output.")
@click.option("--trust", type=click.Path(dir_okay=False), default=None, help="Also save the ledger's public key here.")
def receipt(settings: Settings, tenant: str, receipt_id: str, out: str | None, trust: str | None) -> None:
    """Save a receipt with its signature and proof, for `domicile verify` on any machine."""
    import msgspec

    async def story(house: House) -> tuple[Any, str]:
        await house.database.run(house.ledger.sequence)
        return await house.database.run(house.ledger.bundle, tenant, receipt_id), house.ledger.trust

    bundle, public = in_house(settings, story, index=False)
    if trust is not None:
        Path(trust).write_text(public, encoding="utf-8")
    if bundle is None:
        raise click.ClickException("there is no such receipt for this tenant")
    if out is None:
        show(bundle)
    else:
        Path(out).write_bytes(msgspec.json.format(msgspec.json.encode(bundle), indent=2) + b"\n")
        people.print(out)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def verify(files: tuple[str, ...], as_json: bool) -> None:
    """Check receipts, proofs, checkpoints and reports, against a public key, zones, policies and fleet when given.

    Needs no home, no database and no network. Exit code 0: holds; 1: does not; 2: cannot be decided from these files.
    """
    from residency.verify import verify as check

    contents: dict[str, bytes] = {}
    for name in files:
        path = Path(name)
        inner = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for each in inner:
            contents[str(each)] = each.read_bytes()
    verdict = check(contents)
    if as_json:
        show(verdict.facts())
    else:
        for line in verdict.lines:
            click.echo(line)
    raise Exit(verdict.code)
