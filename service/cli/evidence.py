"""`domicile report|receipt|verify`: what a data-protection officer takes away and checks."""

from collections.abc import Callable
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


_OPTIONS = (
    home_option,
    tenant_option,
    click.option("--from", "since", default=None, help="First day, such as 2026-01-01; default: everything."),
    click.option("--to", "until", default=None, help="Last day, included."),
    click.option("--out", type=click.Path(dir_okay=False), default=None, help="File; default: the report's own name."),
)


def _options(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        choice = click.option("--format", "form", type=click.Choice(formats), default=formats[0], show_default=True)
        for option in reversed((*_OPTIONS, choice)):
            function = option(function)
        return function

    return add


@report.command()
@_options("html", "json", "pdf", "csv", "xlsx")
def residency(settings: Settings, **told: Any) -> None:
    """Where documents lie, what was asked of whom, what was refused, erased, transferred; and what is not known."""
    _report(settings, "residency", **told)


@report.command()
@_options("xlsx", "html", "json", "csv")
def register(settings: Settings, **told: Any) -> None:
    """The Art. 30 registers: filled in where the ledger knows, marked where only people do (register.toml)."""
    _report(settings, "register", **told)


@report.command()
@_options("xlsx", "html", "json", "csv")
def transfers(settings: Settings, **told: Any) -> None:
    """Every transfer with its basis, refused ones, and steps outside a residency."""
    _report(settings, "transfers", **told)


@report.command()
@click.argument("document", default="")
@_options("html", "json", "csv", "xlsx")
def recipients(settings: Settings, document: str, **told: Any) -> None:
    """Who actually received data (GDPR 15(1)(c)): of one DOCUMENT, or of everything in a period."""
    _report(settings, "recipients", document=document, **told)


@report.command()
@_options("json")
def oscal(settings: Settings, **told: Any) -> None:
    """The residency report as OSCAL assessment-results, for tools that read those."""
    _report(settings, "oscal", **told)


@report.command()
@click.argument("document")
@home_option
@tenant_option
@click.option("--out", type=click.Path(dir_okay=False), default=None, help="File; default: the certificate's own name.")
def certificate(settings: Settings, tenant: str, document: str, out: str | None) -> None:
    """The signed certificate of an erased DOCUMENT, with the ledger's proof."""
    _report(settings, "certificate", tenant=tenant, since=None, until=None, form="json", out=out, document=document)


def _report(
    settings: Settings,
    kind: str,
    *,
    tenant: str,
    since: str | None,
    until: str | None,
    form: str,
    out: str | None,
    document: str = "",
) -> None:
    from rich.progress import Progress

    with Progress(console=people, transient=True) as bar:
        task = bar.add_task("receipts", total=None)

        async def story(house: House) -> Any:
            await house.welcome(tenant)
            who = operator(settings, tenant).id
            return await house.reporting.file(
                tenant,
                since,
                until,
                form,
                requested_by=who,
                kind=kind,
                document=document,
                progress=lambda done, whole: bar.update(task, completed=done, total=whole),
            )

        made, receipt_id = in_house(settings, story, index=False)
    target = Path(out or made.name)
    target.write_bytes(made.data)
    people.print(f"{target}  ({len(made.data):,} bytes; receipt {receipt_id})", soft_wrap=True)


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
        people.print(out, soft_wrap=True)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def verify(files: tuple[str, ...], as_json: bool) -> None:
    """Check receipts, proofs, checkpoints, reports and certificates, against a public key, zones, policies and fleet.

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
