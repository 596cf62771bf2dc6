"""Engine: rules on every Ask, and is the only mint of a Route.

Rules kept here, in this order: what is unknown is a fault (Site, tenant, Zone, no Tag at all); one ruling per Tag,
joined with AND; only Allow without errors is a Permit; a Permit carries a Route that dies within a minute, and sooner
when the evidence, the basis or a Zone's membership ends. Rulings are remembered by everything but the instant, and
forgotten when other rules are put in force. A clock that was set back is a fault: law and evidence hang on the day.
"""

import threading
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from residency.decision import Ask, Clause, Decision, Permit, Principal, Refusal
from residency.errors import PolicyError
from residency.fleet import Fleet, Site
from residency.policy import PolicySet, Ruling, World
from residency.route import LIFETIME, MINT, Action, Route
from residency.tag import Tag
from residency.whynot import WhyNot, remedy
from residency.zones import Zones

FRESH: Final = LIFETIME / 2
"""Seconds for which a ruling is given again: so a Route has half a minute left whenever the facts allow it."""
REMEMBERED: Final = 50_000
"""Rulings kept at most; beyond that all are forgotten and ruled anew."""
PREPARED: Final = 256
"""Principals whose facts are kept prepared at most, about 70 kB each; beyond that they are prepared anew (0.1 ms)."""
SET_BACK: Final = timedelta(minutes=5)
"""How far the wall clock may stand behind an instant that is known to have passed."""
_NEEDS: Final = {Action.EMBED: "embedder", Action.GENERATE: "generator", Action.SEARCH: "shard"}


def utcnow() -> datetime:
    """Give the instant now, in UTC."""
    return datetime.now(UTC)


@dataclass(slots=True)
class _Entry:
    """One remembered ruling. It is given again until `fresh`; what it rests on may change at `dies`."""

    ruling: Ruling
    tag: str
    made: datetime
    fresh: datetime
    dies: datetime
    reasons: tuple[tuple[Clause, ...], dict[str, str]] | None = None


@dataclass(slots=True)
class _State:
    """Handles and memory for one stretch of time in which neither rules nor Zones nor Fleet change."""

    policy: PolicySet
    why_not: WhyNot
    zones: Zones
    base: World
    verified: dict[str, datetime]
    fleet_version: int
    since: datetime
    until: datetime
    worlds: dict[tuple[object, ...], World] = field(default_factory=dict)
    memo: dict[tuple[object, ...], _Entry] = field(default_factory=dict)


_judged: ContextVar[tuple["Engine", _State] | None] = ContextVar("judged", default=None)
"""By which state the story at hand was last ruled on, as the journal keeps what it touched."""


class Engine:
    """Rules by one PolicySet over one Fleet. Safe to call from any thread; `decide` does no IO."""

    def __init__(
        self, zones: Zones, policy: PolicySet, fleet: Fleet, *, clock: Callable[[], datetime] = utcnow
    ) -> None:
        self.fleet, self._clock = fleet, clock
        self._ceilings: dict[str, frozenset[str]] = {}
        self._floor = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.RLock()
        self._state = self._put_in_force(policy, zones)

    @property
    def policy(self) -> PolicySet:
        """The rules in force."""
        return self._state.policy

    @property
    def zones(self) -> Zones:
        """The Zones as they stand now."""
        return self._current(self._clock()).zones

    def digests(self) -> dict[str, str]:
        """Give the digests in force."""
        state = self._state
        return {"policy": state.policy.digest, "zones": state.zones.digest, "fleet": self.fleet.digest}

    def judged(self) -> dict[str, str]:
        """Give the digests by which the story at hand was last ruled on: rules may have changed while it ran.

        A story is a task or a thread with its context; where it asked nothing yet, those in force.
        """
        last = _judged.get()
        state = last[1] if last is not None and last[0] is self else self._state
        return {"policy": state.policy.digest, "zones": state.zones.digest, "fleet": self.fleet.digest}

    def swap(self, policy: PolicySet, zones: Zones) -> None:
        """Put other rules and Zones in force, at once and for every thread; Routes already minted live out their time.

        Raises `PolicyError` or `ZoneError`, and changes nothing, when they do not fit the Fleet or a tenant's ceiling.
        """
        with self._lock:
            self._state = self._put_in_force(policy, zones)

    def not_before(self, instant: datetime) -> None:
        """Tell the engine of an instant that has passed (the last signed checkpoint); no clock may stand far behind."""
        self._floor = max(self._floor, instant - SET_BACK)

    def admit(self, tenant: str, ceiling: frozenset[str]) -> None:
        """Make a tenant known: nothing of it may leave the Zones of its ceiling. Again: the ceiling is replaced."""
        for code in ceiling:
            self._state.zones.check(code)
        if not tenant:
            raise PolicyError("a tenant without an id cannot be admitted", hint="give the tenant a slug")
        with self._lock:
            known = self._ceilings.get(tenant)
            self._ceilings[tenant] = ceiling
            if known is not None and known != ceiling:
                self._state = self._build(self._clock())

    def ceiling(self, tenant: str) -> frozenset[str]:
        """Give the Zones that nothing of this tenant may leave. Raises `PolicyError` for an unknown tenant."""
        try:
            return self._ceilings[tenant]
        except KeyError:
            raise PolicyError("this tenant is not known to the engine", hint="admit it first") from None

    def closed(self, site: str) -> str:
        """Say why a Site is closed now; empty when it is open. Raises `SiteError` for an unknown one."""
        return self.fleet.closed(site, self._clock())

    def refresh(self) -> None:
        """Forget every ruling and build the handles anew; happens by itself when Fleet or Zones change."""
        with self._lock:
            self._state = self._build(self._clock())

    def decide(self, ask: Ask) -> Decision:
        """Rule on an Ask: a Permit with its Route, or a Refusal about the first Tag that is not permitted.

        Raises `PolicyError` for an unknown tenant, an Ask without Tags or a fault in the rules, `SiteError` for an
        unknown Site, `ZoneError` for a Tag that names an unknown Zone. Nothing that raises is ever a Permit.
        """
        started, now = time.monotonic(), self._clock()
        state = self._current(now)
        _judged.set((self, state))
        if not ask.tags:
            raise PolicyError("an Ask without a Tag cannot be ruled on", hint="name the Tags of the data")
        dies = now + timedelta(seconds=LIFETIME)
        ids: set[str] = set()
        names: set[str] = set()
        for tag in ask.tags:
            entry = self._entry(state, ask, tag, now)
            if not entry.ruling.allowed:
                return self._refusal(state, ask, tag, entry, now)
            ids.update(entry.ruling.policies)
            names.add(entry.tag)
            dies = min(dies, entry.dies)
        policies = tuple(sorted(ids))
        route = Route(
            MINT,
            action=ask.action,
            site=ask.site,
            tenant=ask.tenant or ask.principal.tenant,
            principal=ask.principal.id,
            tags=frozenset(names),
            policies=policies,
            good_until=started + (dies - now).total_seconds(),
        )
        return Permit(ask, route, policies)

    def permitted(
        self, principal: Principal, action: Action, tags: Iterable[Tag], kind: str, activity: str = "search"
    ) -> tuple[list[Permit], list[Refusal]]:
        """Ask the same of every Site that holds `kind`.

        Permits come in a stable order: Sites inside the data's own jurisdiction first, then by id.
        """
        wanted = tuple(dict.fromkeys(tags))
        zones = self.zones
        origins = frozenset[str]().union(*(tag.jurisdictions for tag in wanted))

        def order(site: Site) -> tuple[bool, str]:
            return not any(zones.within(site.zone, code) for code in origins), site.id

        permits: list[Permit] = []
        refusals: list[Refusal] = []
        for site in sorted(self.fleet.holding(kind), key=order):
            decision = self.decide(Ask(principal, action, site.id, wanted, activity))
            if isinstance(decision, Permit):
                permits.append(decision)
            else:
                refusals.append(decision)
        return permits, refusals

    # --- ruling and remembering -------------------------------------------------------------------------------------

    def _entry(self, state: _State, ask: Ask, tag: Tag, now: datetime) -> _Entry:
        """Give the ruling on one Tag, remembered or new."""
        key = (ask.principal, ask.action, ask.site, tag, ask.activity, ask.tenant, ask.basis)
        entry = state.memo.get(key)
        if entry is not None and entry.made <= now < entry.fresh:
            return entry
        self.fleet.site(ask.site)  # before Cedar: it would let anything be erased at a Site it never heard of
        for code in (*tag.jurisdictions, *tag.residency):
            state.zones.check(code)
        ruling = state.policy.rule(self._world(state, ask), ask, tag, now)
        changes = [state.verified[ask.site], state.until, now + timedelta(seconds=LIFETIME)]
        if ask.basis is not None:
            changes.append(ask.basis.expires)
        dies = min(change for change in changes if change > now)
        entry = _Entry(ruling, tag.digest.hex(), now, min(dies, now + timedelta(seconds=FRESH)), dies)
        if len(state.memo) >= REMEMBERED:
            state.memo.clear()
        state.memo[key] = entry
        return entry

    def _world(self, state: _State, ask: Ask) -> World:
        """Give the prepared facts with this principal and both tenants in them."""
        principal = ask.principal
        key = (principal.id, principal.tenant, principal.activities, ask.tenant)
        world = state.worlds.get(key)
        if world is None:
            names = {principal.tenant, ask.tenant or principal.tenant}
            try:
                ceilings = {name: self._ceilings[name] for name in names}
            except KeyError as error:
                raise PolicyError("the tenant of this Ask is not known here", hint="admit the tenant first") from error
            world = state.base.admitting(principal, ceilings)
            if len(state.worlds) >= PREPARED:
                state.worlds.clear()
            state.worlds[key] = world
        return world

    def _refusal(self, state: _State, ask: Ask, tag: Tag, entry: _Entry, now: datetime) -> Refusal:
        """Say why not, where instead, and what would help."""
        if entry.reasons is None:
            clauses = tuple(state.policy.clauses[name] for name in entry.ruling.policies)
            entry.reasons = clauses, state.why_not(self._world(state, ask), ask, tag, now)
        clauses, why_not = entry.reasons
        kind = _NEEDS.get(ask.action)
        elsewhere = [s for s in self.fleet.sites.values() if s.id != ask.site and (not kind or s.holding(kind))]
        open_to = {s.zone for s in elsewhere if self._all_permitted(state, ask, s.id, now)}
        zones = tuple(sorted(open_to))
        help_ = remedy(ask, tag, clauses, zones, self.fleet, state.zones, now)
        return Refusal(ask, clauses, dict(why_not), tag, zones, help_)

    def _all_permitted(self, state: _State, ask: Ask, site: str, now: datetime) -> bool:
        there = Ask(ask.principal, ask.action, site, ask.tags, ask.activity, ask.tenant, ask.basis)
        return all(self._entry(state, there, tag, now).ruling.allowed for tag in ask.tags)

    # --- handles ----------------------------------------------------------------------------------------------------

    def _current(self, now: datetime) -> _State:
        """Give the state in force; build it anew when health changed or a date was passed."""
        if now < self._floor:
            behind = (self._floor + SET_BACK - now).total_seconds() // 60
            raise PolicyError(
                f"the clock of this machine stands {behind:.0f} minutes behind the ledger's last checkpoint",
                hint="set the clock right; if it ran ahead before, wait until that instant has passed",
            )
        state = self._state
        if state.fleet_version == self.fleet.version and state.since <= now < state.until:
            return state
        with self._lock:
            self._state = self._build(now)
            return self._state

    def _build(self, now: datetime) -> _State:
        return self._made(self._state.policy, self._state.why_not, self._state.zones, now)

    def _put_in_force(self, policy: PolicySet, zones: Zones) -> _State:
        if stray := policy.named_sites - self.fleet.sites.keys():
            raise PolicyError(f"a policy names {min(stray)}, a Site the Fleet does not hold", hint="mend the policy")
        for site in self.fleet.sites.values():
            for code in (*site.zones, site.operator.zone, site.parent.zone):
                zones.check(code)
        for ceiling in self._ceilings.values():
            for code in ceiling:
                zones.check(code)
        return self._made(policy, WhyNot(policy), zones, self._clock())

    def _made(self, policy: PolicySet, why_not: WhyNot, zones: Zones, now: datetime) -> _State:
        version = self.fleet.version  # before the facts are read: a change meanwhile shows as a newer version
        zones = zones.at(now)
        changes = [zones.next_change, self.fleet.next_change(now), now + timedelta(days=1)]
        until = min(change for change in changes if change)
        verified = {name: self.fleet.verified_until(name) for name in self.fleet.sites}
        return _State(policy, why_not, zones, policy.world(zones, self.fleet, now), verified, version, now, until)
