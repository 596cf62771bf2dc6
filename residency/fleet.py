"""Fleet: every Site this process knows, what each holds, who controls it, and whether it was seen lately.

Rules kept here: a Site stands in a country or part of one; unknown keys, unknown Zones and addresses that would carry
data in the clear are refused at load. Facts come from `fleet.toml` and have a digest; health (bound, verified until,
why closed) comes from probes, lives in memory and is no part of it. A Site that nobody probed is closed.
"""

import difflib
import hashlib
import json
import re
import threading
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from residency.errors import SiteError
from residency.evidence import GRADES, Evidence
from residency.site import Certificate, Holding, Operator, Site, Trust
from residency.zones import Zones

__all__ = ["NEVER", "PROVEN", "SCHEMES", "Fleet", "Holding", "Operator", "Site", "Trust"]

SCHEMES: Final[dict[str, frozenset[str]]] = {
    "shard": frozenset({"edge", "https"}),
    "vault": frozenset({"folder"}),
    "keys": frozenset({"file", "pkcs11", "https"}),
    "embedder": frozenset({"bundled", "path"}),
    "generator": frozenset({"extractive", "https"}),
}
"""Kinds of holding and the URL schemes each may have; `http` is accepted for a loopback address alone."""
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Verified until then: a Site that nobody probed."""
PROVEN: Final = 3
"""The grade that a TLS handshake under the Zone's own trust root proves, for as long as its probe is good."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_SPKI: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class _Health:
    """What the last probe of a Site found."""

    bound: bool = False
    until: datetime = NEVER
    cause: str = "not probed yet"
    grade: int = 0


class Fleet:
    """All Sites, and their health. Facts are fixed; health is changed by probes, from any thread."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self.sites: dict[str, Site] = {site.id: site for site in sites}
        facts = [self.sites[name].facts() for name in sorted(self.sites)]
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self.digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        self.version = 0
        """Grows with every change of health; whoever keeps something derived compares it."""
        self._health: dict[str, _Health] = {name: _Health() for name in self.sites}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path, zones: Zones) -> "Fleet":
        """Read a `fleet.toml`. Raises `SiteError` naming the Site and what to mend, `ZoneError` for an unknown Zone."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SiteError(f"{path.name} cannot be read", hint="check the path and that the file is UTF-8") from error
        return cls.parse(text, zones)

    @classmethod
    def parse(cls, text: str, zones: Zones) -> "Fleet":
        """Build a Fleet from the text of a `fleet.toml`."""
        try:
            file = msgspec.convert(tomllib.loads(text), _File)
        except tomllib.TOMLDecodeError as error:
            raise SiteError(f"fleet.toml is no TOML: {error}", hint="mend the file") from error
        except msgspec.ValidationError as error:
            raise SiteError(f"fleet.toml: {error}", hint="see docs/sites.md, the fleet file") from error
        sites = [_site(entry, zones) for entry in file.site]
        twice = {site.id for site in sites if sum(other.id == site.id for other in sites) > 1}
        if twice or not sites:
            what = f"Site {min(twice)} stands there twice" if twice else "it names no Site"
            raise SiteError(f"fleet.toml: {what}", hint="give each Site one [[site]] with an id of its own")
        return cls(sites)

    @classmethod
    def single(cls, zone: str, operator_zone: str, zones: Zones) -> "Fleet":
        """Give the Fleet of a machine without a `fleet.toml`: one Site, named after its Zone, that holds everything."""
        holds = [
            {"kind": "shard", "url": "edge:"},
            {"kind": "vault", "url": "folder:"},
            {"kind": "keys", "url": "file:"},
            {"kind": "embedder", "url": "bundled:"},
            {"kind": "generator", "url": "extractive:"},
        ]
        evidence = Evidence(1, "place", "declared at domicile init", date(1970, 1, 1))
        operator = Operator("the operator of this installation", operator_zone)
        entry = _SiteEntry(id=zone.lower(), operator=operator, zone=zone, evidence=[evidence], holds=holds)
        return cls([_site(entry, zones)])

    def site(self, site_id: str) -> Site:
        """Give a Site, or raise `SiteError` whose hint names the nearest one."""
        if found := self.sites.get(site_id):
            return found
        near = difflib.get_close_matches(site_id, self.sites, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the Fleet's Sites are: {', '.join(sorted(self.sites))}"
        raise SiteError("no such Site in the Fleet", site=site_id, hint=hint)

    def holding(self, kind: str) -> tuple[Site, ...]:
        """Give the Sites that hold something of that kind, in the order of the file."""
        return tuple(site for site in self.sites.values() if site.holding(kind))

    def next_change(self, now: datetime) -> datetime | None:
        """Give the next instant at which a fact of some Site may change by itself, or None."""
        return min((at for site in self.sites.values() if (at := site.next_change(now))), default=None)

    # --- health -----------------------------------------------------------------------------------------------------

    def verify(self, site_id: str, *, bound: bool, until: datetime, grade: int = 0) -> None:
        """Record a good probe: whether the outlet is bound to the Site's Zone, and until when that may be relied on.

        `grade` is what the probe itself proved of the place, such as `PROVEN` for a handshake under the Zone's own
        root: it counts as long as the probe is good, and is no part of the Fleet's digest.
        """
        self.site(site_id)
        self._put(site_id, _Health(bound, until.astimezone(UTC), "" if bound else "not bound to its Zone", grade))

    def close(self, site_id: str, cause: str) -> None:
        """Close a Site at once; `cause` says why, without content. The next good probe opens it again."""
        self.site(site_id)
        self._put(site_id, _Health(False, NEVER, cause))

    def bound(self, site_id: str) -> bool:
        """Say whether the last probe found the Site bound."""
        self.site(site_id)
        return self._health[site_id].bound

    def verified_until(self, site_id: str) -> datetime:
        """Give the instant until which the last good probe may be relied on; `NEVER` when there was none."""
        self.site(site_id)
        return self._health[site_id].until

    def cause(self, site_id: str) -> str:
        """Say why the Site is closed; empty when the last probe was good."""
        self.site(site_id)
        return self._health[site_id].cause

    def closed(self, site_id: str, now: datetime) -> str:
        """Say why the Site is closed at `now`; empty when it is open."""
        self.site(site_id)
        health = self._health[site_id]
        if health.bound and now < health.until:
            return ""
        return health.cause or f"its last good probe ran out at {health.until:%Y-%m-%dT%H:%M:%SZ}"

    def _put(self, site_id: str, health: _Health) -> None:
        proven = (health.grade, health.until) if health.grade else None
        with self._lock:
            self._health[site_id] = health
            self.sites[site_id] = replace(self.sites[site_id], proven=proven)
            self.version += 1


# --- reading fleet.toml ---------------------------------------------------------------------------------------------


class _SiteEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    id: str
    operator: Operator
    zone: str = ""
    zones: list[str] = msgspec.field(default_factory=list)
    zone_until: dict[str, date] = msgspec.field(default_factory=dict)
    place: str = ""
    parent: Operator | None = None
    contract: str = ""
    evidence: list[Evidence] = msgspec.field(default_factory=list)
    holds: list[dict[str, Any]] = msgspec.field(default_factory=list)
    trust_root: str = ""
    certificate: str = ""
    certificate_key: str = ""
    peer_spki: list[str] = msgspec.field(default_factory=list)
    subprocessor_rank: Annotated[int, msgspec.Meta(ge=1)] | None = None
    country_of_provision: str = ""
    certificates: list[Certificate] = msgspec.field(default_factory=list)
    union_assurance_level: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    site: list[_SiteEntry]


def _site(entry: _SiteEntry, zones: Zones) -> Site:
    """Turn one [[site]] into a Site, or raise `SiteError` or `ZoneError`."""

    def refuse(what: str, hint: str) -> SiteError:
        return SiteError(f"fleet.toml: Site {entry.id}: {what}", site=entry.id, hint=hint)

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", entry.id):
        raise SiteError("fleet.toml: a Site's id is a slug", hint="use lower-case letters, digits and hyphens")
    codes = tuple(entry.zones) or (entry.zone,)
    if bool(entry.zone) == bool(entry.zones) or len(set(codes)) != len(codes):
        raise refuse("it needs zone or zones, each code once", 'write zone = "DE"')
    parent = entry.parent or entry.operator
    provided = (entry.country_of_provision,) if entry.country_of_provision else ()
    for code in (*codes, entry.operator.zone, parent.zone, *provided):
        zones.check(code)
    if zones.kind(codes[0]) != "place":
        raise refuse("a Site stands in a country or a part of one", 'write zone = "DE", not "EU"')
    country = codes[0].partition("-")[0]
    if any(zones.kind(code) != "scheme" or code.partition("-")[0] != country for code in codes[1:]):
        raise refuse("after its place it may name schemes of that country alone", 'write zones = ["US", "US-DPF"]')
    if stray := set(entry.zone_until) - set(codes[1:]):
        raise refuse(f"zone_until names {min(stray)}", "name there the end of a scheme that stands under zones")
    if any(item.grade not in GRADES for item in entry.evidence):
        raise refuse("a grade of Evidence is 0 to 6", "see residency/evidence.py for what each stands for")
    if entry.certificate_key and not entry.certificate:
        raise refuse("it has a certificate_key and no certificate", "name the certificate that the key is of")
    holds = tuple(_holding(item, refuse) for item in entry.holds)
    if len({item.kind for item in holds}) != len(holds):
        raise refuse("it holds one kind twice", "make a second Site of it")
    return Site(
        entry.id,
        codes,
        entry.operator,
        parent,
        holds,
        tuple(entry.evidence),
        entry.contract,
        entry.place,
        dict(entry.zone_until),
        entry.trust_root,
        entry.certificate,
        entry.certificate_key,
        _pins(entry.peer_spki, refuse),
        entry.subprocessor_rank,
        entry.country_of_provision,
        tuple(entry.certificates),
        entry.union_assurance_level,
    )


def _pins(values: Any, refuse: Any) -> tuple[str, ...]:
    """Read digests of public keys, as one text or a list of them."""
    texts = [values] if isinstance(values, str) else list(values)
    found = [_SPKI.fullmatch(str(text)) for text in texts]
    if not all(found):
        raise refuse("peer_spki is no SHA-256 of a public key", "`domicile sites probe` prints it, in 64 hex digits")
    return tuple(match[1] for match in found if match)


def _holding(item: dict[str, Any], refuse: Any) -> Holding:
    """Read one entry of `holds`; whatever is neither kind nor url is a setting of that kind."""
    kind, url = str(item.get("kind", "")), str(item.get("url", ""))
    if kind not in SCHEMES:
        raise refuse(f"{kind[:20]!r} is no kind of holding", f"write one of {', '.join(SCHEMES)}")
    if kind == "keys":
        url = url.removeprefix("bao:")  # of servers that are reached by https, keys know one kind
    scheme = url.partition(":")[0]
    parts = urlsplit(url)
    loopback = scheme == "http" and "https" in SCHEMES[kind] and parts.hostname in _LOOPBACK
    if ":" not in url or not (scheme in SCHEMES[kind] or loopback):
        known = ", ".join(f"{name}:" for name in sorted(SCHEMES[kind]))
        raise refuse(
            f"the URL of its {kind} has a scheme that is not accepted", f"use {known} (http for loopback alone)"
        )
    if parts.username or parts.password or parts.query:
        raise refuse(f"the URL of its {kind} carries credentials or a query", "name a key_file instead")
    options = {key: value for key, value in item.items() if key not in {"kind", "url"}}
    if "peer_spki" in options:
        options["peer_spki"] = list(_pins(options["peer_spki"], refuse))
    return Holding(kind, url, options)
