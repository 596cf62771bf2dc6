"""`domicile doctor`: what is wrong here, and whether the main job needs a network."""

from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from service.cli.common import home_option, in_house, json_option, people, run, show
from service.settings import Settings

if TYPE_CHECKING:  # it brings the whole house
    from service.house import House

ACTIVITY = "accountability"
MARKS = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


@click.command()
@home_option
@json_option
@click.option("--egress", is_flag=True, help="Do the main job in an empty network namespace; exit code 4 without one.")
def doctor(settings: Settings, as_json: bool, egress: bool) -> None:
    """Say what is wrong here and what to do; exit code 1 when something fails."""
    from service.doctor import examine

    if egress:
        _egress(settings, as_json=as_json)
        return
    findings = run(examine(settings))
    if as_json:
        show({"findings": [finding.facts() for finding in findings]})
    else:
        for finding in findings:
            people.print(f"{MARKS[finding.state]}  {finding.id}: {finding.text}")
            if finding.next:
                people.print(f"        next: {finding.next}")
    if any(finding.state == "fail" for finding in findings):
        raise Exit(1)


def _egress(settings: Settings, *, as_json: bool) -> None:
    """Rehearse without a network, say what reached for one, and record the outcome where there is a home."""
    from service.airgap import STEPS, attempt

    outcome = attempt(settings)
    receipt = _record(settings, outcome.facts()) if (settings.path / "domicile.toml").is_file() else ""
    if as_json:
        show(outcome.facts() | {"seconds": outcome.seconds, "destinations": outcome.tried, "receipt": receipt})
    else:
        where = "in an empty network namespace" if outcome.secluded else "under the tripwire alone"
        people.print(f"main job {where}, {outcome.seconds:.1f} s")
        for step in STEPS:
            people.print(f"{MARKS['ok' if step in outcome.steps else 'fail']}  {step}")
        for host, port, count in outcome.tried:
            what = f"connected to {host}:{port}" if port else f"looked up {host}"
            people.print(f"{MARKS['fail']}  {count} × {what}", markup=True)
        if outcome.secluded:
            people.print(
                f"{MARKS['fail' if outcome.packets else 'ok']}  {outcome.packets} packets counted by the kernel"
            )
        else:
            people.print(
                f"{MARKS['warn']}  this system gives no network namespace to this account: C code was not seen"
            )
            people.print("        next: run it as root, or allow user namespaces")
        if outcome.problem:
            people.print(f"{MARKS['fail']}  {outcome.problem}")
        people.print(f"receipt {receipt}" if receipt else "not recorded: there is no home here")
    if outcome.state != "silent":
        raise Exit(4 if outcome.state == "partly" else 1)


def _record(settings: Settings, facts: dict[str, object]) -> str:
    """Write a probe into the Ledger and give its receipt's id; works while `domicile serve` runs."""
    from residency.receipt import Draft

    async def story(house: "House") -> str:
        return (await house.ledger.record(Draft("probe", settings.rules.admin_tenant, ACTIVITY, facts=facts))).id

    return in_house(settings, story, index=False)
