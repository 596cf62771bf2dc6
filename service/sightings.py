"""Sightings: what probes found of each Site, as it is kept: its state, the Ledger's entries, incidents, times unseen.

Rules kept here: every change is in the Ledger of the tenant that looks after the installation, once, however many
processes probe; so is a time longer than a probe is good for in which nobody looked. A Site that a probe closes is an
incident of the category `evidence`, begun when it was last seen well and resolved by the next good probe, for that
tenant and for each that has documents there: nothing went to a wrong place, but for that time nobody could show where.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from ingestion.drift import last_looks
from residency.database import Database, metadata
from residency.errors import ViolationError
from residency.evidence import GRADES
from residency.fleet import Fleet, Site
from residency.ledger import Ledger
from residency.receipt import Draft, canonical, stamp
from residency.violations import Violations
from residency.watch import Watch

ACTIVITY: Final = "accountability"
CATEGORY: Final = "evidence"
EVER: Final = datetime(2020, 1, 1, tzinfo=UTC)
_TOLD: Final = (
    "kind", "version", "tls", "jwt_rbac", "audit", "peers", "placement", "snapshots", "may_snapshot", "collection",
    "generation", "points",
)  # fmt: skip
"""What a shard says of itself that is worth keeping; process numbers change at every start."""
_MOVING: Final = ("points", "generation")
"""Of those, what changes all the time: kept as it is now, no reason for an entry in the Ledger."""

site_state = sa.Table(
    "site_state",
    metadata,
    sa.Column("site", sa.String(63), primary_key=True),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("remedy", sa.Text, nullable=False),
    sa.Column("since", sa.String(24), nullable=False),
    sa.Column("probed", sa.String(24), nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Look:
    """What one probe of one Site found; `cause` is empty when all is well."""

    site: str
    cause: str
    remedy: str
    until: datetime
    grade: int
    facts: dict[str, Any] = field(default_factory=dict)


class Sightings:
    """Keeps what probes find. `holders` gives the tenants with documents at a Site; without `violations` no incident.

    `steward` is the tenant whose Ledger holds the changes, `ttl` how long a good probe is believed, in seconds.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        *,
        steward: str,
        ttl: float,
        violations: Violations,
        holders: Callable[[str], Iterable[str]],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._steward = steward
        self._ttl = timedelta(seconds=ttl)
        self._violations = violations
        self._holders = holders
        self._clock = clock

    def keep(self, looks: Sequence[Look]) -> None:
        """Write down states, what changed, times in which nobody looked, and incidents; the first to see it does."""
        for look in looks:
            self._incident(look, self._written(look))

    def watch(self) -> Watch:
        """Give what is kept of all probes, for reports."""
        rows = states(self._database)
        told = {name: {"probed": row.probed, "facts": json.loads(row.facts)} for name, row in rows.items()}
        entries = tuple(self._ledger.entries(self._steward, EVER, self._clock() + self._ttl, kinds=["probe"]))
        return Watch(told, entries, self._ttl, last_looks(self._database))

    def _written(self, look: Look) -> datetime:
        """Write a state down, and what is new of it into the Ledger, in one commit; give when this state began.

        A closed Site's began when it was last seen well, the same for every process that finds it closed.
        """
        now, c = self._clock(), site_state.c
        state = "closed" if look.cause else "open"
        values = {"state": state, "cause": look.cause, "remedy": look.remedy, "probed": stamp(now)}
        with self._database.transaction() as connection:
            known = connection.execute(sa.select(site_state).where(c.site == look.site).with_for_update()).first()
            same = known is not None and (known.state, known.cause) == (state, look.cause)
            begin = stamp(now)
            if known is not None and state == "closed":
                begin = json.loads(known.facts).get("begin", known.since) if same else begin
                begin = known.probed if known.state == "open" else begin
            values["facts"] = canonical({**look.facts, "begin": begin}).decode()
            if known is None:
                connection.execute(site_state.insert(), values | {"site": look.site, "since": stamp(now)})
            else:
                values["since"] = known.since if same else stamp(now)
                connection.execute(site_state.update().where(c.site == look.site).values(values))
            told = lasting(look.facts)
            changed = known is None or not same or lasting(json.loads(known.facts)) != told
            unseen = known is not None and now - datetime.fromisoformat(known.probed) > self._ttl
            if changed or unseen:
                shown = {"event": "probe", "site": look.site, "state": state, "cause": look.cause, **told}
                before = {"before": known.state} if known is not None else {}
                gap = {"unprobed": {"from": known.probed, "to": stamp(now)}} if known is not None and unseen else {}
                draft = Draft("probe", self._steward, ACTIVITY, facts=shown | before | gap)
                self._ledger.append(draft, connection)
        return datetime.fromisoformat(begin)

    def _incident(self, look: Look, begin: datetime) -> None:
        """Resolve what does not hold any more, and file what does; another process may do the same just now."""
        for known in self._violations.standing(CATEGORY, look.site):
            if known.evidence.get("cause") != look.cause:
                done = "closed for another cause since then" if look.cause else "a probe found it well again"
                with suppress(ViolationError):  # another process resolved it
                    self._violations.resolve(known.tenant, known.id, by="service", remediation=done)
        evidence = {"site": look.site, "cause": look.cause}
        for tenant in sorted({self._steward, *self._holders(look.site)}) if look.cause else ():
            with suppress(sa.exc.IntegrityError):  # another process filed it
                self._violations.found(
                    tenant, CATEGORY, look.site, evidence=evidence, begin=begin, remediation=look.remedy
                )


def states(database: Database) -> dict[str, Any]:
    """Give what the last probe of each Site found, whichever process made it."""
    with database.reading() as connection:
        return {row.site: row for row in connection.execute(sa.select(site_state))}


def known(database: Database, fleet: Fleet, now: datetime, ttl: float) -> list[dict[str, Any]]:
    """Give every Site as the last recorded probes left it, for somebody who probes nothing.

    `ttl` is how long a probe is good, in seconds.
    """
    kept, rows = states(database), []
    for site in fleet.sites.values():
        row = kept.get(site.id)
        probed = datetime.fromisoformat(row.probed) if row is not None else None
        until = probed + timedelta(seconds=ttl) if probed else now
        cause = row.cause if row is not None else "not probed yet"
        if not cause and until <= now:
            cause = f"its last good probe ran out at {until:%Y-%m-%dT%H:%M:%SZ}"
        shown = described(site, now, cause=cause, until=until) | since(row, cause)
        grade = max(shown["grade"], int(shown["facts"].get("grade", 0))) if not cause else shown["grade"]
        rows.append(shown | {"grade": grade, "evidence": GRADES[grade]})
    return rows


def described(site: Site, now: datetime, *, cause: str, until: datetime) -> dict[str, Any]:
    """Give a Site's facts without its addresses, as the API and the command line show them."""
    grade = site.grade(now)
    return {
        "id": site.id,
        "zone": site.zone,
        "zones": list(site.zones_at(now)),
        "place": site.place,
        "operator": {"name": site.operator.name, "zone": site.operator.zone},
        "parent": {"name": site.parent.name, "zone": site.parent.zone},
        "contract": site.contract,
        "holds": [holding.kind for holding in site.holds],
        "grade": grade,
        "evidence": GRADES[grade],
        "state": "closed" if cause else "open",
        "cause": cause,
        "verified_until": None if cause else stamp(until),
    }


def since(row: Any, cause: str) -> dict[str, Any]:
    """Give what was written down of a Site; a state that nobody wrote down yet has no beginning."""
    if row is None:
        return {"since": None, "probed": None, "remedy": "", "facts": {}}
    told = (row.state == "closed") is bool(cause)
    remedy = row.remedy if told else ""
    return {
        "since": row.since if told else None,
        "probed": row.probed,
        "remedy": remedy,
        "facts": lasting(json.loads(row.facts)),
    }


def of_shard(told: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a shard says of itself that reports print."""
    return {name: told[name] for name in _TOLD if name in told}


def lasting(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a probe's facts what does not change with every point."""
    found = {name: value for name, value in facts.items() if name != "begin"}
    if "shard" in found:
        shard = found["shard"] = {name: value for name, value in found["shard"].items() if name not in _MOVING}
        if "placement" in shard:
            shard["placement"] = [{k: v for k, v in each.items() if k != "points"} for each in shard["placement"]]
    return found
