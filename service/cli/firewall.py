"""`domicile sites firewall`: the operator's own walls around the service, written from the Fleet."""

import rich_click as click

from service.cli.common import home_option
from service.settings import Settings


@click.command()
@home_option
@click.option("--format", "form", type=click.Choice(["nft", "systemd"]), default="nft", show_default=True)
@click.option("--resolver", "resolvers", multiple=True, help="Address of a name server to leave open; repeat it.")
@click.option("--account", default="", help="nft: confine this account's packets alone, not all of the machine's.")
@click.option("--caller", "callers", multiple=True, help="systemd: address or network that calls us; repeat it.")
def firewall(settings: Settings, form: str, resolvers: tuple[str, ...], account: str, callers: tuple[str, ...]) -> None:
    """Print an nftables ruleset or a systemd drop-in that lets out what the Fleet needs and nothing else.

    Names of the Fleet are looked up here and now: run it where the service runs, and again when an address changes.
    """
    from residency.egress import addresses
    from service.firewall import nft, openings, systemd
    from service.home import rules
    from service.outfitting import destinations

    fleet = rules(settings)[2]
    open_to = openings(destinations(settings, fleet), addresses)
    if form == "nft":
        click.echo(nft(open_to, fleet=fleet.digest, resolvers=resolvers, account=account), nl=False)
    else:
        click.echo(systemd(open_to, fleet=fleet.digest, resolvers=resolvers, callers=callers), nl=False)
