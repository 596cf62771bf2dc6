"""`domicile ingest|search|ask`: the operator's hands on documents, ruled on like everybody's."""

from typing import Any

import rich_click as click

from service.answering import Answer, Question
from service.cli.common import (
    home_option,
    in_house,
    json_option,
    operator,
    people,
    show,
    show_refusal,
    tenant_option,
)
from service.house import House
from service.searching import Results, Search
from service.settings import Settings
from service.wire import answer_out, search_out


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("query")
@click.option("--top-k", default=5, show_default=True, help="How many passages.")
@click.option("--collection", default="default", show_default=True)
def search(settings: Settings, tenant: str, as_json: bool, query: str, top_k: int, collection: str) -> None:
    """Find passages in permitted places."""

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        return await house.searching.search(operator(settings, tenant), Search(query, top_k, collection))

    outcome = in_house(settings, story)
    if not isinstance(outcome, Results):
        show_refusal(*outcome, as_json=as_json)
        return
    if as_json:
        show(search_out(outcome))
        return
    for at, passage in enumerate(outcome.findings.passages, start=1):
        click.echo(f"{at}. {passage.name}, p. {passage.page}  [{passage.zone} {passage.site}]  {passage.score:.3f}")
        click.echo("   " + " ".join(passage.text.split())[:300])
    if outcome.findings.withheld:
        people.print(f"{outcome.findings.withheld} passages not used: outside the permitted zones")
    people.print(f"[dim]receipt {outcome.receipt}[/]")


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("question")
@click.option("--collection", default="default", show_default=True)
def ask(settings: Settings, tenant: str, as_json: bool, question: str, collection: str) -> None:
    """Ask a question and get an answer with its sources."""

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        return await house.answering.answer(operator(settings, tenant), Question(question, collection))

    outcome = in_house(settings, story)
    if not isinstance(outcome, Answer):
        show_refusal(*outcome, as_json=as_json)
        return
    if as_json:
        show(answer_out(outcome, settings.public_url))
        return
    click.echo(outcome.text)
    for citation in outcome.citations:
        click.echo(f"  [{citation.index}] {citation.name}, p. {citation.page} ({citation.zone}, {citation.site})")
    if outcome.withheld:
        people.print(f"{outcome.withheld} passages not used: outside the permitted zones")
    people.print(f"[dim]receipt {outcome.receipt}[/]")
