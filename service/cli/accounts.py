"""`domicile accounts`: tenants and API keys."""

import rich_click as click

from service.accounts import SCOPES
from service.cli.common import home_option, json_option, show
from service.home import office
from service.settings import Settings


@click.group()
def accounts() -> None:
    """Make tenants and API keys."""


@accounts.command()
@home_option
@json_option
@click.option("--tenant", required=True, help="Whose key; the tenant is made when it is new.")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="Repeatable.")
@click.option("--groups", default="", help="Access groups, comma-separated.")
def key(settings: Settings, as_json: bool, tenant: str, scopes: tuple[str, ...], groups: str) -> None:
    """Make an API key and print it, once: only a keyed hash of it is kept."""
    with office(settings) as made:
        made.ensure_tenant(tenant, ceiling=settings.here.default_ceiling, zone=settings.here.zone)
        secret = made.issue(tenant, scopes=scopes, groups=[g.strip() for g in groups.split(",") if g.strip()])
    if as_json:
        show({"key": secret, "tenant": tenant, "scopes": sorted(set(scopes))})
    else:
        click.echo(secret)
        click.echo("Keep it now: it is not shown again.", err=True)


@accounts.command()
@home_option
@click.argument("name")
@click.option("--ceiling", default="", help="Zones its data may be processed in, comma-separated.")
@click.option("--zone", default="", help="Where its people ask from; default: this machine's zone.")
def tenant(settings: Settings, name: str, ceiling: str, zone: str) -> None:
    """Make a tenant, or change its ceiling."""
    from service.home import rules

    zones = rules(settings)[0]
    wanted = [zones.check(code.strip()) for code in ceiling.split(",") if code.strip()]
    with office(settings) as made:
        made.ensure_tenant(
            name,
            ceiling=wanted or settings.here.default_ceiling,
            zone=zones.check(zone) if zone else settings.here.zone,
        )
        if wanted:
            made.set_ceiling(name, wanted)
        chosen = next(each for each in made.tenants() if each.id == name)
    click.echo(f"{chosen.id}: ceiling {', '.join(sorted(chosen.ceiling))}, zone {chosen.zone}")


@accounts.command(name="list")
@home_option
@json_option
def listing(settings: Settings, as_json: bool) -> None:
    """List tenants and keys; secrets cannot be listed."""
    with office(settings) as made:
        tenants, keys = made.tenants(), made.listing()
    if as_json:
        rows = [{"id": t.id, "ceiling": sorted(t.ceiling), "zone": t.zone} for t in tenants]
        show({"tenants": rows, "keys": keys})
        return
    for each in tenants:
        click.echo(f"{each.id}  ceiling {', '.join(sorted(each.ceiling))}  zone {each.zone}")
        for row in keys:
            if row["tenant"] == each.id:
                state = "revoked" if row["revoked"] else "live"
                click.echo(f"  key {row['id']}  {','.join(row['scopes'])}  {state}")


@accounts.command()
@home_option
@click.argument("key_id")
def revoke(settings: Settings, key_id: str) -> None:
    """Revoke a key; it stops working with the next request."""
    with office(settings) as made:
        done = made.revoke(key_id)
    if not done:
        raise click.ClickException(f"there is no live key {key_id}; see `domicile accounts list`")
    click.echo(f"{key_id} is revoked")
