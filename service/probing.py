"""Probing: whether each Site is what the fleet file says, looked at again and again, and recorded when it changes.

Rules kept here: a Site that nobody saw well within the time to live is closed, and so is one that fails, at once and
with its cause; a good probe opens it again; a probe reads no data and sends no payload. What a probe proved counts as
evidence for as long as it is good, and never beyond the certificate it saw. What is kept of it: `sightings.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import sqlalchemy as sa

from residency.database import Database
from residency.engine import Engine
from residency.errors import DomicileError, SiteError
from residency.fleet import PROVEN, Site
from residency.ports import KeyProvider, Shard
from residency.receipt import stamp
from service.sightings import Look, Sightings, described, of_shard, since, states

log = logging.getLogger(__name__)

LAPSING: Final = timedelta(days=21)
"""A certificate with less time left is named beforehand."""


class Peer(Protocol):
    """Who answered a handshake."""

    @property
    def certificate(self) -> str:
        """SHA-256 of its certificate, hex."""
        ...

    @property
    def spki(self) -> str:
        """SHA-256 of its public key, hex."""
        ...

    @property
    def expires(self) -> datetime:
        """When its certificate ends."""
        ...


class Line(Protocol):
    """An https address of a Site."""

    @property
    def kind(self) -> str:
        """What the Site holds there."""
        ...

    @property
    def own(self) -> bool:
        """Whether it is believed by a root of the Site's own Zone alone."""
        ...

    async def meet(self) -> Peer:
        """Say who answers. Raises `SiteError`."""
        ...


class Probing:
    """Probes the Fleet's Sites. `lines` are their https addresses, `here` the Zone that this machine stands in.

    Without `sightings` nothing is kept (a look beside).
    """

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        sightings: Sightings | None,
        shards: Mapping[str, Shard],
        keys: Mapping[str, KeyProvider],
        lines: Mapping[tuple[str, str], Line],
        here: str,
        ttl: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._engine = engine
        self._sightings = sightings
        self._shards = shards
        self._keys = keys
        self._lines = lines
        self._here = here
        self._ttl = timedelta(seconds=ttl)
        self._clock = clock
        self._woken = asyncio.Event()

    async def once(self, only: Sequence[str] = ()) -> list[Look]:
        """Probe these Sites, or all, at the same time; tell the Fleet, and record what changed."""
        fleet = self._engine.fleet
        chosen = [fleet.site(name) for name in only] or list(fleet.sites.values())
        looks = await asyncio.gather(*(self._look(site) for site in chosen))
        for look in looks:
            if look.cause:
                if fleet.cause(look.site) != look.cause:
                    log.warning("site %s is closed: %s", look.site, look.cause)
                fleet.close(look.site, look.cause)
            else:
                fleet.verify(look.site, bound=True, until=look.until, grade=look.grade)
        if self._sightings is not None:
            try:
                await self._database.run(self._sightings.keep, looks)
            except (DomicileError, sa.exc.DBAPIError) as error:  # the Fleet is told; the next probe writes it down
                log.warning("probes were not recorded", extra={"error": type(error).__name__})
        return looks

    async def run(self, every: float, stopping: asyncio.Event) -> None:
        """Probe every `every` seconds, and at once when somebody reports a loss, until `stopping`."""
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), every)
            self._woken.clear()
            await self.once()

    def lost(self, site: str, cause: str) -> None:
        """Close a Site that an outlet has given up, from the loop's thread; the next probe records it."""
        self._engine.fleet.close(site, cause)
        self._woken.set()

    async def listing(self) -> list[dict[str, Any]]:
        """Give every Site with its facts and its state: open or closed, why, since when, until when it is believed."""
        try:
            kept = await self._database.run(states, self._database)
        except sa.exc.DBAPIError:  # what memory holds is told all the same
            kept = {}
        fleet, now = self._engine.fleet, self._clock()
        return [
            described(site, now, cause=fleet.closed(site.id, now), until=fleet.verified_until(site.id))
            | since(kept.get(site.id), fleet.closed(site.id, now))
            for site in fleet.sites.values()
        ]

    # --- one Site -----------------------------------------------------------------------------------------------------

    async def _look(self, site: Site) -> Look:
        now = self._clock()
        until, facts = now + self._ttl, dict[str, Any]()
        try:
            until = min(until, await self._meet(site, now, facts))
            if site.id in self._shards:
                facts["shard"] = of_shard(await self._shards[site.id].probe())
            if site.id in self._keys:
                await self._keys[site.id].status()
            _demand_evidence(site, now)
        except DomicileError as error:
            return Look(site.id, str(error), error.hint, now, 0, facts)
        grade = PROVEN if self._proves(site) else 0
        return Look(site.id, "", "", until, grade, facts | {"grade": max(site.grade(now), grade)})

    async def _meet(self, site: Site, now: datetime, facts: dict[str, Any]) -> datetime:
        """Shake hands at every https address; give the instant at which the first of the certificates ends."""
        ours = [line for (name, _), line in self._lines.items() if name == site.id]
        peers = await asyncio.gather(*(line.meet() for line in ours))
        if peers:
            facts["peers"] = [
                {"kind": line.kind, "spki": peer.spki, "until": stamp(peer.expires), "own_root": line.own}
                for line, peer in zip(ours, peers, strict=True)
            ]
        ends = min((peer.expires for peer in peers), default=now + self._ttl)
        if ends <= now:  # the handshake went by this machine's clock, and so does this
            raise SiteError(f"a certificate of {site.id} has expired", site=site.id, hint="`domicile sites certify`")
        if ends - now < LAPSING and peers:
            facts["lapsing"] = stamp(ends)
        return ends

    def _proves(self, site: Site) -> bool:
        """Whether the handshakes speak for the whole Site: what it holds besides must stand where this machine does."""
        ours = [line for (name, _), line in self._lines.items() if name == site.id]
        if not ours or not all(line.own for line in ours):
            return False
        local = any(holding.scheme not in {"http", "https"} for holding in site.holds)
        zones = self._engine.zones
        return not local or zones.within(site.zone, self._here) or zones.within(self._here, site.zone)


def _demand_evidence(site: Site, now: datetime) -> None:
    """Close a Site whose evidence has all run out; one that never had any keeps grade 0."""
    day = now.astimezone(UTC).date()
    ends = [item.valid_until for item in site.evidence if item.valid_until is not None and item.valid_until < day]
    if site.evidence and len(ends) == len(site.evidence):
        last = max(ends)
        raise SiteError(
            f"the evidence for the place of {site.id} ran out on {last}",
            site=site.id,
            hint="renew it and write its new date into the fleet file",
        )
